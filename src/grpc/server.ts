import {
  addAdminServicesToServer,
  type Metadata,
  Server,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { AccessControl } from '../access/types.ts';
import { DEFAULT_SESSION_LIMITS } from '../core/limits.ts';
import type { ByteBudget, SessionLimits } from '../core/types.ts';
import { GatewayError } from '../errors.ts';
import { MAX_TIMER_MS, steadyNow } from '../session/clock.ts';
import type { Durability } from '../session/durability.ts';
import { FairShare } from '../session/fair-share.ts';
import { FlushQueue } from '../session/flush.ts';
import { SessionRegistry } from '../session/registry.ts';
import { ResumePacing } from '../session/resume-pacing.ts';
import { RunningWork } from '../session/running-work.ts';
import type { KeyedCalls } from '../store/types.ts';
import type { Telemetry } from '../telemetry/types.ts';
import { CALL_METHODS, createWire, frameFromBytes } from '../translate/index.ts';
import type { Dialer } from '../upstream/types.ts';
import { type CallEnd, type RpcCall, TakenCall, watchEnd } from './call.ts';
import { checkMetadata } from './caller.ts';
import { serveCarried, serveConnect } from './connect.ts';
import { serveCreateResponse } from './create-response.ts';
import type { Edge } from './edge.ts';
import { ConnectionPacing } from './hardening/connection-pacing.ts';
import { Connections } from './hardening/connections.ts';
import { type ConnectionEnd, shareHttp2 } from './hardening/fair-http2.ts';
import { Inflation } from './hardening/inflation.ts';
import { PartialMessages } from './hardening/partial-messages.ts';
import type { OnWrongProtocol } from './hardening/wrong-protocol.ts';
import { HealthService } from './health.ts';
import { KeyedRuns } from './idempotency.ts';
import { addLoadReports, type Load, reportOnEnd } from './load-reports.ts';
import { decodeMessages } from './message-decoder.ts';
import { openPeers, type Peers, type PeersOptions } from './peers.ts';
import { addReflection } from './reflection.ts';
import { serveCall } from './resource-call.ts';
import { serviceDefinition } from './service-definition.ts';
import { toStatus } from './status.ts';
import { serveStreamResponse } from './stream-response.ts';
import { serverCredentials, type TlsOptions } from './tls.ts';

const SERVICE = 'responses.gateway.v1.ResponsesService';
const MIB = 1024 * 1024;

/** What `createGrpcServer` takes. Sizes are bytes, times milliseconds. */
export interface GrpcServerOptions {
  readonly access: AccessControl;
  readonly dialer: Dialer;
  readonly telemetry: Telemetry;
  /** Default: `DEFAULT_SESSION_LIMITS`. */
  readonly limits?: SessionLimits;
  /** For the transcripts of all sessions together. Default 512 MiB. */
  readonly transcriptBudgetBytes?: number;
  /** For messages that have begun to arrive, over all streams; a connection has a quarter. Default 256 MiB. */
  readonly maxPartialMessageBytes?: number;
  /** For messages while they are inflated; a connection has a quarter. Default 128 MiB. */
  readonly maxInflatingBytes?: number;
  readonly tls?: TlsOptions;
  /** Default 20 MiB: see DEFAULT_MAX_MESSAGE_BYTES. */
  readonly maxMessageBytes?: number;
  /** Input items of one request. Default 10,000. */
  readonly maxItemsPerTurn?: number;
  /** Streams of a session in a row that end in the middle of a message, before it is not resumed any more. Default 20. */
  readonly maxCutStreams?: number;
  /** Streams of one connection; one stream is one session. Default 1,000. */
  readonly maxStreamsPerConnection?: number;
  /** Client connections of the process. Default: no limit of its own. */
  readonly maxConnections?: number;
  /** How long a connection may be without a stream. Default 300,000. */
  readonly maxConnectionIdleMs?: number;
  /**
   * Streams of a connection that may be reset before they are served, at once; a fifth of it is forgiven each second.
   * Above it the connection is closed. Default: as many as it may have open.
   */
  readonly maxUnservedResets?: number;
  /** Told of each client connection that was ended or refused. */
  readonly onConnectionEnd?: (reason: ConnectionEnd) => void;
  /** Told of each peer that speaks something else than gRPC, or TLS where there is none, and what it was told. */
  readonly onWrongProtocol?: OnWrongProtocol;
  /** Default 10,000: a stream that says nothing costs little, but must not stay. */
  readonly openTimeoutMs?: number;
  /** Longest pause between the heartbeats of a client that offers them. Default 10,000; 0: none. */
  readonly heartbeatIntervalMs?: number;
  /** Pause between pings to the client, default 30,000; balancers drop idle connections after 60 s or more. */
  readonly keepaliveTimeMs?: number;
  /** Default 10,000. */
  readonly keepaliveTimeoutMs?: number;
  /** Unset: connections and streams live as long as they like. Streams get GoAway at this age of their own. */
  readonly maxConnectionAgeMs?: number;
  /** What a stream gets between GoAway and its end. Default 300,000. */
  readonly maxConnectionAgeGraceMs?: number;
  /** grpc.reflection.v1 and v1alpha, for grpcurl. Default true; an operator turns it off at an open port. */
  readonly reflection?: boolean;
  /** For ORCA's out-of-band load reports. Undefined: there are none. */
  readonly load?: () => Load;
  /** grpc.channelz.v1. Default false: it costs counters on every call, and tells of other callers' connections. */
  readonly channelz?: boolean;
  /** The other processes behind the same port. */
  readonly peers?: PeersOptions;
  /** A bug of ours. The error may hold content in its `cause`: log its stack, not its message. */
  /** Undefined: sessions end with this process. */
  readonly durability?: Durability;
  /** Idempotency keys that all processes know. Default: those of this process alone. */
  readonly keyedCalls?: KeyedCalls;
  readonly onBug?: (error: unknown) => void;
}

/**
 * The upstream takes 16 MiB in a frame. Above that a turn is refused precisely (FRAME_TOO_LARGE), which needs a
 * message that still gets in; full histories, of which only the end goes up, need the room as well.
 */
export const DEFAULT_MAX_MESSAGE_BYTES = 20 * MIB;
/** Of messages that have begun, over all streams: a dozen of the largest at the same time, and three of a connection. */
const MAX_PARTIAL_BYTES = 256 * MIB;
/** Of messages while they are inflated: three of the largest, and one of a connection, each as parts and as a whole. */
const MAX_INFLATING_BYTES = 128 * MIB;
/** Health, reflection and channelz take names only, and from everybody. */
const MAX_OPEN_SERVICE_MESSAGE_BYTES = 16 * 1024;
const DEFAULT_CONNECTION_IDLE_MS = 300_000;
const DEFAULT_TRANSCRIPT_BUDGET_BYTES = 512 * MIB;
const DEFAULT_MAX_STREAMS = 1_000;
const DEFAULT_OPEN_TIMEOUT_MS = 10_000;
/** Three of them are less than half a minute, and shorter than any proxy's patience. */
const DEFAULT_HEARTBEAT_INTERVAL_MS = 10_000;
const DEFAULT_KEEPALIVE_TIME_MS = 30_000;
const DEFAULT_KEEPALIVE_TIMEOUT_MS = 10_000;
/** As long as most turns take. */
const DEFAULT_AGE_GRACE_MS = 300_000;
/** What statuses and GoAway frames may take after the last stream has ended. */
const SHUTDOWN_TIMEOUT_MS = 2_000;
/** `Opened.limits` says what a multiplexed WebSocket upstream takes: 16 in flight on each link. */
const TURNS_PER_LINK = 16;

export interface GrpcServer {
  /** Binds `host:port` or `unix:/path`; resolves with the port. May be called several times. */
  listen(address: string): Promise<number>;
  readonly registry: SessionRegistry;
  /** The clients' connections. `full`: the next one will be refused. */
  readonly connections: Pick<Connections, 'open' | 'max' | 'full'>;
  /** Of the last listener for other processes; undefined: there is none, or it is a Unix socket. */
  readonly peerPort: number | undefined;
  /** Sessions and calls that begin from now on go by this one; sessions that run keep theirs. */
  useDialer(dialer: Dialer): void;
  /** What grpc.health.v1 answers for the server and the service. */
  setServing(serving: boolean): void;
  /**
   * Announces the end to every session and waits until the running turns and calls have ended, at most until
   * `graceMs` is over; then everything is closed. A second call with a shorter time shortens the wait.
   */
  drain(graceMs: number): Promise<void>;
  /** Ends everything now. */
  close(): Promise<void>;
}

export async function createGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  const credentials = await serverCredentials(options.tls);
  const peers = options.peers === undefined ? undefined : await openPeers(options.peers);
  const edge = createEdge(options, peers);
  const server = new Server({
    ...channelOptions(options, edge, options.maxConnectionAgeMs),
    interceptors: [interceptor(edge, FOR_CALLERS, options)],
  });
  const onEnded = options.onConnectionEnd ?? (() => {});
  const maxStreamsPerConnection = options.maxStreamsPerConnection ?? DEFAULT_MAX_STREAMS;
  const connections = new Connections({
    max: options.maxConnections ?? Number.POSITIVE_INFINITY,
    idleMs: options.maxConnectionIdleMs ?? DEFAULT_CONNECTION_IDLE_MS,
    now: steadyNow,
    onEnded,
  });
  const share = (shared: Server, shareConnections: Connections | undefined) =>
    shareHttp2(shared, {
      fairShare: edge.fairShare,
      pacing: new ConnectionPacing(steadyNow),
      connections: shareConnections,
      maxStreamsPerConnection,
      maxUnservedResets: options.maxUnservedResets ?? maxStreamsPerConnection,
      now: steadyNow,
      onEnded,
      onWrongProtocol: options.onWrongProtocol ?? (() => {}),
    });
  const closeConnections = [share(server, connections)];
  server.addService(bytesOnly(serviceDefinition(SERVICE)), unreachable(serviceDefinition(SERVICE)));
  const health = new HealthService(['', SERVICE]);
  health.addTo(server);
  if (options.reflection !== false) addReflection(server);
  if (options.load !== undefined) addLoadReports(server, options.load);
  if (options.channelz === true) addAdminServicesToServer(server);
  const servers = [server];
  if (peers !== undefined) {
    const peerServer = new Server({
      ...channelOptions(options, edge, undefined),
      interceptors: [interceptor(edge, FOR_PEERS, options)],
    });
    closeConnections.push(share(peerServer, undefined));
    peerServer.addService(bytesOnly(serviceDefinition(SERVICE)), unreachable(serviceDefinition(SERVICE)));
    servers.push(peerServer);
    for (const address of peers.listen) {
      peers.port = await bind(peerServer, address, peers.serverCredentials(address));
    }
  }
  const listen = (address: string) => bind(server, address, credentials);
  return new RunningServer(servers, edge, health, connections, listen, () => {
    for (const close of closeConnections) close();
  });
}

