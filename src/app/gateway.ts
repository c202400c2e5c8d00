import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { performance } from 'node:perf_hooks';
import { logVerbosity, setLogVerbosity } from '@grpc/grpc-js';
import { createAccessControl } from '../access/access.ts';
import { memoryLimits } from '../access/memory-guard.ts';
import type { SharedLimits } from '../access/types.ts';
import type { AuditRecord } from '../admin/acts.ts';
import { type AdminServer, type AdminSources, startAdmin } from '../admin/server.ts';
import type { GatewayConfig } from '../config/schema.ts';
import { LOG_LEVELS } from '../config/schema-telemetry.ts';
import { formatHostPort, type HostPort } from '../config/units.ts';
import type { ConnectionEnd } from '../grpc/hardening/fair-http2.ts';
import type { Load } from '../grpc/load-reports.ts';
import { createGrpcServer, type GrpcServer } from '../grpc/server.ts';
import { History } from '../history/history.ts';
import { steadyNow } from '../session/clock.ts';
import { shedMemory } from '../session/shedding.ts';
import type { Simulator } from '../simulator/index.ts';
import type { KeyedCalls } from '../store/types.ts';
import { createTelemetry } from '../telemetry/telemetry.ts';
import type { GatewayTelemetry } from '../telemetry/types.ts';
import { createDialer } from '../upstream/dialer.ts';
import type { Dialer } from '../upstream/types.ts';
import { type AccessSurroundings, accessOptions } from './access-options.ts';
import { countDescriptors, descriptorLimit } from './descriptors.ts';
import { giveBackWhenIdle } from './idle-memory.ts';
import { loadOf } from './load.ts';
import { memoryBudgets } from './memory-budgets.ts';
import { dialOptions, grpcOptions, telemetryOptions } from './options.ts';
import { compareConfigs, type Reloaded, reloadAccess, upstreamsFingerprint } from './reload.ts';
import { type LocalPeers, localPeers, openReplicas } from './replicas.ts';
import { sessionSource } from './session-source.ts';
import { chooseUpstreams, type UpstreamChoice, upstreamNames, upstreamOptions } from './upstreams.ts';

export interface GatewaySurroundings {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  /** Log lines go here instead of standard error. */
  readonly logDestination?: { write(line: string): void };
  /** False in a worker process: the primary answers for all of them. Default true. */
  readonly admin?: boolean;
  /** Of a simulator that runs already, for a worker process. */
  readonly simulatorUrl?: string | undefined;
  /** Text of the price table, for a worker process. Default: what the file holds. */
  readonly prices?: string | undefined;
  /** The other processes behind the same port. */
  readonly local?: LocalPeers;
  /** Limits over those, where no store has them. */
  readonly limits?: SharedLimits;
  /** Idempotency keys over those, where no store has them. */
  readonly keyedCalls?: KeyedCalls;
  /** Ends the gateway as SIGTERM does. Undefined: the admin server cannot. */
  readonly drain?: () => void;
}

/** What serves on the ports: one process, or several behind a primary. */
export interface Serving {
  readonly grpcPort: number;
  /** Undefined without an admin server. */
  readonly adminPort: number | undefined;
  /** What the gateway speaks to; for the banner. Without secrets. */
  readonly upstreams: UpstreamChoice;
  readonly telemetry: GatewayTelemetry;
  /**
   * Goes by another configuration, as far as that works while it runs. Rejects, and nothing has changed. `prices`: as
   * in the surroundings.
   */
  reload(next: GatewayConfig, prices?: string): Promise<Reloaded>;
  /** Not ready → GoAway → waits for running turns, as configured → closed. */
  drain(): Promise<void>;
}

export interface RunningGateway extends Serving {
  /** The built-in simulator, where it runs in this process. */
  readonly simulator: Simulator | undefined;
  /** What the admin server shows. */
  readonly sources: AdminSources;
  /** Ends everything now. */
  close(): Promise<void>;
}

/** Prometheus text. */
export const METRICS_CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/** Which address could not be had, when a listener fails. */
export class ListenError extends Error {
  override readonly name = 'ListenError';
  readonly address: HostPort;

  constructor(address: HostPort, cause: unknown) {
    super(`cannot listen on ${formatHostPort(address)}`, { cause });
    this.address = address;
  }
}

/**
 * Puts the parts together and opens the ports, the admin port last: who sees it ready can connect. Rejects with
 * ListenError, ConfigError or what a part throws; nothing is left running then.
 */
