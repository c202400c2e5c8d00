import type { HistoryRefusal } from '../dialect/history-refusal.ts';
import { type Member, membersOf } from '../ground/json-members.ts';
import type { Step, TranscriptNode } from './transcript.ts';
import type { LinkRoute } from './types.ts';

/** In which form a conversation is sent again as input. */
export interface ReplayForm {
  /**
   * cut: items that were not stored lose their ids, because the upstream refuses those that it does not know. kept: as
   * they were said. made: also where the upstream that said them gave none.
   */
  readonly ids: 'cut' | 'kept' | 'made';
  /** Reasoning that its own upstream encrypted. */
  readonly encryptedReasoning: boolean;
  /** Reasoning that stands there in clear. */
  readonly plainReasoning: boolean;
  /** Whether calls without output and outputs without call go. Cut ones are no loss: nobody waits for them any more. */
  readonly pairs: 'asSaid' | 'completeOnly';
}

/** OpenAI and those that copy its store: unknown ids are refused, plain reasoning is not read. */
const STORED_IDS: ReplayForm = {
  ids: 'cut',
  encryptedReasoning: true,
  plainReasoning: false,
  pairs: 'asSaid',
};
/**
 * vLLM and others validate by OpenAI's own types, in which the items of an answer need their ids, and look none up; some
 * models refuse a history without their reasoning.
 */
const NO_STORE: ReplayForm = {
  ids: 'kept',
  encryptedReasoning: true,
  plainReasoning: true,
  pairs: 'asSaid',
};

/** The form that each provider takes; any other is asked as `compatible` is. */
const FORMS: ReadonlyMap<string, ReplayForm> = new Map([
  ['openai', STORED_IDS],
  ['azure', STORED_IDS],
  ['xai', STORED_IDS],
  ['compatible', NO_STORE],
]);

/** The form to try after a refusal: what was refused goes, or what was missed comes. */
const MILDER: ReadonlyMap<HistoryRefusal, (form: ReplayForm) => Partial<ReplayForm>> = new Map<
  HistoryRefusal,
  (form: ReplayForm) => Partial<ReplayForm>
>([
  ['encrypted_content', () => ({ encryptedReasoning: false })],
  ['id_missing', ({ ids }) => ({ ids: ids === 'cut' ? 'kept' : 'made' })],
  ['id_unknown', () => ({ ids: 'cut' })],
  ['call_unanswered', () => ({ pairs: 'completeOnly' })],
  ['output_unasked', () => ({ pairs: 'completeOnly' })],
  ['reasoning_missing', () => ({ plainReasoning: true })],
]);

/** What a session has learned about its upstreams: a form that was refused once is not tried again. */
export class ReplayForms {
  readonly #learned = new Map<string, ReplayForm>();

  of({ upstream, provider }: LinkRoute): ReplayForm {
    return this.#learned.get(upstream) ?? usualForm(provider);
  }

  learn({ upstream }: LinkRoute, form: ReplayForm): void {
    this.#learned.set(upstream, form);
  }
}

function usualForm(provider: string): ReplayForm {
  return FORMS.get(provider) ?? NO_STORE;
}

export function milderForm(form: ReplayForm, refusal: HistoryRefusal): ReplayForm {
  return { ...form, ...MILDER.get(refusal)?.(form) };
}

/** Whether what this response's upstream encrypted can be read where the route leads. */
export function canRead({ upstream, account }: TranscriptNode, route: LinkRoute): boolean {
  const otherAccount = account !== undefined && route.account !== undefined && account !== route.account;
  return upstream === route.upstream && !otherAccount;
}

/**
 * A path as input for the upstream of `route`. What the client sent goes again as it was; what an upstream said is made
 * fit by cutting members out of its text, so that everything else keeps its bytes.
 *
 * @param answers input that follows the replay: it may answer calls of it.
 */
export function replayable(
  steps: readonly Step[],
  answers: readonly string[],
  route: LinkRoute,
  form: ReplayForm,
): readonly string[] {
  const usual = form === usualForm(route.provider);
  const items = steps.flatMap(({ node, input, output }) => {
    const readable = canRead(node, route);
    const forInput = { readable, form: form.ids === 'made' ? { ...form, ids: 'kept' as const } : form };
    return [
      // It was accepted as it was, where it was.
      ...input.map((text) => (readable && usual ? asSent(text) : said(text, forInput))),
      ...output.map((text) => said(text, { readable, form })),
    ];
  });
  const pairs = pairsIn(items, answers);
  return items.flatMap((item) => (belongs(item, pairs, form) ? [item.text] : []));
}

/** Whether a response said a call that was cut off and that nobody has answered. */
export function hasHalfCall(steps: readonly Step[], answers: readonly string[]): boolean {
  const said = steps.flatMap(({ input, output }) => [...input, ...output].map(asSent));
  const { outputs } = pairsIn(said, answers);
  return said.some(({ half, call }) => half === true && call !== undefined && !outputs.has(call));
}

interface ReplayItem {
  /** Undefined: it cannot be said again. */
  readonly text: string;
  readonly dropped?: true;
  readonly call?: string;
  readonly output?: string;
  /** Cut off in the middle. */
  readonly half?: true;
}