class RunningServer implements GrpcServer {
  readonly registry: SessionRegistry;
  readonly connections: Connections;
  readonly listen: (address: string) => Promise<number>;
  readonly #servers: readonly Server[];
  readonly #edge: Edge;
  readonly #health: HealthService;
  readonly #closeConnections: () => void;
  #stopped: Promise<void> | undefined;

  constructor(
    servers: readonly Server[],
    edge: Edge,
    health: HealthService,
    connections: Connections,
    listen: (address: string) => Promise<number>,
    closeConnections: () => void,
  ) {
    this.#servers = servers;
    this.#edge = edge;
    this.#health = health;
    this.#closeConnections = closeConnections;
    this.registry = edge.registry;
    this.connections = connections;
    this.listen = listen;
  }

  get peerPort(): number | undefined {
    return this.#edge.peers?.port;
  }

  useDialer(dialer: Dialer): void {
    this.#edge.dialer = dialer;
  }

  setServing(serving: boolean): void {
    this.#health.set(serving ? 'SERVING' : 'NOT_SERVING');
  }

  async drain(graceMs: number): Promise<void> {
    const { registry, calls, peers, clock } = this.#edge;
    const deadlineMs = clock() + graceMs;
    this.setServing(false);
    this.#edge.drainDeadlineMs = Math.min(this.#edge.drainDeadlineMs ?? deadlineMs, deadlineMs);
    for (const { driver } of registry.sessions()) driver.feed({ kind: 'drain', deadlineMs });
    // Their sessions are elsewhere and stay: the same as for a stream that has grown old.
    peers?.sendAway(
      this.#edge.wire.goAway({ reason: 'maxAge', timeLeftMs: graceMs, resumeToken: '', movable: false }),
    );
    await Promise.all([
      registry.whenEmpty(graceMs),
      calls.whenIdle(graceMs),
      peers?.carried.whenIdle(graceMs),
    ]);
    await this.close();
  }

