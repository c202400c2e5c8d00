import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Ledger, NOTHING } from '../../src/access/limits.ts';
import type { Limits } from '../../src/access/options.ts';
import { GatewayError } from '../../src/errors.ts';
import { ANY, BLUE, freePlaces, open, RED, record, refusal, turn, usage, usedOf } from './support.ts';

beforeEach(() => {
  vi.useFakeTimers({ now: 1_800_000_000_000 });
});
afterEach(() => {
  vi.useRealTimers();
});

function withLimits(limits: Limits, processLimits?: Limits) {
  const { access } = open(processLimits === undefined ? {} : { processLimits }, [
    { id: 'blue', limits },
    { id: 'red' },
  ]);
  return access;
}

const limitOf = (call: () => unknown) => {
  const { code, reason, metadata, retryAfterMs } = refusal(call);
  return { code, reason, ...metadata, retryAfterMs };
};

describe('counted limits', () => {
  test('sessions: the refusal names limit, value and scope; a released place is free again', () => {
    const access = withLimits({ sessions: 2 });
    const first = access.admitSession(BLUE, ANY);
    access.admitSession(BLUE, ANY);
    expect(limitOf(() => access.admitSession(BLUE, ANY))).toEqual({
      code: 'RESOURCE_EXHAUSTED',
      reason: 'LIMIT_EXCEEDED',
      limit: 'sessions',
      value: '2',
      scope: 'tenant',
      retryAfterMs: 1_000,
    });
    access.admitSession(RED, ANY);
    first.release();
    first.release();
    access.admitSession(BLUE, ANY);
    expect(limitOf(() => access.admitSession(BLUE, ANY))).toMatchObject({ limit: 'sessions' });
  });

  test('the process has limits of its own, over all tenants, and takes nothing on refusal', () => {
    const access = withLimits({}, { sessions: 3, turnsInFlight: 1 });
    const session = access.admitSession(BLUE, ANY);
    const other = access.admitSession(RED, ANY);
    const third = access.admitSession(RED, ANY);
    expect(limitOf(() => access.admitSession(BLUE, ANY))).toMatchObject({ scope: 'process', value: '3' });
    third.release();
    const running = session.admitTurn(turn());
    expect(limitOf(() => other.admitTurn(turn()))).toMatchObject({
      limit: 'turns_in_flight',
      scope: 'process',
    });
    running.abandon();
    expect(freePlaces(access, RED)).toMatchObject({ sessions: 1, turnsInFlight: 1 });
  });

  test('lanes and turns in flight', () => {
    const limits = { sessions: 2, lanes: 1, turnsInFlight: 1 };
    const access = withLimits(limits);
    const session = access.admitSession(BLUE, ANY);
    session.admitLane();
    expect(limitOf(() => session.admitLane())).toMatchObject({ limit: 'lanes', value: '1' });
    session.laneClosed();
    session.laneClosed();
    session.admitLane();
    const running = session.admitTurn(turn());
    expect(limitOf(() => session.admitTurn(turn()))).toMatchObject({ limit: 'turns_in_flight' });
    running.settle(record());
    session.admitTurn(turn()).abandon();
    session.release();
    expect(freePlaces(access, BLUE)).toEqual(limits);
  });

  test('a message over the limit is refused without a time to wait', () => {
    const session = withLimits({ messageBytes: 1_000 }).admitSession(BLUE, ANY);
    session.admitTurn(turn({ inputBytes: 1_000 }));
    expect(limitOf(() => session.admitTurn(turn({ inputBytes: 1_001 })))).toMatchObject({
      limit: 'message_bytes',
      value: '1000',
      retryAfterMs: undefined,
    });
  });

  test('null lifts a default', () => {
    const session = withLimits({ messageBytes: null }).admitSession(BLUE, ANY);
    session.admitTurn(turn({ inputBytes: 1e9 }));
  });
});

