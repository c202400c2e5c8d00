import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { LinkDown } from '../core/types.ts';
import { GatewayError, type Reason, type UpstreamErrorFacts } from '../errors.ts';

/** An HTTP answer that was not the one asked for. */
export interface Refusal {
  readonly status: number;
  readonly retryAfterMs: number | undefined;
  /** At most `MAX_REFUSAL_BYTES` of the body. */
  readonly body: Buffer;
}

/** Enough for any error object; the rest of a longer page is of no use. */
export const MAX_REFUSAL_BYTES = 64 * 1024;
/** An error page that drips in does not hold up the next try. */
const REFUSAL_BODY_TIMEOUT_MS = 2_000;

/** Reads the status and a bounded part of the body, then drops the connection. Never fails. */
export function readRefusal(response: IncomingMessage, done: (refusal: Refusal) => void): void {
  const chunks: Buffer[] = [];
  let length = 0;
  const finish = () => {
    clearTimeout(timer);
    response.removeAllListeners('data').removeAllListeners('end').removeAllListeners('close');
    response.destroy();
    done({
      status: response.statusCode ?? 0,
      retryAfterMs: retryAfterMs(response.headers, Date.now()),
      body: Buffer.concat(chunks),
    });
  };
  const timer = setTimeout(finish, REFUSAL_BODY_TIMEOUT_MS);
  response.on('error', () => {});
  response.on('data', (chunk: Buffer) => {
    chunks.push(chunk.subarray(0, MAX_REFUSAL_BYTES - length));
    length += chunk.length;
    if (length >= MAX_REFUSAL_BYTES) finish();
  });
  response.once('end', finish);
  response.once('close', finish);
}

/** A refused upgrade, as the end of a dial. */
export function refusedDial(refusal: Refusal): LinkDown {
  const { status, retryAfterMs: retryAfter } = refusal;
  const reason = reasonOf(status, refusal);
  return {
    during: 'dial',
    error: refusalError(refusal, reason, `the upstream refused the connection with HTTP ${status}`),
    httpStatus: status,
    permanent:
      !TRANSIENT_REASONS.has(reason) || PERMANENT_STATUSES.has(status) || (status >= 300 && status < 400),
    ...(retryAfter === undefined ? {} : { retryAfterMs: retryAfter }),
  };
}

/** A refused HTTP call, as an error. */
export function refusedCall(refusal: Refusal): GatewayError {
  const { status } = refusal;
  const invalid = status === 400 || status === 404 || status === 413 || status === 422;
  const reason = invalid
    ? status === 404
      ? 'UPSTREAM_NOT_FOUND'
      : 'UPSTREAM_INVALID_REQUEST'
    : reasonOf(status, refusal);
  return refusalError(refusal, reason, `the upstream answered HTTP ${status}`);
}

/** Milliseconds of `retry-after-ms`, or of `retry-after` in either of its forms; undefined when absent or absurd. */
export function retryAfterMs(headers: IncomingHttpHeaders, nowMs: number): number | undefined {
  const exact = Number(headers['retry-after-ms'] ?? Number.NaN);
  if (exact >= 0 && exact <= MAX_RETRY_AFTER_MS) return exact;
  const text = headers['retry-after'];
  if (text === undefined) return undefined;
  const ms = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1_000 : Date.parse(text) - nowMs;
  return Number.isNaN(ms) || ms > MAX_RETRY_AFTER_MS ? undefined : Math.max(0, ms);
}

/** Longer ones are quota resets or nonsense, not a wait. */
const MAX_RETRY_AFTER_MS = 24 * 3_600_000;

const TRANSIENT_REASONS: ReadonlySet<Reason> = new Set([
  'UPSTREAM_UNAVAILABLE',
  'UPSTREAM_RATE_LIMITED',
  'UPSTREAM_OVERLOADED',
]);
/** Missing route or method, proxy that wants a login: the configuration is wrong, not the hour. */
const PERMANENT_STATUSES: ReadonlySet<number> = new Set([404, 405, 407, 410, 426, 501]);

function reasonOf(status: number, refusal: Refusal): Reason {
  if (status === 401 || status === 403) return 'UPSTREAM_AUTH';
  if (status === 429)
    return errorCode(refusal) === 'insufficient_quota' ? 'UPSTREAM_QUOTA_EXCEEDED' : 'UPSTREAM_RATE_LIMITED';
  if (status === 402) return 'UPSTREAM_QUOTA_EXCEEDED';
  if (status === 529) return 'UPSTREAM_OVERLOADED';
  if (status >= 500 || status === 408 || status === 425 || PERMANENT_STATUSES.has(status))
    return 'UPSTREAM_UNAVAILABLE';
  return 'UPSTREAM_PROTOCOL';
}

function refusalError(refusal: Refusal, reason: Reason, message: string): GatewayError {
  return new GatewayError(reason, message, {
    metadata: { http_status: String(refusal.status) },
    upstream: upstreamFacts(refusal, reason),
    ...(refusal.retryAfterMs === undefined ? {} : { retryAfterMs: refusal.retryAfterMs }),
  });
}

function upstreamFacts(refusal: Refusal, reason: Reason): UpstreamErrorFacts {
  const status = { status: refusal.status };
  // Providers quote parts of a bad key: neither text nor body of such an answer goes any further.
  if (reason === 'UPSTREAM_AUTH') return status;
  const error = errorObject(refusal);
  if (error === undefined) return status;
  return {
    ...status,
    ...(typeof error['type'] === 'string' ? { type: error['type'] } : {}),
    ...(typeof error['code'] === 'string' ? { code: error['code'] } : {}),
    ...(typeof error['message'] === 'string' ? { message: error['message'] } : {}),
    ...(typeof error['param'] === 'string' ? { param: error['param'] } : {}),
  };
}

function errorCode(refusal: Refusal): string | undefined {
  const code = errorObject(refusal)?.['code'];
  return typeof code === 'string' ? code : undefined;
}

function errorObject(refusal: Refusal): Readonly<Record<string, unknown>> | undefined {
  try {
    const body: unknown = JSON.parse(refusal.body.toString('utf8'));
    const error = isRecord(body) ? body['error'] : undefined;
    return isRecord(error) ? error : undefined;
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
