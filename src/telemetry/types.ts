import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import type {
  Fact,
  StartTurn,
  SteerTurn,
  TraceContext,
  TurnCost,
  TurnRecord,
  UpstreamFrame,
} from '../core/types.ts';
import type { Reason, StatusCode } from '../errors.ts';
import type { UpstreamEvent } from '../upstream/types.ts';
import type { TraceIds } from './tracing.ts';
import type { TurnSplit } from './turn-split.ts';

export type { TraceIds, TurnSplit };

/** What is told beside a fact: what the gateway itself took of a turn's time, and what usage that came late cost. */
export interface BesideFact {
  /** From the first byte of the request until it was written upstream. */
  readonly upMs?: number;
  /** From the last byte of the upstream until the turn's last event was written to the client. */
  readonly downMs?: number;
  readonly cost?: TurnCost | undefined;
  /** Why there is none. */
  readonly unpriced?: string | undefined;
  /** What the turn's tokens went to, where the upstream tells. */
  readonly attributed?: readonly AttributedUse[] | undefined;
}

/** Tokens of one item (by its id), or of one field of the request (by its name). */
export interface AttributedUse {
  readonly of: 'item' | 'field';
  readonly name: string;
  readonly inputTokens: number;
  readonly cachedInputTokens: number;
  readonly cacheWriteTokens: number;
  readonly outputTokens: number;
  /** Exact decimal in the currency of the price table; undefined: the turn has no price. */
  readonly cost: string | undefined;
}

/** What a session's driver tells telemetry. Nothing here is called per delta event. */
export interface SessionTelemetry {
  /** What a turn asks for, before the core is given it. */
  turn?(turn: StartTurn): void;
  /** `beside` comes with the end of a turn and with late usage. */
  fact(fact: Fact, beside?: BesideFact): void;
  /** A steer was handed to the core. */
  steered(steer: SteerTurn): void;
  /** Trace context to send with the upstream handshake or request of this turn; undefined when not configured. */
  outgoing(turnId: string | undefined): TraceContext | undefined;
  /** One write to the client: `events` in one message of `bytes`. */
  batch(events: number, bytes: number): void;
  resumed(outcome: 'RESUMED' | 'PARTIAL' | 'GONE' | 'RECOVERED'): void;
  end(status: StatusCode | 'OK'): void;
  /** There only when both the gateway and the tenant have content capture on. */
  readonly capture?: ContentCapture | undefined;
  /** Adds session, trace and span id to every line. */
  readonly log?: Logger | undefined;
}

/** Sees what must not be seen otherwise: the input of turns and the frames of the upstream. */
export interface ContentCapture {
  frame(linkId: number, frame: UpstreamFrame): void;
  /** No frame of the link follows. */
  linkGone(linkId: number): void;
}

export interface SessionStart {
  readonly sessionId: string;
  readonly tenantId: string;
  readonly method: string;
  readonly traceContext: TraceContext | undefined;
  readonly captureContent: boolean;
  /** From `:authority`. */
  readonly serverAddress: string | undefined;
  /** What Open said about the client program; for the session's span and log line, never for metrics' labels. */
  readonly clientName?: string | undefined;
  readonly clientVersion?: string | undefined;
  readonly labels?: ReadonlyMap<string, string> | undefined;
  /** The session was another process's until now: when its client asked for it. */
  readonly takenOverSinceMs?: number | undefined;
}

export interface Telemetry {
  session(start: SessionStart): SessionTelemetry;
  /** A stream attached or left; a session can have several one after the other. */
  streamOpened(sessionId: string): void;
  streamClosed(sessionId: string, status: StatusCode | 'OK', durationMs: number): void;
  rpcEnded(method: string, status: StatusCode | 'OK', durationMs: number): void;
  /** A call that was ended before it came to a session, or to the upstream. */
  callRefused(refusal: CallRefusal): void;
  /** A client that comes back again and again, and nothing comes of it. */
  resumeHeldBack(resume: HeldResume): void;
  shutdown(): Promise<void>;
}

export interface HeldResume {
  readonly sessionId: string;
  readonly tenantId: string;
  readonly result: 'slowed' | 'refused';
  /** Of this result of the session. */
  readonly isFirst: boolean;
}

/** Names and ids that an operator has given; nothing that a caller could fill with secrets. */
export interface CallRefusal {
  readonly method: string;
  readonly reason: Reason;
  /** Of LIMIT_EXCEEDED. */
  readonly limit: string | undefined;
  /** Undefined before the caller is known. */
  readonly tenantId: string | undefined;
  /** Of UNAUTHENTICATED: which method of `auth` looked at it, at which key, and what was wrong. */
  readonly proof:
    | { readonly kind: string; readonly keyId?: string | undefined; readonly why: string }
    | undefined;
}