/** Kinds that a later item refers to by this very id, or whose id is all there is. */
const KEEPS_ID: ReadonlySet<string> = new Set([
  'item_reference',
  'mcp_approval_request',
  'image_generation_call',
]);

/** Kinds that the client answers; the others were run by the upstream and hold their results. */
const CALL = /^(?:function|custom_tool|computer|local_shell|shell|apply_patch|tool_search)_call$/;

type Fields = Readonly<Record<string, unknown>>;

function asSent(text: string): ReplayItem {
  return { text, ...roleOf(text) };
}

interface Reader {
  /** What the item's own upstream encrypted can be read. */
  readonly readable: boolean;
  readonly form: ReplayForm;
}

function said(text: string, { readable, form }: Reader): ReplayItem {
  const fields = fieldsOf(text);
  if (fields === undefined) return { text };
  const kind = kindOf(fields);
  const cut = new Set<string>();
  const encrypted = typeof fields['encrypted_content'] === 'string';
  const mayGo = readable && form.encryptedReasoning;
  if (kind === 'compaction' && !readable) return { text, dropped: true };
  if (kind === 'reasoning') {
    const plain = form.plainReasoning && hasParts(fields['content']);
    // Without its encrypted content a reasoning item is a reference to something that was never stored.
    if (!(encrypted && mayGo) && !plain) return { text, dropped: true };
    if (encrypted && !mayGo) cut.add('encrypted_content');
  }
  if (hasId(fields) ? form.ids === 'cut' && !KEEPS_ID.has(kind) : 'id' in fields) cut.add('id');
  const kept = cut.size === 0 ? text : without(text, cut);
  const made = form.ids === 'made' && !hasId(fields) && kind !== 'item_reference';
  return { text: made ? withId(kept, kind) : kept, ...rolesIn(fields) };
}

/** Calls and outputs of both what is replayed and what follows it. */
function pairsIn(items: readonly ReplayItem[], answers: readonly string[]) {
  const calls = new Set<string>();
  const outputs = new Set<string>();
  for (const { call, output, dropped } of [...items, ...answers.map(asSent)]) {
    if (dropped) continue;
    if (call !== undefined) calls.add(call);
    if (output !== undefined) outputs.add(output);
  }
  return { calls, outputs };
}

function belongs(item: ReplayItem, pairs: ReturnType<typeof pairsIn>, form: ReplayForm): boolean {
  if (item.dropped) return false;
  const cutOpen = item.half || form.pairs === 'completeOnly';
  if (item.call !== undefined && cutOpen && !pairs.outputs.has(item.call)) return false;
  return item.output === undefined || form.pairs === 'asSaid' || pairs.calls.has(item.output);
}

/** Most items are neither call nor output, and not parsed to find out. */
function roleOf(text: string): Pick<ReplayItem, 'call' | 'output' | 'half'> {
  const fields = text.includes('call_id') ? fieldsOf(text) : undefined;
  return fields === undefined ? {} : rolesIn(fields);
}

function rolesIn(fields: Fields): Pick<ReplayItem, 'call' | 'output' | 'half'> {
  const kind = kindOf(fields);
  const callId = fields['call_id'];
  if (typeof callId !== 'string' || callId === '') return {};
  if (kind.endsWith('_output')) return { output: callId };
  if (!CALL.test(kind)) return {};
  return isHalf(kind, fields) ? { call: callId, half: true } : { call: callId };
}

/** Cut by `max_output_tokens`; some servers do not say so, but leave arguments that are no JSON. */
function isHalf(kind: string, { status, arguments: args }: Fields): boolean {
  if (status === 'incomplete' || status === 'in_progress') return true;
  if (kind !== 'function_call' || typeof args !== 'string' || args === '') return false;
  try {
    JSON.parse(args);
    return false;
  } catch {
    return true;
  }
}

function kindOf(fields: Fields): string {
  return typeof fields['type'] === 'string' ? fields['type'] : 'message';
}

/** An empty id names nothing. */
function hasId(fields: Fields): boolean {
  return typeof fields['id'] === 'string' && fields['id'] !== '';
}

function hasParts(content: unknown): boolean {
  return Array.isArray(content) && content.length > 0;
}

function fieldsOf(text: string): Fields | undefined {
  const item: unknown = JSON.parse(text);
  return typeof item === 'object' && item !== null && !Array.isArray(item) ? (item as Fields) : undefined;
}

function without(text: string, names: ReadonlySet<string>): string {
  const kept = membersOf(text).filter(({ name }) => !names.has(name));
  return `{${kept.map(({ start, end }: Member) => text.slice(start, end)).join(',')}}`;
}

/** As OpenAI's begin; what follows names the text, so that the same item has the same id each time. */
const ID_PREFIXES: ReadonlyMap<string, string> = new Map([
  ['message', 'msg'],
  ['reasoning', 'rs'],
  ['function_call', 'fc'],
]);

function withId(text: string, kind: string): string {
  let sum = 0;
  for (let index = 0; index < text.length; index += 1)
    sum = (Math.imul(sum, 31) + text.charCodeAt(index)) | 0;
  const id = `${ID_PREFIXES.get(kind) ?? 'item'}_${(sum >>> 0).toString(16).padStart(8, '0')}`;
  const rest = text.trimStart().slice(1);
  return `{"id":"${id}"${rest.trimStart().startsWith('}') ? '' : ','}${rest}`;
}