  close(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.setServing(false);
    this.#edge.peers?.close();
    this.#edge.drainDeadlineMs ??= this.#edge.clock();
    const error = new GatewayError('DRAINING', 'the gateway is shutting down', { retryAfterMs: 0 });
    for (const { driver } of this.#edge.registry.sessions()) driver.feed({ kind: 'terminate', error });
    await new Promise<void>((resolve) => {
      // Waits for every open stream, which a client may keep for ever.
      const timer = setTimeout(() => {
        for (const server of this.#servers) server.forceShutdown();
        // grpc-js knows its connections only when it serves channelz, and one that stays keeps the process.
        this.#closeConnections();
        // grpc-js does not always call back after that, for instance when a connection was reset meanwhile.
        resolve();
      }, SHUTDOWN_TIMEOUT_MS);
      let open = this.#servers.length;
      for (const server of this.#servers) {
        server.tryShutdown(() => {
          open -= 1;
          if (open > 0) return;
          clearTimeout(timer);
          resolve();
        });
      }
    });
  }
}

function createEdge(options: GrpcServerOptions, peers: Peers | undefined): Edge {
  const limits = options.limits ?? DEFAULT_SESSION_LIMITS;
  return {
    access: options.access,
    dialer: options.dialer,
    telemetry: options.telemetry,
    wire: createWire(
      undefined,
      options.maxItemsPerTurn === undefined ? {} : { maxItems: options.maxItemsPerTurn },
    ),
    registry: new SessionRegistry(peers?.tokenPrefix ?? (options.durability === undefined ? undefined : '')),
    peers,
    resumePacing: new ResumePacing(steadyNow, options.maxCutStreams),
    calls: new RunningWork(),
    keyedRuns: new KeyedRuns(steadyNow),
    keyedCalls: options.keyedCalls,
    flushQueue: new FlushQueue(),
    fairShare: new FairShare(steadyNow),
    limits,
    transcriptBudget: byteBudget(options.transcriptBudgetBytes ?? DEFAULT_TRANSCRIPT_BUDGET_BYTES),
    maxMessageBytes: options.maxMessageBytes ?? DEFAULT_MAX_MESSAGE_BYTES,
    maxTurnsInFlight: limits.maxLinks * TURNS_PER_LINK,
    openTimeoutMs: options.openTimeoutMs ?? DEFAULT_OPEN_TIMEOUT_MS,
    heartbeatIntervalMs: (options.heartbeatIntervalMs ?? DEFAULT_HEARTBEAT_INTERVAL_MS) || undefined,
    maxStreamAgeMs: options.maxConnectionAgeMs,
    streamAgeGraceMs: options.maxConnectionAgeGraceMs ?? DEFAULT_AGE_GRACE_MS,
    clock: steadyNow,
    durability: options.durability,
    frameOf: (json) => frameFromBytes(Buffer.from(json)),
    onBug: options.onBug ?? (() => {}),
    drainDeadlineMs: undefined,
  };
}

function channelOptions(
  options: GrpcServerOptions,
  edge: Edge,
  age: number | undefined,
): Record<string, number> {
  return {
    'grpc.max_receive_message_length': edge.maxMessageBytes,
    'grpc.max_concurrent_streams': options.maxStreamsPerConnection ?? DEFAULT_MAX_STREAMS,
    'grpc.keepalive_time_ms': options.keepaliveTimeMs ?? DEFAULT_KEEPALIVE_TIME_MS,
    'grpc.keepalive_timeout_ms': options.keepaliveTimeoutMs ?? DEFAULT_KEEPALIVE_TIMEOUT_MS,
    'grpc.enable_channelz': options.channelz === true ? 1 : 0,
    ...(age === undefined
      ? {}
      : {
          'grpc.max_connection_age_ms': age,
          // A stream that began just before its connection grew old still gets its own age, GoAway and grace.
          'grpc.max_connection_age_grace_ms': Math.min(age + edge.streamAgeGraceMs, MAX_TIMER_MS),
        }),
  };
}

type Handlers = Readonly<Record<string, (call: RpcCall, edge: Edge) => Promise<void>>>;

const FOR_CALLERS: Handlers = {
  [`/${SERVICE}/Connect`]: serveConnect,
  [`/${SERVICE}/CreateResponse`]: serveCreateResponse,
  [`/${SERVICE}/StreamResponse`]: serveStreamResponse,
  ...Object.fromEntries(CALL_METHODS.map((method) => [`/${SERVICE}/${method}`, serveCall(method)])),
};
const FOR_PEERS: Handlers = { [`/${SERVICE}/Connect`]: serveCarried };

/** Every call passes here, health and reflection too. */
function interceptor(edge: Edge, serve: Handlers, options: GrpcServerOptions): ServerInterceptor {
  // However small the process: the largest message gets in, as parts and as a whole.
  const bounds = (bytes: number) => ({
    bytes: Math.max(bytes, 2 * edge.maxMessageBytes),
    connectionBytes: Math.max(bytes / 4, 2 * edge.maxMessageBytes),
  });
  const partial = new PartialMessages(bounds(options.maxPartialMessageBytes ?? MAX_PARTIAL_BYTES));
  const inflation = new Inflation(bounds(options.maxInflatingBytes ?? MAX_INFLATING_BYTES));
  const withReport = options.load === undefined ? () => {} : reportOnEnd(options.load, edge.clock);
  return (definition, base: ServerInterceptingCallInterface) => {
    const startedAtMs = edge.clock();
    const handler = serve[definition.path];
    const maxMessageBytes =
      handler === undefined
        ? Math.min(MAX_OPEN_SERVICE_MESSAGE_BYTES, edge.maxMessageBytes)
        : edge.maxMessageBytes;
    decodeMessages(base, maxMessageBytes);
    partial.watch(base);
    inflation.watch(base, maxMessageBytes);
    const method = definition.path.slice(1);
    let call: RpcCall | undefined;
    const onEnd: CallEnd = (status, isCut) => {
      edge.telemetry.rpcEnded(method, status, edge.clock() - startedAtMs);
      call?.onEnd(status, isCut);
    };
    if (handler !== undefined) withReport(base);
    // The rest of an answer may take as long as any other part of it.
    watchEnd(base, maxMessageBytes, onEnd, () =>
      call !== undefined && call.inFlightBytes > 0 ? edge.limits.slowClientTimeoutMs : 0,
    );
    if (handler === undefined) return checked(base);
    return new TakenCall(base, method, (taken) => {
      call = taken;
      if (!refuseMetadata(base, taken.metadata)) void handler(taken, edge);
    });
  };
}

function checked(base: ServerInterceptingCallInterface): ServerInterceptingCall {
  return new ServerInterceptingCall(base, {
    start: (next) =>
      next({
        onReceiveMetadata: (metadata, pass) => {
          if (!refuseMetadata(base, metadata)) pass(metadata);
        },
      }),
  });
}

function refuseMetadata(base: ServerInterceptingCallInterface, metadata: Metadata): boolean {
  try {
    checkMetadata(metadata);
    return false;
  } catch (error) {
    base.sendStatus(toStatus(GatewayError.from(error)));
    return true;
  }
}

function bind(
  server: Server,
  address: string,
  credentials: Awaited<ReturnType<typeof serverCredentials>>,
): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) => (error ? reject(error) : resolve(port)));
  });
}

/** Bytes in, bytes out: decoding is ours, so that a malformed message gets a reason and a code of its own. */
function bytesOnly(
  service: ServiceDefinition<UntypedServiceImplementation>,
): ServiceDefinition<UntypedServiceImplementation> {
  const raw = (bytes: Buffer) => bytes;
  const view = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Object.fromEntries(
    Object.entries(service).map(([name, method]) => [
      name,
      { ...method, requestDeserialize: raw, responseSerialize: view },
    ]),
  );
}

/** The interceptor takes every call of the service before grpc-js gets to its handler. */
function unreachable(service: ServiceDefinition<UntypedServiceImplementation>): Record<string, () => never> {
  const handler = (): never => {
    throw new Error('unreachable');
  };
  return Object.fromEntries(Object.keys(service).map((name) => [name, handler]));
}

function byteBudget(bytes: number): ByteBudget {
  let left = bytes;
  return {
    tryTake(wanted) {
      if (wanted > left) return false;
      left -= wanted;
      return true;
    },
    give(returned) {
      left += returned;
    },
    get scarce() {
      return left < bytes / 4;
    },
  };
}
