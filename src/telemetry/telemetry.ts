import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Attributes, type DiagLogger, DiagLogLevel, diag } from '@opentelemetry/api';
import type { Resource } from '@opentelemetry/resources';
import type { Logger } from 'pino';
import { boundedLabel, reasonLabel } from './labels.ts';
import { LastScrape } from './last-scrape.ts';
import { createLinkCensus } from './link-census.ts';
import { createLogExport, type LogExport } from './log-export.ts';
import { createLogs } from './logs.ts';
import { createObservedSums } from './meters.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { parseTelemetryOptions, type TelemetryOptions, type TelemetrySettings } from './options.ts';
import { exportComplaint } from './otlp-endpoint.ts';
import { createRefusals } from './refusals.ts';
import { createReplicaMeters } from './replica-meters.ts';
import { ObservedSession, type SessionShare } from './session.ts';
import { createBatchCounts, type MeterShare } from './session-meters.ts';
import { createTracing, type Tracing } from './tracing.ts';
import { TurnKinds } from './turn-meters.ts';
import type { GatewayTelemetry, LinkCount, Watcher } from './types.ts';
import { createUpstreamLog } from './upstream-log.ts';
import { createUpstreamMeters } from './upstream-meters.ts';

// A collector that hangs must not hold a process back from ending: the docs promise 4 s until the exit, of which the log
// has one after this, and closing the rest what is left.
const SHUTDOWN_TIMEOUT_MS = 2_000;
// A link that breaks does so with one of a few dozen reasons.
const MAX_REASONS = 64;
/** Names of tools are the callers' own. */
const MAX_TOOLS = 50;

/**
 * Traces, metrics and logs of the process. Exporters are loaded only when they are used, and nothing is registered
 * with OpenTelemetry's globals but its diagnostics, which go to the log.
 */
export async function createTelemetry(
  options: TelemetryOptions = {},
  watcher?: Watcher,
): Promise<GatewayTelemetry> {
  const settings = parseTelemetryOptions(options);
  const logs = await createLogs(settings.logs);
  const { logger } = logs;
  for (const complaint of settings.complaints)
    logger.warn({ code: 'telemetry_option', complaint }, complaint);
  if (settings.captureContent !== 'off') {
    logger.warn(
      { code: 'content_capture' },
      'content capture is on: prompts and outputs go to the collector',
    );
  }
  diag.setLogger(diagnostics(logger), { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });

  const links = createLinkCensus();
  const batches = createBatchCounts();
  const lastScrape = new LastScrape();
  const sums = createObservedSums();
  const resource = await createResource(settings);
  const metrics = await createMetrics(settings, resource, {
    links,
    batches,
    sums,
    suppressedLogs: logs.suppressed,
    droppedLogs: logs.dropped,
  });
  const { instruments } = metrics;
  const exported = (signal: string) => (result: 'ok' | 'failed') =>
    instruments.add('responses_gateway.telemetry.exports', 1, { signal, result });
  const tracing = await createTracing(settings, resource, exported('traces'));
  const logExport = await createLogExport(settings, resource, exported('logs'));
  if (logExport !== undefined) logs.copyTo(logExport.line);
  const meters: MeterShare = {
    instruments,
    kinds: new TurnKinds(instruments),
    links,
    batches,
    lastScrape,
    tools: boundedLabel(MAX_TOOLS),
    models: boundedLabel(settings.metrics.maxModels, settings.metrics.models),
    tenants: settings.metrics.maxTenants > 0 ? boundedLabel(settings.metrics.maxTenants) : undefined,
    reason: reasonLabel(MAX_REASONS),
  };
  const sessions = new Map<string, ObservedSession>();
  const share: SessionShare = {
    tracing,
    meters,
    logger,
    info: logs.info,
    logExport,
    settings,
    watcher,
    ended: (id) => sessions.delete(id),
  };

  const countUpstream = createUpstreamMeters(instruments);
  const logUpstream = createUpstreamLog(logger);
  const countRefusal = createRefusals(meters, logger);

  return {
    logger,
    setLevel: logs.setLevel,
    level: () => logger.level,
    session(start) {
      const session = new ObservedSession(share, start);
      sessions.set(start.sessionId, session);
      return session;
    },
    streamOpened(sessionId) {
      instruments.move('responses_gateway.streams.active', 1);
      sessions.get(sessionId)?.event('stream opened');
    },
    streamClosed(sessionId, status, durationMs) {
      instruments.move('responses_gateway.streams.active', -1);
      instruments.record('responses_gateway.stream.duration', durationMs / 1_000, {
        'rpc.status_code': status,
      });
      sessions.get(sessionId)?.event('stream closed', status);
    },
    rpcEnded(method, status, durationMs) {
      instruments.record('rpc.server.call.duration', durationMs / 1_000, {
        'rpc.system.name': 'grpc',
        'rpc.method': method,
        'rpc.status_code': status,
        ...(status !== 'OK' && { 'error.type': status }),
      });
    },
    memoryShed({ readyLinks, transcriptBytes, keptEventBytes }) {
      instruments.add('responses_gateway.memory.shed.links', readyLinks);
      instruments.add('responses_gateway.memory.shed.bytes', transcriptBytes, { what: 'transcripts' });
      instruments.add('responses_gateway.memory.shed.bytes', keptEventBytes, { what: 'kept_events' });
    },
    callRefused(refusal) {
      countRefusal(refusal);
      watcher?.callRefused(refusal);
    },
    resumeHeldBack({ sessionId, tenantId, result, isFirst }) {
      instruments.add('responses_gateway.resumes.held_back', 1, { result });
      if (!isFirst) return;
      const fields = { code: 'resume_held_back', session: sessionId, tenant: tenantId, result };
      logger.warn(fields, 'a client resumes its session again and again, and nothing comes of it');
    },
    upstream(event) {
      countUpstream(event);
      logUpstream(event);
      watcher?.upstream(event);
    },
    connectionEnded: (reason) => instruments.add('responses_gateway.connections.ended', 1, { reason }),
    replicas: createReplicaMeters(instruments),
    metricsHandler: (request, response) => respond(metrics, lastScrape, request, response),
    metricsText: () => scrape(metrics, lastScrape),
    lastScrape: (maxMs) => (metrics.served ? lastScrape.settled(maxMs) : Promise.resolve('seen')),
    observe: (value, read) => sums.register(value, read),
    audit: (fields) => logs.audit.info({ code: 'audit', ...fields }, 'an operator acted'),
    linkCounts: () => [...links.count()].map(linkCount),
    flush: () => settle(tracing?.flush(), metrics.flush(), logExport?.flush()),
    shutdown: () => shutdown(tracing, metrics, logExport),
  };
}

