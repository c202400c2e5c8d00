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
  /** For docs/errors.md and the clients' constants; Markdown, never sent. */
  readonly meaning: string;
  /** What to do about it. */
  readonly fix: string;
}

/**
 * The published list of reasons. The name is part of the API (`ErrorInfo.reason`, `TurnFailed.reason`):
 * never rename one; the code beside it is what gRPC tooling sees.
 */
export const REASONS = {
  // The stream's protocol, broken by the client.
  OPEN_REQUIRED: {
    code: 'FAILED_PRECONDITION',
    fault: 'client',
    meaning: 'The first message of a stream is not `Open`.',
    fix: 'Fix the client, or use one of ours.',
  },
  ALREADY_OPEN: {
    code: 'FAILED_PRECONDITION',
    fault: 'client',
    meaning: 'A second `Open` came on a stream.',
    fix: 'Fix the client: one `Open` for each stream.',
  },
  EMPTY_MESSAGE: {
    code: 'INVALID_ARGUMENT',
    fault: 'client',
    meaning: 'The message sets no field of its `oneof`. It often comes from a newer client.',
    fix: 'Update the gateway before its clients.',
  },
  MALFORMED_MESSAGE: {
    code: 'INVALID_ARGUMENT',
    fault: 'client',
    meaning: 'The bytes are not a message of this service.',
    fix: "Check the client's generated code and every proxy on the way.",
  },
  MESSAGE_TOO_LARGE: {
    code: 'RESOURCE_EXHAUSTED',
    fault: 'client',
    meaning: "A message is larger than `grpc.max_message` or the tenant's `limits.message`.",
    fix: 'Send files by id, or raise the limit and the memory.',
  },
  OPEN_TIMEOUT: {
    code: 'DEADLINE_EXCEEDED',
    fault: 'client',
    meaning: 'No `Open` came within `grpc.open_timeout`.',
    fix: 'Send `Open` first. Without a client of yours behind it, this is a port scan or a health check of the wrong kind.',
  },
  // One request that is wrong; the session goes on.
  INVALID_FIELD: {
    code: 'INVALID_ARGUMENT',
    fault: 'client',
    meaning: 'A field has a value that is not allowed; `metadata.field` names it.',
    fix: 'Fix the request.',
  },
  INVALID_JSON: {
    code: 'INVALID_ARGUMENT',
    fault: 'client',
    meaning: 'A field that carries JSON holds something else.',
    fix: 'Fix the request.',
  },
  INVALID_LANE_ID: {
    code: 'INVALID_ARGUMENT',
    fault: 'client',
    meaning: "The lane's name is too long or has characters that are not allowed.",
    fix: 'Fix the client.',
  },
  INVALID_TURN_ID: {
    code: 'INVALID_ARGUMENT',
    fault: 'client',
    meaning: "The turn's id is missing, too long or has characters that are not allowed.",
    fix: 'Fix the client.',
  },
  TURN_ID_REUSED: {
    code: 'FAILED_PRECONDITION',
    fault: 'client',
    meaning: 'The same turn id came with another request.',
    fix: 'Use a new id for each turn; repeat one only to repeat the same request.',
  },
  UNKNOWN_LANE: {
    code: 'FAILED_PRECONDITION',
    fault: 'client',
    meaning: 'A steer or a cancel names a lane that never had a turn.',
    fix: 'Fix the client.',
  },
  UNKNOWN_TURN: {
    code: 'FAILED_PRECONDITION',
    fault: 'client',
    meaning: 'A steer or a cancel names a turn that does not exist.',
    fix: "Harmless when it crosses the turn's end; otherwise fix the client.",
  },
  TURN_NOT_RUNNING: {
    code: 'FAILED_PRECONDITION',
    fault: 'client',
    meaning: 'A steer or a cancel names a turn that has ended or has not begun.',
    fix: "Harmless when it crosses the turn's end.",
  },
  UNKNOWN_RESPONSE: {
    code: 'NOT_FOUND',
    fault: 'client',
    meaning:
      'The response id does not exist, or this tenant may not name it. The two are told alike on purpose.',
    fix: 'After a restart without `cluster`, ids given out before are unknown with `stored_ids: strict`; see `tenants[].stored_ids`.',
  },
  FRAME_TOO_LARGE: {
    code: 'RESOURCE_EXHAUSTED',
    fault: 'client',
    meaning: 'The turn is larger than the upstream takes (`session.max_frame`). Nothing was sent.',
    fix: 'Send less, files by id, or compact the conversation.',
  },
  TOO_MANY_QUEUED_TURNS: {
    code: 'RESOURCE_EXHAUSTED',
    fault: 'client',
    meaning: 'More turns wait on the lane than `session.max_queued_turns_per_lane`.',
    fix: 'Wait for outcomes, or use more lanes.',
  },
  NOT_SUPPORTED_BY_UPSTREAM: {
    code: 'UNIMPLEMENTED',
    fault: 'client',
    meaning: 'The request needs steering, warm-up or another ability that this upstream lacks.',
    fix: 'Route the session to another upstream.',
  },
  TURN_CANCELLED: {
    code: 'CANCELLED',
    fault: 'client',
    meaning: 'The client cancelled the turn.',
    fix: 'Nothing: this is no failure.',
  },
  TURN_TIMEOUT: {
    code: 'DEADLINE_EXCEEDED',
    fault: 'client',
    meaning: "The turn's own time limit, or `session.default_turn_timeout`, has passed.",
    fix: 'If this is frequent, the durations on the turn say where the time went.',
  },
  // Who calls, and how much.
  UNAUTHENTICATED: {
    code: 'UNAUTHENTICATED',
    fault: 'client',
    meaning: 'No credential, or one that no method of `auth` accepts.',
    fix: 'Check key, issuer, audience and clock; a sudden rise may be an attack.',
  },
  PERMISSION_DENIED: {
    code: 'PERMISSION_DENIED',
    fault: 'client',
    meaning: 'The caller is known and may not do this, for example bring its own provider key.',
    fix: "Change the tenant's settings.",
  },
  MODEL_NOT_ALLOWED: {
    code: 'PERMISSION_DENIED',
    fault: 'client',
    meaning: 'The model is not among `tenants[].models`.',
    fix: "Change the tenant's settings, or the client's model name.",
  },
  UPSTREAM_NOT_ALLOWED: {
    code: 'PERMISSION_DENIED',
    fault: 'client',
    meaning: 'The upstream is not among `tenants[].upstreams`, or no upstream has that name.',
    fix: "Change the tenant's settings, or the client's.",
  },
  LIMIT_EXCEEDED: {
    code: 'RESOURCE_EXHAUSTED',
    fault: 'client',
    meaning:
      'A limit of the tenant or the process is reached; `metadata` names it, `retry_after` says when to try again.',
    fix: 'Raise `limits` or talk to the tenant.',
  },
  SLOW_CONSUMER: {
    code: 'RESOURCE_EXHAUSTED',
    fault: 'client',
    meaning:
      'The client left its buffer full for `session.slow_client_timeout`. The stream ends; the session can be resumed.',
    fix: 'Make the client read; see the alert "clients are slow".',
  },
  CLIENT_SILENT: {
    code: 'UNAVAILABLE',
    fault: 'client',
    meaning:
      'No heartbeat came for three intervals on a stream that agreed on them. The stream ends, the session can be resumed.',
    fix: 'The client, or the way to it, is gone. If it is often so, a proxy holds back small messages: docs/proxies.md.',
  },
  // The session's life.
  SESSION_SUPERSEDED: {
    code: 'ABORTED',
    fault: 'client',
    meaning: 'Another stream resumed the session; this is the older one.',
    fix: 'Nothing, unless two clients share a token.',
  },
  SESSION_EXPIRED: {
    code: 'NOT_FOUND',
    fault: 'client',
    meaning: 'The session to resume is over, or lives in another process.',
    fix: 'Open a new session. To keep sessions for longer, raise `session.resume_grace`; to resume at any replica, give them one store (docs/scaling.md).',
  },
  ENGINE_LOST_DATA: {
    code: 'DATA_LOSS',
    fault: 'gateway',
    meaning:
      "The session's record is older than what its client has seen: the store lost what it had acknowledged. The client gets a new session.",
    fix: "Look at the store's append-only file, its replicas and its last failover; see docs/scaling.md.",
  },
  DRAINING: {
    code: 'UNAVAILABLE',
    fault: 'gateway',
    meaning: 'The process is shutting down and takes no new work.',
    fix: 'Clients connect again by themselves; if many turns end so, raise `drain.timeout`.',
  },
  OVERLOADED: {
    code: 'RESOURCE_EXHAUSTED',
    fault: 'gateway',
    meaning:
      "Memory is over `limits.memory_high`; no new sessions, turns and steers until it falls. Or too many callers' keys wait for a slow hash.",
    fix: 'Add replicas or memory; see "Sizing" in docs/operations.md.',
  },
  STORE_UNAVAILABLE: {
    code: 'UNAVAILABLE',
    fault: 'gateway',
    meaning:
      'The store cannot tell what became of the session to resume, or new sessions need it (`cluster.store.on_failure`).',
    fix: 'Look at the store; clients try again by themselves.',
  },
  INTERNAL: {
    code: 'INTERNAL',
    fault: 'gateway',
    meaning: 'A defect of the gateway.',
    fix: 'Page somebody. The log has the stack; please report it.',
  },
  // The upstream.
  UPSTREAM_INVALID_REQUEST: {
    code: 'INVALID_ARGUMENT',
    fault: 'client',
    meaning:
      'The upstream refused the request; its own words are in the error for the caller, not in the log.',
    fix: "Fix the request. After an upgrade of the gateway: compare both versions' bytes in the simulator.",
  },
  UPSTREAM_NOT_FOUND: {
    code: 'NOT_FOUND',
    fault: 'client',
    meaning: 'The upstream does not know a model, file or other thing that the request names.',
    fix: "Fix the request, or the key's project.",
  },
  UPSTREAM_PERMISSION_DENIED: {
    code: 'PERMISSION_DENIED',
    fault: 'client',
    meaning: "The provider's key may not do this.",
    fix: "Check the key's project and its rights at the provider.",
  },
  UPSTREAM_RATE_LIMITED: {
    code: 'RESOURCE_EXHAUSTED',
    fault: 'upstream',
    meaning: "The provider's rate limit is reached; `retry_after` is set if it said when to try again.",
    fix: 'Ask for a higher limit, or set `tokens_per_minute` for the tenants that use most.',
  },
  UPSTREAM_QUOTA_EXCEEDED: {
    code: 'RESOURCE_EXHAUSTED',
    fault: 'upstream',
    meaning: 'The provider account is out of credit or over its budget.',
    fix: 'Pay, or switch the key. Waiting does not help.',
  },
  UPSTREAM_AUTH: {
    code: 'INTERNAL',
    fault: 'gateway',
    meaning: "The provider refused the gateway's key.",
    fix: 'Page somebody: replace the key (`api_key_env`, `api_key_file`). A file is read again by itself.',
  },
  UPSTREAM_UNAVAILABLE: {
    code: 'UNAVAILABLE',
    fault: 'upstream',
    meaning: 'No connection within `session.max_dial_attempts`, or the provider answers with 5xx.',
    fix: 'Look at the alert "dials fail"; configure a second upstream as a fallback.',
  },
  UPSTREAM_OVERLOADED: {
    code: 'UNAVAILABLE',
    fault: 'upstream',
    meaning: 'The provider is up and out of capacity.',
    fix: 'Wait, or use another model or upstream.',
  },
  UPSTREAM_ERROR: {
    code: 'UNKNOWN',
    fault: 'upstream',
    meaning: 'An error of the provider that fits no other reason.',
    fix: "Look at the upstream's code in the log line; report it to the provider.",
  },
  UPSTREAM_LINK_LOST: {
    code: 'UNAVAILABLE',
    fault: 'upstream',
    meaning: 'The link broke while the turn ran, and it may have run: it was not sent again.',
    fix: 'The replay verdict says whether the client may repeat it. If it is frequent, look for an idle time-out on the way.',
  },
  UPSTREAM_SILENT: {
    code: 'DEADLINE_EXCEEDED',
    fault: 'upstream',
    meaning:
      'A turn was sent and the upstream said nothing about it for `session.silent_turn_timeout`. It may have run: the replay verdict says so.',
    fix: 'Look at the upstream. If your models think in silence for longer, raise the setting.',
  },
  UPSTREAM_PROTOCOL: {
    code: 'UNKNOWN',
    fault: 'upstream',
    meaning: 'The upstream broke the protocol: not JSON, or events without a response.',
    fix: 'Look for a proxy in between, or an upstream that only resembles the API. Report it with the version of `responses-gateway`.',
  },
  UPSTREAM_CIRCUIT_OPEN: {
    code: 'UNAVAILABLE',
    fault: 'upstream',
    meaning: 'Too many dials failed in a row; the upstream is not tried for a while.',
    fix: 'As for `UPSTREAM_UNAVAILABLE`: look at DNS, proxy and key; configure a second upstream as a fallback.',
  },
  RESPONSE_FAILED: {
    code: 'UNKNOWN',
    fault: 'upstream',
    meaning: 'The response began and the model or a tool of the provider failed in it.',
    fix: 'The client may try again if the replay verdict allows.',
  },
  CHAIN_LOST: {
    code: 'FAILED_PRECONDITION',
    fault: 'upstream',
    meaning: 'The upstream has forgotten the conversation and the gateway holds no transcript to rebuild it.',
    fix: 'Allow more transcript (`session.max_transcript`, `transcript_budget`), or `store: true`. The client starts a new conversation.',
  },
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
