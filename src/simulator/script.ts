import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import type { Context } from './context.ts';

const text = z.string();
const bytes = z
  .int()
  .min(0)
  .max(64 * 1024 * 1024);
const deltas = z.int().min(1).max(10_000_000);

/** One output item that the scripted model produces. */
const ItemSchema = z.discriminatedUnion('type', [
  z
    .strictObject({
      type: z.literal('message'),
      text: text.default(''),
      deltas: deltas.optional().describe('stream this many generated words instead of `text`'),
      bytes: bytes.optional().describe('stream one delta of this many bytes instead of `text`'),
      phase: text.optional(),
    })
    .describe('an answer; its text, or generated words'),
  z
    .strictObject({ type: z.literal('refusal'), text: text.default("I'm sorry, I can't help with that.") })
    .describe('a refusal'),
  z
    .strictObject({
      type: z.literal('reasoning'),
      summary: text.default('Thinking about the request.'),
      text: text.optional().describe('raw reasoning text, as open models stream it'),
    })
    .describe('a reasoning item'),
  z
    .strictObject({
      type: z.literal('function_call'),
      name: text.min(1),
      arguments: z.union([z.string(), z.record(z.string(), z.unknown())]).default({}),
      callId: text.min(1).optional(),
    })
    .describe('a call of a function'),
  z
    .strictObject({ type: z.literal('custom_tool_call'), name: text.min(1), input: text.default('') })
    .describe('a call of a custom tool'),
  z
    .strictObject({
      type: z.literal('image'),
      bytes: bytes.default(1024),
      partials: z.int().min(0).max(16).default(2),
    })
    .describe('a generated image'),
  z
    .strictObject({
      type: z.literal('item'),
      item: z.looseObject({ type: text.min(1) }).describe('any other output item, given out as it is'),
    })
    .describe('any other output item, given out as it is'),
  z
    .strictObject({
      type: z.literal('event'),
      event: z
        .looseObject({ type: text.min(1) })
        .describe('one extra event, numbered and given its stream_id'),
    })
    .describe('one extra event, numbered and given its stream_id'),
]);
export type PlannedItem = z.output<typeof ItemSchema>;

const EndSchema = z.discriminatedUnion('status', [
  z.strictObject({ status: z.literal('completed') }),
  z.strictObject({
    status: z.literal('incomplete'),
    reason: z.enum(['max_output_tokens', 'content_filter', 'max_messages']).default('max_output_tokens'),
  }),
  z.strictObject({
    status: z.literal('failed'),
    code: text.default('server_error'),
    message: text.default('The model failed to generate a response.'),
  }),
  z.strictObject({
    status: z.literal('error'),
    httpStatus: z.int().min(400).max(599).default(500),
    code: text.nullable().default('server_error'),
    message: text.default('The server had an error while processing your request.'),
  }),
  z.strictObject({ status: z.literal('hang') }),
]);
export type PlannedEnd = z.output<typeof EndSchema>;

const RuleSchema = z.strictObject({
  name: text.optional(),
  when: z
    .strictObject({
      model: text.optional().describe('model name, * matches any run of characters'),
      input: text
        .refine(isRegExp, 'not a regular expression')
        .optional()
        .describe('regular expression over the last user text'),
      turn: z.int().min(1).optional().describe('number of user messages in the conversation so far'),
      calls: z.int().min(0).optional().describe('tool calls made since the last user message'),
    })
    .default({}),
  loop: z
    .strictObject({
      calls: z.int().min(1).max(100_000),
      parallel: z.int().min(1).max(128).default(1),
      tools: z
        .array(text.min(1))
        .optional()
        .describe('names to call in turn; by default those of the request'),
    })
    .optional()
    .describe('call tools this often before `items` are produced'),
  items: z.array(ItemSchema).default([]),
  end: EndSchema.default({ status: 'completed' }),
  timeToFirstTokenMs: z.number().min(0).max(3_600_000).optional(),
  tokensPerSecond: z.number().min(0).optional(),
});
export type ScriptRule = z.output<typeof RuleSchema>;