function linkCount([count, { state, age }]: readonly [number, Attributes]): LinkCount {
  return { state: state === 'open' ? 'open' : 'connecting', age: String(age), links: count };
}

async function scrape(metrics: Metrics, lastScrape: LastScrape): Promise<string> {
  const text = await metrics.text();
  lastScrape.scraped();
  return text;
}

function respond(
  metrics: Metrics,
  lastScrape: LastScrape,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  request.resume();
  scrape(metrics, lastScrape).then(
    (text) => {
      response.statusCode = metrics.served ? 200 : 404;
      response.setHeader('content-type', 'text/plain; version=0.0.4; charset=utf-8');
      response.end(metrics.served ? text : 'metrics are not served: metrics.prometheus is false\n');
    },
    () => {
      response.statusCode = 500;
      response.end();
    },
  );
}

/** Undefined when nothing is exported, so that the packages stay unloaded. */
async function createResource(settings: TelemetrySettings): Promise<Resource | undefined> {
  const { traces, metrics, logs } = settings;
  const exporters = [traces.exporter, metrics.exporter, logs.exporter];
  if (exporters.every((exporter) => exporter === 'off') && !metrics.prometheus) return undefined;
  const { detectResources, envDetector, resourceFromAttributes } = await import('@opentelemetry/resources');
  const own = resourceFromAttributes({
    'service.name': settings.serviceName ?? 'responses-gateway',
    'service.version': settings.serviceVersion,
    'service.instance.id': randomUUID(),
    'process.pid': process.pid,
    'process.runtime.name': 'nodejs',
    'process.runtime.version': process.versions.node,
  });
  return own.merge(detectResources({ detectors: [envDetector] }));
}

/** The SDK's own warnings. Their texts are ours to log: they tell of endpoints and queues, never of spans' content. */
function diagnostics(logger: Logger): DiagLogger {
  const warn = (message: string): void => logger.warn({ code: 'telemetry_export' }, exportComplaint(message));
  const nothing = (): void => {};
  return { error: warn, warn, info: nothing, debug: nothing, verbose: nothing };
}

async function shutdown(
  tracing: Tracing | undefined,
  metrics: Metrics,
  logExport: LogExport | undefined,
): Promise<void> {
  await settle(tracing?.shutdown(), metrics.shutdown(), logExport?.shutdown());
  diag.disable();
}

/** Waits for all, but not for ever, and whatever they say: telemetry never fails what it watches. */
async function settle(...work: (Promise<void> | undefined)[]): Promise<void> {
  const { promise: timeout, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, SHUTDOWN_TIMEOUT_MS);
  await Promise.race([Promise.allSettled(work), timeout]);
  clearTimeout(timer);
}
