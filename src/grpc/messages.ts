import type {
  Input,
  SessionEvent,
  SessionLimits,
  StartTurn,
  TraceContext,
  TurnPhase,
} from '../core/types.ts';
import type { GatewayError } from '../errors.ts';

/** In which form a client wants its events. */
export interface EventFormat {
  readonly payload: 'typed' | 'json' | 'both';
  /** What the client was built with; 0 is the gateway's own. */
  readonly schemaRevision: number;
}

/** Open as the gateway reads it. Empty strings of the wire are undefined here. */
export interface OpenRequest {
  readonly format: EventFormat;
  readonly resume: { readonly token: string; readonly lastSeq: number } | undefined;
  readonly upstream: string | undefined;
  /** For turns that name none. */
  readonly model: string | undefined;
  readonly recovery: boolean;
  readonly labels: ReadonlyMap<string, string>;
  readonly clientName: string | undefined;
  readonly clientVersion: string | undefined;
}

/** One message of the client. `refused`: the request is wrong, the session is not. */
export type ClientMessage =
  | { readonly kind: 'open'; readonly open: OpenRequest }
  | { readonly kind: 'startTurn'; readonly turn: StartTurn }
  | { readonly kind: 'input'; readonly input: Input }
  | {
      readonly kind: 'refused';
      readonly laneId: string;
      readonly turnId: string;
      readonly error: GatewayError;
    };

export type ResumeOutcome = 'NEW' | 'RESUMED' | 'PARTIAL' | 'GONE';

export interface OpenedFacts {
  readonly sessionId: string;
  readonly resumeToken: string;
  readonly resumeOutcome: ResumeOutcome;
  readonly oldestSeq: number;
  readonly nextSeq: number;
  readonly maxMessageBytes: number;
  readonly maxTurnsInFlight: number;
  readonly limits: SessionLimits;
  readonly activeTurns: readonly ActiveTurn[];
}

export interface ActiveTurn {
  readonly laneId: string;
  readonly turnId: string;
  readonly phase: TurnPhase;
}

export interface CreateResponseRequest {
  readonly format: EventFormat;
  readonly upstream: string | undefined;
  readonly turn: StartTurn;
}

export interface CompactRequest {
  readonly format: EventFormat;
  readonly traceContext: TraceContext | undefined;
  readonly upstream: string | undefined;
  readonly model: string | undefined;
  /** Raw JSON of each input item. */
  readonly input: readonly string[];
  /** What goes to `/responses/compact`. */
  readonly body: string;
  readonly previousResponseId: string | undefined;
  readonly timeoutMs: number | undefined;
}

/** Bytes of the API ↔ what the edge works with. Readers throw GatewayError. */
export interface Wire {
  readConnect(bytes: Uint8Array): ClientMessage;
  readCreateResponse(bytes: Uint8Array, turnId: string): CreateResponseRequest;
  readCompact(bytes: Uint8Array): CompactRequest;
  opened(facts: OpenedFacts): Uint8Array;
  goAway(reason: 'draining' | 'maxAge', timeLeftMs: number, resumeToken: string): Uint8Array;
  /** A ConnectResponse with the batch. */
  events(events: readonly SessionEvent[], format: EventFormat): Uint8Array;
  /** A CreateResponseResponse with the batch. */
  createResponse(events: readonly SessionEvent[], format: EventFormat): Uint8Array;
  /** A CompactResponseResponse from the upstream's JSON. */
  compactResponse(json: Uint8Array, format: EventFormat): Uint8Array;
}
