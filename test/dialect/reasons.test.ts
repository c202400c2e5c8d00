import { describe, expect, it } from 'vitest';
import { historyRefusal } from '../../src/dialect/history-refusal.ts';
import { closedLink } from '../../src/dialect/link-down.ts';
import { isPermanentStatus, type Road, reasonOfStatus } from '../../src/dialect/reasons.ts';
import { type HttpAnswer, refusedCall, refusedDial } from '../../src/dialect/refusal.ts';
import {
  isPreviousResponseNotFound,
  isRateLimit,
  isRefused,
  readErrorFrame,
  readFailedResponse,
  toGatewayError,
} from '../../src/dialect/upstream-error.ts';
import { readUsage } from '../../src/dialect/usage.ts';
import { frameFromBytes } from '../../src/translate/peek.ts';
import { answerFrame, untypedErrorFrame } from '../../src/upstream/sse-frames.ts';

const NOW = Date.parse('2026-11-30T12:00:00Z');
const frame = (json: object) => frameFromBytes(Buffer.from(JSON.stringify(json)));
const errorFrame = (json: object) => readErrorFrame(frame({ type: 'error', ...json }), NOW);
const failed = (error: object) =>
  readFailedResponse(frame({ type: 'response.failed', response: { id: 'r', status: 'failed', error } }), NOW);
const answer = (status: number, body: unknown = {}, headers = {}): HttpAnswer => ({
  status,
  headers,
  body: typeof body === 'string' ? body : JSON.stringify(body),
});

/** What each road makes of one HTTP status with the same body. */
function reasons(status: number, error: object = { message: 'm' }): Record<Road, string> {
  return {
    upgrade: refusedDial(answer(status, { error }), NOW).error.reason,
    frame: toGatewayError(errorFrame({ status, error })).reason,
    answer: toGatewayError(readErrorFrame(answerFrame(answer(status, { error }), undefined))).reason,
    failed: reasonOfStatus(status, 'failed'),
    call: refusedCall(answer(status, { error }), NOW).reason,
  };
}

describe('the reason of an HTTP status', () => {
  it.each([
    [402, 'UPSTREAM_QUOTA_EXCEEDED'],
    [405, 'UPSTREAM_UNAVAILABLE'],
    [407, 'UPSTREAM_UNAVAILABLE'],
    [408, 'UPSTREAM_UNAVAILABLE'],
    [425, 'UPSTREAM_UNAVAILABLE'],
    [426, 'UPSTREAM_UNAVAILABLE'],
    [429, 'UPSTREAM_RATE_LIMITED'],
    [499, 'UPSTREAM_UNAVAILABLE'],
    [502, 'UPSTREAM_UNAVAILABLE'],
    [503, 'UPSTREAM_UNAVAILABLE'],
    [504, 'UPSTREAM_UNAVAILABLE'],
    [521, 'UPSTREAM_UNAVAILABLE'],
    [529, 'UPSTREAM_OVERLOADED'],
    [401, 'UPSTREAM_AUTH'],
  ])('%d is the same on every road: %s', (status, reason) => {
    expect(new Set(Object.values(reasons(status)))).toEqual(new Set([reason]));
  });

  it.each([
    // Nothing of a client is in a handshake: it cannot be at fault.
    [400, 'UPSTREAM_PROTOCOL', 'UPSTREAM_INVALID_REQUEST'],
    [403, 'UPSTREAM_AUTH', 'UPSTREAM_PERMISSION_DENIED'],
    [404, 'UPSTREAM_UNAVAILABLE', 'UPSTREAM_NOT_FOUND'],
    [410, 'UPSTREAM_UNAVAILABLE', 'UPSTREAM_NOT_FOUND'],
    [413, 'UPSTREAM_PROTOCOL', 'FRAME_TOO_LARGE'],
    [422, 'UPSTREAM_PROTOCOL', 'UPSTREAM_INVALID_REQUEST'],
    [424, 'UPSTREAM_UNAVAILABLE', 'UPSTREAM_ERROR'],
    [451, 'UPSTREAM_AUTH', 'UPSTREAM_PERMISSION_DENIED'],
    [500, 'UPSTREAM_UNAVAILABLE', 'UPSTREAM_ERROR'],
    [520, 'UPSTREAM_UNAVAILABLE', 'UPSTREAM_ERROR'],
  ])('%d differs at the handshake (%s) from a request (%s)', (status, upgrade, request) => {
    const said = reasons(status);
    expect([said.upgrade, said.frame, said.answer, said.call]).toEqual([upgrade, request, request, request]);
  });

  it('of a response that had begun is that it failed', () => {
    expect([500, 424, 429, 402].map((status) => reasons(status).failed)).toEqual([
      'RESPONSE_FAILED',
      'RESPONSE_FAILED',
      'UPSTREAM_RATE_LIMITED',
      'UPSTREAM_QUOTA_EXCEEDED',
    ]);
  });

  it.each([200, 204, 301, 302, 307])('%d is no error and no answer', (status) => {
    const { upgrade, call } = reasons(status);
    expect([upgrade, call, isPermanentStatus(status)]).toEqual([
      'UPSTREAM_PROTOCOL',
      'UPSTREAM_PROTOCOL',
      true,
    ]);
  });

  it('proves that a request did not run only where it is a refusal', () => {
    const proved = [400, 401, 402, 403, 404, 413, 429, 408, 424, 499, 500, 502, 503, 504];
    expect(proved.filter((status) => isRefused(errorFrame({ status, error: {} })))).toEqual([
      400, 401, 402, 403, 404, 413, 429,
    ]);
  });

  it('asks to wait where waiting helps', () => {
    const asks = (json: object) => isRateLimit(errorFrame(json));
    expect([429, 503, 529, 500, 402, 408].map((status) => asks({ status, error: {} }))).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
    ]);
    expect(asks({ status: 503, error: { code: 'upstream_not_reached' } })).toBe(false);
  });
});

