import type { Context } from './context.ts';
import { type Directive, readDirectives } from './directives.ts';
import { isObject, type JsonObject } from './json.ts';
import type { CreateRequest, ToolSpec } from './request.ts';
import { matchRule, type PlannedEnd, type PlannedItem, type Script } from './script.ts';

/** The server's own compaction; no script asks for it. */
export interface Compaction {
  type: 'compaction';
}

/** What one response will consist of. */
export interface Plan {
  items: (PlannedItem | Compaction)[];
  end: PlannedEnd;
  timeToFirstTokenMs?: number | undefined;
  tokensPerSecond?: number | undefined;
  /** No scaffold events and no terminal output, for this response only. */
  sparse?: boolean | undefined;
}

/** Asks the script first, then the directives in the last user text, then the default behaviour. */
export function planResponse(request: CreateRequest, context: Context, script: Script | undefined): Plan {
  const plan = planAnswer(request, context, script);
  const { compactThreshold } = request;
  if (compactThreshold === null || context.tokens < compactThreshold) return plan;
  return { ...plan, items: [{ type: 'compaction' }, ...plan.items] };
}

function planAnswer(request: CreateRequest, context: Context, script: Script | undefined): Plan {
  const rule = script === undefined ? undefined : matchRule(script, request.model, context);
  if (rule === undefined) return directedPlan(request, context);
  const timing = { timeToFirstTokenMs: rule.timeToFirstTokenMs, tokensPerSecond: rule.tokensPerSecond };
  if (rule.loop !== undefined && context.callsSinceUser < rule.loop.calls) {
    const tools =
      rule.loop.tools?.map(
        (name) => request.tools.find((tool) => tool.name === name) ?? plainFunction(name),
      ) ?? request.tools;
    if (tools.length > 0) {
      const calls = Math.min(rule.loop.parallel, rule.loop.calls - context.callsSinceUser);
      return { items: toolCalls(tools, context, calls), end: { status: 'completed' }, ...timing };
    }
  }
  return { items: rule.items, end: rule.end, ...timing };
}

type Directives = ReturnType<typeof readDirectives>;

function directedPlan(request: CreateRequest, context: Context): Plan {
  const directives = readDirectives(context.lastUserText);
  const plan: Plan = {
    items: [],
    end: { status: 'completed' },
    timeToFirstTokenMs: numberOf(directives, 'ttft'),
    tokensPerSecond: numberOf(directives, 'tps'),
    sparse: directives.has('sparse'),
  };
  if (directives.has('reasoning'))
    plan.items.push({ type: 'reasoning', summary: 'Looking at the whole conversation.' });
  const calls = callsToMake(request, context, directives);
  if (calls > 0) {
    plan.items.push(...toolCalls(chosenTools(request), context, calls));
    return plan;
  }
  if (directives.has('image')) {
    plan.items.push({ type: 'image', bytes: numberOf(directives, 'image') ?? 1024, partials: 2 });
  }
  plan.items.push(...answerItems(request, context, directives));
  plan.end = endOf(directives);
  return plan;
}

function answerItems(request: CreateRequest, context: Context, directives: Directives): PlannedItem[] {
  if (directives.has('refuse')) return [{ type: 'refusal', text: "I'm sorry, I can't help with that." }];
  const message: PlannedItem = {
    type: 'message',
    text: directives.get('say') || defaultAnswer(request, context),
  };
  const deltas = numberOf(directives, 'deltas');
  const bytes = numberOf(directives, 'bytes');
  if (deltas !== undefined) message.deltas = Math.max(1, deltas);
  else if (bytes !== undefined) message.bytes = bytes;
  // A single huge text is wanted at times; many of them would only be a way to use up the memory.
  const most = bytes === undefined ? MAX_MESSAGES : 1;
  const copies = Math.min(most, Math.max(1, numberOf(directives, 'messages') ?? 1));
  return Array.from({ length: copies }, () => message);
}

/** Names the whole effective context, so that a reader can tell whether anything was lost or doubled. */
function defaultAnswer(request: CreateRequest, context: Context): string {
  const asked = context.lastUserText.replace(/\s+/g, ' ').slice(0, 80);
  const tools = context.calls === 0 ? '' : ` I called tools ${context.calls} times.`;
  return `You asked: "${asked}".${tools} ${request.model} sees ${context.items} items, turn ${context.turns}, context ${context.hash}.`;
}

function endOf(directives: Directives): PlannedEnd {
  if (directives.has('hang')) return { status: 'hang' };
  if (directives.has('incomplete')) return { status: 'incomplete', reason: 'max_output_tokens' };
  if (directives.has('filtered')) return { status: 'incomplete', reason: 'content_filter' };
  if (directives.has('fail')) {
    return {
      status: 'failed',
      code: directives.get('fail') || 'server_error',
      message: 'The model failed to generate a response.',
    };
  }
  const status = numberOf(directives, 'error');
  if (directives.has('error')) {
    return {
      status: 'error',
      httpStatus: status !== undefined && status >= 400 && status <= 599 ? status : 500,
      code: status === 429 ? 'rate_limit_exceeded' : 'server_error',
      message: 'The server had an error while processing your request.',
    };
  }
  return { status: 'completed' };
}

