// An empty map is 184 bytes, and of those that a session has, most are empty while it rests: the first entry makes the
// map, the last takes it along.

export function withEntry<Key, Value>(
  map: Map<Key, Value> | undefined,
  key: Key,
  value: Value,
): Map<Key, Value> {
  return (map ?? new Map<Key, Value>()).set(key, value);
}

export function without<Key, Value>(map: Map<Key, Value> | undefined, key: Key): Map<Key, Value> | undefined {
  map?.delete(key);
  return map?.size === 0 ? undefined : map;
}
