import type { Item } from './context.ts';
import { invalidRequest, missingParameter } from './errors.ts';
import { describeType, isObject, type JsonObject } from './json.ts';

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
  for (const [key, value] of Object.entries(raw)) {
    const check = FIELDS[key];
    if (check !== undefined) check(value, key);
    else if (options.unknownFields === 'reject') throw unknownParameter(key);
  }
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
  if (window !== undefined && !WINDOWS.has(window))
    throw invalidValue('background_options.completion_window', window, [...WINDOWS]);
  if (body.stream === true && window !== undefined && window !== 'soonest')
    throw invalidRequest(
      'This completion window cannot be streamed.',
      'background_options.completion_window',
    );
}

const WINDOWS: ReadonlySet<unknown> = new Set(['soonest', '2h', '8h']);

/** A string becomes one user message; a missing or null input, none. The items must have been checked. */
export function inputItems(input: unknown): Item[] {
  if (typeof input === 'string') return [{ type: 'message', role: 'user', content: input }];
  return Array.isArray(input) ? input.filter(isObject) : [];
}

/** The input of a steer: text or user messages only. Returns null when it is anything else. */
export function steerInput(input: unknown): Item[] | null {
  if (typeof input === 'string') return inputItems(input);
  if (!Array.isArray(input) || input.length === 0) return null;
  const items: Item[] = [];
  for (const item of input) {
    if (!isObject(item) || item.role !== 'user') return null;
    if (!Object.keys(item).every((key) => key === 'type' || key === 'role' || key === 'content')) return null;
    if (item.type !== undefined && item.type !== 'message') return null;
    const { content } = item;
    const isParts =
      Array.isArray(content) && content.every((part) => isObject(part) && STEER_PARTS.has(String(part.type)));
    if (typeof content !== 'string' && !isParts) return null;
    items.push({ ...item, type: 'message' });
  }
  return items;
}

export function checkInput(input: unknown, param = 'input'): void {
  if (input == null || typeof input === 'string') return;
  if (!Array.isArray(input)) throw invalidType(param, 'one of a string or array of objects', input);
  input.forEach((item: unknown, index) => {
    checkItem(item, `${param}[${index}]`);
  });
}

const STEER_PARTS: ReadonlySet<string> = new Set(['input_text', 'input_image', 'input_file']);

type Check = (value: unknown, param: string) => void;

const string: Check = (value, param) => {
  if (typeof value !== 'string') throw invalidType(param, 'a string', value);
};
const boolean: Check = (value, param) => {
  if (typeof value !== 'boolean') throw invalidType(param, 'a boolean', value);
};
const object: Check = (value, param) => {
  if (!isObject(value)) throw invalidType(param, 'an object', value);
};
const anything: Check = () => {};

function nullable(check: Check): Check {
  return (value, param) => {
    if (value !== null) check(value, param);
  };
}

function number(range: { min?: number; max?: number; integer?: boolean }): Check {
  return (value, param) => {
    if (typeof value !== 'number' || (range.integer === true && !Number.isInteger(value))) {
      throw invalidType(param, range.integer === true ? 'an integer' : 'a number', value);
    }
    if (range.min !== undefined && value < range.min) {
      throw invalidRequest(
        `Invalid '${param}': value below minimum value. Expected a value >= ${range.min}, but got ${value} instead.`,
        param,
        range.integer === true ? 'integer_below_min_value' : 'decimal_below_min_value',
      );
    }
    if (range.max !== undefined && value > range.max) {
      throw invalidRequest(
        `Invalid '${param}': value above maximum value. Expected a value <= ${range.max}, but got ${value} instead.`,
        param,
        range.integer === true ? 'integer_above_max_value' : 'decimal_above_max_value',
      );
    }
  };
}

function arrayOf(check: Check): Check {
  return (value, param) => {
    if (!Array.isArray(value)) throw invalidType(param, 'an array', value);
    value.forEach((item: unknown, index) => {
      check(item, `${param}[${index}]`);
    });
  };
}

const INCLUDES: ReadonlySet<unknown> = new Set([
  'file_search_call.results',
  'web_search_call.results',
  'web_search_call.action.sources',
  'message.input_image.image_url',
  'computer_call_output.output.image_url',
  'code_interpreter_call.outputs',
  'reasoning.encrypted_content',
  'message.output_text.logprobs',
]);

/** Every documented field of a create, with the check that live requests get. */
const FIELDS: Readonly<Record<string, Check>> = {
  type: string,
  stream_id: anything,
  generate: boolean,
  model: string,
  input: (value) => checkInput(value),
  previous_response_id: nullable(string),
  conversation: nullable((value, param) => {
    if (typeof value !== 'string' && !isObject(value))
      throw invalidType(param, 'one of a string or object', value);
  }),
  instructions: nullable((value, param) => {
    if (typeof value !== 'string' && !Array.isArray(value)) throw invalidType(param, 'a string', value);
  }),
  tools: nullable(arrayOf(checkTool)),
  tool_choice: nullable((value, param) => {
    if (typeof value !== 'string' && !isObject(value))
      throw invalidType(param, 'one of a string or object', value);
  }),
  parallel_tool_calls: nullable(boolean),
  max_tool_calls: nullable(number({ integer: true, min: 1 })),
  store: nullable(boolean),
  background: nullable(boolean),
  background_options: nullable(object),
  stream: nullable(boolean),
  stream_options: nullable(object),
  context_management: nullable(arrayOf(object)),
  prompt_cache_key: nullable(string),
  prompt_cache_options: nullable(object),
  prompt_cache_retention: nullable(string),
  max_output_tokens: nullable(number({ integer: true, min: 16 })),
  reasoning: nullable(object),
  text: nullable(object),
  temperature: nullable(number({ min: 0, max: 2 })),
  top_p: nullable(number({ min: 0, max: 1 })),
  top_logprobs: nullable(number({ integer: true, min: 0, max: 20 })),
  truncation: nullable(string),
  metadata: nullable(checkMetadata),
  user: nullable(string),
  prompt: nullable(object),
  include: nullable(
    arrayOf((value, param) => {
      if (!INCLUDES.has(value)) throw invalidValue(param, value, [...INCLUDES]);
    }),
  ),
  service_tier: nullable(string),
  safety_identifier: nullable(string),
  moderation: nullable(object),
  access_programs: nullable(object),
  image: nullable(object),
  multi_agent: nullable(object),
  client_metadata: nullable(object),
};

