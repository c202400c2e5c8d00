import { createHash } from 'node:crypto';
import { isObject, type JsonObject, stableJson } from './json.ts';

/** One input or output item, as on the wire. */
export type Item = JsonObject;

/** What a client still owes before a context can be sampled from (`required_input` of a pending steer). */
export type RequiredInput = JsonObject & { type: string };

/**
 * Everything that the model sees at one point of a conversation, folded into a few facts. Immutable, and extended in
 * time proportional to the new items only, so that a chain of a thousand turns costs no more than the sum of its inputs.
 *
 * Two conversations with the same items have the same `hash`, however they arrived (whole history, or id + new items):
 * item ids, statuses and annotations do not count, and reasoning items are only counted in `reasoningItems`.
 */
export interface Context {
  readonly hash: string;
  readonly items: number;
  readonly reasoningItems: number;
  readonly tokens: number;
  /** User messages so far. */
  readonly turns: number;
  readonly lastUserText: string;
  /** Tool calls since the last user message, and over the whole conversation. */
  readonly callsSinceUser: number;
  readonly calls: number;
  /** Calls that have no output yet, by call id. */
  readonly openCalls: ReadonlyMap<string, RequiredInput>;
}

export const EMPTY_CONTEXT: Context = {
  hash: '0'.repeat(16),
  items: 0,
  reasoningItems: 0,
  tokens: 0,
  turns: 0,
  lastUserText: '',
  callsSinceUser: 0,
  calls: 0,
  openCalls: new Map(),
};

/** A tool output whose call was never made in this conversation, or already has its output. */
export class UnknownCall extends Error {
  readonly callId: string;
  constructor(callId: string) {
    super(callId);
    this.callId = callId;
  }
}

/**
 * Adds items to a context. `onPrefix` sees the context after each item (for prompt-cache lookups).
 * Throws `UnknownCall` for a tool output without its call.
 */
export function extendContext(
  base: Context,
  items: readonly Item[],
  onPrefix?: (context: Context) => void,
): Context {
  let context = base;
  for (const item of items) {
    context = addItem(context, item);
    onPrefix?.(context);
  }
  return context;
}

/** The digest of a conversation given as plain items: what a test computes from the client's view. */
export function contextDigest(items: readonly Item[]): string {
  let hash = EMPTY_CONTEXT.hash;
  for (const item of items) {
    if (item.type !== 'reasoning') hash = chain(hash, canonicalItem(item));
  }
  return hash;
}

/** A rough count that grows with length, like a tokenizer's: four characters a token. */
export function estimateTokens(text: string): number {
  return Math.ceil(text.length / 4);
}

export function textOf(item: Item): string {
  const content = item.content;
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  return content.map((part) => (isObject(part) && typeof part.text === 'string' ? part.text : '')).join('');
}

const CALLS: Record<string, (item: Item) => RequiredInput> = {
  function_call: (item) => ({ type: 'function_call_output', call_id: item.call_id, name: item.name }),
  custom_tool_call: (item) => ({ type: 'custom_tool_call_output', call_id: item.call_id }),
  computer_call: (item) => ({ type: 'computer_call_output', call_id: item.call_id }),
  shell_call: (item) => ({ type: 'shell_call_output', call_id: item.call_id }),
  local_shell_call: (item) => ({ type: 'local_shell_call_output', call_id: item.call_id }),
  apply_patch_call: (item) => ({ type: 'apply_patch_call_output', call_id: item.call_id }),
  mcp_approval_request: (item) => ({ type: 'mcp_approval_response', approval_request_id: item.id }),
};

/** Output kinds that must answer a call of this conversation; the other kinds are taken as they come. */
const OUTPUTS: ReadonlySet<string> = new Set([
  'function_call_output',
  'custom_tool_call_output',
  'computer_call_output',
  'shell_call_output',
  'local_shell_call_output',
  'apply_patch_call_output',
]);

function addItem(context: Context, item: Item): Context {
  const type = typeof item.type === 'string' ? item.type : 'message';
  const canonical = canonicalItem(item);
  const tokens = context.tokens + estimateTokens(canonical);
  if (type === 'reasoning') return { ...context, tokens, reasoningItems: context.reasoningItems + 1 };
  // A compaction stands for everything before it.
  if (type === 'compaction') return { ...addCounted(context, canonical), tokens: estimateTokens(canonical) };
  const next = { ...addCounted(context, canonical), tokens };
  // Nobody can answer a call that was cut off.
  const required = item.status === 'incomplete' ? undefined : CALLS[type]?.(item);
  if (required !== undefined) {
    const id = String(required.call_id ?? required.approval_request_id);
    return {
      ...next,
      calls: next.calls + 1,
      callsSinceUser: next.callsSinceUser + 1,
      openCalls: new Map(next.openCalls).set(id, required),
    };
  }
  if (OUTPUTS.has(type) || type === 'mcp_approval_response') {
    const openCalls = new Map(next.openCalls);
    const given = item.call_id ?? item.approval_request_id;
    // Codex names the tool alone (upstream.md#responsecreate): the oldest call of it is meant, if there is one.
    if (given == null) openCalls.delete(openCallOf(openCalls, item.name) ?? '');
    else if (!openCalls.delete(String(given))) throw new UnknownCall(String(given));
    return { ...next, openCalls };
  }
  if (type === 'message' && item.role === 'user') {
    return { ...next, turns: next.turns + 1, lastUserText: textOf(item), callsSinceUser: 0 };
  }
  return next;
}

function openCallOf(calls: Context['openCalls'], name: unknown): string | undefined {
  return [...calls].find(([, required]) => required.name === name)?.[0];
}

function addCounted(context: Context, canonical: string): Context {
  return { ...context, items: context.items + 1, hash: chain(context.hash, canonical) };
}

function chain(hash: string, canonical: string): string {
  return createHash('sha256').update(hash).update(canonical).digest('hex').slice(0, 16);
}

function canonicalItem(item: Item): string {
  switch (item.type) {
    case undefined:
    case 'message':
      return JSON.stringify(['message', item.role, canonicalContent(item.content)]);
    case 'function_call':
      return JSON.stringify(['call', item.call_id, item.name, item.arguments]);
    case 'custom_tool_call':
      return JSON.stringify(['call', item.call_id, item.name, item.input]);
    case 'function_call_output':
    case 'custom_tool_call_output':
      return JSON.stringify(['output', item.call_id, canonicalContent(item.output)]);
    default: {
      const { id: _id, status: _status, ...rest } = item;
      return stableJson(rest);
    }
  }
}

function canonicalContent(content: unknown): unknown {
  if (typeof content === 'string') return [['text', content]];
  if (!Array.isArray(content)) return content ?? null;
  return content.map((part) => {
    if (!isObject(part)) return part;
    if (typeof part.text === 'string') return ['text', part.text];
    if (typeof part.refusal === 'string') return ['refusal', part.refusal];
    return stableJson(part);
  });
}
