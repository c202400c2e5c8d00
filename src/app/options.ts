import type { GatewayConfig } from '../config/schema.ts';
import type { SessionLimits } from '../core/types.ts';
import type { GrpcServerOptions } from '../grpc/server.ts';
import type { TelemetryOptions } from '../telemetry/options.ts';
import type { KnownLabels } from '../telemetry/start-labels.ts';
import type { DialerOptions } from '../upstream/dialer.ts';
import { priceTable } from './access-options.ts';
import { defaultMaxConnections, descriptorLimit } from './descriptors.ts';
import type { GatewaySurroundings } from './gateway.ts';
import type { MemoryBudgets } from './memory-budgets.ts';
import { chooseUpstreams, SIMULATOR_NAME } from './upstreams.ts';

/** The serving part of the configuration in the gRPC server's own terms. */
export function grpcOptions(
  { grpc, limits, session, tls }: GatewayConfig,
  budgets: MemoryBudgets,
  onReloadError: (error: unknown) => void,
): Omit<GrpcServerOptions, 'access' | 'dialer' | 'telemetry'> {
  return {
    limits: sessionLimits(session),
    transcriptBudgetBytes: session.transcript_budget ?? budgets.transcriptBytes,
    maxPartialMessageBytes: budgets.partialMessageBytes,
    maxInflatingBytes: budgets.inflatingBytes,
    maxMessageBytes: grpc.max_message,
    maxItemsPerTurn: limits.items_per_turn,
    maxStreamsPerConnection: grpc.max_streams_per_connection,
    maxConnections: grpc.max_connections ?? defaultMaxConnections(descriptorLimit()),
    maxCutStreams: session.max_cut_streams,
    maxConnectionIdleMs: grpc.max_connection_idle,
    ...(grpc.max_unserved_resets === undefined ? {} : { maxUnservedResets: grpc.max_unserved_resets }),
    openTimeoutMs: grpc.open_timeout,
    heartbeatIntervalMs: grpc.heartbeat_interval,
    keepaliveTimeMs: grpc.keepalive_time,
    keepaliveTimeoutMs: grpc.keepalive_timeout,
    ...(grpc.max_connection_age === undefined ? {} : { maxConnectionAgeMs: grpc.max_connection_age }),
    maxConnectionAgeGraceMs: grpc.max_connection_age_grace,
    reflection: grpc.reflection,
    channelz: grpc.channelz,
    ...(tls === undefined
      ? {}
      : {
          tls: {
            certificateFile: tls.cert_file,
            privateKeyFile: tls.key_file,
            clientCaFile: tls.client_ca_file,
            reloadIntervalMs: tls.reload_interval,
            onReloadError,
          },
        }),
  };
}

export function dialOptions({ dial }: GatewayConfig): Omit<DialerOptions, 'upstreams'> {
  return {
    pool: { size: dial.pool_size, maxIdleLinks: dial.pool_max_links, maxIdleMs: dial.pool_max_idle },
    breaker: {
      failures: dial.breaker_failures,
      openMinMs: dial.breaker_open_min,
      openMaxMs: dial.breaker_open_max,
    },
    refusedUpgradeMs: dial.refused_upgrade,
    failoverAfter: dial.failover_after,
  };
}

export function sessionLimits(session: GatewayConfig['session']): SessionLimits {
  return {
    maxBufferedBytes: session.max_buffered,
    maxResumeBytes: session.max_resume,
    maxTranscriptBytes: session.max_transcript,
    maxQueuedTurnsPerLane: session.max_queued_turns_per_lane,
    maxLanes: session.max_lanes,
    maxLinks: session.max_links,
    maxFrameBytes: session.max_frame,
    resumeGraceMs: session.resume_grace,
    slowClientTimeoutMs: session.slow_client_timeout,
    steerSettleMs: session.steer_settle,
    redialMinMs: session.redial_min,
    redialMaxMs: session.redial_max,
    maxDialAttempts: session.max_dial_attempts,
    defaultTurnTimeoutMs: session.default_turn_timeout,
    silentTurnTimeoutMs: session.silent_turn_timeout,
  };
}

export function telemetryOptions(config: GatewayConfig, surroundings: GatewaySurroundings): TelemetryOptions {
  const { telemetry } = config;
  const { traces, metrics, logs } = telemetry;
  return {
    serviceVersion: surroundings.version,
    traces: {
      exporter: traces.exporter,
      endpoint: traces.endpoint,
      sampleRatio: traces.sample_ratio,
      trustCaller: traces.trust_caller,
      propagate: traces.propagate,
    },
    metrics: {
      prometheus: metrics.prometheus,
      exporter: metrics.exporter,
      endpoint: metrics.endpoint,
      intervalMs: metrics.interval,
      models: metrics.models,
      maxModels: metrics.max_models,
      maxTenants: metrics.max_tenants,
      unitSuffixes: metrics.unit_suffixes,
      known: knownLabels(config, surroundings),
    },
    logs: {
      exporter: logs.exporter,
      endpoint: logs.endpoint,
      level: logs.level,
      pretty: logs.format === 'auto' ? undefined : logs.format === 'pretty',
      destination: surroundings.logDestination,
    },
    genaiSemconv: telemetry.genai_semconv,
    captureContent: telemetry.capture_content,
    maxContentBytes: telemetry.max_content,
    env: surroundings.environment,
  };
}

/** What the counters of this configuration can be about, so that they start at 0. */
function knownLabels(config: GatewayConfig, surroundings: GatewaySurroundings): KnownLabels {
  const { metrics } = config.telemetry;
  const choice = chooseUpstreams(config, surroundings.environment);
  return {
    upstreams:
      choice.kind === 'simulator'
        ? [{ name: SIMULATOR_NAME, provider: 'openai' }]
        : choice.upstreams.map(({ name, provider, url }) => {
            const { hostname, port, protocol } = new URL(url);
            const byProtocol = /^(?:ws|http):$/.test(protocol) ? 80 : 443;
            return { name, provider, serverAddress: hostname, serverPort: Number(port) || byProtocol };
          }),
    models: (metrics.models ?? []).slice(0, metrics.max_models),
    tenants:
      metrics.max_tenants === 0
        ? undefined
        : config.tenants.slice(0, metrics.max_tenants).map(({ id }) => id),
    currency:
      config.prices_file === undefined
        ? undefined
        : priceTable(config.prices_file, surroundings.prices).currency,
  };
}
