import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { CancelTurn, Input } from '../../src/core/types.ts';
import { GatewayError } from '../../src/errors.ts';
import { RequestGate, type WaitingRequest } from '../../src/session/request-gate.ts';

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
  /** As a stream does with what it reads. `decode`: what has to happen before the session gets it. */
  const request = (head: Request, decode: () => void | Promise<void> = () => undefined) => {
    const { kind, laneId, turnId } = head;
    const take = () => session.seen.push(`${kind === 'startTurn' ? 'start' : 'steer'} ${laneId}/${turnId}`);
    const run = async () => {
      await decode();
      take();
    };
    if (gate.admits()) take();
    else gate.wait({ ...head, run });
  };
  return { session, over, errors, gate, request };
}

type Request = Omit<WaitingRequest, 'run'>;
const start = (turnId: string, laneId = 'a', bytes = 0): Request => ({
  kind: 'startTurn',
  laneId,
  turnId,
  bytes,
});
const steer = (turnId: string | undefined, laneId = 'a', bytes = 0): Request => ({
  kind: 'steerTurn',
  laneId,
  turnId,
  bytes,
});
const cancel = (turnId: string, laneId = 'a'): CancelTurn => ({ kind: 'cancelTurn', laneId, turnId });
const settled = () => vi.advanceTimersByTimeAsync(0);

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('RequestGate', () => {
  it('lets requests through at once while the session has room', () => {
    const { session, gate, request } = setUp();
    request(start('1'));
    request(steer('1'));
    expect(session.seen).toEqual(['start a/1', 'steer a/1']);
    expect(gate.room()).toBeUndefined();
    expect(gate.empty()).toBeUndefined();
  });

  it('keeps requests in their order while the session has none, and lets a cancel pass', async () => {
    const { session, gate, request } = setUp();
    session.blocked = true;
    request(start('1'));
    request(start('2', 'b'));
    gate.cancel(cancel('0'));
    expect(session.seen).toEqual(['cancelTurn a/0']);
    const empty = gate.empty();
    session.unblock();
    await empty;
    expect(session.seen).toEqual(['cancelTurn a/0', 'start a/1', 'start b/2']);
  });

  it('goes on one by one, as far as there is room', async () => {
    const { session, request } = setUp();
    session.blocked = true;
    const block = () => {
      session.blocked = true;
    };
    for (const id of ['1', '2', '3']) request(start(id), block);
    session.unblock();
    await settled();
    expect(session.seen).toEqual(['start a/1']);
    // Not past those that wait already.
    session.blocked = false;
    request(start('4'));
    expect(session.seen).toEqual(['start a/1']);
    session.unblock();
    await settled();
    expect(session.seen).toEqual(['start a/1', 'start a/2']);
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
  ])('a cancel takes with it %s', async (_, requests, seen) => {
    const { session, gate, request } = setUp();
    session.blocked = true;
    for (const each of requests) request(each);
    await gate.cancel(cancel('1'));
    expect(session.seen).toEqual(seen);
  });

  it.each([
    ['bytes', 33, MIB],
    ['requests', 64, 1],
  ])('holds the stream back above its bound of %s, until something moves', async (_, count, bytes) => {
    const { session, gate, request } = setUp();
    session.blocked = true;
    for (let n = 0; n < count; n++) request(start(`${n}`, 'a', bytes));
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
    const { session, gate, request } = setUp();
    session.blocked = true;
    for (let n = 0; n < 32; n++) request(n % 2 === 0 ? start(`${n}`, 'a', MIB) : steer(`${n}`, 'a', MIB));
    const room = gate.room();
    expect(room).toBeDefined();
    await vi.advanceTimersByTimeAsync(30_000);
    await room;
    expect(session.seen.slice(0, 2)).toEqual(['refuse a/0 LIMIT_EXCEEDED', 'reject a/1 LIMIT_EXCEEDED']);
    expect(session.seen).toHaveLength(32);
    request(start('x'));
    expect(session.seen.at(-1)).toBe('refuse a/x LIMIT_EXCEEDED');
    gate.cancel(cancel('r'));
    session.unblock();
    request(start('y'));
    expect(session.seen.slice(-2)).toEqual(['cancelTurn a/r', 'start a/y']);
  });

  it('decodes one request at a time, in their order, and a cancel waits for those of its turn', async () => {
    const { session, gate, request } = setUp();
    const decoded = Promise.withResolvers<void>();
    session.blocked = true;
    request(start('1'), () => decoded.promise);
    request(start('2'), () => void session.seen.push('decoded 2'));
    session.unblock();
    await settled();
    // It has its place until then.
    request(start('3'));
    const cancelled = gate.cancel(cancel('2'));
    expect(gate.cancel(cancel('0'))).toBeUndefined();
    await settled();
    expect(session.seen).toEqual(['cancelTurn a/0']);
    decoded.resolve();
    await cancelled;
    await gate.empty();
    expect(session.seen).toEqual([
      'cancelTurn a/0',
      'start a/1',
      'decoded 2',
      'start a/2',
      'cancelTurn a/2',
      'start a/3',
    ]);
  });

  it('lets nothing wait while the process is short of memory', () => {
    const { session, request } = setUp();
    session.overload = new GatewayError('OVERLOADED', 'short of memory');
    request(start('1'));
    session.blocked = true;
    request(start('2'));
    request(steer('1'));
    expect(session.seen).toEqual(['start a/1', 'refuse a/2 OVERLOADED', 'reject a/1 OVERLOADED']);
  });

  it('gives up what is parked with the stream, and leaves no timer', async () => {
    const { session, over, gate, request } = setUp();
    session.blocked = true;
    for (let n = 0; n < 33; n++) request(start(`${n}`, 'a', MIB));
    const waiting = Promise.all([gate.room(), gate.empty()]);
    over.abort();
    await waiting;
    expect(vi.getTimerCount()).toBe(0);
    session.unblock();
    await settled();
    expect(session.seen).toEqual([]);
  });

  it('tells what a request throws', async () => {
    const { session, errors, gate, request } = setUp();
    session.blocked = true;
    request(start('1'), () => Promise.reject(new Error('no')));
    request(start('2'), () => Promise.reject(new Error('nor this')));
    await expect(gate.cancel(cancel('2'))).rejects.toThrow('nor this');
    session.unblock();
    await settled();
    expect(errors).toEqual([new Error('no')]);
  });
});
