/**
 * Writes src/simulator/request.schema.json, by which the simulator judges requests: what OpenAI's published schema says
 * of them, with what the service is known to do otherwise (docs/upstream.md#requests-that-are-accepted).
 */
import { readFileSync } from 'node:fs';
import { write } from './write.ts';

type Schema = { [key: string]: unknown };
type Definitions = Record<string, Schema>;

const published = JSON.parse(
  readFileSync(new URL('../../test/translate/fixtures/responses.schema.json', import.meta.url), 'utf8'),
) as { $defs: Definitions };

const TEXT = { type: 'string' };
const FLAG = { type: 'boolean' };
const OBJECT = { type: 'object' };
const nullable = (schema: Schema): Schema => ({ anyOf: [schema, { type: 'null' }] });
const oneOf = (...values: string[]): Schema => ({ type: 'string', enum: values });
const ref = (name: string): Schema => ({ $ref: `#/$defs/${name}` });
const list = (items: Schema, least = 0): Schema => ({
  type: 'array',
  items,
  ...(least > 0 && { minItems: least }),
});
const object = (properties: Schema, ...required: string[]): Schema => ({
  type: 'object',
  properties,
  required,
});
const item = (type: string, properties: Schema, ...required: string[]): Schema =>
  object({ type: oneOf(type), id: TEXT, agent: nullable(OBJECT), ...properties }, 'type', ...required);

const PROSE = new Set(['title', 'default', 'deprecated', 'format', 'discriminator', 'description']);
/** Of items that a client gives back, the service misses none of these. */
const NEVER_MISSED = new Set(['id', 'status', 'annotations', 'logprobs', 'detail']);
/** Kinds that are nothing without their id. */
const NEED_THEIR_ID = new Set(['ItemReferenceParam', 'MCPApprovalRequest', 'Prompt', 'ConversationParam-2']);

const ANY_MESSAGE: Schema = {
  id: nullable(TEXT),
  phase: nullable(TEXT),
  status: nullable(TEXT),
  agent: nullable(OBJECT),
};

/** What the published schema does not know yet (sdk), or says more strictly than the service is (seen). */
const CHANGED: Definitions = {
  ModelIdsResponses: TEXT,
  ModelIdsCompaction: TEXT,
  // The service tells messages apart by their role: only an assistant's parts are outputs.
  EasyInputMessage: object(
    {
      type: oneOf('message'),
      role: oneOf('user', 'system', 'developer'),
      content: { oneOf: [TEXT, list(ref('InputContent'))] },
      ...ANY_MESSAGE,
    },
    'role',
    'content',
  ),
  OutputMessage: object(
    {
      type: oneOf('message'),
      role: oneOf('assistant'),
      content: { oneOf: [TEXT, list(ref('OutputMessageContent'))] },
      ...ANY_MESSAGE,
    },
    'role',
    'content',
  ),
  Metadata: nullable({
    type: 'object',
    maxProperties: 16,
    propertyNames: { type: 'string', maxLength: 64 },
    additionalProperties: { type: 'string', maxLength: 512 },
  }),
  AgentMessage: item(
    'agent_message',
    { author: TEXT, recipient: TEXT, content: list(OBJECT) },
    'author',
    'recipient',
    'content',
  ),
  MultiAgentCall: item(
    'multi_agent_call',
    { action: TEXT, arguments: TEXT, call_id: TEXT },
    'action',
    'call_id',
  ),
  MultiAgentCallOutput: item(
    'multi_agent_call_output',
    { action: TEXT, call_id: TEXT, output: list(OBJECT) },
    'call_id',
  ),
  ConfigurationUpdate: item('configuration_update', {}),
  Steer: {
    ...object(
      {
        type: oneOf('response.steer'),
        previous_response_id: TEXT,
        input: { oneOf: [TEXT, list(ref('SteeredMessage'), 1)] },
      },
      'previous_response_id',
      'input',
    ),
    additionalProperties: false,
  },
  SteeredMessage: {
    ...object(
      {
        type: oneOf('message'),
        role: oneOf('user'),
        content: { oneOf: [TEXT, list(ref('InputContent'))] },
      },
      'role',
      'content',
    ),
    additionalProperties: false,
  },
  Inject: object(
    { type: oneOf('response.inject'), response_id: TEXT, input: list(ref('InputItem'), 1) },
    'response_id',
    'input',
  ),
};

