/** What the API's messages are to the rest of the gateway. Empty strings of the wire are undefined here. */
import type { Input, SessionLimits, StartTurn, TraceContext, TurnPhase } from '../core/types.ts';
import type { GatewayError, Reason } from '../errors.ts';
import type { ResourceCall } from '../ground/resource-call.ts';

/** In which form a client wants its events. */
export interface EventFormat {
  readonly payload: 'typed' | 'json' | 'both';
  /** What the client was built with; 0 is the gateway's own. */
  readonly schemaRevision: number;
  /** none: responses come without the instructions and tools of their request. Default: as the upstream says them. */
  readonly echo?: 'none';
}

export interface OpenRequest {
  readonly format: EventFormat;
  readonly resume:
    | {
        readonly token: string;
        readonly lastSeq: number;
        /** Undefined: a client that knows nothing of records. */
        readonly lastCommit: number | undefined;
      }
    | undefined;
  readonly upstream: string | undefined;
  /** For turns that name none. */
  readonly model: string | undefined;
  readonly recovery: boolean;
  readonly labels: ReadonlyMap<string, string>;
  readonly clientName: string | undefined;
  readonly clientVersion: string | undefined;
  /** Undefined: the client offers none. */
  readonly heartbeatIntervalMs: number | undefined;
  /** What the client takes. */
  readonly maxMessageBytes: number;
  /** What the session may use in its life; `money` is in picos of the gateway's currency. Undefined: anything. */
  readonly budget:
    | {
        readonly turns: number | undefined;
        readonly tokens: number | undefined;
        readonly money: bigint | undefined;
      }
    | undefined;
}

/** One message of the client. `refused`: the request is wrong, the session is not. */
export type ClientMessage =
  | { readonly kind: 'open'; readonly open: OpenRequest }
  | { readonly kind: 'startTurn'; readonly turn: StartTurn }
  | { readonly kind: 'input'; readonly input: Input }
  | { readonly kind: 'heartbeat' }
  | {
      readonly kind: 'refused';
      readonly request: 'startTurn' | 'steerTurn' | 'injectTurn';
      readonly laneId: string;
      readonly turnId: string;
      readonly error: GatewayError;
    };

/** What brings input: of which kind, and for which turn. */
export interface RequestHead {
  readonly kind: 'startTurn' | 'steerTurn' | 'injectTurn';
  readonly laneId: string;
  readonly turnId: string | undefined;
}

export interface OpenedFacts {
  readonly sessionId: string;
  readonly resumeToken: string;
  readonly resumeOutcome: 'NEW' | 'RESUMED' | 'PARTIAL' | 'GONE' | 'RECOVERED';
  readonly oldestSeq: number;
  readonly nextSeq: number;
  readonly maxMessageBytes: number;
  readonly maxTurnsInFlight: number;
  readonly limits: SessionLimits;
  readonly activeTurns: readonly ActiveTurn[];
  /** Whether another process can go on with the session. */
  readonly durable: boolean;
  /** Why the outcome is GONE. */
  readonly goneReason: Reason | undefined;
  /** Undefined: none. */
  readonly heartbeatIntervalMs: number | undefined;
}

export interface GoAwayFacts {
  readonly reason: 'draining' | 'maxAge';
  readonly timeLeftMs: number;
  /** Empty: the one that the client has stays. */
  readonly resumeToken: string;
  /** Whether another process can go on with the session now. */
  readonly movable: boolean;
}

export interface ActiveTurn {
  readonly laneId: string;
  readonly turnId: string;
  readonly phase: TurnPhase;
}

export interface CreateResponseRequest {
  readonly format: EventFormat;
  /** What the client takes. */
  readonly maxMessageBytes: number;
  readonly idempotencyKey: string | undefined;
  readonly upstream: string | undefined;
  readonly turn: StartTurn;
}

/** Work that can be paused where it yields. */
export type Steps<T> = Generator<undefined, T>;

/** The events of a stored response. */
export interface FollowResponseRequest {
  readonly format: EventFormat;
  /** What the client takes. */
  readonly maxMessageBytes: number;
  readonly upstream: string | undefined;
  readonly responseId: string;
  readonly startingAfter: number | undefined;
  readonly query: readonly (readonly [name: string, value: string])[];
  readonly timeoutMs: number | undefined;
  readonly traceContext: TraceContext | undefined;
}

/** A call beside a turn. */
export interface CallRequest {
  readonly format: EventFormat;
  /** What the upstream is asked. */
  readonly resource: ResourceCall;
  /** Stored responses that it names. */
  readonly responseIds: readonly string[];
  /** Whether the upstream runs a model for it. */
  readonly runsModel: boolean;
  readonly upstream: string | undefined;
  readonly model: string | undefined;
  /** Raw JSON of each input item. */
  readonly input: readonly string[];
  /** Raw JSON of the other members. */
  readonly fields: ReadonlyMap<string, string>;
  readonly usesConversation: boolean;
  readonly timeoutMs: number | undefined;
  readonly traceContext: TraceContext | undefined;
}
