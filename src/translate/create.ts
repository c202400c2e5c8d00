/** The typed body of a create → what the core sends upstream. */

import type protobuf from 'protobufjs/light.js';
import type { CreateBody } from '../core/types.ts';
import { GatewayError, invalidField } from '../errors.ts';
import { foldName, valuesNamed } from '../ground/json-names.ts';
import { inARow, joinTexts, LONG_TEXT } from '../ground/long-texts.ts';
import { type Api, loadApi } from './api.ts';
import { inspect } from './inspect.ts';
import type { KnownItems } from './known-items.ts';
import { writeLongLists } from './long-lists.ts';
import { measuredTexts, writtenLong } from './long-values.ts';
import type { Field, Plan } from './schema.ts';
import {
  invalidJson,
  type Message,
  objectOf,
  rawMemberSteps,
  rawMembers,
  Writer,
  type Written,
  type WrittenJson,
} from './writer.ts';

/** Members that the gateway sets itself, so that nobody else can. */
const OWNED = ['type', 'stream', 'stream_id', 'input', 'previous_response_id', 'extra_json'];

/** What is read in another way. */
const READ_APART: ReadonlySet<string> = new Set(['input', 'extra_json']);

const writer = new Writer(true);

/**
 * Throws INVALID_FIELD or INVALID_JSON, naming the field, where the body cannot be said upstream.
 * `path` is how the client knows the body, for instance `start_turn.create`.
 */
export function createBodyToUpstream(
  create: Message,
  path: string,
  api: Api = loadApi(),
  input: readonly string[] = inputItems('CreateBody', create, path, api),
  long: LongParts = {},
  runs: 'foreground' | 'backgroundToo' = 'foreground',
): CreateBody {
  const fields = fieldsOf('CreateBody', create, path, api, long);
  const model = takeModel(fields, path);
  const previousResponseId = stringOf(take(fields, 'previous_response_id'));
  const usesConversation = isGiven(fields.get('conversation'));
  if (usesConversation && previousResponseId !== undefined) {
    throw invalidField(path, 'both conversation and previous_response_id', 'one of them');
  }
  checkBackground(fields, path, runs);
  return {
    fields,
    input,
    previousResponseId,
    model,
    store: fields.get('store') !== 'false',
    generate: fields.get('generate') !== 'false' && !prewarms(fields.get('prompt_cache_options')),
    usesConversation,
  };
}

/** A character takes up to six in JSON: in a message that is shorter no text is long. */
const MAY_HOLD_LONG_BYTES = LONG_TEXT / 6;

/**
 * The same for items that are still bytes, with a pause offered wherever it may take long. `messageBytes`: of the message
 * that the body came with.
 */
export function* createSteps(
  create: Message,
  messageBytes: number,
  path: string,
  api: Api,
  known?: KnownItems,
  runs: 'foreground' | 'backgroundToo' = 'foreground',
): Generator<undefined, CreateBody> {
  const input = yield* itemSteps('CreateBody', create, path, api, known);
  if (messageBytes < MAY_HOLD_LONG_BYTES) {
    known?.forgetMeasures();
    return createBodyToUpstream(create, path, api, input, NOTHING_LONG, runs);
  }
  const parts = yield* longPartsOf(api.plan('CreateBody'), create, path);
  const body = createBodyToUpstream(create, path, api, input, parts, runs);
  if (parts.written !== undefined) yield;
  const texts = [...body.fields.values(), ...input];
  const long = yield* known === undefined ? measuredTexts(texts) : known.measure(texts);
  return long === undefined ? body : { ...body, long };
}

/** The same in one go; undefined where that may take long. */
export function shortCreate(
  create: Message,
  messageBytes: number,
  path: string,
  api: Api,
): CreateBody | undefined {
  if (messageBytes >= MAY_HOLD_LONG_BYTES) return undefined;
  const entry = inputEntry('CreateBody', api);
  const input = rawInputOf(create).map((bytes, at) => itemOf(entry, bytes, `${path}.input[${at}]`, api));
  return createBodyToUpstream(create, path, api, input, NOTHING_LONG);
}

/** What of a body takes long, and is written beforehand. */
interface LongParts {
  readonly written?: Written | undefined;
  readonly extra?: ReadonlyMap<string, string> | undefined;
}

