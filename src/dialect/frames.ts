import type { CreateBody } from './types.ts';

/** How a create reaches its parent. */
export interface FramePlan {
  readonly wireParentId: string | undefined;
  readonly replayedItems: readonly string[];
  readonly ownInput: readonly string[];
}

const ENCRYPTED_REASONING = 'reasoning.encrypted_content';

/** `response.create` from pieces that are already JSON; nothing the client sent is encoded again. */
export function createFrame(create: CreateBody, plan: FramePlan, streamId: string | undefined): string {
  let text = '{"type":"response.create"';
  if (streamId !== undefined) text += `,"stream_id":${JSON.stringify(streamId)}`;
  for (const [name, json] of create.fields)
    if (name !== 'include') text += `,${JSON.stringify(name)}:${json}`;
  const include = includeFor(create);
  if (include !== undefined) text += `,"include":${include}`;
  if (plan.wireParentId !== undefined) text += `,"previous_response_id":${JSON.stringify(plan.wireParentId)}`;
  return `${text},"input":[${[...plan.replayedItems, ...plan.ownInput].join(',')}]}`;
}

/** A warm-up of ours: the last turn's settings, no output. */
export function warmFrame(
  fields: ReadonlyMap<string, string>,
  plan: FramePlan,
  streamId: string | undefined,
): string {
  let text = '{"type":"response.create","generate":false';
  if (streamId !== undefined) text += `,"stream_id":${JSON.stringify(streamId)}`;
  for (const [name, json] of fields) {
    if (name !== 'generate' && name !== 'prompt_cache_options') text += `,${JSON.stringify(name)}:${json}`;
  }
  if (plan.wireParentId !== undefined) text += `,"previous_response_id":${JSON.stringify(plan.wireParentId)}`;
  return `${text},"input":[${plan.replayedItems.join(',')}]}`;
}

export function steerFrame(responseId: string, input: readonly string[]): string {
  return `{"type":"response.steer","previous_response_id":${JSON.stringify(responseId)},"input":[${input.join(',')}]}`;
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
