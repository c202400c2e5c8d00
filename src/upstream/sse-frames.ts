import type { UpstreamFrame } from '../core/types.ts';
import type { Refusal } from '../dialect/refusal.ts';
import { REDACTED } from './redact.ts';
import { LOCAL_ERROR_CODES } from './types.ts';

/** Events over HTTP do not name their lane: the link knows it. The bytes stay as they came. */
export function laneFrame(frame: UpstreamFrame, streamId: string | undefined): UpstreamFrame {
  const { type, bytes, byteLength } = frame;
  return { type, streamId, bytes, byteLength, json: () => frame.json() };
}

export function lostFrame(streamId: string | undefined): UpstreamFrame {
  return errorFrame(streamId, 502, {
    code: LOCAL_ERROR_CODES.streamLost,
    message: 'the event stream broke off',
  });
}

export function notReachedFrame(streamId: string | undefined): UpstreamFrame {
  return errorFrame(streamId, 503, {
    code: LOCAL_ERROR_CODES.notReached,
    message: 'the upstream was not reached',
  });
}

export function protocolFrame(streamId: string | undefined): UpstreamFrame {
  return errorFrame(streamId, 502, {
    code: LOCAL_ERROR_CODES.protocol,
    message: 'the upstream did not answer with events',
  });
}

export function unsupportedFrame(streamId: string | undefined, what: string): UpstreamFrame {
  return errorFrame(streamId, 400, {
    type: 'invalid_request_error',
    code: LOCAL_ERROR_CODES.unsupported,
    message: `${what} is not supported by this upstream over HTTP`,
  });
}

/** An HTTP error as the `error` frame that a WebSocket would have brought (protocol.md 7.1, nested shape). */
export function answerFrame(refusal: Refusal, streamId: string | undefined): UpstreamFrame {
  const { status, retryAfterMs } = refusal;
  if (status < 400) return protocolFrame(streamId);
  const headers = retryAfterMs === undefined ? undefined : { 'retry-after': String(retryAfterMs / 1_000) };
  const error = readError(parseObject(refusal.body.toString('utf8')), status);
  return errorFrame(streamId, status, error, headers);
}

/** An error that broke off a stream without a type: its object is an HTTP error's, the status at best its code (vLLM). */
export function brokenOffFrame(
  error: Readonly<Record<string, unknown>>,
  streamId: string | undefined,
): UpstreamFrame {
  const code = asObject(error['error'])?.['code'];
  // An object may have members that make its conversion throw.
  const number = typeof code === 'object' ? Number.NaN : Number(code);
  const status = number >= 400 && number < 600 ? number : undefined;
  return errorFrame(streamId, status, readError(error, status));
}

interface ErrorBody {
  readonly type?: string;
  readonly code?: string;
  readonly message: string;
  readonly param?: string;
}

const DEFAULT_TYPE = 'upstream_error';

function errorFrame(
  streamId: string | undefined,
  status: number | undefined,
  { type = DEFAULT_TYPE, code, message, param }: ErrorBody,
  headers?: Readonly<Record<string, string>>,
): UpstreamFrame {
  const json = {
    type: 'error',
    ...(status === undefined ? {} : { status }),
    error: { type, code: code ?? null, message, param: param ?? null },
    ...(headers === undefined ? {} : { headers }),
  };
  const bytes = Buffer.from(JSON.stringify(json), 'utf8');
  return { type: 'error', streamId, bytes, byteLength: bytes.length, json: () => json };
}

/** OpenAI's `{error:{…}}`, FastAPI's `{detail}`, vLLM's flat object; anything else has no text worth passing on. */
function readError(
  outer: Readonly<Record<string, unknown>> | undefined,
  status: number | undefined,
): ErrorBody {
  const plain = { message: `the upstream answered ${status === undefined ? 'an error' : `HTTP ${status}`}` };
  if (outer === undefined) return plain;
  const inner = asObject(outer['error']) ?? outer;
  const said = stringOf(inner['message']) ?? stringOf(inner['detail']) ?? stringOf(inner['error']);
  const body: ErrorBody = {
    ...optional('type', stringOf(inner['type'])),
    ...optional('code', stringOf(inner['code'])),
    ...optional('param', stringOf(inner['param'])),
    message: said ?? plain.message,
  };
  // Providers quote the ends of a bad key; a text that quoted all of it is about the key and nothing else.
  const quotedKey = Object.values(body).some((each) => each.includes(REDACTED));
  return status === 401 || status === 403 || quotedKey ? plain : body;
}

export function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    return asObject(JSON.parse(text));
  } catch {
    return undefined;
  }
}

function asObject(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Readonly<Record<string, unknown>>)
    : undefined;
}

function stringOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function optional<K extends string>(name: K, value: string | undefined): { readonly [P in K]?: string } {
  return (value === undefined ? {} : { [name]: value }) as { readonly [P in K]?: string };
}
