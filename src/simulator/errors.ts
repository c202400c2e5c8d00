import type { JsonObject } from './json.ts';

/** A refusal in the API's own terms; how it is framed depends on the transport. */
export class ApiError extends Error {
  readonly status: number;
  readonly type: string;
  /** A number where a server counts its errors by their status. */
  readonly code: string | number | null;
  readonly param: string | null;
  /** Keys left out of the frame, as some live errors do. */
  readonly omit: readonly Omittable[];
  readonly headers: Record<string, string> | undefined;

  constructor(fields: {
    status: number;
    message: string;
    type?: string | undefined;
    code?: string | number | null | undefined;
    param?: string | null | undefined;
    omit?: readonly Omittable[] | undefined;
    headers?: Record<string, string> | undefined;
  }) {
    super(fields.message);
    this.status = fields.status;
    this.type = fields.type ?? defaultType(fields.status);
    this.code = fields.code ?? null;
    this.param = fields.param ?? null;
    this.omit = fields.omit ?? [];
    this.headers = fields.headers;
  }

  /** The same told in another way. */
  with(change: Partial<Pick<ApiError, 'code' | 'param' | 'type' | 'omit'>>): ApiError {
    const { status, message, type, code, param, omit, headers } = this;
    return new ApiError({ status, message, type, code, param, omit, headers, ...change });
  }
}

type Omittable = 'code' | 'param' | 'status';

/** Whatever goes wrong inside one request must end that request only. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError({
    status: 500,
    code: 'server_error',
    message: `The simulator failed: ${error instanceof Error ? error.message : String(error)}`,
  });
}

/** OpenAI's two, FastAPI's `{"detail"}`, and an `error` that is a text. */
export type ErrorShape = 'nested' | 'flat' | 'detail' | 'text';

export interface ErrorFrameStyle {
  shape: ErrorShape;
  /** Where `headers` of an error go: OpenAI's spec says inside, Codex reads outside. */
  headersPlace: 'inside' | 'outside' | 'both';
  streamId?: string | undefined;
  sequenceNumber?: number | undefined;
}

/** The WebSocket form of an error: one JSON text frame. */
export function errorFrame(error: ApiError, style: ErrorFrameStyle): string {
  const stream = style.streamId === undefined ? {} : { stream_id: style.streamId };
  const sequence = style.sequenceNumber === undefined ? {} : { sequence_number: style.sequenceNumber };
  if (style.shape === 'flat') {
    return JSON.stringify({
      type: 'error',
      code: error.code,
      message: error.message,
      param: error.param,
      sequence_number: style.sequenceNumber ?? 0,
      ...stream,
    });
  }
  if (style.shape === 'detail') return JSON.stringify({ detail: error.message, ...stream });
  if (style.shape === 'text') return JSON.stringify({ type: 'error', error: error.message, ...stream });
  const headers = error.headers === undefined ? {} : { headers: error.headers };
  return JSON.stringify({
    type: 'error',
    ...(error.omit.includes('status') ? {} : { status: error.status }),
    ...stream,
    ...sequence,
    error: { ...errorBody(error), ...(style.headersPlace === 'outside' ? {} : headers) },
    ...(style.headersPlace === 'inside' ? {} : headers),
  });
}

/** The HTTP form: `{"error": …}`, always with all four keys. */
export function errorResponseBody(error: ApiError, shape: ErrorShape = 'nested'): JsonObject {
  if (shape === 'detail') return { detail: error.message };
  if (shape === 'text') return { error: error.message };
  return {
    error: { message: error.message, type: error.type, param: error.param, code: error.code },
  };
}

function errorBody(error: ApiError): JsonObject {
  const { type, code, message, param } = error;
  const body: JsonObject = { type, code, message, param };
  for (const key of error.omit) if (key !== 'status') delete body[key];
  return body;
}

function defaultType(status: number): string {
  if (status === 429) return 'rate_limit_error';
  return status >= 500 ? 'server_error' : 'invalid_request_error';
}

export function invalidRequest(message: string, param: string | null, code: string | null = null): ApiError {
  return new ApiError({ status: 400, message, param, code });
}

export function missingParameter(param: string): ApiError {
  return invalidRequest(`Missing required parameter: '${param}'.`, param, 'missing_required_parameter');
}

export function previousResponseNotFound(id: string): ApiError {
  return invalidRequest(
    `Previous response with id '${id}' not found.`,
    'previous_response_id',
    'previous_response_not_found',
  );
}

/** The live variant without a code or param that follows connection rotations. */
export function codelessPreviousResponseInvalid(): ApiError {
  return new ApiError({ status: 400, message: 'Invalid `previous_response_id`.', omit: ['code', 'param'] });
}

export function invalidStreamId(): ApiError {
  return invalidRequest(
    "The 'stream_id' field must be a non-empty string with at most 256 characters and may only contain letters, numbers, underscores, hyphens, and periods.",
    'stream_id',
    'invalid_stream_id',
  );
}

export function streamLimitReached(limit: number): ApiError {
  return invalidRequest(
    `This WebSocket connection has reached its maximum number of distinct stream IDs (${limit}). Reuse an existing stream_id or open a new WebSocket connection.`,
    'stream_id',
    'websocket_stream_limit_reached',
  );
}

/** As the guide prints it: without any `param` key. */
export function connectionLimitReached(ageMs: number): ApiError {
  return new ApiError({
    status: 400,
    code: 'websocket_connection_limit_reached',
    omit: ['param'],
    message: `Responses websocket connection limit reached (${Math.max(1, Math.round(ageMs / 60_000))} minutes). Create a new websocket connection to continue.`,
  });
}

export function missingToolOutput(callId: string): ApiError {
  return invalidRequest(`No tool output found for function call ${callId}.`, 'input');
}

export function missingToolCall(callId: string): ApiError {
  return invalidRequest(`No tool call found for function call output with call_id ${callId}.`, 'input');
}

export function itemNotFound(id: string): ApiError {
  return new ApiError({
    status: 404,
    param: 'input',
    message: `Item with id '${id}' not found. Items are not persisted when \`store\` is set to false. Try again with \`store\` set to true, or remove this item from your input.`,
  });
}

export function invalidEncryptedContent(): ApiError {
  return invalidRequest(
    'The encrypted content could not be verified. Reason: Encrypted content could not be decrypted or parsed.',
    null,
    'invalid_encrypted_content',
  );
}

export function modelNotFound(model: string): ApiError {
  return new ApiError({
    status: 404,
    code: 'model_not_found',
    param: 'model',
    message: `The model '${model}' does not exist or you do not have access to it.`,
  });
}

export function invalidApiKey(): ApiError {
  return new ApiError({
    status: 401,
    code: 'invalid_api_key',
    message:
      'Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.',
  });
}

export function responseNotFound(id: string): ApiError {
  return new ApiError({ status: 404, param: 'response_id', message: `Response with id '${id}' not found.` });
}