export const ScriptSchema = z.strictObject({
  rules: z.array(RuleSchema).describe('the first rule whose `when` holds answers; none: the default model'),
});
export type Script = z.output<typeof ScriptSchema>;
export type ScriptInput = z.input<typeof ScriptSchema>;

/** A script or option file that does not fit its schema; `problems` has one line a field, path first. */
export class InvalidSimulatorInput extends Error {
  readonly problems: readonly string[];
  constructor(what: string, problems: readonly string[]) {
    super(`${what}: ${problems.join('; ')}`);
    this.problems = problems;
  }
}

/** Reads a YAML model script. Throws `InvalidSimulatorInput`, naming the path of every wrong field. */
export function parseScript(yamlText: string): Script {
  let raw: unknown;
  try {
    raw = parseYaml(yamlText);
  } catch (error) {
    throw new InvalidSimulatorInput('script is not YAML', [
      error instanceof Error ? error.message : String(error),
    ]);
  }
  return parseWith(ScriptSchema, raw, 'script');
}

export function parseWith<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new InvalidSimulatorInput(
    `invalid ${what}`,
    result.error.issues.flatMap((issue) => describeIssue(issue, value, [])),
  );
}

export function matchRule(script: Script, model: string, context: Context): ScriptRule | undefined {
  return script.rules.find(({ when }) => {
    if (when.model !== undefined && !globMatches(when.model, model)) return false;
    if (when.input !== undefined && !new RegExp(when.input).test(context.lastUserText)) return false;
    if (when.turn !== undefined && when.turn !== context.turns) return false;
    return when.calls === undefined || when.calls === context.callsSinceUser;
  });
}

export function globMatches(glob: string, value: string): boolean {
  const pattern = glob
    .split('*')
    .map((part) => part.replace(/[\\^$.+?()[\]{}|]/g, '\\$&'))
    .join('.*');
  return new RegExp(`^${pattern}$`, 's').test(value);
}

/** A union's own message says nothing; the branch that got furthest says what is wrong. */
function describeIssue(issue: z.core.$ZodIssue, given: unknown, prefix: readonly PropertyKey[]): string[] {
  const path = [...prefix, ...issue.path];
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const depth = (branch: readonly z.core.$ZodIssue[]): number =>
      Math.max(...branch.map((i) => i.path.length));
    const branches = [...issue.errors].sort((a, b) => depth(b) - depth(a) || a.length - b.length);
    return (branches[0] ?? []).flatMap((inner) => describeIssue(inner, given, path));
  }
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map(
      (key) =>
        `${placeOf([...path, key])}: found an unknown field; allowed: those that simulate --help lists`,
    );
  const value = path.reduce<unknown>(
    (inner, key) => (inner as Record<PropertyKey, unknown> | null | undefined)?.[key],
    given,
  );
  return [`${placeOf(path)}: found ${inWords(value)}; ${allowedBy(issue)}`];
}

function placeOf(path: readonly PropertyKey[]): string {
  return path.length === 0 ? '(top level)' : path.join('.');
}

function inWords(value: unknown): string {
  const text = value === undefined ? 'nothing' : (JSON.stringify(value) ?? typeof value);
  return text.length > MAX_FOUND_CHARS ? `${text.slice(0, MAX_FOUND_CHARS)}…` : text;
}

const MAX_FOUND_CHARS = 60;

function allowedBy(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_type') return `allowed: ${issue.expected}`;
  if (issue.code === 'invalid_value') return `allowed: ${issue.values.join(', ')}`;
  if (issue.code === 'invalid_union' && 'options' in issue && Array.isArray(issue.options))
    return `allowed: ${issue.options.join(', ')}`;
  return issue.message;
}

function isRegExp(source: string): boolean {
  try {
    new RegExp(source);
    return true;
  } catch {
    return false;
  }
}