describe('the reason of an error frame', () => {
  it.each([
    [{ error: { code: 'too_many_requests', message: 'm' } }, 'UPSTREAM_RATE_LIMITED'],
    [{ error: { code: 'Too_Many_Requests' } }, 'UPSTREAM_RATE_LIMITED'],
    [{ error: { code: 429 } }, 'UPSTREAM_RATE_LIMITED'],
    [{ error: { code: '429' } }, 'UPSTREAM_RATE_LIMITED'],
    [{ code: 429, message: 'm' }, 'UPSTREAM_RATE_LIMITED'],
    [{ status_code: '429', error: {} }, 'UPSTREAM_RATE_LIMITED'],
    [{ error: { status: 429 } }, 'UPSTREAM_RATE_LIMITED'],
    [{ error: { type: 'rate_limit_error' } }, 'UPSTREAM_RATE_LIMITED'],
    [{ error: { type: 'RateLimitError', code: 429 } }, 'UPSTREAM_RATE_LIMITED'],
    [{ status: 429, error: { code: 'insufficient_quota' } }, 'UPSTREAM_QUOTA_EXCEEDED'],
    [{ status: 400, error: { code: 'model_not_found' } }, 'UPSTREAM_NOT_FOUND'],
    [{ error: { type: 'NotFoundError', code: 404 } }, 'UPSTREAM_NOT_FOUND'],
    [{ error: { type: 'invalid_request_error' } }, 'UPSTREAM_INVALID_REQUEST'],
    [{ status: 400, detail: 'Unsupported parameter: stream_id' }, 'UPSTREAM_INVALID_REQUEST'],
    [{ error: 'plain words' }, 'UPSTREAM_ERROR'],
    [{ status: 429, error: 'plain words' }, 'UPSTREAM_RATE_LIMITED'],
    [{ error: null, message: 'm' }, 'UPSTREAM_ERROR'],
    [{}, 'UPSTREAM_ERROR'],
    [{ error: [], status: 'failed' }, 'UPSTREAM_ERROR'],
  ])('%j', (json, reason) => {
    expect(toGatewayError(errorFrame(json)).reason).toBe(reason);
  });

  it.each(['constructor', '__proto__', 'toString', 'hasOwnProperty', 'valueOf'])(
    'is not found on the prototype: %s',
    (name) => {
      const words = JSON.parse(`{"code":"${name}","type":"${name}","message":"m"}`) as object;
      expect(toGatewayError(errorFrame({ status: 400, error: words })).reason).toBe(
        'UPSTREAM_INVALID_REQUEST',
      );
      expect(toGatewayError(errorFrame({ error: words })).reason).toBe('UPSTREAM_ERROR');
      expect(toGatewayError(failed(words)).reason).toBe('RESPONSE_FAILED');
      expect(refusedCall(answer(400, { error: words }), NOW).reason).toBe('UPSTREAM_INVALID_REQUEST');
    },
  );

  it.each([
    [{ error: 'plain words' }, 'plain words'],
    [{ detail: 'Not Found' }, 'Not Found'],
    [{ detail: { message: 'inner' } }, 'inner'],
    [{ detail: { error: { message: 'innermost' } } }, 'innermost'],
    [
      { detail: [{ loc: ['body', 'input'], msg: 'field required' }, { msg: 'too short' }] },
      'input: field required; too short',
    ],
    [{ detail: [{ loc: ['body', 'input', 1, 'id'], msg: 'Field required' }] }, 'input.1.id: Field required'],
    [{ error: { message: { message: 'deep' } } }, 'deep'],
    [{ errors: [{ message: 'the first' }, { message: 'the second' }] }, 'the first'],
    [{ error: { message: 'nested' } }, 'nested'],
    [{ message: 'flat' }, 'flat'],
  ])('%j says "%s"', (json, said) => {
    expect(toGatewayError(errorFrame(json)).message).toBe(said);
    expect(toGatewayError(readErrorFrame(untypedErrorFrame(json, undefined))).message).toBe(said);
  });
});

