export type Item = Readonly<Record<string, unknown>>;

/** What the model reads of an item, as one word: enough to compare conversations, whatever form the item was sent in. */
export function keyOf(item: Item): string {
  const { type = 'message', role, content, call_id, encrypted_content } = item;
  switch (type) {
    case 'function_call':
      return `call:${call_id}`;
    case 'function_call_output':
      return `out:${call_id}`;
    case 'reasoning':
      return `think:${encrypted_content ?? 'nothing'}`;
    case 'compaction':
      return `compact:${encrypted_content}`;
    default:
      return `${role}:${textOf(content)}`;
  }
}

export function userItem(text: string): Item {
  return { type: 'message', role: 'user', content: text };
}

export function outputItem(callId: string): Item {
  return { type: 'function_call_output', call_id: callId, output: `result of ${callId}` };
}

function textOf(content: unknown): string {
  if (!Array.isArray(content)) return String(content);
  return content.map((part: Item) => String(part['text'])).join('');
}

/** What is left of a conversation after its newest compaction item. */
export function compacted(keys: readonly string[]): readonly string[] {
  const at = keys.findLastIndex((key) => key.startsWith('compact:'));
  return at < 0 ? keys : keys.slice(at);
}

/** Calls of the conversation that have no output, and outputs of calls that it does not have. */
export function unpaired(keys: readonly string[]): readonly string[] {
  const calls = new Set(keys.filter((key) => key.startsWith('call:')).map((key) => key.slice(5)));
  const outputs = new Set(keys.filter((key) => key.startsWith('out:')).map((key) => key.slice(4)));
  return [
    ...[...calls].filter((id) => !outputs.has(id)).map((id) => `call ${id} has no output`),
    ...[...outputs].filter((id) => !calls.has(id)).map((id) => `output ${id} has no call`),
  ];
}