const MORE_ITEMS = ['AgentMessage', 'MultiAgentCall', 'MultiAgentCallOutput', 'ConfigurationUpdate'];
const MORE_FIELDS: Schema = {
  generate: FLAG,
  background_options: nullable(
    object({ completion_window: oneOf('soonest', '2h', '8h'), continuation_id: nullable(TEXT) }),
  ),
  access_programs: nullable(OBJECT),
  image: nullable(OBJECT),
  multi_agent: nullable(
    object({ enabled: FLAG, max_concurrent_subagents: nullable({ type: 'integer', minimum: 1 }) }),
  ),
  client_metadata: nullable(OBJECT),
  safety_identifier: nullable({ type: 'string', maxLength: 128 }),
  prompt_cache_options: nullable(
    object({
      mode: oneOf('implicit', 'explicit'),
      ttl: TEXT,
      prewarm: nullable(FLAG),
      comparison_response_id: nullable(TEXT),
    }),
  ),
  stream_options: nullable(object({ include_obfuscation: nullable(FLAG) })),
  max_tool_calls: nullable({ type: 'integer', minimum: 1 }),
  // Judged by the lane table, whose errors have codes of their own.
  stream_id: {},
};
/** Fields of a create that `POST /responses/input_tokens` knows (sdk). */
const COUNTED = [
  'model',
  'input',
  'instructions',
  'previous_response_id',
  'conversation',
  'tools',
  'tool_choice',
  'parallel_tool_calls',
  'reasoning',
  'text',
  'truncation',
];

function known(): Definitions {
  const all: Definitions = { ...structuredClone(published.$defs), ...CHANGED };
  const create = merged(all['ResponsesClientEventResponseCreate'] ?? {}, all);
  const properties: Schema = { ...(create['properties'] as Schema), ...MORE_FIELDS };
  const inputs = all['InputItem'] as { oneOf: Schema[] };
  all['InputItem'] = { oneOf: [...inputs.oneOf, ...MORE_ITEMS.map(ref)] };
  all['Create'] = { ...create, properties, required: [] };
  all['Compact'] = all['CompactResponseMethodPublicBody'] ?? {};
  all['Count'] = object({
    ...Object.fromEntries(COUNTED.map((name) => [name, properties[name]])),
    personality: TEXT,
  });
  return Object.fromEntries(Object.entries(all).map(([name, schema]) => [name, tidy(schema, name, all)]));
}

/** One definition without prose, with its parts merged and what nobody misses made optional. */
function tidy(schema: unknown, name: string, all: Definitions): Schema {
  const walk = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(walk);
    if (typeof value !== 'object' || value === null) return value;
    const whole = 'allOf' in value ? merged(value as Schema, all) : (value as Schema);
    const kept = Object.entries(whole).filter(([key]) => !PROSE.has(key));
    return Object.fromEntries(
      kept.map(([key, inner]) => [
        key,
        key === 'properties'
          ? Object.fromEntries(Object.entries(inner as Schema).map(([field, of]) => [field, walk(of)]))
          : key === 'required'
            ? (inner as string[]).filter((field) => isMissed(field, name))
            : walk(inner),
      ]),
    );
  };
  return walk(schema) as Schema;
}

function isMissed(field: string, name: string): boolean {
  if (NEVER_MISSED.has(field)) return field === 'id' && NEED_THEIR_ID.has(name);
  return !(name === 'FunctionTool' && (field === 'strict' || field === 'parameters'));
}

function merged(schema: Schema, all: Definitions): Schema {
  if (typeof schema['$ref'] === 'string')
    return merged(all[schema['$ref'].slice('#/$defs/'.length)] ?? {}, all);
  const parts = schema['allOf'] as Schema[] | undefined;
  if (parts === undefined) return schema;
  const whole = parts.map((part) => merged(part, all));
  return {
    type: 'object',
    properties: Object.assign({}, ...whole.map((part) => part['properties'] ?? {})) as Schema,
    required: whole.flatMap((part) => (part['required'] as string[] | undefined) ?? []),
  };
}

/** The definitions that some others lead to, by name. */
function used(all: Definitions, roots: readonly string[]): Definitions {
  const found = new Set<string>();
  const visit = (name: string): void => {
    if (found.has(name)) return;
    found.add(name);
    for (const [, target = ''] of JSON.stringify(all[name]).matchAll(/"#\/\$defs\/([^"]+)"/g)) visit(target);
  };
  roots.forEach(visit);
  return Object.fromEntries([...found].sort().map((name) => [name, all[name] ?? {}]));
}

const ROOTS = ['Create', 'Compact', 'Count', 'Steer', 'Inject'];
const ORIGIN = "Derived from OpenAI's OpenAPI document, version 2.3.0, MIT; see NOTICE.";
write({
  'src/simulator/request.schema.json': `${JSON.stringify({ $comment: ORIGIN, $defs: used(known(), ROOTS) }, null, 1)}\n`,
});
