import { setImmediate as nextTurn } from 'node:timers/promises';
import { Server } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { ConnectionPacing } from '../../src/grpc/hardening/connection-pacing.ts';
import { shareHttp2 } from '../../src/grpc/hardening/fair-http2.ts';
import { RoundRobin } from '../../src/session/round-robin.ts';

/** Pieces of work that take a time of their own on a clock of their own. */
function world() {
  let nowMs = 0;
  const turns = new RoundRobin(() => nowMs);
  const done: string[] = [];
  const piece = (name: string, tookMs: number) => () => {
    nowMs += tookMs;
    done.push(name);
  };
  return { turns, done, piece };
}

describe('connections that want something at the same time', () => {
  const [flood, neighbour] = [{}, {}];

  it('are served at once while there is time', () => {
    const { turns, done, piece } = world();
    turns.run(flood, piece('a', 0.3));
    turns.run(neighbour, piece('b', 0.3));
    expect(turns.turn(flood)).toBeUndefined();
    expect(done).toEqual(['a', 'b']);
  });

  it('wait for the next turn of the event loop when the time is up, and get theirs one after the other', async () => {
    const { turns, done, piece } = world();
    for (let n = 0; n < 100; n += 1) turns.run(flood, piece(`flood ${n}`, 0.6));
    turns.run(neighbour, piece('neighbour', 0.6));
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

  it('get more time beside others that take long', async () => {
    const { turns, done, piece } = world();
    for (let n = 0; n < 100; n += 1) turns.run(flood, piece('start', 1));
    expect(done).toHaveLength(1);
    // Somebody's events, before the next slice.
    piece('others', 40)();
    await nextTurn();
    await nextTurn();
    expect(done.filter((name) => name === 'start').length).toBeGreaterThanOrEqual(10);
  });

  it('count what goes on after an await as theirs', async () => {
    const { turns, done, piece } = world();
    piece('long', 2)();
    turns.run(flood, piece('first', 2));
    const tasks = ['one', 'two', 'three'].map(async (name) => {
      await turns.turn(flood);
      piece(name, 2)();
    });
    expect(done).toEqual(['long', 'first']);
    await nextTurn();
    expect(done).toEqual(['long', 'first', 'one']);
    await Promise.all(tasks);
    expect(done).toEqual(['long', 'first', 'one', 'two', 'three']);
  });
});

describe('the HTTP/2 servers of grpc-js', () => {
  const pacing = new ConnectionPacing(() => 0);

  it('are within reach', () => {
    expect(() => shareHttp2(new Server(), world().turns, pacing)).not.toThrow();
  });

  it('are missed when they are not', () => {
    expect(() => shareHttp2({} as Server, world().turns, pacing)).toThrow('grpc-js has changed');
  });
});
