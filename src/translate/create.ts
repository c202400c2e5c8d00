/** The typed body of a create → what the core sends upstream. */
import type { CreateBody } from '../core/types.ts';
import { invalidField } from '../errors.ts';
import { type Api, loadApi } from './api.ts';
import { invalidJson, type Message, objectOf, rawMembers, Writer } from './writer.ts';

/** Members that the gateway sets itself, so that nobody else can. */
const OWNED = ['type', 'stream', 'stream_id', 'input', 'previous_response_id', 'extra_json'];

const writer = new Writer(true);

/**
 * Throws INVALID_FIELD or INVALID_JSON, naming the field, where the body cannot be said upstream.
 * `path` is how the client knows the body, for instance `start_turn.create`.
 */
export function createBodyToUpstream(create: Message, path: string, api: Api = loadApi()): CreateBody {
  const { fields, input } = bodyOf('CreateBody', create, path, api);
  const previousResponseId = stringOf(take(fields, 'previous_response_id'));
  const usesConversation = isGiven(fields.get('conversation'));
  if (usesConversation && previousResponseId !== undefined) {
    throw invalidField(path, 'both conversation and previous_response_id', 'one of them');
  }
  if (fields.get('background') === 'true') {
    throw invalidField(`${path}.background`, 'true', 'false: turns of a session run in the foreground');
  }
  return {
    fields,
    input,
    previousResponseId,
    model: stringOf(fields.get('model')),
    store: fields.get('store') !== 'false',
    generate: fields.get('generate') !== 'false' && !prewarms(fields.get('prompt_cache_options')),
    usesConversation,
  };
}

/** The body of `/responses/compact`, and the members that the gateway looks at. */
export function compactBodyToUpstream(compact: Message, path: string, api: Api = loadApi()) {
  const { fields, input } = bodyOf('CompactBody', compact, path, api);
  const previousResponseId = stringOf(fields.get('previous_response_id'));
  if (input.length > 0) fields.set('input', `[${input.join(',')}]`);
  return { body: objectOf(fields), input, model: stringOf(fields.get('model')), previousResponseId };
}

/** The raw JSON of each item, for instance of a steer's messages. */
export function inputItems(holder: string, message: Message, path: string, api: Api = loadApi()): string[] {
  const field = api.plan(holder).slots.find((slot) => slot.key === 'input')?.list;
  if (field === undefined) throw new Error(`${holder} has no input`);
  return Object.hasOwn(message, 'input') ? writer.list(field, message['input'], `${path}.input`) : [];
}

function bodyOf(name: string, body: Message, path: string, api: Api) {
  const input = inputItems(name, body, path, api);
  const rest = { ...body, input: [] };
  const fields = new Map(writer.members(api.plan(name), rest, path));
  fields.delete('extra_json');
  const extra = Object.hasOwn(body, 'extra_json') ? (body['extra_json'] as Uint8Array) : undefined;
  if (extra === undefined || extra.length === 0) return { fields, input };
  for (const [key, json] of rawMembers(extra, `${path}.extra_json`)) {
    const at = `${path}.extra_json.${key}`;
    if (OWNED.includes(key)) throw invalidField(at, 'a member that the gateway sets', 'any other');
    if (fields.has(key)) throw invalidJson(at, `a member that is also set as ${path}.${key}`, 'one of them');
    fields.set(key, json.trim());
  }
  return { fields, input };
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
  const value: unknown = json === undefined ? undefined : JSON.parse(json);
  return typeof value === 'object' && value !== null && 'prewarm' in value && value.prewarm === true;
}
