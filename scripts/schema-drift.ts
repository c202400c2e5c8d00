/**
 * Prints what the upstream has and we have not, by message and field; exit code 1 if there is anything: client events,
 * every arm of every union, fields, query parameters, and literals that our code decides by.
 *
 *   node scripts/schema-drift.ts [--openai DIR] [--python FILE] [--schema FILE] [--newest]
 *
 * DIR is an unpacked `openai` package (default: the installed one), FILE of --schema a JSON Schema with $defs as in
 * test/translate/fixtures (the default), FILE of --python what test/judges/openai_python.py prints of the Python package.
 * --newest installs the newest packages of both languages into a temporary folder first, for a nightly run.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Api, loadApi } from '../src/translate/api.ts';
import { compare, type Gap } from './drift/compare.ts';
import { terminalGap, undecided } from './drift/decided.ts';
import { readJsonSchema } from './drift/json-schema.ts';
import { NOTHING, type ObjectShape, type Shape } from './drift/shape.ts';
import { readDeclarations } from './drift/typescript.ts';

export interface DriftGap extends Gap {
  readonly source: Source;
}

type Source = 'openai' | 'beta' | 'schema' | 'python';

/** Known and wanted: `Message.key`, and why. */
const ALLOWED: ReadonlyMap<string, string> = new Map([
  ['CreateBody.type', 'the gateway writes it'],
  ['CreateBody.stream_id', 'StartTurn.lane_id says it'],
  ['CreateBody.stream', 'implied by a session'],
  ['CreateBody.input string form', 'a list of one message says the same'],
  ['CompactBody.input string form', 'a list of one message says the same'],
  ['CountBody.input string form', 'a list of one message says the same'],
  ['SteerTurn.input string form', 'a list of one message says the same'],
  ['StreamResponseRequest.stream', 'the call says it: GetResponse or StreamResponse'],
  ['CreateBody.betas', 'a header, which the upstream has by its configuration'],
  ['StreamResponseRequest.betas', 'a header, which the upstream has by its configuration'],
  ['ListInputItemsRequest.betas', 'a header, which the upstream has by its configuration'],
  ['CountBody.betas', 'a header, which the upstream has by its configuration'],
]);

/** Stands for the messages of the unions, each arm of which has a message of its own. */
type Target = 'Event' | 'client event' | (string & {});

/** Names of the upstream's definitions beside the messages that stand for them. */
const ROOTS: Readonly<Record<Source, readonly (readonly [string, Target])[]>> = {
  openai: [
    ['ResponsesServerEvent', 'Event'],
    ['ResponsesClientEvent', 'client event'],
    ['ResponseInputItem', 'InputItem'],
    ['ResponseOutputItem', 'OutputItem'],
    ['ResponseItem', 'OutputItem'],
    ['Response', 'Response'],
    ['ResponseCreateParams', 'CreateBody'],
    ['ResponseCompactParams', 'CompactBody'],
    ['CompactedResponse', 'CompactedResponse'],
    ['ResponseRetrieveParams', 'StreamResponseRequest'],
    ['InputItems.InputItemListParams', 'ListInputItemsRequest'],
    ['InputItems.ResponseItemList', 'InputItemPage'],
    ['InputTokens.InputTokenCountParams', 'CountBody'],
    ['InputTokens.InputTokenCountResponse', 'InputTokenCount'],
    ['Models.Model', 'Model'],
  ],
  beta: [
    ['BetaResponsesServerEvent', 'Event'],
    ['BetaResponsesClientEvent', 'client event'],
    ['BetaResponseInputItem', 'InputItem'],
    ['BetaResponseOutputItem', 'OutputItem'],
    ['BetaResponseItem', 'OutputItem'],
    ['BetaResponse', 'Response'],
    ['ResponseCreateParams', 'CreateBody'],
    ['ResponseRetrieveParams', 'StreamResponseRequest'],
    ['InputItems.InputItemListParams', 'ListInputItemsRequest'],
    ['InputTokens.InputTokenCountParams', 'CountBody'],
  ],
  schema: [
    ['ResponsesServerEvent', 'Event'],
    ['ResponsesClientEventResponseCreate', 'CreateBody'],
    ['InputItem', 'InputItem'],
    ['OutputItem', 'OutputItem'],
    ['CompactResponseMethodPublicBody', 'CompactBody'],
    ['CompactResource', 'CompactedResponse'],
  ],
  python: [
    ['ResponsesServerEvent', 'Event'],
    ['ResponseStreamEvent', 'Event'],
    ['ResponsesClientEvent', 'client event'],
    ['ResponseInputItem', 'InputItem'],
    ['ResponseOutputItem', 'OutputItem'],
    ['ResponseItem', 'OutputItem'],
    ['Response', 'Response'],
    ['ResponseCreateParams', 'CreateBody'],
    ['ResponseCompactParams', 'CompactBody'],
    ['ResponseRetrieveParams', 'StreamResponseRequest'],
    ['InputItemListParams', 'ListInputItemsRequest'],
    ['InputTokenCountParams', 'CountBody'],
    ['Model', 'Model'],
  ],
};

/** What clients say instead, with what the gateway adds to it. */
const CLIENT_EVENTS: ReadonlyMap<string, { readonly message: string; readonly carried: readonly string[] }> =
  new Map([
    ['response.create', { message: 'CreateBody', carried: [] }],
    ['response.steer', { message: 'SteerTurn', carried: ['type', 'previous_response_id'] }],
    ['response.inject', { message: 'InjectTurn', carried: ['type', 'response_id'] }],
  ]);

