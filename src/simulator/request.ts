import type { Item } from './context.ts';
import { invalidRequest, missingParameter } from './errors.ts';
import { isObject, type JsonObject } from './json.ts';
import { type RequestKind, requestProblem, unknownParameter } from './request-schema.ts';

/** A tool that a client runs itself and that the simulated model can therefore call. */
export interface ToolSpec {
  kind: 'function' | 'custom';
  name: string;
  parameters: JsonObject;
}

/** A checked `response.create` (WebSocket) or `POST /v1/responses` body. */
export interface CreateRequest {
  /** The body as received, without `type`, `stream_id` and `generate`. */
  body: JsonObject;
  model: string;
  input: Item[];
  previousResponseId: string | null;
  conversationId: string | null;
  store: boolean;
  generate: boolean;
  tools: ToolSpec[];
  toolChoice: 'auto' | 'none' | 'forced';
  forcedTool: string | null;
  parallelToolCalls: boolean;
  maxOutputTokens: number | null;
  includeEncryptedReasoning: boolean;
  obfuscate: boolean;
  background: boolean;
  /** Agents run side by side, and outputs of tools may be injected. */
  multiAgent: boolean;
  /** Context size from which the server compacts by itself; null: never. Either way it excludes steering. */
  compactThreshold: number | null;
  compacts: boolean;
}

/** Checks a create. Throws `ApiError` 400 in OpenAI's words, naming the first wrong field. */
export function parseCreate(
  raw: JsonObject,
  options: { transport: 'ws' | 'http'; unknownFields: 'ignore' | 'reject' },
): CreateRequest {
  const { type: _type, stream_id: _lane, generate: _generate, ...body } = raw;
  if (options.transport === 'http') {
    for (const key of ['type', 'stream_id', 'generate']) if (key in raw) throw unknownParameter(key);
  }
  checkRequest(raw, 'Create', options.unknownFields);
  checkBackground(body, options.transport);
  const model = body.model;
  if (typeof model !== 'string' && !isObject(body.prompt)) throw missingParameter('model');
  const previousResponseId = typeof body.previous_response_id === 'string' ? body.previous_response_id : null;
  const conversationId = conversationOf(body.conversation);
  if (previousResponseId !== null && conversationId !== null) {
    throw invalidRequest(
      "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. Ensure you are only providing one of them.",
      null,
      'mutually_exclusive_parameters',
    );
  }
  if (
    body.input == null &&
    previousResponseId === null &&
    conversationId === null &&
    !isObject(body.prompt)
  ) {
    throw invalidRequest(
      "One of 'input' or 'previous_response_id' or 'prompt' or 'conversation' must be provided.",
      null,
      'missing_required_parameter',
    );
  }
  const cacheOptions = body.prompt_cache_options;
  const prewarm = isObject(cacheOptions) && cacheOptions.prewarm === true;
  const include = Array.isArray(body.include) ? body.include : [];
  const streamOptions = body.stream_options;
  return {
    body,
    model: typeof model === 'string' ? model : 'prompt-default',
    input: inputItems(body.input),
    previousResponseId,
    conversationId,
    store: body.store !== false,
    generate: !prewarm && raw.generate !== false,
    tools: clientTools(body.tools),
    ...toolChoiceOf(body.tool_choice),
    parallelToolCalls: body.parallel_tool_calls !== false,
    maxOutputTokens: typeof body.max_output_tokens === 'number' ? body.max_output_tokens : null,
    includeEncryptedReasoning: include.includes('reasoning.encrypted_content'),
    obfuscate: !isObject(streamOptions) || streamOptions.include_obfuscation !== false,
    background: body.background === true,
    multiAgent: isObject(body.multi_agent) && body.multi_agent.enabled === true,
    compactThreshold: compactThresholdOf(body.context_management),
    compacts: Array.isArray(body.context_management) && body.context_management.length > 0,
  };
}

function checkBackground(body: JsonObject, transport: 'ws' | 'http'): void {
  if (body.background !== true) {
    if (isObject(body.background_options))
      throw invalidRequest("'background_options' requires 'background' to be true.", 'background_options');
    return;
  }
  if (transport === 'ws') throw unsupportedParameter('background');
  if (body.store === false)
    throw invalidRequest("Background mode requires 'store' to be true.", 'background');
  const options = isObject(body.background_options) ? body.background_options : {};
  const window = options.completion_window;
  if (body.stream === true && window !== undefined && window !== 'soonest')
    throw invalidRequest(
      'This completion window cannot be streamed.',
      'background_options.completion_window',
    );
}

/** Throws `ApiError` 400 for the first thing that the schema does not allow. */
export function checkRequest(
  raw: JsonObject,
  kind: RequestKind,
  unknownFields: 'ignore' | 'reject' = 'ignore',
): void {
  const problem = requestProblem(raw, kind, unknownFields);
  if (problem !== null) throw problem;
}

/** A string becomes one user message; a missing or null input, none. The items must have been checked. */
export function inputItems(input: unknown): Item[] {
  if (typeof input === 'string') return [{ type: 'message', role: 'user', content: input }];
  return Array.isArray(input) ? input.filter(isObject) : [];
}

function conversationOf(value: unknown): string | null {
  if (typeof value === 'string') return value;
  return isObject(value) && typeof value.id === 'string' ? value.id : null;
}

function compactThresholdOf(management: unknown): number | null {
  const rule = Array.isArray(management)
    ? management.find((entry) => isObject(entry) && entry.type === 'compaction')
    : undefined;
  return typeof rule?.compact_threshold === 'number' ? rule.compact_threshold : null;
}

function clientTools(tools: unknown): ToolSpec[] {
  if (!Array.isArray(tools)) return [];
  return tools.filter(isObject).flatMap((tool): ToolSpec[] => {
    const { type, name, parameters } = tool;
    if ((type !== 'function' && type !== 'custom') || typeof name !== 'string') return [];
    return [{ kind: type, name, parameters: isObject(parameters) ? parameters : {} }];
  });
}

function toolChoiceOf(choice: unknown): Pick<CreateRequest, 'toolChoice' | 'forcedTool'> {
  if (choice === 'none') return { toolChoice: 'none', forcedTool: null };
  if (choice === 'required') return { toolChoice: 'forced', forcedTool: null };
  if (isObject(choice) && typeof choice.name === 'string')
    return { toolChoice: 'forced', forcedTool: choice.name };
  return { toolChoice: 'auto', forcedTool: null };
}

export function unsupportedParameter(param: string) {
  return invalidRequest(`Unsupported parameter: '${param}'.`, param, 'unsupported_parameter');
}
