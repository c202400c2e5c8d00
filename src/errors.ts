/** gRPC status codes by their canonical names; numbers are those of google.rpc.Code. */
export const STATUS_NUMBER = {
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

export type StatusCode = keyof typeof STATUS_NUMBER;

/** Who has to change something for the call to succeed. */
export type Fault = 'client' | 'upstream' | 'gateway';

interface ReasonFacts {
  readonly code: StatusCode;
  readonly fault: Fault;
}

/**
 * The published list of reasons. The name is part of the API (`ErrorInfo.reason`, `TurnFailed.reason`):
 * never rename one; the code beside it is what gRPC tooling sees.
 */
export const REASONS = {
  // The stream's protocol, broken by the client.
  OPEN_REQUIRED: { code: 'FAILED_PRECONDITION', fault: 'client' },
  ALREADY_OPEN: { code: 'FAILED_PRECONDITION', fault: 'client' },
  EMPTY_MESSAGE: { code: 'INVALID_ARGUMENT', fault: 'client' },
  MALFORMED_MESSAGE: { code: 'INVALID_ARGUMENT', fault: 'client' },
  MESSAGE_TOO_LARGE: { code: 'RESOURCE_EXHAUSTED', fault: 'client' },
  OPEN_TIMEOUT: { code: 'DEADLINE_EXCEEDED', fault: 'client' },
  // One request that is wrong; the session goes on.
  INVALID_FIELD: { code: 'INVALID_ARGUMENT', fault: 'client' },
  INVALID_JSON: { code: 'INVALID_ARGUMENT', fault: 'client' },
  INVALID_LANE_ID: { code: 'INVALID_ARGUMENT', fault: 'client' },
  INVALID_TURN_ID: { code: 'INVALID_ARGUMENT', fault: 'client' },
  TURN_ID_REUSED: { code: 'FAILED_PRECONDITION', fault: 'client' },
  UNKNOWN_LANE: { code: 'FAILED_PRECONDITION', fault: 'client' },
  UNKNOWN_TURN: { code: 'FAILED_PRECONDITION', fault: 'client' },
  TURN_NOT_RUNNING: { code: 'FAILED_PRECONDITION', fault: 'client' },
  UNKNOWN_RESPONSE: { code: 'NOT_FOUND', fault: 'client' },
  FRAME_TOO_LARGE: { code: 'RESOURCE_EXHAUSTED', fault: 'client' },
  TOO_MANY_QUEUED_TURNS: { code: 'RESOURCE_EXHAUSTED', fault: 'client' },
  NOT_SUPPORTED_BY_UPSTREAM: { code: 'UNIMPLEMENTED', fault: 'client' },
  TURN_CANCELLED: { code: 'CANCELLED', fault: 'client' },
  TURN_TIMEOUT: { code: 'DEADLINE_EXCEEDED', fault: 'client' },
  // Who calls, and how much.
  UNAUTHENTICATED: { code: 'UNAUTHENTICATED', fault: 'client' },
  PERMISSION_DENIED: { code: 'PERMISSION_DENIED', fault: 'client' },
  MODEL_NOT_ALLOWED: { code: 'PERMISSION_DENIED', fault: 'client' },
  UPSTREAM_NOT_ALLOWED: { code: 'PERMISSION_DENIED', fault: 'client' },
  LIMIT_EXCEEDED: { code: 'RESOURCE_EXHAUSTED', fault: 'client' },
  SLOW_CONSUMER: { code: 'RESOURCE_EXHAUSTED', fault: 'client' },
  // The session's life.
  SESSION_SUPERSEDED: { code: 'ABORTED', fault: 'client' },
  SESSION_EXPIRED: { code: 'NOT_FOUND', fault: 'client' },
  ENGINE_LOST_DATA: { code: 'DATA_LOSS', fault: 'gateway' },
  DRAINING: { code: 'UNAVAILABLE', fault: 'gateway' },
  OVERLOADED: { code: 'RESOURCE_EXHAUSTED', fault: 'gateway' },
  STORE_UNAVAILABLE: { code: 'UNAVAILABLE', fault: 'gateway' },
  INTERNAL: { code: 'INTERNAL', fault: 'gateway' },
  // The upstream.
  UPSTREAM_INVALID_REQUEST: { code: 'INVALID_ARGUMENT', fault: 'client' },
  UPSTREAM_NOT_FOUND: { code: 'NOT_FOUND', fault: 'client' },
  UPSTREAM_PERMISSION_DENIED: { code: 'PERMISSION_DENIED', fault: 'client' },
  UPSTREAM_RATE_LIMITED: { code: 'RESOURCE_EXHAUSTED', fault: 'upstream' },
  UPSTREAM_QUOTA_EXCEEDED: { code: 'RESOURCE_EXHAUSTED', fault: 'upstream' },
  UPSTREAM_AUTH: { code: 'INTERNAL', fault: 'gateway' },
  UPSTREAM_UNAVAILABLE: { code: 'UNAVAILABLE', fault: 'upstream' },
  UPSTREAM_OVERLOADED: { code: 'UNAVAILABLE', fault: 'upstream' },
  UPSTREAM_ERROR: { code: 'UNKNOWN', fault: 'upstream' },
  UPSTREAM_LINK_LOST: { code: 'UNAVAILABLE', fault: 'upstream' },
  UPSTREAM_SILENT: { code: 'DEADLINE_EXCEEDED', fault: 'upstream' },
  UPSTREAM_PROTOCOL: { code: 'UNKNOWN', fault: 'upstream' },
  UPSTREAM_CIRCUIT_OPEN: { code: 'UNAVAILABLE', fault: 'upstream' },
  RESPONSE_FAILED: { code: 'UNKNOWN', fault: 'upstream' },
  CHAIN_LOST: { code: 'FAILED_PRECONDITION', fault: 'upstream' },
} as const satisfies Record<string, ReasonFacts>;

export type Reason = keyof typeof REASONS;

/** What the upstream itself said; texts are shown to the caller only, never logged. */
export interface UpstreamErrorFacts {
  readonly status?: number;
  readonly type?: string;
  readonly code?: string;
  readonly message?: string;
  readonly param?: string;
  /** The upstream's exact error frame. */
  readonly json?: Uint8Array;
}

export interface GatewayErrorOptions {
  /** Small facts for machines, e.g. `{ field: 'create.temperature' }`. Never content or secrets. */
  readonly metadata?: Readonly<Record<string, string>>;
  readonly retryAfterMs?: number;
  readonly upstream?: UpstreamErrorFacts;
  readonly cause?: unknown;
}

/** The one error class. How far it reaches (turn, stream, process) is decided by who catches it. */
export class GatewayError extends Error {
  override readonly name = 'GatewayError';
  readonly reason: Reason;
  readonly metadata: Readonly<Record<string, string>>;
  readonly retryAfterMs: number | undefined;
  readonly upstream: UpstreamErrorFacts | undefined;

  constructor(reason: Reason, message: string, options: GatewayErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.metadata = options.metadata ?? {};
    this.retryAfterMs = options.retryAfterMs;
    this.upstream = options.upstream;
  }

  get code(): StatusCode {
    return REASONS[this.reason].code;
  }

  get fault(): Fault {
    return REASONS[this.reason].fault;
  }

  static from(error: unknown): GatewayError {
    if (error instanceof GatewayError) return error;
    // The text of an unexpected error may hold content, so it stays in `cause`.
    return new GatewayError('INTERNAL', 'internal error', { cause: error });
  }
}

/** A refused field: names it, says what was found and what is allowed. */
export function invalidField(field: string, found: string, allowed: string): GatewayError {
  return new GatewayError('INVALID_FIELD', `${field}: found ${found}; allowed: ${allowed}`, {
    metadata: { field },
  });
}
