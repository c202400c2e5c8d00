/** The one table of what an upstream's refusals mean: HTTP status, error type, error code, close code → reason. */
import type { Reason } from '../errors.ts';

/**
 * The way on which a refusal came.
 * `upgrade`: the answer to a WebSocket handshake, before any request. `frame`: an `error` frame on a socket.
 * `answer`: the HTTP answer to a create, or an error in its event stream. `failed`: `response.failed`.
 * `call`: a unary call.
 */
export type Road = 'upgrade' | 'frame' | 'answer' | 'failed' | 'call';

interface StatusMeaning {
  readonly reason: Reason;
  /** No request was involved: who is refused is the gateway, not a client. */
  readonly upgrade?: Reason;
  /** The response had begun: it is the response that failed, not the request. */
  readonly failed?: Reason;
  /** On the upgrade: the configuration is wrong, not the hour. */
  readonly permanent?: true;
  /** Although 4xx, no proof that the request did not run. */
  readonly mayHaveRun?: true;
}

const BY_STATUS: ReadonlyMap<number, StatusMeaning> = new Map<number, StatusMeaning>([
  [400, { reason: 'UPSTREAM_INVALID_REQUEST', upgrade: 'UPSTREAM_PROTOCOL', permanent: true }],
  [401, { reason: 'UPSTREAM_AUTH', permanent: true }],
  [402, { reason: 'UPSTREAM_QUOTA_EXCEEDED', permanent: true }],
  [403, { reason: 'UPSTREAM_PERMISSION_DENIED', upgrade: 'UPSTREAM_AUTH', permanent: true }],
  [404, { reason: 'UPSTREAM_NOT_FOUND', upgrade: 'UPSTREAM_UNAVAILABLE', permanent: true }],
  // No such method, a proxy that wants a login, another protocol, not implemented: the way is wrong.
  [405, { reason: 'UPSTREAM_UNAVAILABLE', permanent: true }],
  [407, { reason: 'UPSTREAM_UNAVAILABLE', permanent: true }],
  // The upstream's own time-out, as 504 is a proxy's.
  [408, { reason: 'UPSTREAM_UNAVAILABLE', mayHaveRun: true }],
  [409, { reason: 'UPSTREAM_INVALID_REQUEST', upgrade: 'UPSTREAM_UNAVAILABLE' }],
  [410, { reason: 'UPSTREAM_NOT_FOUND', upgrade: 'UPSTREAM_UNAVAILABLE', permanent: true }],
  [413, { reason: 'FRAME_TOO_LARGE', upgrade: 'UPSTREAM_PROTOCOL', permanent: true }],
  [421, { reason: 'UPSTREAM_UNAVAILABLE' }],
  // A tool server behind the upstream failed.
  [
    424,
    {
      reason: 'UPSTREAM_ERROR',
      upgrade: 'UPSTREAM_UNAVAILABLE',
      failed: 'RESPONSE_FAILED',
      mayHaveRun: true,
    },
  ],
  [425, { reason: 'UPSTREAM_UNAVAILABLE' }],
  [426, { reason: 'UPSTREAM_UNAVAILABLE', permanent: true }],
  [429, { reason: 'UPSTREAM_RATE_LIMITED' }],
  [451, { reason: 'UPSTREAM_PERMISSION_DENIED', upgrade: 'UPSTREAM_AUTH', permanent: true }],
  // nginx: the connection to the upstream was closed, by a proxy between.
  [499, { reason: 'UPSTREAM_UNAVAILABLE', mayHaveRun: true }],
  [501, { reason: 'UPSTREAM_UNAVAILABLE', permanent: true }],
  [502, { reason: 'UPSTREAM_UNAVAILABLE' }],
  [503, { reason: 'UPSTREAM_UNAVAILABLE' }],
  [504, { reason: 'UPSTREAM_UNAVAILABLE' }],
  // Cloudflare: the origin is down, cannot be reached, has a bad certificate.
  ...[521, 522, 523, 525, 526, 530].map((status) => [status, { reason: 'UPSTREAM_UNAVAILABLE' }] as const),
  // Anthropic's and others' own.
  [529, { reason: 'UPSTREAM_OVERLOADED' }],
]);

const OTHER_4XX: StatusMeaning = {
  reason: 'UPSTREAM_INVALID_REQUEST',
  upgrade: 'UPSTREAM_PROTOCOL',
  permanent: true,
};
const OTHER_5XX: StatusMeaning = {
  reason: 'UPSTREAM_ERROR',
  upgrade: 'UPSTREAM_UNAVAILABLE',
  failed: 'RESPONSE_FAILED',
};
/** Success, redirects and numbers that are no status: not the answer that was asked for. */
const NO_ERROR: StatusMeaning = { reason: 'UPSTREAM_PROTOCOL', permanent: true };

export function reasonOfStatus(status: number, road: Road): Reason {
  const meaning = meaningOf(status);
  if (road === 'upgrade') return meaning.upgrade ?? meaning.reason;
  return (road === 'failed' ? meaning.failed : undefined) ?? meaning.reason;
}

/** Whether a handshake that was refused so will be refused again until the operator changes something. */
export function isPermanentStatus(status: number): boolean {
  return meaningOf(status).permanent === true;
}

/** Whether a request that was refused so certainly did not run. */
export function provesNotRun(status: number): boolean {
  return status >= 400 && status < 500 && meaningOf(status).mayHaveRun !== true;
}

function meaningOf(status: number): StatusMeaning {
  const meaning = BY_STATUS.get(status);
  if (meaning !== undefined) return meaning;
  if (status >= 400 && status < 500) return OTHER_4XX;
  return status >= 500 && status < 600 ? OTHER_5XX : NO_ERROR;
}