describe('turns per minute', () => {
  test('the window ends by the clock, and says when', () => {
    const session = withLimits({ turnsPerMinute: 2 }).admitSession(BLUE, ANY);
    session.admitTurn(turn()).settle(record());
    vi.advanceTimersByTime(20_000);
    session.admitTurn(turn()).settle(record());
    expect(limitOf(() => session.admitTurn(turn()))).toMatchObject({
      limit: 'turns_per_minute',
      value: '2',
      retryAfterMs: 40_000,
    });
    vi.advanceTimersByTime(40_000);
    session.admitTurn(turn());
  });

  test('a turn that never ran does not count', () => {
    const session = withLimits({ turnsPerMinute: 1 }).admitSession(BLUE, ANY);
    for (let n = 0; n < 5; n++) session.admitTurn(turn()).abandon();
    session.admitTurn(turn());
    expect(limitOf(() => session.admitTurn(turn()))).toMatchObject({ limit: 'turns_per_minute' });
  });
});

describe('tokens', () => {
  // 400 bytes are taken for 100 tokens, and 100 of output are asked for: 200 held.
  const used = (access: ReturnType<typeof withLimits>) => usedOf(access, 'tokens_per_minute');

  test('are held at the start and settled by the usage', () => {
    const access = withLimits({ tokensPerMinute: 500 });
    const session = access.admitSession(BLUE, ANY);
    const first = session.admitTurn(turn());
    const second = session.admitTurn(turn());
    expect(used(access)).toBe(400);
    expect(limitOf(() => session.admitTurn(turn()))).toMatchObject({
      limit: 'tokens_per_minute',
      value: '500',
    });
    first.settle(record({ usage: usage(50, 10) }));
    expect(used(access)).toBe(260);
    second.settle(record({ usage: usage(400, 100) }));
    expect(used(access)).toBe(500);
    expect(limitOf(() => session.admitTurn(turn({ inputBytes: 0, maxOutputTokens: 0 })))).toMatchObject({
      limit: 'tokens_per_minute',
    });
  });

  test.each([
    ['not sent', record({ outcome: 'FAILED', sends: 0 }), 0],
    [
      'proved not to have run',
      record({
        outcome: 'FAILED',
        failed: {
          error: new GatewayError('UPSTREAM_RATE_LIMITED', 'slow down'),
          replay: 'SAFE',
          phase: 'SENT',
        },
      }),
      0,
    ],
    ['cancelled under way', record({ outcome: 'CANCELLED' }), 200],
    ['finished with usage', record({ usage: usage(1, 2) }), 3],
  ])('a turn that was %s', (_, ended, expected) => {
    const access = withLimits({ tokensPerMinute: 500 });
    access.admitSession(BLUE, ANY).admitTurn(turn()).settle(ended);
    expect(used(access)).toBe(expected);
  });

  test('late usage replaces the guess, or adds to what was settled', () => {
    const access = withLimits({ tokensPerMinute: 5_000 });
    const session = access.admitSession(BLUE, ANY);
    const cancelled = session.admitTurn(turn());
    cancelled.settle(record({ outcome: 'CANCELLED' }));
    cancelled.lateUsage(usage(30, 3));
    expect(used(access)).toBe(33);
    cancelled.lateUsage(usage(7, 0));
    expect(used(access)).toBe(40);
  });

  test('a steer is held with its turn, and refused where a turn would be', () => {
    const access = withLimits({ tokensPerMinute: 500, messageBytes: 1_500 });
    const session = access.admitSession(BLUE, ANY);
    const running = session.admitTurn(turn());
    // Input for the response that runs is held as such, a steer with the response that will answer it.
    session.admitInput([JSON.stringify('x'.repeat(78))], running, false);
    expect(used(access)).toBe(220);
    session.admitInput([JSON.stringify('x'.repeat(78))], running, true);
    expect(used(access)).toBe(340);
    expect(limitOf(() => session.admitInput([JSON.stringify('x'.repeat(798))], running, true))).toMatchObject(
      {
        limit: 'tokens_per_minute',
        retryAfterMs: 60_000,
      },
    );
    expect(limitOf(() => session.admitInput(['x'.repeat(1_501)], running, true))).toMatchObject({
      limit: 'message_bytes',
      value: '1500',
    });
    running.settle(record({ usage: usage(70, 7) }));
    expect(used(access)).toBe(77);
    // It has ended: the core refuses the steer, and nothing is held for it.
    session.admitInput(['"late"'], running, true);
    expect(used(access)).toBe(77);
  });

  test('a clock that is set neither ends a window nor keeps it for years', () => {
    const access = withLimits({ tokensPerDay: 200 });
    const session = access.admitSession(BLUE, ANY);
    session.admitTurn(turn());
    const refused = () => limitOf(() => session.admitTurn(turn())).retryAfterMs;
    vi.setSystemTime(1_900_000_000_000);
    expect(refused()).toBe(86_400_000);
    vi.setSystemTime(1_000_000_000_000);
    vi.advanceTimersByTime(86_399_000);
    expect(refused()).toBe(1_000);
    vi.advanceTimersByTime(1_000);
    session.admitTurn(turn());
  });

  test('what a session costs beside its turns counts', () => {
    const access = withLimits({ tokensPerMinute: 500 });
    const session = access.admitSession(BLUE, ANY);
    session.usedTokens(usage(450, 1));
    expect(used(access)).toBe(451);
    expect(limitOf(() => session.admitTurn(turn()))).toMatchObject({ limit: 'tokens_per_minute' });
  });

  test('a refund goes to the window it came from, an excess to the running one', () => {
    const access = withLimits({ tokensPerMinute: 500, tokensPerDay: 10_000 });
    const session = access.admitSession(BLUE, ANY);
    const cheap = session.admitTurn(turn());
    const dear = session.admitTurn(turn());
    vi.advanceTimersByTime(60_000);
    session.admitTurn(turn());
    expect(used(access)).toBe(200);
    cheap.settle(record({ usage: usage(10, 0) }));
    expect(used(access)).toBe(200);
    dear.settle(record({ usage: usage(300, 0) }));
    expect(used(access)).toBe(300);
    vi.advanceTimersByTime(60_000);
    expect(usedOf(access, 'tokens_per_day')).toBe(10 + 300 + 200);
  });

  test('the day has its own window', () => {
    const access = withLimits({ tokensPerDay: 300 });
    const session = access.admitSession(BLUE, ANY);
    session.admitTurn(turn()).settle(record({ usage: usage(200, 0) }));
    vi.advanceTimersByTime(3_600_000);
    expect(limitOf(() => session.admitTurn(turn()))).toMatchObject({
      limit: 'tokens_per_day',
      value: '300',
      retryAfterMs: 82_800_000,
    });
    vi.advanceTimersByTime(82_800_000);
    session.admitTurn(turn());
  });

  test('a guess above the whole limit runs alone', () => {
    const access = withLimits({ tokensPerMinute: 100 });
    const session = access.admitSession(BLUE, ANY);
    const big = session.admitTurn(turn({ maxOutputTokens: undefined }));
    expect(limitOf(() => session.admitTurn(turn({ inputBytes: 4, maxOutputTokens: 0 })))).toMatchObject({
      limit: 'tokens_per_minute',
    });
    big.settle(record({ usage: usage(10, 0) }));
    session.admitTurn(turn({ inputBytes: 4, maxOutputTokens: 0 }));
  });

  test('a released session leaves what its turns may still cost', () => {
    const limits = { sessions: 2, lanes: 2, turnsInFlight: 2 };
    const access = withLimits({ ...limits, tokensPerMinute: 500 });
    const session = access.admitSession(BLUE, ANY);
    const running = session.admitTurn(turn());
    session.release();
    expect(freePlaces(access, BLUE)).toEqual(limits);
    expect(used(access)).toBe(200);
    running.settle(record({ usage: usage(1, 1) }));
    expect(used(access)).toBe(2);
    expect(freePlaces(access, BLUE)).toEqual(limits);
  });
});

test('a turn that never ran is not counted, and no window needs a timer', () => {
  const ledger = new Ledger('tenant', { turnsPerMinute: 2 });
  const refused = () => ledger.refuseTurnRate(NOTHING)?.metadata['limit'];
  ledger.countTurn();
  ledger.countTurn();
  expect(refused()).toBe('turns_per_minute');
  ledger.uncountTurn();
  expect(refused()).toBeUndefined();
  ledger.countTurn();
  expect(refused()).toBe('turns_per_minute');
  vi.advanceTimersByTime(60_000);
  expect(refused()).toBeUndefined();
  expect(vi.getTimerCount()).toBe(0);
});
