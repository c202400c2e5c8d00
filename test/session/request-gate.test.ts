import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { CancelTurn, InjectTurn, Input, StartTurn, SteerTurn } from '../../src/core/types.ts';
import { GatewayError } from '../../src/errors.ts';
import { RequestGate } from '../../src/session/request-gate.ts';

const MIB = 1024 * 1024;

/** A session that writes down what reaches it. */
class Journal {
  blocked = false;
  overload: GatewayError | undefined;
  readonly seen: string[] = [];
  readonly #waiters: (() => void)[] = [];

  get inputBlocked(): boolean {
    return this.blocked;
  }

  inputReady(signal: AbortSignal): Promise<void> {
    if (!this.blocked || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      signal.addEventListener('abort', () => resolve());
      this.#waiters.push(resolve);
    });
  }

  startTurn({ laneId, turnId }: StartTurn): void {
    this.seen.push(`start ${laneId}/${turnId}`);
  }

  addInput({ kind, laneId, turnId }: SteerTurn | InjectTurn): void {
    this.seen.push(`${kind === 'steerTurn' ? 'steer' : 'inject'} ${laneId}/${turnId}`);
  }

  feed(input: Input): void {
    const { kind } = input;
    const about = 'laneId' in input && 'turnId' in input ? ` ${input.laneId}/${input.turnId}` : '';
    this.seen.push(`${kind}${about}${'error' in input ? ` ${input.error.reason}` : ''}`);
  }

  unblock(): void {
    this.blocked = false;
    for (const wake of this.#waiters.splice(0)) wake();
  }
}

function setUp() {
  const session = new Journal();
  const over = new AbortController();
  const errors: unknown[] = [];
  const gate = new RequestGate({
    session,
    signal: over.signal,
    turn: () => undefined,
    overload: () => session.overload,
    onError: (error) => errors.push(error),
  });
  return { session, over, errors, gate };
}

const start = (turnId: string, laneId = 'a', bytes = 0) =>
  ({
    kind: 'startTurn',
    laneId,
    turnId,
    create: { input: ['x'.repeat(bytes)], fields: new Map() },
  }) as unknown as StartTurn;