export async function startGateway(
  config: GatewayConfig,
  surroundings: GatewaySurroundings,
): Promise<RunningGateway> {
  const opened: (() => Promise<unknown>)[] = [];
  const closeAll = async () => {
    for (const close of opened.splice(0).reverse()) await close().catch(() => undefined);
  };
  try {
    return await assemble(config, surroundings, opened, closeAll);
  } catch (error) {
    await closeAll();
    throw error;
  }
}

async function assemble(
  config: GatewayConfig,
  surroundings: GatewaySurroundings,
  opened: (() => Promise<unknown>)[],
  closeAll: () => Promise<void>,
): Promise<RunningGateway> {
  const { environment } = surroundings;
  const history = new History({
    maxEntries: config.admin.history.entries,
    maxTurnsPerSession: config.admin.history.turns_per_session,
    maxEndedSessions: config.admin.history.ended_sessions,
    clock: steadyNow,
  });
  const telemetry = await createTelemetry(telemetryOptions(config, surroundings), history);
  opened.push(() => telemetry.shutdown());
  const { logger } = telemetry;
  // grpc-js writes lines of its own to standard error, which is our log; what it has to say comes as errors as well.
  if (environment['GRPC_VERBOSITY'] === undefined) setLogVerbosity(logVerbosity.NONE);

  const choice = chooseUpstreams(config, environment);
  const embedded = choice.kind === 'simulator' && surroundings.simulatorUrl === undefined;
  const simulator = embedded ? await startBuiltIn(config.simulator) : undefined;
  if (simulator !== undefined) opened.push(() => simulator.close());

  const warn = ({ code, message }: { code: string; message: string }) => logger.warn({ code }, message);
  const simulatorUrl = surroundings.simulatorUrl ?? simulator?.url;
  const dialerOf = (from: GatewayConfig, chosen: UpstreamChoice): Dialer => {
    const upstreams = upstreamOptions(chosen, simulatorUrl, environment, warn);
    return createDialer({ upstreams, observe: telemetry.upstream, ...dialOptions(from) });
  };
  let dialer = dialerOf(config, choice);
  opened.push(() => dialer.close());

  const { cluster, session } = config;
  const { local } = surroundings;
  const replicas = cluster && (await openReplicas({ cluster, session }, local, telemetry));
  if (replicas !== undefined) opened.push(() => replicas.close());

  const shared = replicas?.limits ?? surroundings.limits;
  const keyedCalls = replicas?.keyedCalls ?? surroundings.keyedCalls;
  const memory = memoryLimits(config.workers);
  let onMemoryPressure = (_bytes: number): void => {};
  const accessSurroundings: AccessSurroundings = {
    environment,
    onWarning: warn,
    onMemoryPressure: (bytes) => onMemoryPressure(bytes),
    ...(shared === undefined ? {} : { shared }),
  };
  const access = createAccessControl(
    accessOptions(config, upstreamNames(choice), {
      ...accessSurroundings,
      prices: surroundings.prices,
    }),
  );
  opened.push(() => access.close());

  const peers = replicas === undefined ? local && localPeers(local) : replicas.peers;
  const server = await createGrpcServer({
    ...grpcOptions(config, memoryBudgets(memory), (error) =>
      logger.error({ err: error }, 'a certificate could not be loaded'),
    ),
    access,
    dialer,
    telemetry,
    ...(peers === undefined ? {} : { peers }),
    ...(replicas?.durability === undefined ? {} : { durability: replicas.durability }),
    ...(keyedCalls === undefined ? {} : { keyedCalls }),
    onBug: (error) => logger.error({ err: error }, 'a bug ended a session'),
    ...(config.grpc.load_reports ? { load: () => load() } : {}),
    onConnectionEnd: (reason) => {
      telemetry.connectionEnded(reason);
      const text = CONNECTION_ENDS[reason];
      if (text !== undefined) logger.warn({ code: `connection_${reason}` }, text);
    },
    onWrongProtocol: (found, sentence) => {
      telemetry.connectionEnded('wrong_protocol');
      warnOfWrongProtocol(telemetry, 'grpc', found, sentence);
    },
  });
  opened.push(() => server.close());
  onMemoryPressure = (bytes) => {
    const shed = shedMemory(server.registry.sessions(), bytes, () => dialer.shedReadyLinks());
    telemetry.memoryShed(shed);
    if (Object.values(shed).every((freed) => freed === 0)) return;
    logger.warn({ code: 'memory_shed', ...shed }, 'memory is short: what is kept for later was given up');
  };
  replicas?.announce(server.peerPort);

  let draining = false;
  let last = config;
  let chosen = choice;
  let fingerprint = upstreamsFingerprint(config);
  const notReady = () => [
    ...(draining ? ['draining'] : []),
    ...(access.overload() === undefined ? [] : ['memory above the high mark']),
    ...(server.connections.full ? [`connections at their limit of ${server.connections.max}`] : []),
  ];
  const load = (): Load =>
    loadOf({
      recent: history.past(1, LOAD_S),
      memoryShare: access.memoryShare,
      connectionShare: server.connections.open / server.connections.max,
      maxSessions: last.limits.sessions ?? undefined,
      ready: notReady().length === 0,
    });
  const sources = adminSources({ config, surroundings, server, telemetry, history, notReady });
  history.start(() => openLinks(telemetry));
  opened.push(async () => history.close());
  const idleMemory = giveBackWhenIdle({
    heldBytes: () => server.registry.sessions().reduce((sum, { core }) => sum + core.transcriptBytes, 0),
  });
  opened.push(async () => idleMemory.close());
  const descriptors = countDescriptors();
  opened.push(async () => descriptors.close());
  const maxDescriptors = descriptorLimit();
  const unobserve = [
    telemetry.observe('draining', () => Number(draining)),
    telemetry.observe('ready', () => Number(notReady().length === 0)),
    telemetry.observe('memory.share', () => access.memoryShare),
    telemetry.observe('connections', () => server.connections.open),
    telemetry.observe('connections.limit', () => server.connections.max),
    telemetry.observe('descriptors', () => descriptors.open),
    telemetry.observe('descriptors.limit', () => maxDescriptors),
    telemetry.observe('sessions.durable', () => durableSessions(server)),
    ...observeBuffers(server, telemetry),
  ];
  opened.push(async () => {
    for (const stop of unobserve) stop();
  });

  const grpcPort = await listening(config.listen, server.listen(formatHostPort(config.listen)));
  const admin = surroundings.admin === false ? undefined : await openAdmin(config, sources, telemetry);
  if (admin !== undefined) opened.push(() => admin.close());

  return {
    grpcPort,
    adminPort: admin?.port,
    upstreams: choice,
    simulator,
    sources,
    telemetry,
    reload: async (next, prices) => {
      const before = dialer;
      const nextChoice = chooseUpstreams(next, environment);
      const upstreamsStay = nextChoice.kind === 'simulator' && simulatorUrl === undefined;
      const nextFingerprint = upstreamsStay ? fingerprint : upstreamsFingerprint(next);
      const isSame = nextFingerprint === fingerprint;
      const nextDialer = isSame ? before : dialerOf(next, nextChoice);
      try {
        reloadAccess(
          access,
          { ...accessSurroundings, prices },
          next,
          upstreamNames(isSame ? chosen : nextChoice),
        );
      } catch (error) {
        if (!isSame) await nextDialer.close();
        throw error;
      }
      if (!isSame) {
        fingerprint = nextFingerprint;
        chosen = nextChoice;
        dialer = nextDialer;
        server.useDialer(nextDialer);
        before.retire();
      }
      const reloaded = compareConfigs(config, last, next, { upstreamsStay });
      last = next;
      return reloaded;
    },
    drain: async () => {
      draining = true;
      server.setServing(false);
      await new Promise((resolve) => setTimeout(resolve, config.drain.delay));
      await server.drain(config.drain.timeout);
      // Turns lost at the deadline were counted just now, and go with the process unless somebody reads them.
      if ((await telemetry.lastScrape(config.drain.last_scrape)) === 'unseen')
        logger.info(
          { code: 'drain_not_scraped' },
          'failed turns are in no scrape: nobody came for them in time',
        );
      await closeAll();
    },
    close: closeAll,
  };
}

