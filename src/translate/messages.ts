/** What the API's messages are to the rest of the gateway. Empty strings of the wire are undefined here. */
import type { Input, SessionLimits, StartTurn, TraceContext, TurnPhase } from '../core/types.ts';
import type { GatewayError, Reason } from '../errors.ts';

/** In which form a client wants its events. */
export interface EventFormat {
  readonly payload: 'typed' | 'json' | 'both';
  /** What the client was built with; 0 is the gateway's own. */
  readonly schemaRevision: number;
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
  readonly upstream: string | undefined;
  readonly turn: StartTurn;
}

export interface CompactRequest {
  readonly format: EventFormat;
  readonly upstream: string | undefined;
  readonly model: string | undefined;
  /** Raw JSON of each input item. */
  readonly input: readonly string[];
  /** Raw JSON of the other members. */
  readonly fields: ReadonlyMap<string, string>;
  readonly usesConversation: boolean;
  /** What goes to `/responses/compact`. */
  readonly body: string;
  readonly previousResponseId: string | undefined;
  readonly timeoutMs: number | undefined;
  readonly traceContext: TraceContext | undefined;
}
