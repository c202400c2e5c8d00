import type { UpstreamFrame } from '../core/types.ts';
import { GatewayError, type Reason, type UpstreamErrorFacts } from '../errors.ts';

export interface UpstreamError {
  readonly facts: UpstreamErrorFacts;
  readonly retryAfterMs: number | undefined;
}

/** Reads both shapes of an error frame (protocol.md 7.1): nested under `error`, or flat. */
export function readErrorFrame(frame: UpstreamFrame): UpstreamError {
  const json = frame.json();
  const nested = record(json['error']);
  const body = nested ?? json;
  const headers = { ...record(json['headers']), ...record(body['headers']) };
  return readError(body, number(json['status']) ?? number(json['status_code']), headers, frame.bytes);
}

/** Reads `response.error` of a failed response (protocol.md 7.1, shape 4). */
export function readFailedResponse(frame: UpstreamFrame): UpstreamError {
  const response = record(frame.json()['response']);
  return readError(record(response?.['error']) ?? {}, undefined, {}, frame.bytes);
}

export function isPreviousResponseNotFound({ facts }: UpstreamError): boolean {
  if (facts.code === 'previous_response_not_found') return true;
  // Some live misses carry neither code nor param (protocol.md 4.2).
  return facts.code === undefined && /invalid `?previous_response_id`?/i.test(facts.message ?? '');
}

export function isConnectionLimit({ facts }: UpstreamError): boolean {
  return facts.code === 'websocket_connection_limit_reached';
}

export function isStreamLimit({ facts }: UpstreamError): boolean {
  return facts.code === 'websocket_stream_limit_reached';
}

/** An HTTP link lost one response's stream; the link itself lives. */
export function isStreamLost({ facts }: UpstreamError): boolean {
  return facts.code === 'upstream_stream_lost';
}

/** An HTTP link could not even send the request. */
export function isNotReached({ facts }: UpstreamError): boolean {
  return facts.code === 'upstream_not_reached';
}

/** Whether waiting and sending again is what the upstream asks for. */
export function isRateLimit({ facts }: UpstreamError): boolean {
  const reason = reasonOf(facts);
  return reason === 'UPSTREAM_RATE_LIMITED' || reason === 'UPSTREAM_OVERLOADED';
}

export function isClientError({ facts }: UpstreamError): boolean {
  const status = statusOf(facts);
  return status >= 400 && status < 500;
}

export function toGatewayError(
  { facts, retryAfterMs }: UpstreamError,
  fallback: Reason = 'UPSTREAM_ERROR',
): GatewayError {
  const reason = reasonOf(facts) ?? fallback;
  return new GatewayError(reason, facts.message ?? 'the upstream gave no message', {
    upstream: facts,
    ...(facts.code === undefined ? {} : { metadata: { upstream_code: facts.code } }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

const REASON_BY_CODE: Readonly<Record<string, Reason>> = {
  previous_response_not_found: 'CHAIN_LOST',
  rate_limit_exceeded: 'UPSTREAM_RATE_LIMITED',
  usage_limit_reached: 'UPSTREAM_QUOTA_EXCEEDED',
  usage_not_included: 'UPSTREAM_QUOTA_EXCEEDED',
  insufficient_quota: 'UPSTREAM_QUOTA_EXCEEDED',
  server_is_overloaded: 'UPSTREAM_OVERLOADED',
  slow_down: 'UPSTREAM_OVERLOADED',
  invalid_api_key: 'UPSTREAM_AUTH',
  token_invalidated: 'UPSTREAM_AUTH',
  token_expired: 'UPSTREAM_AUTH',
  model_not_found: 'UPSTREAM_NOT_FOUND',
  upstream_stream_lost: 'UPSTREAM_LINK_LOST',
  upstream_not_reached: 'UPSTREAM_UNAVAILABLE',
  upstream_protocol: 'UPSTREAM_PROTOCOL',
  not_supported_over_http: 'NOT_SUPPORTED_BY_UPSTREAM',
};

/** Effect's map for frames without a status (protocol.md 7.2). */
const STATUS_BY_TYPE: Readonly<Record<string, number>> = {
  invalid_request_error: 400,
  invalid_api_key: 401,
  insufficient_quota: 429,
  rate_limit_error: 429,
  service_unavailable: 503,
};

function statusOf(facts: UpstreamErrorFacts): number {
  return facts.status ?? STATUS_BY_TYPE[facts.type ?? ''] ?? 500;
}

function reasonOf(facts: UpstreamErrorFacts): Reason | undefined {
  const byCode = REASON_BY_CODE[facts.code ?? ''];
  if (byCode !== undefined) return byCode;
  const status = facts.status ?? STATUS_BY_TYPE[facts.type ?? ''];
  if (status === undefined) return undefined;
  if (status === 401) return 'UPSTREAM_AUTH';
  if (status === 403) return 'UPSTREAM_PERMISSION_DENIED';
  if (status === 404) return 'UPSTREAM_NOT_FOUND';
  if (status === 429) return 'UPSTREAM_RATE_LIMITED';
  if (status >= 400 && status < 500) return 'UPSTREAM_INVALID_REQUEST';
  if (status === 503 || status === 529) return 'UPSTREAM_OVERLOADED';
  return 'UPSTREAM_ERROR';
}

function readError(
  body: Readonly<Record<string, unknown>>,
  status: number | undefined,
  headers: Readonly<Record<string, unknown>>,
  json: Uint8Array,
): UpstreamError {
  const message = string(body['message']);
  const facts: UpstreamErrorFacts = {
    json,
    ...present('status', status),
    ...present('type', string(body['type']) === 'error' ? undefined : string(body['type'])),
    ...present('code', string(body['code'])),
    ...present('message', message),
    ...present('param', string(body['param'])),
  };
  return { facts, retryAfterMs: retryAfterOf(headers, body, message) };
}

function retryAfterOf(
  headers: Readonly<Record<string, unknown>>,
  body: Readonly<Record<string, unknown>>,
  message: string | undefined,
): number | undefined {
  const lower = Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]),
  );
  const ms = number(lower['retry-after-ms']);
  if (ms !== undefined) return ms;
  const seconds =
    number(lower['retry-after']) ?? number(body['retry_after']) ?? number(body['resets_in_seconds']);
  if (seconds !== undefined) return Math.max(0, seconds * 1000);
  const said = /try again in ((?:\d+(?:\.\d+)?\s?(?:ms|s|m|h))+)\b/i.exec(message ?? '')?.[1];
  return said === undefined ? undefined : durationMs(said.toLowerCase());
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** "1.2s", "350ms", "1m12.5s". */
function durationMs(text: string): number {
  let ms = 0;
  for (const [, count, unit = ''] of text.matchAll(/(\d+(?:\.\d+)?)\s?(ms|s|m|h)/g))
    ms += Number(count) * (UNIT_MS[unit] ?? 0);
  return ms;
}

function present<K extends string, V>(name: K, value: V | undefined): { readonly [P in K]?: V } {
  return (value === undefined ? {} : { [name]: value }) as { readonly [P in K]?: V };
}

function record(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}

function string(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function number(value: unknown): number | undefined {
  if (typeof value !== 'number' && typeof value !== 'string') return undefined;
  const parsed = typeof value === 'number' ? value : value.trim() === '' ? Number.NaN : Number(value);
  return Number.isFinite(parsed) ? parsed : undefined;
}
