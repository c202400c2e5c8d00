import type { CreateBody, LongTexts } from './types.ts';

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
  /** All other members, with the closing brace; long texts are parts of their own, so that nobody has to copy them. */
  readonly body: readonly string[];
  /** Of all of it, in UTF-8. */
  readonly bytes: number;
  /** The response goes on when its stream is lost. HTTP only; default false. */
  readonly background?: boolean;
}

/** The frame as it goes over a WebSocket. */
export function frameText({ head, body }: OutgoingFrame): string {
  return head + body.join('');
}

/** The same create as the body of a POST that is answered by an event stream: its parts, and their bytes together. */
export function postBody({ head, body, bytes }: OutgoingFrame): {
  readonly parts: readonly string[];
  readonly bytes: number;
} {
  return {
    parts: [STREAMED, ...body],
    bytes: bytes - Buffer.byteLength(head) + STREAMED.length,
  };
}

const STREAMED = '{"stream":true,';

const ENCRYPTED_REASONING = 'reasoning.encrypted_content';

/** `response.create` from pieces that are already JSON; nothing the client sent is encoded again. */
export function createFrame(
  create: CreateBody,
  plan: FramePlan,
  streamId: string | undefined,
): OutgoingFrame {
  const generate = create.fields.get('generate');
  const head = headOf('response.create', streamId, generate);
  const body = bodyOf(create.fields, includeFor(create), plan, plan.ownInput);
  const made = frame(generate === 'false' ? 'warmUp' : 'create', streamId, head, body, create.long);
  return create.fields.get('background') === 'true' ? { ...made, background: true } : made;
}

/** A warm-up of ours: the last turn's settings, no output. */
export function warmFrame(
  fields: ReadonlyMap<string, string>,
  plan: FramePlan,
  streamId: string | undefined,
): OutgoingFrame {
  const settings = new Map(fields);
  settings.delete('prompt_cache_options');
  const body = bodyOf(settings, settings.get('include'), plan, []);
  return frame('warmUp', streamId, headOf('response.create', streamId, 'false'), body);
}

export function steerFrame(responseId: string, input: readonly string[]): OutgoingFrame {
  const head = headOf('response.steer', undefined, undefined);
  return frame(
    'steer',
    undefined,
    head,
    withInput(`"previous_response_id":${JSON.stringify(responseId)},`, input),
  );
}

export function injectFrame(responseId: string, input: readonly string[]): OutgoingFrame {
  const head = headOf('response.inject', undefined, undefined);
  return frame('inject', undefined, head, withInput(`"response_id":${JSON.stringify(responseId)},`, input));
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
): readonly string[] {
  const parts: string[] = [];
  let body = '';
  for (const [name, json] of fields) {
    if (name === 'include' || name === 'generate') continue;
    if (json.length < LONG_TEXT) body += `${JSON.stringify(name)}:${json},`;
    else {
      parts.push(`${body}${JSON.stringify(name)}:`, json);
      body = ',';
    }
  }
  if (include !== undefined) body += `"include":${include},`;
  if (wireParentId !== undefined) body += `"previous_response_id":${JSON.stringify(wireParentId)},`;
  parts.push(...withInput(body, [...replayedItems, ...ownInput]));
  return parts;
}

function withInput(before: string, items: readonly string[]): readonly string[] {
  let units = 0;
  for (const { length } of items) units += length;
  if (units < LONG_TEXT) return [`${before}"input":[${items.join(',')}]}`];
  // To put megabytes in a row takes long: it is done as they are sent.
  const parts = [`${before}"input":[`];
  for (const [at, item] of items.entries()) {
    if (at > 0) parts.push(',');
    parts.push(item);
  }
  parts.push(']}');
  return parts;
}

function frame(
  kind: OutgoingFrame['kind'],
  streamId: string | undefined,
  head: string,
  body: readonly string[],
  long?: LongTexts,
): OutgoingFrame {
  let bytes = Buffer.byteLength(head);
  for (const part of body) bytes += long?.get(part)?.bytes ?? Buffer.byteLength(part);
  return { kind, streamId, head, body, bytes };
}

/** UTF-16 units of a part that stands alone, and of an input whose items do. */
const LONG_TEXT = 256 * 1024;

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