const NOTHING_LONG: LongParts = {};

const NO_LONG_VALUES = { texts: new Map<string, string>(), documents: new Map<Uint8Array, WrittenJson>() };

function* longPartsOf(plan: Plan, body: Message, path: string): Generator<undefined, LongParts> {
  // Without what is read in another way.
  const values = yield* writtenLong({ ...body, input: [], extra_json: [] });
  const lists = new Map<unknown, readonly string[]>();
  const written = { ...(values ?? NO_LONG_VALUES), lists };
  yield* writeLongLists(plan, body, path, new Writer(true, written), lists, READ_APART);
  const json = extraJsonOf(body);
  return { written, extra: json && (yield* rawMemberSteps(json, `${path}.extra_json`)) };
}

function extraJsonOf(body: Message): Uint8Array | undefined {
  const json = Object.hasOwn(body, 'extra_json') ? (body['extra_json'] as Uint8Array) : undefined;
  return json === undefined || json.length === 0 ? undefined : json;
}

function checkBackground(
  fields: ReadonlyMap<string, string>,
  path: string,
  runs: 'foreground' | 'backgroundToo',
): void {
  const isBackground = fields.get('background') === 'true';
  if (isBackground && runs === 'foreground') {
    const allowed = 'false: turns of a session run in the foreground; CreateResponse takes it';
    throw invalidField(`${path}.background`, 'true', allowed);
  }
  const options = fields.get('background_options');
  if (options === undefined || options === 'null') return;
  if (!isBackground) throw invalidField(`${path}.background_options`, 'a value', 'none without background');
  const [window] = valuesNamed(options, 'completion_window');
  // Later ones are for requests that are not streamed, and events are all that a call gives.
  if (window !== undefined && window !== 'null' && window !== '"soonest"')
    throw invalidField(`${path}.background_options.completion_window`, window, '"soonest"');
}

/** The request's model. What is no name is not sent: it is not known what the upstream would make of it. */
function takeModel(fields: Map<string, string>, path: string): string | undefined {
  const json = fields.get('model');
  if (json === undefined) return undefined;
  const value: unknown = JSON.parse(json);
  if (typeof value === 'string' && value !== '') return value;
  if (value !== null && value !== '')
    throw invalidField(`${path}.model`, kindOf(value), 'the name of a model');
  fields.delete('model');
  return undefined;
}

