/** The calls beside turns: what each asks of the upstream, and as what its answer comes back. */

import { invalidField } from '../errors.ts';
import type { ResourceCall } from '../ground/resource-call.ts';
import type { Api } from './api.ts';
import { callBodySteps, decodeAs } from './create.ts';
import { timeLimitMs } from './duration.ts';
import { formatOf, partOf, takenBytes, textOf, traceOf } from './fields.ts';
import { inspect } from './inspect.ts';
import type { CallRequest, FollowResponseRequest, Steps } from './messages.ts';
import type { Message } from './writer.ts';

/** The message that stands for the upstream's JSON, by method. */
export const ANSWERS = {
  CompactResponse: 'CompactedResponse',
  GetResponse: 'Response',
  DeleteResponse: 'DeletedResponse',
  CancelResponse: 'Response',
  ListInputItems: 'InputItemPage',
  CountInputTokens: 'InputTokenCount',
  ListModels: 'ModelList',
} as const;

export type CallMethod = keyof typeof ANSWERS;
export const CALL_METHODS = Object.keys(ANSWERS) as readonly CallMethod[];

type Asked = Pick<
  CallRequest,
  'model' | 'input' | 'fields' | 'usesConversation' | 'resource' | 'responseIds' | 'runsModel'
>;

/** Throws INVALID_FIELD or INVALID_JSON with the field's path. */
export function* readCall(
  method: CallMethod,
  bytes: Uint8Array,
  api: Api,
  maxItems: number,
): Steps<CallRequest> {
  const request = requestOf(`${method}Request`, bytes, api, maxItems);
  const shared = method === 'CompactResponse' ? request : (partOf(request, 'options') ?? {});
  const path = method === 'CompactResponse' ? 'timeout' : 'options.timeout';
  return {
    ...(yield* ask(method, request, api)),
    format: formatOf(shared),
    upstream: textOf(shared, 'upstream') || undefined,
    timeoutMs: timeLimitMs(shared['timeout'], path),
    traceContext: traceOf(shared),
  };
}

/** Throws what is wrong with the request. */
export function requestOf(name: string, bytes: Uint8Array, api: Api, maxItems: number): Message {
  const type = api.envelope(name);
  const { unknown, excess } = inspect(type, bytes, { maxItems });
  if (excess !== undefined) throw excess;
  const request = decodeAs(type, bytes);
  if (unknown !== undefined) throw unknown;
  return request;
}

function* ask(method: CallMethod, request: Message, api: Api): Steps<Asked> {
  switch (method) {
    case 'CompactResponse':
      return yield* bodyCall('CompactBody', 'compact', request, api);
    case 'CountInputTokens':
      return yield* bodyCall('CountBody', 'count', request, api);
    case 'ListModels':
      return { ...NOTHING_RUN, resource: { method: 'GET', path: ['models'] }, responseIds: [] };
    case 'GetResponse':
      return about(request, { method: 'GET', query: includes(request) });
    case 'DeleteResponse':
      return about(request, { method: 'DELETE' });
    case 'CancelResponse':
      return about(request, { method: 'POST', below: ['cancel'] });
    case 'ListInputItems':
      return about(request, { method: 'GET', below: ['input_items'], query: pageOf(request) });
  }
}

const NOTHING_RUN = {
  model: undefined,
  input: [],
  fields: new Map<string, string>(),
  usesConversation: false,
  runsModel: false,
} as const;

function* bodyCall(
  name: 'CompactBody' | 'CountBody',
  field: 'compact' | 'count',
  request: Message,
  api: Api,
): Steps<Asked> {
  const given = partOf(request, field) ?? {};
  const { body, previousResponseId, ...rest } = yield* callBodySteps(name, given, field, api);
  const last = name === 'CompactBody' ? 'compact' : 'input_tokens';
  return {
    ...rest,
    resource: { method: 'POST', path: ['responses', last], body },
    responseIds: previousResponseId === undefined ? [] : [previousResponseId],
    runsModel: name === 'CompactBody',
  };
}