/** What load reports are about: long enough for rates, short enough for balancers. */
const LOAD_S = 5;

/** Most gateways have an upstream of their own and never load it. */
export async function startBuiltIn(config: GatewayConfig['simulator']): Promise<Simulator> {
  const { startBuiltInSimulator } = await import('./simulator.ts');
  return startBuiltInSimulator(config);
}

/** What the log says of it; to be idle is nothing to say. */
const CONNECTION_ENDS: Readonly<Record<ConnectionEnd, string | undefined>> = {
  limit: 'a client connection was refused: there are as many as there may be (grpc.max_connections)',
  resets:
    'a client connection was closed: too many of its streams were reset before they were served (grpc.max_unserved_resets)',
  protocol: 'a client connection was closed for breaking HTTP/2',
  pacing:
    'a client connection was refused: its address broke HTTP/2 before, and too many of its connections wait',
  idle: undefined,
};

/** Somebody's mistake, who sees less of it than we do. One line for each kind in ten seconds, with a count. */
function warnOfWrongProtocol(
  { logger }: Pick<GatewayTelemetry, 'logger'>,
  port: 'grpc' | 'admin',
  found: string,
  sentence: string,
): void {
  logger.warn({ code: 'wrong_protocol', port, why: found }, `a peer spoke another protocol: ${sentence}`);
}