const steer = (turnId: string | undefined, laneId = 'a', bytes = 0): SteerTurn => ({
  kind: 'steerTurn',
  laneId,
  turnId,
  input: ['x'.repeat(bytes)],
});
const cancel = (turnId: string, laneId = 'a'): CancelTurn => ({ kind: 'cancelTurn', laneId, turnId });
const settled = () => vi.advanceTimersByTimeAsync(0);

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('RequestGate', () => {
  it('lets requests through at once while the session has room', () => {
    const { session, gate } = setUp();
    gate.request(start('1'));
    gate.request(steer('1'));
    expect(session.seen).toEqual(['start a/1', 'steer a/1']);
    expect(gate.room()).toBeUndefined();
    expect(gate.empty()).toBeUndefined();
  });

  it('keeps requests in their order while the session has none, and lets a cancel pass', async () => {
    const { session, gate } = setUp();
    session.blocked = true;
    gate.request(start('1'));
    gate.request(start('2', 'b'));
    gate.cancel(cancel('0'));
    expect(session.seen).toEqual(['cancelTurn a/0']);
    const empty = gate.empty();
    session.unblock();
    await empty;
    expect(session.seen).toEqual(['cancelTurn a/0', 'start a/1', 'start b/2']);
  });

  it('goes on one by one, as far as there is room', async () => {
    const { session, gate } = setUp();
    session.blocked = true;
    for (const id of ['1', '2', '3']) gate.request(start(id));
    session.startTurn = ({ turnId }) => {
      session.seen.push(turnId);
      session.blocked = true;
    };
    session.unblock();
    await settled();
    expect(session.seen).toEqual(['1']);
    // Not past those that wait already.
    session.blocked = false;
    gate.request(start('4'));
    expect(session.seen).toEqual(['1']);
    session.unblock();
    await settled();
    expect(session.seen).toEqual(['1', '2']);
  });

  it.each([
    ['the start before it', [start('1')], ['start a/1', 'cancelTurn a/1']],
    [
      'steers of the turn, named or not',
      [steer('1'), steer(undefined)],
      ['steer a/1', 'steer a/undefined', 'cancelTurn a/1'],
    ],
    ['a start and its steer', [start('1'), steer('1')], ['start a/1', 'steer a/1', 'cancelTurn a/1']],
    ['nothing of other lanes and turns', [start('1', 'b'), steer('2'), start('2')], ['cancelTurn a/1']],
  ])('a cancel takes with it %s', (_, requests, seen) => {
    const { session, gate } = setUp();
    session.blocked = true;
    for (const request of requests) gate.request(request);
    gate.cancel(cancel('1'));
    expect(session.seen).toEqual(seen);
  });

  it.each([
    ['bytes', 33, MIB],
    ['requests', 64, 1],
  ])('holds the stream back above its bound of %s, until something moves', async (_, count, bytes) => {
    const { session, gate } = setUp();
    session.blocked = true;
    for (let n = 0; n < count; n++) gate.request(start(`${n}`, 'a', bytes));
    let reads = false;
    const room = gate.room()?.then(() => {
      reads = true;
    });
    await vi.advanceTimersByTimeAsync(20_000);
    expect(reads).toBe(false);
    session.unblock();
    await room;
    await gate.empty();
    expect(session.seen).toHaveLength(count);
    expect(gate.room()).toBeUndefined();
  });

  it('refuses requests when nothing moves, so that a cancel behind them is read; takes them again after', async () => {
    const { session, gate } = setUp();
    session.blocked = true;
    for (let n = 0; n < 32; n++)
      gate.request(n % 2 === 0 ? start(`${n}`, 'a', MIB) : steer(`${n}`, 'a', MIB));
    const room = gate.room();
    expect(room).toBeDefined();
    await vi.advanceTimersByTimeAsync(30_000);
    await room;
    expect(session.seen.slice(0, 2)).toEqual(['refuse a/0 LIMIT_EXCEEDED', 'reject a/1 LIMIT_EXCEEDED']);
    expect(session.seen).toHaveLength(32);
    gate.request(start('x'));
    expect(session.seen.at(-1)).toBe('refuse a/x LIMIT_EXCEEDED');
    gate.cancel(cancel('r'));
    session.unblock();
    gate.request(start('y'));
    expect(session.seen.slice(-2)).toEqual(['cancelTurn a/r', 'start a/y']);
  });

  it('counts what a text takes in memory: one letter of two bytes makes all of them so', () => {
    const { session, gate } = setUp();
    session.blocked = true;
    const wide = { ...start('wide') };
    const input = ['x'.repeat(15 * MIB)];
    gate.request({ ...wide, create: { ...wide.create, input } });
    expect(gate.room()).toBeUndefined();
    input[0] += '漢';
    gate.request({ ...wide, create: { ...wide.create, input } });
    expect(gate.room()).toBeDefined();
  });

  it('lets nothing wait while the process is short of memory', () => {
    const { session, gate } = setUp();
    session.overload = new GatewayError('OVERLOADED', 'short of memory');
    gate.request(start('1'));
    session.blocked = true;
    gate.request(start('2'));
    gate.request(steer('1'));
    expect(session.seen).toEqual(['start a/1', 'refuse a/2 OVERLOADED', 'reject a/1 OVERLOADED']);
  });

  it('gives up what is parked with the stream, and leaves no timer', async () => {
    const { session, over, gate } = setUp();
    session.blocked = true;
    for (let n = 0; n < 33; n++) gate.request(start(`${n}`, 'a', MIB));
    const waiting = Promise.all([gate.room(), gate.empty()]);
    over.abort();
    await waiting;
    expect(vi.getTimerCount()).toBe(0);
    session.unblock();
    await settled();
    expect(session.seen).toEqual([]);
  });

  it('tells what a request throws', async () => {
    const { session, errors, gate } = setUp();
    session.blocked = true;
    gate.request(start('1'));
    session.startTurn = () => {
      throw new Error('no');
    };
    session.unblock();
    await settled();
    expect(errors).toEqual([new Error('no')]);
  });
});