const OPENAI_DIR = fileURLToPath(new URL('../node_modules/openai', import.meta.url));
const SCHEMA_FILE = fileURLToPath(
  new URL('../test/translate/fixtures/responses.schema.json', import.meta.url),
);

export interface DriftOptions {
  readonly openaiDir?: string | undefined;
  readonly schemaFile?: string | undefined;
  /** Where the Python package is looked at too. */
  readonly pythonFile?: string | undefined;
  readonly api?: Api;
  /** Looks at these alone. Default: all that there are. */
  readonly only?: readonly Source[];
  /** Changes the declarations of the openai package first, for tests. */
  readonly edit?: (text: string, file: string) => string;
}

export function findDrift(options: DriftOptions = {}): DriftGap[] {
  const { openaiDir = OPENAI_DIR, schemaFile = SCHEMA_FILE, pythonFile, api = loadApi(), edit } = options;
  const read = {
    openai: readDeclarations(openaiDir, 'stable', edit),
    beta: readDeclarations(openaiDir, 'beta', edit),
    schema: readJsonSchema(readFileSync(schemaFile, 'utf8')),
    ...(pythonFile !== undefined && { python: readJsonSchema(readFileSync(pythonFile, 'utf8')) }),
  } as const;
  const sources = (Object.entries(read) as [Source, (name: string) => Shape][]).filter(
    ([source]) => options.only?.includes(source) ?? true,
  );
  const gaps = sources.flatMap(([source, shapeOf]) => [
    ...ROOTS[source].flatMap(([name, target]) => told(source, gapsOf(shapeOf(name), target, api))),
    ...(source === 'openai' || source === 'beta' ? told(source, undecided(shapeOf, source)) : []),
  ]);
  return [
    ...new Map(gaps.map((gap) => [`${gap.source} ${gap.message} ${gap.field} ${gap.missing}`, gap])).values(),
  ];
}

function told(source: Source, gaps: readonly Gap[]): DriftGap[] {
  return gaps.filter((gap) => !isAllowed(gap)).map((gap) => ({ source, ...gap }));
}

function gapsOf(shape: Shape, target: Target, api: Api): Gap[] {
  if (target === 'Event') return shape.objects.flatMap((object) => eventGaps(object, api));
  if (target === 'client event') return shape.objects.flatMap((object) => clientEventGaps(object, api));
  return compare(shape, api.plan(target));
}

function eventGaps(object: ObjectShape, api: Api): Gap[] {
  const [type = ''] = typesOf(object);
  const arm = api
    .plan('Event')
    .slots.flatMap((slot) => slot.fields)
    .find((field) => field.kinds.includes(type));
  const terminal = terminalGap(type, object);
  if (arm === undefined) return [{ message: 'Event', field: type, missing: 'event', upstream: object.name }];
  const gaps = compare({ ...NOTHING, objects: [object] }, arm.message(), ['type', 'stream_id']);
  return terminal === undefined ? gaps : [...gaps, terminal];
}

function clientEventGaps(object: ObjectShape, api: Api): Gap[] {
  const [type = ''] = typesOf(object);
  const known = CLIENT_EVENTS.get(type);
  if (known === undefined)
    return [{ message: 'ConnectRequest', field: type, missing: 'client event', upstream: object.name }];
  return compare({ ...NOTHING, objects: [object] }, api.plan(known.message), known.carried);
}

function typesOf(object: ObjectShape): readonly string[] {
  const type = object.members.get('type');
  return type === undefined ? [] : type.literals.length > 0 ? type.literals : type.shape().literals;
}

function isAllowed({ message, field, missing }: Gap): boolean {
  return ALLOWED.has(`${message}.${field}`) || ALLOWED.has(`${message}.${field} ${missing}`);
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      openai: { type: 'string' },
      schema: { type: 'string' },
      python: { type: 'string' },
      newest: { type: 'boolean', default: false },
    },
  });
  const folder = values.newest ? installNewest() : undefined;
  const gaps = findDrift({
    openaiDir: folder === undefined ? values.openai : join(folder, 'node_modules', 'openai'),
    pythonFile: folder === undefined ? values.python : join(folder, 'python.json'),
    schemaFile: values.schema,
  });
  if (folder !== undefined) rmSync(folder, { recursive: true });
  if (gaps.length > 0) console.table(gaps);
  console.log(gaps.length === 0 ? 'Nothing is missing.' : `${gaps.length} gaps.`);
  process.exitCode = gaps.length === 0 ? 0 : 1;
}

/** The newest packages of npm and PyPI, in a folder of their own. */
function installNewest(): string {
  const folder = mkdtempSync(join(tmpdir(), 'drift-'));
  const run = (command: string, ...args: readonly string[]): string =>
    execFileSync(command, args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  run('npm', 'install', '--no-audit', '--no-fund', '--silent', '--prefix', folder, 'openai@latest');
  run('python3', '-m', 'venv', 'python');
  run('python/bin/pip', 'install', '--quiet', '--disable-pip-version-check', '--upgrade', 'openai');
  const script = fileURLToPath(new URL('../test/judges/openai_python.py', import.meta.url));
  run('sh', '-c', 'python/bin/python "$0" > python.json', script);
  console.log(
    run('npm', 'ls', '--prefix', folder, 'openai').trim(),
    run('python/bin/pip', 'show', 'openai').split('\n')[1],
  );
  return folder;
}