/** Error codes (and types, where there is no code) that say more than their status, in lower case. */
const BY_CODE: ReadonlyMap<string, Reason> = new Map<string, Reason>([
  ['rate_limit_exceeded', 'UPSTREAM_RATE_LIMITED'],
  ['rate_limit_reached', 'UPSTREAM_RATE_LIMITED'],
  ['rate_limited', 'UPSTREAM_RATE_LIMITED'],
  ['rate_limit', 'UPSTREAM_RATE_LIMITED'],
  ['rate_limit_error', 'UPSTREAM_RATE_LIMITED'],
  ['ratelimiterror', 'UPSTREAM_RATE_LIMITED'],
  ['too_many_requests', 'UPSTREAM_RATE_LIMITED'],
  ['toomanyrequests', 'UPSTREAM_RATE_LIMITED'],
  ['throttling_error', 'UPSTREAM_RATE_LIMITED'],
  ['resource_exhausted', 'UPSTREAM_RATE_LIMITED'],
  ['usage_limit_reached', 'UPSTREAM_QUOTA_EXCEEDED'],
  ['usage_not_included', 'UPSTREAM_QUOTA_EXCEEDED'],
  ['insufficient_quota', 'UPSTREAM_QUOTA_EXCEEDED'],
  ['insufficient_credits', 'UPSTREAM_QUOTA_EXCEEDED'],
  ['quota_exceeded', 'UPSTREAM_QUOTA_EXCEEDED'],
  ['billing_hard_limit_reached', 'UPSTREAM_QUOTA_EXCEEDED'],
  ['billing_not_active', 'UPSTREAM_QUOTA_EXCEEDED'],
  ['payment_required', 'UPSTREAM_QUOTA_EXCEEDED'],
  ['server_is_overloaded', 'UPSTREAM_OVERLOADED'],
  ['slow_down', 'UPSTREAM_OVERLOADED'],
  ['overloaded', 'UPSTREAM_OVERLOADED'],
  ['overloaded_error', 'UPSTREAM_OVERLOADED'],
  ['engine_overloaded', 'UPSTREAM_OVERLOADED'],
  ['service_unavailable', 'UPSTREAM_UNAVAILABLE'],
  ['invalid_api_key', 'UPSTREAM_AUTH'],
  ['authentication_error', 'UPSTREAM_AUTH'],
  ['token_invalidated', 'UPSTREAM_AUTH'],
  ['token_expired', 'UPSTREAM_AUTH'],
  ['permission_denied', 'UPSTREAM_PERMISSION_DENIED'],
  ['permission_error', 'UPSTREAM_PERMISSION_DENIED'],
  ['model_not_found', 'UPSTREAM_NOT_FOUND'],
  ['deploymentnotfound', 'UPSTREAM_NOT_FOUND'],
  ['context_length_exceeded', 'UPSTREAM_INVALID_REQUEST'],
  ['invalid_prompt', 'UPSTREAM_INVALID_REQUEST'],
  ['message_too_big', 'FRAME_TOO_LARGE'],
  ['request_too_large', 'FRAME_TOO_LARGE'],
  // Those that a link over HTTP makes itself.
  ['upstream_stream_lost', 'UPSTREAM_LINK_LOST'],
  ['upstream_not_reached', 'UPSTREAM_UNAVAILABLE'],
  ['upstream_protocol', 'UPSTREAM_PROTOCOL'],
  ['not_supported_over_http', 'NOT_SUPPORTED_BY_UPSTREAM'],
]);

/** What the tables name, for docs/what-happens-when.md. */
export const NAMED = { statuses: [...BY_STATUS.keys()], codes: [...BY_CODE.keys()] } as const;

export function reasonOfCode(code: string): Reason | undefined {
  return BY_CODE.get(code.toLowerCase());
}

/** Error types of those that give no status (upstream.md#error-codes; vLLM's and Google's class names), in lower case. */
const STATUS_BY_TYPE: ReadonlyMap<string, number> = new Map([
  ['invalid_request_error', 400],
  ['badrequesterror', 400],
  ['invalid_argument', 400],
  ['authenticationerror', 401],
  ['unauthenticated', 401],
  ['not_found_error', 404],
  ['notfounderror', 404],
  ['not_found', 404],
  ['unavailable', 503],
  ['serviceunavailableerror', 503],
  ['timeout_error', 504],
  ['deadline_exceeded', 504],
  ['server_error', 500],
  ['api_error', 500],
  ['internalservererror', 500],
]);

export function statusOfType(type: string): number | undefined {
  return STATUS_BY_TYPE.get(type.toLowerCase());
}

/** What a close code means (upstream.md#close-codes); codes that are not listed are a lost link. */
const BY_CLOSE_CODE: ReadonlyMap<number, Reason> = new Map<number, Reason>([
  [1002, 'UPSTREAM_PROTOCOL'],
  [1003, 'UPSTREAM_PROTOCOL'],
  [1007, 'UPSTREAM_PROTOCOL'],
  // Seen for a disabled route, a restricted model, a changed model.
  [1008, 'UPSTREAM_PERMISSION_DENIED'],
  [1010, 'UPSTREAM_PROTOCOL'],
  // As registered with IANA: unauthorized, forbidden.
  [3000, 'UPSTREAM_AUTH'],
  [3003, 'UPSTREAM_PERMISSION_DENIED'],
  // Vercel: out of credits.
  [4402, 'UPSTREAM_QUOTA_EXCEEDED'],
]);

export function reasonOfClose(code: number): Reason {
  return BY_CLOSE_CODE.get(code) ?? 'UPSTREAM_LINK_LOST';
}