describe('the reason of a failed response', () => {
  it.each([
    [{ code: 'server_error', message: 'm' }, 'RESPONSE_FAILED'],
    [{ code: 'vector_store_timeout' }, 'RESPONSE_FAILED'],
    [{ code: 500 }, 'RESPONSE_FAILED'],
    [{ code: 'rate_limit_exceeded' }, 'UPSTREAM_RATE_LIMITED'],
    [{ code: '429' }, 'UPSTREAM_RATE_LIMITED'],
    [{ code: 'context_length_exceeded' }, 'UPSTREAM_INVALID_REQUEST'],
    [{ code: 'previous_response_not_found' }, 'CHAIN_LOST'],
  ])('%j is %s', (error, reason) => {
    expect(toGatewayError(failed(error)).reason).toBe(reason);
  });
});

describe('a parent that cannot be used', () => {
  it.each([
    [400, { code: 'previous_response_not_found' }],
    [undefined, { code: 'previous_response_not_found' }],
    [400, { code: null, param: null, message: "Previous response with id 'resp_0' not found." }],
    [404, { code: 404, message: "Response with id 'resp_0' not found." }],
    [404, { code: 'not_found', param: 'previous_response_id', message: 'Response not found' }],
    [400, { code: 'invalid_previous_response_id', message: 'Unknown previous_response_id.' }],
    [400, { message: 'Invalid `previous_response_id`.' }],
    [400, { message: "Invalid 'previous_response_id'." }],
    [400, { code: 'unsupported_parameter', message: 'Unsupported parameter: previous_response_id' }],
    [
      400,
      {
        param: 'previous_response_id',
        message: 'Previous response cannot be used for this organization due to Zero Data Retention.',
      },
    ],
    [410, { message: 'previous_response_id has expired' }],
    [undefined, { code: 'PreviousResponseNotFound' }],
    [undefined, { code: 'PREVIOUS_RESPONSE_NOT_FOUND' }],
    [undefined, { type: 'previous_response_not_found' }],
    [undefined, { code: 'previous_response_expired' }],
    [404, { code: 'response_not_found', message: 'Not found' }],
    [404, { param: 'body.previous_response_id', message: 'not found' }],
    [404, { message: 'Could not find response with ID resp_0' }],
    [404, { message: "No response found with id 'resp_0'." }],
    [404, { message: "The response 'resp_0' was not found" }],
    [404, { message: 'Response not found: resp_0' }],
    [404, { message: "Response resp_0 doesn't exist" }],
    [404, { message: 'previousResponseId not found' }],
    [400, { message: 'This model does not support previous_response_id' }],
    [400, { message: "The `previous_response_id` parameter isn't supported" }],
    [400, { message: 'Unrecognized request argument supplied: previous_response_id' }],
    [400, { message: "previous_response_id 'resp_0' is invalid" }],
    [400, { message: "previous_response_id resp_0 doesn't exist" }],
    [400, { message: 'Unable to find previous response resp_0' }],
    [400, { message: 'Previous response was evicted from the cache' }],
    [400, { message: 'previous_response_id is not available when store=false' }],
    [400, { message: 'Cannot continue from previous response: it has been deleted' }],
  ])('is told by status %s and %j', (status, error) => {
    expect(isPreviousResponseNotFound(errorFrame({ status, error }))).toBe(true);
    expect(isPreviousResponseNotFound(failed(error))).toBe(true);
    if (status !== undefined) {
      const overHttp = readErrorFrame(answerFrame(answer(status, { error }), undefined));
      expect(isPreviousResponseNotFound(overHttp)).toBe(true);
    }
  });

  it.each([
    [400, { message: 'Item with id rs_1 not found.' }],
    [404, { code: 'model_not_found', message: 'The model `gpt-x` was not found.' }],
    [429, { param: 'previous_response_id', message: 'slow down' }],
    [500, { message: 'previous response not found in cache, internal error' }],
    [400, { param: 'input', message: 'No tool output found for function call call_1.' }],
    [400, { message: 'No tool output found for function call call_1 of the previous response.' }],
    [400, { code: 'context_length_exceeded', message: 'previous_response_id resp_0: no longer fits' }],
    [404, { message: 'Not Found' }],
    [400, { message: 'The response was filtered. Its language is not supported.' }],
    [undefined, { code: 'server_error', message: 'previous response: the tool was not found' }],
    [undefined, { message: 'No response for 30 seconds from the model' }],
    [undefined, { message: 'no response by the backend' }],
    [undefined, { message: 'Response generation failed: file not found' }],
    [undefined, { message: 'Response could not be completed: tool server does not exist' }],
  ])('is not meant by status %s and %j', (status, error) => {
    expect(isPreviousResponseNotFound(errorFrame({ status, error }))).toBe(false);
    if (status === undefined) expect(isPreviousResponseNotFound(failed(error))).toBe(false);
  });
});