function kindOf(value: unknown): string {
  return Array.isArray(value) ? 'a list' : typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/** The body of a call beside a turn, and the members that the gateway looks at. */
export function* callBodySteps(name: 'CompactBody' | 'CountBody', given: Message, path: string, api: Api) {
  const input = yield* itemSteps(name, given, path, api);
  const parts = yield* longPartsOf(api.plan(name), given, path);
  const fields = fieldsOf(name, given, path, api, parts);
  if (parts.written !== undefined) yield;
  const model = takeModel(fields, path);
  const previousResponseId = stringOf(fields.get('previous_response_id'));
  const usesConversation = isGiven(fields.get('conversation'));
  if (usesConversation && previousResponseId !== undefined)
    throw invalidField(path, 'both conversation and previous_response_id', 'one of them');
  const members = input.length === 0 ? fields : [...fields, ['input', `[${joinTexts(input, ',')}]`] as const];
  return { body: objectOf(members), fields, input, model, previousResponseId, usesConversation };
}

/** The raw JSON of each item. */
function inputItems(holder: string, message: Message, path: string, api: Api): string[] {
  return Object.hasOwn(message, 'input')
    ? [...writer.list(inputField(holder, api), message['input'], `${path}.input`)]
    : [];
}

/**
 * The same for items that are still bytes, with a pause offered after each: thousands of them take longer than the event
 * loop should. Throws as `createBodyToUpstream`, and LIMIT_EXCEEDED or MALFORMED_MESSAGE for an item.
 */
export function* itemSteps(
  holder: string,
  message: Message,
  path: string,
  api: Api,
  known?: KnownItems,
): Generator<undefined, string[]> {
  const entry = inputEntry(holder, api);
  const input = rawInputOf(message);
  const items = known?.beginningOf(input) ?? [];
  for (const bytes of items.length === 0 ? input : input.slice(items.length)) {
    const at = `${path}.input[${items.length}]`;
    items.push(
      bytes.length < LONG_ITEM_BYTES
        ? itemOf(entry, bytes, at, api)
        : yield* longItemSteps(entry, bytes, at, api),
    );
    yield;
  }
  known?.learn(input, items);
  return items;
}

/** Ten thousand fields fit in. */
const LONG_ITEM_BYTES = 32 * 1024;

function itemOf(entry: Field, bytes: Uint8Array, at: string, api: Api): string {
  const type = api.type('InputItem');
  const { unknown, excess } = inspect(type, bytes, { path: at });
  if (excess !== undefined) throw excess;
  const item = decodeAs(type, bytes);
  if (unknown !== undefined) throw unknown;
  return inARow(writer.field(entry, item, at));
}

function* longItemSteps(entry: Field, bytes: Uint8Array, at: string, api: Api): Generator<undefined, string> {
  const type = api.type('InputItem');
  const { unknown, excess } = inspect(type, bytes, { path: at });
  if (excess !== undefined) throw excess;
  yield;
  const item = decodeAs(type, bytes);
  if (unknown !== undefined) throw unknown;
  yield;
  const values = yield* writtenLong(item);
  const lists = new Map<unknown, readonly string[]>();
  const itemWriter = new Writer(true, { ...(values ?? NO_LONG_VALUES), lists });
  yield* writeLongLists(entry.message(), item, at, itemWriter, lists);
  const json = itemWriter.field(entry, item, at);
  yield;
  return inARow(json);
}

function rawInputOf(message: Message): readonly Uint8Array[] {
  return Object.hasOwn(message, 'input') ? (message['input'] as readonly Uint8Array[]) : [];
}

const inputFields = new WeakMap<Plan, Field>();

function inputField(holder: string, api: Api): Field {
  const plan = api.plan(holder);
  const known = inputFields.get(plan);
  if (known !== undefined) return known;
  const field = plan.slots.find((slot) => slot.key === 'input')?.list;
  if (field === undefined) throw new Error(`${holder} has no input`);
  inputFields.set(plan, field);
  return field;
}

function inputEntry(holder: string, api: Api): Field {
  const [entry] = inputField(holder, api).element().fields;
  if (entry === undefined) throw new Error(`${holder} has no input`);
  return entry;
}

/** Throws MALFORMED_MESSAGE. */
export function decodeAs(type: protobuf.Type, bytes: Uint8Array): Message {
  try {
    return type.decode(bytes) as unknown as Message;
  } catch (cause) {
    throw new GatewayError('MALFORMED_MESSAGE', `the bytes are no ${type.name}`, { cause });
  }
}

function writerOf(written: Written | undefined): Writer {
  return written === undefined ? writer : new Writer(true, written);
}

function fieldsOf(
  name: string,
  body: Message,
  path: string,
  api: Api,
  { written, extra }: LongParts,
): Map<string, string> {
  const fields = new Map<string, string>();
  writerOf(written).eachMember(api.plan(name), body, path, (key, json) => fields.set(key, json), READ_APART);
  const json = extraJsonOf(body);
  if (json === undefined) return fields;
  const known = new Set(api.plan(name).slots.map((slot) => slot.key));
  for (const [key, value] of extra ?? rawMembers(json, `${path}.extra_json`)) {
    const at = `${path}.extra_json.${key}`;
    const read = foldName(key);
    if (OWNED.includes(read)) throw invalidField(at, 'a member that the gateway sets', 'any other');
    if (read !== key && known.has(read)) {
      throw invalidJson(at, `a name that some upstreams read as ${read}`, `${read}, in this spelling`);
    }
    if (fields.has(key)) throw invalidJson(at, `a member that is also set as ${path}.${key}`, 'one of them');
    fields.set(key, value.trim());
  }
  return fields;
}

function take(fields: Map<string, string>, key: string): string | undefined {
  const json = fields.get(key);
  fields.delete(key);
  return json;
}

function isGiven(json: string | undefined): boolean {
  return json !== undefined && json !== 'null';
}

function stringOf(json: string | undefined): string | undefined {
  const value: unknown = json === undefined ? undefined : JSON.parse(json);
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** `prewarm: true` makes a warm-up of any create. */
function prewarms(json: string | undefined): boolean {
  return json !== undefined && valuesNamed(json, 'prewarm').includes('true');
}