/** Sees a session as telemetry does, for people who look at it while it runs. Nothing here is called per delta. */
export interface SessionWatcher {
  /** Every fact but the end of a turn, which comes with its times worked out. */
  fact(fact: Fact): void;
  turnEnded(
    record: TurnRecord,
    split: TurnSplit,
    trace: TraceIds | undefined,
    attributed?: readonly AttributedUse[],
  ): void;
  /** A turn is asked for from a response that its client names. */
  forked(turnId: string, responseId: string): void;
  steered(steer: SteerTurn): void;
  resumed(outcome: string): void;
  /** A client stream attached to the session, or left it. */
  stream(attached: boolean): void;
  end(status: StatusCode | 'OK'): void;
}

/** Sees all sessions of the process, and what happens beside them. */
export interface Watcher {
  session(start: SessionStart): SessionWatcher;
  upstream(event: UpstreamEvent): void;
  callRefused(refusal: CallRefusal): void;
}

/** Links of all sessions: how many are in a state and of an age. */
export interface LinkCount {
  readonly state: 'connecting' | 'open';
  /** Shortest first: lt_1m, lt_10m, lt_30m, lt_55m, ge_55m. */
  readonly age: string;
  readonly links: number;
}

/** Numbers that only their owner knows; read at every collection, summed over all who registered. */
export type ObservedValue =
  | 'client.buffer.bytes'
  | 'resume.buffer.bytes'
  | 'transcript.bytes'
  | 'connections'
  | 'connections.limit'
  | 'descriptors'
  | 'descriptors.limit'
  | 'draining'
  | 'ready'
  | 'memory.share'
  | 'sessions.durable'
  | 'processes';

/** What a process does with the store and with other processes. */
export type ReplicaEvent =
  | {
      readonly kind: 'command';
      /** First word of the command. */
      readonly command: string;
      readonly result: 'ok' | 'refused' | 'unknown' | 'not_sent';
      readonly durationMs: number;
    }
  /** A resume that was carried to the process that has the session, or was not. */
  | {
      readonly kind: 'forward';
      readonly result: 'taken' | 'unknown' | 'refused' | 'unreachable' | 'silent' | 'unheard';
    }
  /** A session that no process answered for. `lost_data`: its record was behind what the client had seen. */
  | {
      readonly kind: 'takeover';
      readonly result: 'taken' | 'gone' | 'lost_data';
      readonly durationMs: number;
    }
  /** A session was let go for another process to take. */
  | { readonly kind: 'handOver' }
  /** Another process has taken a session that this one still served. */
  | { readonly kind: 'fenced' }
  /** A tenant's limit was decided without the other processes. */
  | { readonly kind: 'limitsAlone' };

/** The telemetry of the running process, as `createTelemetry` returns it. */
export interface GatewayTelemetry extends Telemetry {
  readonly logger: Logger;
  /** False when there is no such level. Reaches every child logger. */
  setLevel(level: string): boolean;
  level(): string;
  /** Answers with Prometheus text, or 404 when metrics are not served. */
  metricsHandler(request: IncomingMessage, response: ServerResponse): void;
  /** The same text, for a primary process that adds up its workers. */
  metricsText(): Promise<string>;
  /**
   * Before the process ends: resolves when a scrape has seen the turns that failed last, when nobody scrapes, or after
   * `maxMs`.
   */
  lastScrape(maxMs: number): Promise<'seen' | 'unseen'>;
  /** For what replicas do together. */
  replicas(event: ReplicaEvent): void;
  /** For the dialer: pool, breakers and dials over all sessions. */
  upstream(event: UpstreamEvent): void;
  /** Memory was short, and so much was given up. */
  memoryShed(shed: {
    readonly readyLinks: number;
    readonly transcriptBytes: number;
    readonly keptEventBytes: number;
  }): void;
  /** A client's connection was ended or refused by the gateway. */
  connectionEnded(reason: string): void;
  /** Registers a source of a gauge; the returned function removes it. */
  observe(value: ObservedValue, read: () => number): () => void;
  /** A line that is written whatever the level. */
  audit(fields: Readonly<Record<string, string | undefined>>): void;
  /** Of this moment. */
  linkCounts(): readonly LinkCount[];
  /** Exports what is waiting. Never rejects. */
  flush(): Promise<void>;
}
