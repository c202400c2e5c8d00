import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { FairShare } from '../../src/session/fair-share.ts';

/** Pieces of work that take a time of their own on a clock of their own. */
function world() {
  let nowMs = 0;
  const fairShare = new FairShare(() => nowMs);
  const done: string[] = [];
  const piece = (name: string, tookMs: number) => () => {
    nowMs += tookMs;
    done.push(name);
  };
  return { fairShare, done, piece };
}

describe('connections that want something at the same time', () => {
  const [flood, neighbour] = [{}, {}];

  it('are served at once while there is time', () => {
    const { fairShare, done, piece } = world();
    fairShare.run(flood, piece('a', 0.3));
    fairShare.run(neighbour, piece('b', 0.3));
    expect(fairShare.wait(flood)).toBeUndefined();
    expect(done).toEqual(['a', 'b']);
  });

  it('wait for the next turn of the event loop when the time is up, and get theirs one after the other', async () => {
    const { fairShare, done, piece } = world();
    for (let n = 0; n < 100; n += 1) fairShare.run(flood, piece(`flood ${n}`, 0.6));
    fairShare.run(neighbour, piece('neighbour', 0.6));
    expect(done).toEqual(['flood 0', 'flood 1']);

    await nextTurn();
    await nextTurn();
    expect(done.slice(0, 5)).toContain('neighbour');
    expect(done.length).toBeLessThan(10);
    while (done.length < 101) await nextTurn();
    expect(done.filter((name) => name !== 'neighbour')).toEqual(
      Array.from({ length: 100 }, (_, n) => `flood ${n}`),
    );
  });

  it('get their turns between the steps of what takes long', async () => {
    const { fairShare, done, piece } = world();
    function* long() {
      for (let n = 0; n < 10; n += 1) {
        piece(`step ${n}`, 0.6)();
        yield;
      }
      return 'result';
    }
    const result = fairShare.through(flood, long());
    fairShare.run(neighbour, piece('neighbour', 0.6));
    expect(await result).toBe('result');
    expect(done.indexOf('neighbour')).toBeLessThan(5);
    expect(done).toHaveLength(11);
    function* failing() {
      yield;
      throw new Error('bad');
    }
    await expect(fairShare.through(flood, failing())).rejects.toThrow('bad');
  });

  it('get more time beside others that take long', async () => {
    const { fairShare, done, piece } = world();
    for (let n = 0; n < 100; n += 1) fairShare.run(flood, piece('start', 1));
    expect(done).toHaveLength(1);
    // Somebody's events, before the next slice.
    piece('others', 40)();
    await nextTurn();
    await nextTurn();
    expect(done.filter((name) => name === 'start').length).toBeGreaterThanOrEqual(10);
  });

  it('count what goes on after an await as theirs', async () => {
    const { fairShare, done, piece } = world();
    piece('long', 2)();
    fairShare.run(flood, piece('first', 2));
    const tasks = ['one', 'two', 'three'].map(async (name) => {
      await fairShare.wait(flood);
      piece(name, 2)();
    });
    expect(done).toEqual(['long', 'first']);
    await nextTurn();
    expect(done).toEqual(['long', 'first', 'one']);
    await Promise.all(tasks);
    expect(done).toEqual(['long', 'first', 'one', 'two', 'three']);
  });
});
