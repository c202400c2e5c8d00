/**
 * Items of a finished response, made fit to be sent again as input. Ids of items that were not stored mean
 * nothing to the upstream ("Item with id … not found", protocol.md 7.2), so they go.
 */
export function replayable(items: readonly string[]): readonly string[] {
  const kept: string[] = [];
  for (const text of items) {
    const fit = replayableItem(text);
    if (fit !== undefined) kept.push(fit);
  }
  return kept;
}

/** Kinds that a later item refers to by this very id, or whose id is all there is. */
const KEEPS_ID: ReadonlySet<string> = new Set([
  'item_reference',
  'mcp_approval_request',
  'image_generation_call',
]);

function replayableItem(text: string): string | undefined {
  const item: unknown = JSON.parse(text);
  if (typeof item !== 'object' || item === null) return text;
  const fields = item as Record<string, unknown>;
  const kind = typeof fields['type'] === 'string' ? fields['type'] : 'message';
  // Without its encrypted content a reasoning item is a reference to something that was never stored.
  if (kind === 'reasoning' && typeof fields['encrypted_content'] !== 'string') return undefined;
  if (!('id' in fields) || KEEPS_ID.has(kind)) return text;
  const { id: _, ...rest } = fields;
  return JSON.stringify(rest);
}
