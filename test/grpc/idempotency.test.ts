import { expect, it } from 'vitest';
import { KeyedRuns, type Listener } from '../../src/grpc/idempotency.ts';

const MIB = 1024 * 1024;
const DAY_MS = 86_400_000;

function reader(room: number) {
  const heard: (number | 'end')[] = [];
  let left = room;
  const listener: Listener = {
    get hasRoom() {
      return left > 0;
    },
    message: (bytes) => {
      left -= 1;
      heard.push(bytes[0] ?? -1);
    },
    end: () => heard.push('end'),
  };
  return { heard, listener, give: (more: number) => (left += more) };
}

const say = (n: number, length = 1) => new Uint8Array(length).fill(n);

it('nobody is told more than they have room for, and everybody gets all of it', () => {
  const run = new KeyedRuns(() => 0).begin('t', 'k', 'f');
  run.message(say(1));
  run.message(say(2));
  const [slow, quick] = [reader(1), reader(100)];
  const place = run.listen(slow.listener);
  run.listen(quick.listener);
  run.message(say(3));
  run.end(undefined);
  expect(quick.heard).toEqual([1, 2, 3, 'end']);
  expect(slow.heard).toEqual([1]);
  slow.give(1);
  place.more();
  expect(slow.heard).toEqual([1, 2]);
  slow.give(2);
  place.more();
  place.more();
  expect(slow.heard).toEqual([1, 2, 3, 'end']);
});

it('of an answer over the bound the end is kept, also for who is behind', () => {
  const run = new KeyedRuns(() => 0).begin('t', 'k', 'f');
  const slow = reader(0);
  const place = run.listen(slow.listener);
  for (const n of [1, 2, 3]) run.message(say(n, 2 * MIB));
  run.end(undefined);
  slow.give(10);
  place.more();
  expect(slow.heard).toEqual([3, 'end']);
});

it('a run that was forgotten while it ran is counted by nobody, and does not give its key away', () => {
  let nowMs = 0;
  const runs = new KeyedRuns(() => nowMs);
  const old = runs.begin('t', 'k', 'f');
  nowMs = 2 * DAY_MS;
  expect(runs.find('t', 'k', 'f')).toBeUndefined();
  const next = runs.begin('t', 'k', 'f');
  old.message(say(1, MIB));
  expect(runs.bytes).toBe(0);
  runs.release('t', 'k', old);
  expect(runs.find('t', 'k', 'f')).toBe(next);
});
