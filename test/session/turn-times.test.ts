import { expect, it } from 'vitest';
import type { Fact, StartTurn } from '../../src/core/types.ts';
import { TurnTimes } from '../../src/session/turn-times.ts';

const turn = (turnId: string, receivedAtMs?: number) => ({ turnId, receivedAtMs }) as StartTurn;
const ended = (turnId: string, sentAtMs: number | undefined) =>
  ({ kind: 'turnEnded', record: { turnId, acceptedAtMs: 110, sentAtMs, endedAtMs: 900 } }) as Fact;

it('adds up what lies before the acceptance and behind the sending, not the wait for a link in between', () => {
  const times = new TurnTimes();
  times.received(turn('t', 100));
  times.written('t', () => 507);
  // A second frame of the turn, after a recovery, is no part of it.
  times.written('t', () => 800);
  expect(times.fact(ended('t', 500), () => 903)).toEqual({ upMs: 10 + 7, downMs: 3 });
  expect(times.fact(ended('t', 500), () => 903)).toEqual({ downMs: 3 });
});

it('knows nothing of a turn that was never written, and forgets those that never end', () => {
  const times = new TurnTimes();
  times.received(turn('unsent', 100));
  expect(times.fact(ended('unsent', undefined), () => 901)).toEqual({ downMs: 1 });
  times.received(turn('old', 100));
  times.written('old', () => 101);
  for (let n = 0; n < 2_000; n += 1) times.received(turn(`t${n}`, 100));
  expect(times.fact(ended('old', 100), () => 901)).toEqual({ downMs: 1 });
});

it('has nothing to say about other facts', () => {
  const fact = { kind: 'laneOpened', laneId: 'a', atMs: 0 } as Fact;
  expect(new TurnTimes().fact(fact, () => 1)).toBeUndefined();
});
