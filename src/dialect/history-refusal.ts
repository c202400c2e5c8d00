import type { UpstreamError } from './upstream-error.ts';

/**
 * What an upstream finds wrong with a history that it is sent.
 *
 * encrypted_content: it cannot read what another upstream or account encrypted, or reads none at all.
 * id_missing: its items need their ids. id_unknown: it does not know the ids, or the item that one belongs to.
 * call_unanswered, output_unasked: calls and outputs are not in pairs. reasoning_missing: it wants its reasoning back.
 */
export type HistoryRefusal =
  | 'encrypted_content'
  | 'id_missing'
  | 'id_unknown'
  | 'call_unanswered'
  | 'output_unasked'
  | 'reasoning_missing';

/** Undefined: the refusal is about something else. */
export function historyRefusal({ facts }: Pick<UpstreamError, 'facts'>): HistoryRefusal | undefined {
  const { status, code = '', param = '', message = '' } = facts;
  if (status !== undefined && !REQUEST_STATUSES.has(status)) return undefined;
  const byCode = BY_CODE.get(code.toLowerCase());
  if (byCode !== undefined) return byCode;
  if (ITEM_ID.test(param)) return MISSING.test(`${code} ${message}`) ? 'id_missing' : 'id_unknown';
  return BY_WORDS.find(([words]) => words.test(message))?.[1];
}

/** Those with which a request's own members are refused. */
const REQUEST_STATUSES: ReadonlySet<number> = new Set([400, 404, 422]);

const BY_CODE: ReadonlyMap<string, HistoryRefusal> = new Map<string, HistoryRefusal>([
  ['invalid_encrypted_content', 'encrypted_content'],
  ['item_not_found', 'id_unknown'],
]);

/** `input[1].id`, and the paths that pydantic and FastAPI write. */
const ITEM_ID = /^(?:body\.)?input[[.].*\bid$/;
const MISSING = /missing|required/i;

/** Most of these come without a code of their own. The first that fits counts. */
const BY_WORDS: readonly (readonly [RegExp, HistoryRefusal])[] = [
  [
    /no tool call found|tool (?:output|result).{0,80}without.{0,40}call|unexpected.{0,20}tool_(?:use_id|call_id)|role 'tool' must be a response to/is,
    'output_unasked',
  ],
  [
    /no tool output found|tool_calls?.{0,40}must be followed|did not have response messages|(?:without|missing).{0,40}tool[_ ](?:output|result)/is,
    'call_unanswered',
  ],
  [/encrypted[_ ]content|decrypt.{0,40}reasoning|reasoning.{0,40}decrypt/is, 'encrypted_content'],
  [
    /reasoning_content.{0,80}(?:must|required|missing)|(?:must|missing).{0,40}reasoning_content/is,
    'reasoning_missing',
  ],
  [/item with id .{1,300}not found|items? .{0,60}not persisted|without its required/is, 'id_unknown'],
  [
    /\binput\S{0,200}\bid\W{1,4}(?:field required|missing)|'input',[^()]{0,200}'id'\)[^{}]{0,40}field required|missing required parameter\W{1,4}input\S{0,40}\bid\b/is,
    'id_missing',
  ],
  [/invalid \W?input\S{0,40}\.id\b/is, 'id_unknown'],
];