export async function openAdmin(
  config: GatewayConfig,
  sources: AdminSources,
  telemetry: Pick<GatewayTelemetry, 'logger'>,
): Promise<AdminServer> {
  const { listen, allowed_hosts, token_file } = config.admin;
  const admin = startAdmin({
    listen,
    allowedHosts: allowed_hosts,
    // Read each time: the file may be rotated, and whoever asks does so rarely.
    token: () => (token_file === undefined ? undefined : readFileSync(token_file, 'utf8').trim()),
    console: config.admin.console.enabled,
    sources,
    onWrongProtocol: (found, sentence) => warnOfWrongProtocol(telemetry, 'admin', found, sentence),
  });
  return listening(listen, admin);
}

async function listening<T>(address: HostPort, opening: Promise<T>): Promise<T> {
  try {
    return await opening;
  } catch (error) {
    throw new ListenError(address, error);
  }
}

interface AdminParts {
  readonly config: GatewayConfig;
  readonly surroundings: GatewaySurroundings;
  readonly server: GrpcServer;
  readonly telemetry: GatewayTelemetry;
  readonly history: History;
  readonly notReady: () => readonly string[];
}

function adminSources({
  config,
  surroundings,
  server,
  telemetry,
  history,
  notReady,
}: AdminParts): AdminSources {
  return {
    notReady: async () => notReady(),
    metrics: async () => ({
      contentType: METRICS_CONTENT_TYPE,
      body: await telemetry.metricsText(),
    }),
    sessions: sessionSource({
      history,
      registry: server.registry,
      telemetry,
      clock: steadyNow,
      traceUrl: config.admin.console.trace_url,
      drainTimeoutMs: config.drain.timeout,
    }),
    replica: () => replica(config, surroundings, telemetry),
    logLevel: {
      levels: LOG_LEVELS,
      get: () => telemetry.level(),
      set: (level) => telemetry.setLevel(level),
    },
    drain: surroundings.drain,
    audit: (record) => audit(telemetry, record),
  };
}

/** Names who answers: one of several behind a balancer. */
export function replica(
  config: GatewayConfig,
  { version }: GatewaySurroundings,
  telemetry: GatewayTelemetry,
): ReturnType<AdminSources['replica']> {
  return {
    host: hostname(),
    pid: process.pid,
    version,
    startedAtMs: performance.timeOrigin,
    workers: config.workers,
    logLevel: telemetry.level(),
  };
}

export function audit(telemetry: GatewayTelemetry, record: AuditRecord): void {
  telemetry.audit({
    action: record.action,
    session_id: record.sessionId,
    turn_id: record.turnId,
    level: record.level,
    result: record.result,
    remote_address: record.remoteAddress,
  });
}

function openLinks(telemetry: GatewayTelemetry): number {
  let open = 0;
  for (const { state, links } of telemetry.linkCounts()) if (state === 'open') open += links;
  return open;
}

function durableSessions({ registry }: GrpcServer): number {
  return registry.sessions().reduce((count, { core }) => count + Number(core.durable), 0);
}

function observeBuffers({ registry }: GrpcServer, telemetry: GatewayTelemetry): (() => void)[] {
  const sum = (bytes: (snapshot: Snapshot) => number) => () =>
    registry.sessions().reduce((total, { core }) => total + bytes(core.inspect()), 0);
  const client = sum(({ bufferedBytes }) => bufferedBytes);
  const resume = sum(({ resumeBytes }) => resumeBytes);
  const transcript = sum(({ transcriptBytes }) => transcriptBytes);
  return [
    telemetry.observe('client.buffer.bytes', client),
    telemetry.observe('resume.buffer.bytes', resume),
    telemetry.observe('transcript.bytes', transcript),
  ];
}

type Session = ReturnType<GrpcServer['registry']['sessions']>[number];
type Snapshot = ReturnType<Session['core']['inspect']>;