/** A call about one stored response. */
function about(
  request: Message,
  {
    method,
    below = [],
    query = [],
  }: Pick<ResourceCall, 'method' | 'query'> & { readonly below?: readonly string[] },
): Asked {
  const id = responseIdOf(request);
  return {
    ...NOTHING_RUN,
    resource: { method, path: ['responses', id, ...below], query },
    responseIds: [id],
  };
}

/** Dots alone would be another path. */
const ID = /^(?!\.+$)[\w.:~-]{1,256}$/;

function responseIdOf(request: Message): string {
  return idOf(request, 'response_id', 'a response');
}

function idOf(request: Message, name: string, whose: string): string {
  const id = textOf(request, name);
  if (ID.test(id)) return id;
  throw invalidField(
    name,
    id === '' ? 'nothing' : `${id.length} characters, some of which no id has`,
    `the id of ${whose}: 1 to 256 of A-Z a-z 0-9 _ . : ~ -`,
  );
}

/** Several times what the API knows. All of it goes into a URL, which upstreams take up to some kilobytes. */
const MAX_INCLUDES = 64;
const INCLUDE = /^[\w.[\]:-]{1,128}$/;

function includes(request: Message): (readonly [string, string])[] {
  const names = Object.hasOwn(request, 'include') ? (request['include'] as readonly string[]) : [];
  if (names.length > MAX_INCLUDES)
    throw invalidField('include', `${names.length} names`, `at most ${MAX_INCLUDES}`);
  return names.map((name, at) => {
    if (INCLUDE.test(name)) return ['include[]', name] as const;
    throw invalidField(`include[${at}]`, `${name.length} characters`, '1 to 128 of A-Z a-z 0-9 _ . : - [ ]');
  });
}

const MAX_PAGE = 100;

function pageOf(request: Message): (readonly [string, string])[] {
  const query = includes(request);
  if (Object.hasOwn(request, 'after')) query.push(['after', idOf(request, 'after', 'an item')]);
  if (Object.hasOwn(request, 'limit')) {
    const limit = Number(request['limit']);
    if (limit < 1 || limit > MAX_PAGE) throw invalidField('limit', String(limit), `1 to ${MAX_PAGE}`);
    query.push(['limit', String(limit)]);
  }
  if (Object.hasOwn(request, 'order')) {
    const order = textOf(request, 'order');
    if (order !== 'asc' && order !== 'desc')
      throw invalidField('order', order === '' ? 'nothing' : 'another word', '"asc" or "desc"');
    query.push(['order', order]);
  }
  return query;
}

/** Throws INVALID_FIELD with the field's path. */
export function readStreamResponse(bytes: Uint8Array, api: Api): FollowResponseRequest {
  const request = requestOf('StreamResponseRequest', bytes, api, 0);
  const options = partOf(request, 'options') ?? {};
  const query = includes(request);
  if (Object.hasOwn(request, 'include_obfuscation'))
    query.push(['include_obfuscation', String(request['include_obfuscation'])]);
  return {
    responseId: responseIdOf(request),
    startingAfter: startingAfterOf(request),
    query,
    format: formatOf(options),
    maxMessageBytes: takenBytes(options['max_message_bytes']),
    upstream: textOf(options, 'upstream') || undefined,
    timeoutMs: timeLimitMs(options['timeout'], 'options.timeout'),
    traceContext: traceOf(options),
  };
}

function startingAfterOf(request: Message): number | undefined {
  if (!Object.hasOwn(request, 'starting_after')) return undefined;
  const after = Number(request['starting_after']);
  if (Number.isSafeInteger(after) && after >= 0) return after;
  const found = String(request['starting_after']);
  throw invalidField('starting_after', found, `a sequence_number: 0 to ${Number.MAX_SAFE_INTEGER}`);
}
