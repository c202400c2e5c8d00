/**
 * Prints what the upstream has and the proto has not, by message and field; exit code 1 if there is anything.
 *
 *   node scripts/schema-drift.ts [--openai DIR] [--schema FILE]
 *
 * DIR is an unpacked `openai` package (default: the installed one), FILE a JSON Schema with $defs as in
 * test/translate/fixtures (the default).
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Api, loadApi } from '../src/translate/api.ts';
import { compare, type Gap } from './drift/compare.ts';
import { readJsonSchema } from './drift/json-schema.ts';
import type { Shape } from './drift/shape.ts';
import { readDeclarations } from './drift/typescript.ts';

export interface DriftGap extends Gap {
  readonly source: 'openai' | 'beta' | 'schema';
}

/** Known and wanted: `Message.key`, and why. */
const ALLOWED: ReadonlyMap<string, string> = new Map([
  ['CreateBody.type', 'the gateway writes it'],
  ['CreateBody.stream_id', 'StartTurn.lane_id says it'],
  ['CreateBody.stream', 'implied by a session'],
  ['CreateBody.input string form', 'a list of one message says the same'],
  ['CompactBody.input string form', 'a list of one message says the same'],
]);

/** Names of the upstream's definitions beside the messages that stand for them. */
const ROOTS = {
  openai: [
    ['ResponsesServerEvent', 'Event'],
    ['ResponsesClientEvent.ResponseCreate', 'CreateBody'],
    ['ResponseInputItem', 'InputItem'],
    ['ResponseOutputItem', 'OutputItem'],
    ['ResponseItem', 'OutputItem'],
    ['ResponseCompactParams', 'CompactBody'],
    ['CompactedResponse', 'CompactedResponse'],
  ],
  beta: [
    ['BetaResponsesServerEvent', 'Event'],
    ['BetaResponsesClientEvent.ResponseCreate', 'CreateBody'],
    ['BetaResponseInputItem', 'InputItem'],
    ['BetaResponseOutputItem', 'OutputItem'],
    ['BetaResponseItem', 'OutputItem'],
  ],
  schema: [
    ['ResponsesServerEvent', 'Event'],
    ['ResponsesClientEventResponseCreate', 'CreateBody'],
    ['InputItem', 'InputItem'],
    ['OutputItem', 'OutputItem'],
    ['CompactResponseMethodPublicBody', 'CompactBody'],
    ['CompactResource', 'CompactedResponse'],
  ],
} as const;

const OPENAI_DIR = fileURLToPath(new URL('../node_modules/openai', import.meta.url));
const SCHEMA_FILE = fileURLToPath(
  new URL('../test/translate/fixtures/responses.schema.json', import.meta.url),
);

export function findDrift(
  openaiDir = OPENAI_DIR,
  schemaFile = SCHEMA_FILE,
  api: Api = loadApi(),
): DriftGap[] {
  const sources = {
    openai: readDeclarations(openaiDir),
    beta: readDeclarations(openaiDir, 'beta'),
    schema: readJsonSchema(readFileSync(schemaFile, 'utf8')),
  };
  const gaps = (['openai', 'beta', 'schema'] as const).flatMap((source) =>
    ROOTS[source].flatMap(([name, message]) =>
      gapsOf(sources[source](name), message, api)
        .filter((gap) => !isAllowed(gap))
        .map((gap) => ({ source, ...gap })),
    ),
  );
  return [
    ...new Map(gaps.map((gap) => [`${gap.source} ${gap.message} ${gap.field} ${gap.missing}`, gap])).values(),
  ];
}

function gapsOf(shape: Shape, message: string, api: Api): Gap[] {
  if (message !== 'Event') return compare(shape, api.plan(message));
  return shape.objects.flatMap((object) => {
    const [type = ''] = object.members.get('type')?.literals ?? [];
    const arm = api
      .plan('Event')
      .slots.flatMap((slot) => slot.fields)
      .find((field) => field.kinds.includes(type));
    if (arm === undefined)
      return [{ message: 'Event', field: type, missing: 'event', upstream: object.name }];
    const only = {
      strings: false,
      numbers: false,
      booleans: false,
      any: false,
      lists: [],
      maps: [],
      objects: [object],
    };
    return compare(only, arm.message(), ['type', 'stream_id']);
  });
}

function isAllowed({ message, field, missing }: Gap): boolean {
  return ALLOWED.has(`${message}.${field}`) || ALLOWED.has(`${message}.${field} ${missing}`);
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { openai: { type: 'string' }, schema: { type: 'string' } } });
  const gaps = findDrift(values.openai, values.schema);
  if (gaps.length > 0) console.table(gaps);
  console.log(gaps.length === 0 ? 'The proto has everything.' : `${gaps.length} gaps.`);
  process.exitCode = gaps.length === 0 ? 0 : 1;
}
