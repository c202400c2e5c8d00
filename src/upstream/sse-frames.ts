import { type ErrorWords, readErrorWords } from '../dialect/error-body.ts';
import { asObject, type Json, optional, own } from '../dialect/json.ts';
import { type HttpAnswer, readRefusal, speakable } from '../dialect/refusal.ts';
import type { UpstreamFrame } from '../dialect/types.ts';
import { reasonOfWords } from '../dialect/upstream-error.ts';
import { REDACTED } from './redact.ts';
import { LOCAL_ERROR_CODES } from './types.ts';

/** Events over HTTP do not name their lane: the link knows it. The bytes stay as they came. */
export function laneFrame(frame: UpstreamFrame, streamId: string | undefined): UpstreamFrame {
  const { type, bytes, byteLength } = frame;
  return {
    type,
    streamId,
    bytes,
    byteLength,
    json: () => frame.json(),
    brief: () => frame.brief?.() ?? frame.json(),
  };
}

export function lostFrame(streamId: string | undefined): UpstreamFrame {
  return errorFrame(streamId, {
    status: 502,
    code: LOCAL_ERROR_CODES.streamLost,
    message: 'the event stream broke off',
  });
}

export function notReachedFrame(streamId: string | undefined): UpstreamFrame {
  return errorFrame(streamId, {
    status: 503,
    code: LOCAL_ERROR_CODES.notReached,
    message: 'the upstream was not reached',
  });
}

/** The stream of a response that was running, or that was asked for again, broke off or was not reached. */
export function isStreamLost(frame: UpstreamFrame): boolean {
  if (frame.type !== 'error') return false;
  const code = own(asObject(own(frame.json(), 'error')), 'code');
  return code === LOCAL_ERROR_CODES.streamLost || code === LOCAL_ERROR_CODES.notReached;
}

export function protocolFrame(streamId: string | undefined, said = ''): UpstreamFrame {
  return errorFrame(streamId, {
    status: 502,
    code: LOCAL_ERROR_CODES.protocol,
    message: `the upstream did not answer with events${said === '' ? '' : `: ${said}`}`,
  });
}

export function unsupportedFrame(streamId: string | undefined, what: string): UpstreamFrame {
  return errorFrame(streamId, {
    status: 400,
    type: 'invalid_request_error',
    code: LOCAL_ERROR_CODES.unsupported,
    message: `${what} is not supported by this upstream over HTTP`,
  });
}

/** An HTTP error as the `error` frame that a WebSocket would have brought (upstream.md#shapes-of-errors, nested shape). */
export function answerFrame(answer: HttpAnswer, streamId: string | undefined): UpstreamFrame {
  if (answer.status < 400) return protocolFrame(streamId);
  const { status, words, retryAfterMs } = readRefusal(answer, 'answer', Date.now());
  const headers = retryAfterMs === undefined ? undefined : { 'retry-after': String(retryAfterMs / 1_000) };
  return errorFrame(streamId, { ...words, status }, headers);
}

/** An error object that came where events were due: in the stream (vLLM), as a frame without a type, with status 200. */
export function untypedErrorFrame(error: Json, streamId: string | undefined): UpstreamFrame {
  const words = readErrorWords(error);
  const said = speakable(words, reasonOfWords(words, words.status, 'answer'));
  return errorFrame(streamId, { ...said, ...optional('status', words.status) });
}

/** Whether JSON without a type is an upstream's error; heartbeats and greetings like `{}` are none. */
export function isUntypedError(json: Json): boolean {
  return ['error', 'detail'].some((name) => Object.hasOwn(json, name) && Boolean(json[name]));
}

const DEFAULT_TYPE = 'upstream_error';

function errorFrame(
  streamId: string | undefined,
  words: ErrorWords,
  headers?: Readonly<Record<string, string>>,
): UpstreamFrame {
  const { status } = words;
  // A text that quoted the key is about the key and nothing else.
  const quotedKey = Object.values(words).some((each) => String(each).includes(REDACTED));
  const { type = DEFAULT_TYPE, code, message, param }: ErrorWords = quotedKey ? {} : words;
  const plain = `the upstream answered ${status === undefined ? 'an error' : `HTTP ${status}`}`;
  const json = {
    type: 'error',
    ...(status === undefined ? {} : { status }),
    error: { type, code: code ?? null, message: message ?? plain, param: param ?? null },
    ...(headers === undefined ? {} : { headers }),
  };
  const bytes = Buffer.from(JSON.stringify(json), 'utf8');
  return { type: 'error', streamId, bytes, byteLength: bytes.length, json: () => json };
}
