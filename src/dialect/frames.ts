import type { CreateBody } from './types.ts';

/** How a create reaches its parent. */
export interface FramePlan {
  readonly wireParentId: string | undefined;
  readonly replayedItems: readonly string[];
  readonly ownInput: readonly string[];
}

/** One frame to the upstream, in two parts, so that a link over HTTP posts the body as it is. */
export interface OutgoingFrame {
  /** warmUp: a create that generates nothing. It, a steer and an inject exist on a WebSocket only (upstream.md#responsecreate). */
  readonly kind: 'create' | 'warmUp' | 'steer' | 'inject';
  readonly streamId: string | undefined;
  /** The members that only a WebSocket has, with the opening brace and a comma at the end. */
  readonly head: string;
  /** All other members, with the closing brace. */
  readonly body: string;
}

/** The frame as it goes over a WebSocket. */
export function frameText({ head, body }: OutgoingFrame): string {
  return head + body;
}

/** The same create as the body of a POST that is answered by an event stream. */
export function postBody({ body }: OutgoingFrame): string {
  return `{"stream":true,${body}`;
}

const ENCRYPTED_REASONING = 'reasoning.encrypted_content';

/** `response.create` from pieces that are already JSON; nothing the client sent is encoded again. */
export function createFrame(
  create: CreateBody,
  plan: FramePlan,
  streamId: string | undefined,
): OutgoingFrame {
  const generate = create.fields.get('generate');
  return {
    kind: generate === 'false' ? 'warmUp' : 'create',
    streamId,
    head: headOf('response.create', streamId, generate),
    body: bodyOf(create.fields, includeFor(create), plan, plan.ownInput),
  };
}

/** A warm-up of ours: the last turn's settings, no output. */
export function warmFrame(
  fields: ReadonlyMap<string, string>,
  plan: FramePlan,
  streamId: string | undefined,
): OutgoingFrame {
  const settings = new Map(fields);
  settings.delete('prompt_cache_options');
  return {
    kind: 'warmUp',
    streamId,
    head: headOf('response.create', streamId, 'false'),
    body: bodyOf(settings, settings.get('include'), plan, []),
  };
}

export function steerFrame(responseId: string, input: readonly string[]): OutgoingFrame {
  return {
    kind: 'steer',
    streamId: undefined,
    head: headOf('response.steer', undefined, undefined),
    body: `"previous_response_id":${JSON.stringify(responseId)},"input":[${input.join(',')}]}`,
  };
}

export function injectFrame(responseId: string, input: readonly string[]): OutgoingFrame {
  return {
    kind: 'inject',
    streamId: undefined,
    head: headOf('response.inject', undefined, undefined),
    body: `"response_id":${JSON.stringify(responseId)},"input":[${input.join(',')}]}`,
  };
}

function headOf(type: string, streamId: string | undefined, generate: string | undefined): string {
  let head = `{"type":"${type}",`;
  if (streamId !== undefined) head += `"stream_id":${JSON.stringify(streamId)},`;
  if (generate !== undefined) head += `"generate":${generate},`;
  return head;
}

function bodyOf(
  fields: ReadonlyMap<string, string>,
  include: string | undefined,
  { wireParentId, replayedItems }: FramePlan,
  ownInput: readonly string[],
): string {
  let body = '';
  for (const [name, json] of fields) {
    if (name !== 'include' && name !== 'generate') body += `${JSON.stringify(name)}:${json},`;
  }
  if (include !== undefined) body += `"include":${include},`;
  if (wireParentId !== undefined) body += `"previous_response_id":${JSON.stringify(wireParentId)},`;
  return `${body}"input":[${[...replayedItems, ...ownInput].join(',')}]}`;
}

/**
 * Reasoning that was not stored can only be replayed with its encrypted content, which has to be asked for.
 * Models that do not reason refuse the value, so it goes only where reasoning settings are.
 */
function includeFor(create: CreateBody): string | undefined {
  const given = create.fields.get('include');
  const reasons = create.fields.has('reasoning') && create.fields.get('reasoning') !== 'null';
  if (create.store || !reasons) return given;
  const list: unknown = given === undefined ? [] : JSON.parse(given);
  const names = Array.isArray(list) ? list : [];
  return names.includes(ENCRYPTED_REASONING) ? given : JSON.stringify([...names, ENCRYPTED_REASONING]);
}