/** By default every given tool is called once in a conversation, one a response. */
function callsToMake(request: CreateRequest, context: Context, directives: Directives): number {
  const tools = chosenTools(request);
  if (tools.length === 0) return 0;
  const total = numberOf(directives, 'tools');
  const parallel = request.parallelToolCalls
    ? clamp(numberOf(directives, 'parallel') ?? 1, 1, MAX_PARALLEL)
    : 1;
  if (request.toolChoice === 'forced') return parallel;
  const left = total === undefined ? tools.length - context.calls : total - context.callsSinceUser;
  return Math.max(0, Math.min(parallel, left));
}

function chosenTools(request: CreateRequest): readonly ToolSpec[] {
  if (request.toolChoice === 'none') return [];
  if (request.forcedTool === null) return request.tools;
  return request.tools.filter((tool) => tool.name === request.forcedTool);
}

function toolCalls(tools: readonly ToolSpec[], context: Context, count: number): PlannedItem[] {
  return Array.from({ length: count }, (_, offset): PlannedItem => {
    const n = context.calls + offset;
    const tool = tools[n % tools.length] ?? plainFunction('tool');
    if (tool.kind === 'custom') return { type: 'custom_tool_call', name: tool.name, input: `input ${n + 1}` };
    const args = plausibleValue(tool.parameters, tool.parameters, '', n + 1, 0);
    return { type: 'function_call', name: tool.name, arguments: isObject(args) ? args : {} };
  });
}

function plainFunction(name: string): ToolSpec {
  return { kind: 'function', name, parameters: { type: 'object', properties: {} } };
}

/** A value that fits a JSON Schema well enough for a tool to accept it; the same for the same call number. */
function plausibleValue(schema: unknown, root: JsonObject, name: string, n: number, depth: number): unknown {
  if (!isObject(schema) || depth > MAX_SCHEMA_DEPTH) return null;
  for (const key of ['const', 'default']) if (key in schema) return schema[key];
  const { enum: choices, examples } = schema;
  if (Array.isArray(choices) && choices.length > 0) return choices[n % choices.length];
  if (Array.isArray(examples) && examples.length > 0) return examples[0];
  if (typeof schema.$ref === 'string') {
    return plausibleValue(resolveRef(schema.$ref, root), root, name, n, depth + 1);
  }
  for (const key of ['anyOf', 'oneOf', 'allOf']) {
    const branches = schema[key];
    if (Array.isArray(branches) && branches.length > 0)
      return plausibleValue(branches[0], root, name, n, depth + 1);
  }
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  switch (type ?? (isObject(schema.properties) ? 'object' : 'string')) {
    case 'object':
      return plausibleObject(schema, root, n, depth);
    case 'array':
      return Array.from({ length: Math.max(1, numberIn(schema, 'minItems') ?? 1) }, (_, index) =>
        plausibleValue(schema.items ?? {}, root, name, n + index, depth + 1),
      );
    case 'integer':
    case 'number':
      return Math.min(Math.max(n, numberIn(schema, 'minimum') ?? n), numberIn(schema, 'maximum') ?? n);
    case 'boolean':
      return n % 2 === 1;
    case 'null':
      return null;
    default:
      return plausibleString(schema, name, n);
  }
}

function plausibleObject(schema: JsonObject, root: JsonObject, n: number, depth: number): JsonObject {
  const properties = isObject(schema.properties) ? schema.properties : {};
  const required = Array.isArray(schema.required) ? schema.required : Object.keys(properties);
  const made: JsonObject = {};
  for (const [key, value] of Object.entries(properties)) {
    if (required.includes(key)) made[key] = plausibleValue(value, root, key, n, depth + 1);
  }
  return made;
}

function plausibleString(schema: JsonObject, name: string, n: number): string {
  switch (schema.format) {
    case 'date':
      return '2026-01-15';
    case 'date-time':
      return '2026-01-15T09:30:00Z';
    case 'email':
      return `user${n}@example.com`;
    case 'uri':
      return `https://example.com/${n}`;
    case 'uuid':
      return `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
    default: {
      const words = `${name === '' ? 'value' : name} ${n}`;
      const longest = numberIn(schema, 'maxLength');
      return longest === undefined ? words : words.slice(0, longest);
    }
  }
}

function resolveRef(ref: string, root: JsonObject): unknown {
  let at: unknown = root;
  for (const step of ref.replace(/^#\/?/, '').split('/')) {
    if (step !== '') at = isObject(at) ? at[step] : undefined;
  }
  return at;
}

function numberIn(schema: JsonObject, key: string): number | undefined {
  const value = schema[key];
  return typeof value === 'number' ? value : undefined;
}

function numberOf(directives: Directives, name: Directive): number | undefined {
  const raw = directives.get(name);
  if (raw === undefined || !/^\d+$/.test(raw)) return undefined;
  return Math.min(Number(raw), MAX_DIRECTIVE_NUMBER);
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}

/** Recursive schemas must end somewhere. */
const MAX_SCHEMA_DEPTH = 8;
/** A directive comes from any client: 64 Mi bounds what one of them can make the simulator produce at once. */
const MAX_DIRECTIVE_NUMBER = 64 * 1024 * 1024;
const MAX_MESSAGES = 1000;
const MAX_PARALLEL = 128;
