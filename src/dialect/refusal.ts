import { GatewayError, type Reason, type UpstreamErrorFacts } from '../errors.ts';
import { type ErrorWords, errorObject, readErrorWords } from './error-body.ts';
import { type Json, optional, parseError } from './json.ts';
import { isPermanentStatus, provesNotRun, type Road, reasonOfStatus } from './reasons.ts';
import { retryAfterMs } from './retry-after.ts';
import type { LinkDown } from './types.ts';
import { reasonOfWords } from './upstream-error.ts';

/** An HTTP answer that was not the one asked for. */
export interface HttpAnswer {
  readonly status: number;
  readonly headers: Json;
  /** As much of it as was read. */
  readonly body: string;
}

/** What the answer means. `words` is empty where they may quote a key. */
export interface Refusal {
  readonly status: number;
  readonly reason: Reason;
  readonly words: ErrorWords;
  readonly retryAfterMs: number | undefined;
}

/** `nowMs` is epoch time, for a wait that is given as a date. */
export function readRefusal({ status, headers, body }: HttpAnswer, road: Road, nowMs: number): Refusal {
  const json = parseError(body);
  const said = json === undefined ? {} : readErrorWords(json);
  const reason = reasonOfWords(said, status, road) ?? reasonOfStatus(status, road);
  const error = json === undefined ? undefined : errorObject(json);
  return {
    status,
    reason,
    words: speakable(said, reason),
    retryAfterMs: retryAfterMs({ headers, error, message: said.message }, nowMs),
  };
}

/** Words for the caller. Providers quote parts of a bad key: of such an answer nothing goes any further. */
export function speakable(words: ErrorWords, reason: Reason | undefined): ErrorWords {
  return reason === 'UPSTREAM_AUTH' ? {} : words;
}

/** A refused upgrade, as the end of a dial. */
export function refusedDial(answer: HttpAnswer, nowMs: number): LinkDown {
  const refusal = readRefusal(answer, 'upgrade', nowMs);
  const { status, reason } = refusal;
  return {
    during: 'dial',
    error: refusalError(refusal, `the upstream refused the connection with HTTP ${status}`),
    httpStatus: status,
    permanent: !TRANSIENT_REASONS.has(reason) || isPermanentStatus(status),
    ...optional('retryAfterMs', refusal.retryAfterMs),
  };
}

/** A refused HTTP call, as an error. */
export function refusedCall(answer: HttpAnswer, nowMs: number): GatewayError {
  const refusal = readRefusal(answer, 'call', nowMs);
  return refusalError(refusal, `the upstream answered HTTP ${refusal.status}`);
}

/** Whether what a call asked for has certainly not been done, as it failed so. */
export function neverRan({ reason, upstream }: GatewayError): boolean {
  const { status } = upstream ?? {};
  if (status === undefined) return NEVER_SENT.has(reason);
  const asksToWait = reason === 'UPSTREAM_RATE_LIMITED' || reason === 'UPSTREAM_OVERLOADED';
  // A bare 503 is what OpenAI documents for "overloaded" and "slow down".
  return provesNotRun(status) || asksToWait || (reason === 'UPSTREAM_UNAVAILABLE' && status === 503);
}

/** Without an answer, these say that there was nobody to ask. */
const NEVER_SENT: ReadonlySet<Reason> = new Set(['UPSTREAM_UNAVAILABLE', 'UPSTREAM_CIRCUIT_OPEN']);

const TRANSIENT_REASONS: ReadonlySet<Reason> = new Set([
  'UPSTREAM_UNAVAILABLE',
  'UPSTREAM_RATE_LIMITED',
  'UPSTREAM_OVERLOADED',
]);

function refusalError(
  { status, reason, words, retryAfterMs: waitMs }: Refusal,
  message: string,
): GatewayError {
  const upstream: UpstreamErrorFacts = { ...words, status };
  return new GatewayError(reason, message, {
    metadata: { http_status: String(status) },
    upstream,
    ...optional('retryAfterMs', waitMs),
  });
}
