import { FewMap } from '../ground/few-map.ts';

// Of the maps that a session has, most are empty while it rests: the first entry makes the map, the last takes it along.

export function withEntry<Key, Value>(
  map: FewMap<Key, Value> | undefined,
  key: Key,
  value: Value,
): FewMap<Key, Value> {
  return (map ?? new FewMap<Key, Value>()).set(key, value);
}

export function without<Key, Value>(
  map: FewMap<Key, Value> | undefined,
  key: Key,
): FewMap<Key, Value> | undefined {
  map?.delete(key);
  return map?.size === 0 ? undefined : map;
}
