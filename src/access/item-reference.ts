/**
 * Whether an input item only names a stored item by its id. The upstream takes such an item without a `type` as
 * well; a message without one has a `role`. Text that is no JSON is left to the translator to refuse.
 */
export function isItemReference(json: string): boolean {
  let item: unknown;
  try {
    item = JSON.parse(json);
  } catch {
    return false;
  }
  if (typeof item !== 'object' || item === null) return false;
  const type = 'type' in item ? item.type : undefined;
  if (type === 'item_reference') return true;
  return (type === undefined || type === null) && 'id' in item && !('role' in item);
}