it('reads the validation errors of FastAPI, and a list with one error', () => {
  const told = (status: number, body: unknown) =>
    readErrorFrame(answerFrame(answer(status, body), undefined), NOW);
  const detail = [{ loc: ['body', 'previous_response_id'], msg: 'Extra inputs are not permitted' }];
  expect(isPreviousResponseNotFound(told(422, { detail }))).toBe(true);
  const google = [{ error: { code: 429, message: 'Please retry in 43.5s.', status: 'RESOURCE_EXHAUSTED' } }];
  expect(told(429, google)).toMatchObject({
    retryAfterMs: 43_500,
    facts: { message: 'Please retry in 43.5s.' },
  });
});

describe('a refused history', () => {
  it.each([
    ['input.1.id: Field required', 'id_missing'],
    [
      "[{'type': 'missing', 'loc': ('body', 'input', 'list', 1, 'id'), 'msg': 'Field required'}]",
      'id_missing',
    ],
    [
      'messages.4: `tool_use` ids were found without `tool_result` blocks immediately after: t',
      'call_unanswered',
    ],
    [
      "messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
      'output_unasked',
    ],
    ['Could not decrypt the provided reasoning content.', 'encrypted_content'],
    ['The response must be JSON.', undefined],
  ])('is known by its words: %s', (message, refusal) => {
    expect(historyRefusal(errorFrame({ status: 400, error: { message } }))).toBe(refusal);
  });
});

describe('a close of the link', () => {
  it('blames the frame for a frame that is too large, and nobody else', () => {
    const { error, bystanderError } = closedLink(1009, 'too big');
    expect([error.reason, bystanderError?.reason]).toEqual(['FRAME_TOO_LARGE', 'UPSTREAM_LINK_LOST']);
  });

  it.each([
    [3000, 'UPSTREAM_AUTH'],
    [3003, 'UPSTREAM_PERMISSION_DENIED'],
    [4402, 'UPSTREAM_QUOTA_EXCEEDED'],
    [4999, 'UPSTREAM_LINK_LOST'],
    [0, 'UPSTREAM_LINK_LOST'],
  ])('%d says %s', (code, reason) => {
    expect(closedLink(code, '').error.reason).toBe(reason);
  });

  it.each([1000, 1001, 1006, 1008, 1011, 4402])('%d is the same for every turn', (code) => {
    expect(closedLink(code, '').bystanderError).toBeUndefined();
  });
});

describe('usage', () => {
  it('is read where numbers are, own members only', () => {
    const usage = { input_tokens: 5, input_tokens_details: { cached_tokens: -1 }, output_tokens: '3' };
    expect(readUsage(usage)).toEqual({
      inputTokens: 5,
      cachedInputTokens: 0,
      cacheWriteTokens: 0,
      outputTokens: 0,
      reasoningTokens: 0,
    });
    const attributed = readUsage({
      attribution: {
        items: { fc_1: { output_tokens: 7, cached_tokens: -1, content: [] }, msg_2: 'x' },
        request_fields: { tools: { input_tokens: 5.5 } },
      },
    });
    const none = { inputTokens: 0, cachedInputTokens: 0, cacheWriteTokens: 0, outputTokens: 0 };
    expect(attributed?.attribution).toEqual({
      items: new Map([['fc_1', { ...none, outputTokens: 7 }]]),
      fields: new Map([['tools', { ...none, inputTokens: 5 }]]),
    });
    expect(readUsage({ attribution: { items: [], request_fields: 3 } })).not.toHaveProperty('attribution');
    expect([null, undefined, [], 'x', 3].map(readUsage)).toEqual(Array(5).fill(undefined));
  });

  it('is whole numbers whose sums stay exact, whatever an upstream makes up', () => {
    const read = readUsage({ input_tokens: 12.5, output_tokens: 1e308 });
    expect(read).toMatchObject({ inputTokens: 12, outputTokens: 1e12 });
  });
});