const ROLES: ReadonlySet<unknown> = new Set(['user', 'assistant', 'system', 'developer']);

function checkItem(item: unknown, param: string): void {
  if (!isObject(item)) throw invalidType(param, 'an object', item);
  const type = item.type ?? ('role' in item ? 'message' : undefined);
  if (type === undefined) throw missingParameter(`${param}.type`);
  if (typeof type !== 'string') throw invalidType(`${param}.type`, 'a string', type);
  if (type === 'message') checkMessage(item, param);
  else if (type === 'function_call' || type === 'custom_tool_call')
    requireStrings(item, param, 'call_id', 'name');
  else if (type === 'function_call_output' || type === 'custom_tool_call_output') {
    // Codex leaves the call out (upstream.md#responsecreate); a custom tool's is required.
    if (item.call_id != null || type === 'custom_tool_call_output') requireStrings(item, param, 'call_id');
    if (item.output === undefined) throw missingParameter(`${param}.output`);
    if (typeof item.output !== 'string' && !Array.isArray(item.output)) {
      throw invalidType(`${param}.output`, 'one of a string or array of objects', item.output);
    }
  } else if (type === 'item_reference') requireStrings(item, param, 'id');
}

function checkMessage(item: JsonObject, param: string): void {
  if (!ROLES.has(item.role)) throw invalidValue(`${param}.role`, item.role, [...ROLES]);
  const { content } = item;
  if (typeof content === 'string') return;
  if (content === undefined) throw missingParameter(`${param}.content`);
  if (!Array.isArray(content))
    throw invalidType(`${param}.content`, 'one of an array of objects or string', content);
  content.forEach((part: unknown, index) => {
    const at = `${param}.content[${index}]`;
    if (!isObject(part)) throw invalidType(at, 'an object', part);
    requireStrings(part, at, 'type');
    const isOutput = part.type === 'output_text' || part.type === 'refusal';
    const isInput = part.type === 'input_text' || part.type === 'input_image' || part.type === 'input_file';
    if ((item.role === 'assistant' && isInput) || (item.role !== 'assistant' && isOutput)) {
      throw invalidValue(
        `${at}.type`,
        part.type,
        item.role === 'assistant' ? ['output_text', 'refusal'] : ['input_text', 'input_image', 'input_file'],
      );
    }
    if (part.type === 'input_text' || part.type === 'output_text') requireStrings(part, at, 'text');
  });
}

function checkTool(tool: unknown, param: string): void {
  if (!isObject(tool)) throw invalidType(param, 'an object', tool);
  requireStrings(tool, param, 'type');
  if (tool.type === 'function' || tool.type === 'custom') requireStrings(tool, param, 'name');
}

function checkMetadata(value: unknown, param: string): void {
  object(value, param);
  const entries = isObject(value) ? Object.entries(value) : [];
  if (entries.length > 16) {
    throw invalidRequest(
      `Invalid '${param}': too many properties. Expected an object with at most 16 properties, but got an object with ${entries.length} properties instead.`,
      param,
      'object_above_max_properties',
    );
  }
  for (const [key, entry] of entries) {
    string(entry, `${param}.${key}`);
    if (key.length > 64 || String(entry).length > 512) {
      throw invalidRequest(`Invalid '${param}.${key}': string too long.`, param, 'string_above_max_length');
    }
  }
}

function requireStrings(value: JsonObject, param: string, ...keys: string[]): void {
  for (const key of keys) {
    if (value[key] === undefined) throw missingParameter(`${param}.${key}`);
    string(value[key], `${param}.${key}`);
  }
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

function invalidType(param: string, expected: string, got: unknown) {
  return invalidRequest(
    `Invalid type for '${param}': expected ${expected}, but got ${describeType(got)} instead.`,
    param,
    'invalid_type',
  );
}

function invalidValue(param: string, got: unknown, supported: unknown[]) {
  const list = supported.map((value) => `'${String(value)}'`).join(', ');
  return invalidRequest(
    `Invalid value: ${typeof got === 'string' ? `'${got.slice(0, 64)}'` : describeType(got)}. Supported values are: ${list}.`,
    param,
    'invalid_value',
  );
}

function unknownParameter(param: string) {
  return invalidRequest(`Unknown parameter: '${param}'.`, param, 'unknown_parameter');
}

export function unsupportedParameter(param: string) {
  return invalidRequest(`Unsupported parameter: '${param}'.`, param, 'unsupported_parameter');
}
