import { describe, expect, test } from 'vitest';
import { History } from '../../src/history/history.ts';
import { LatencyCounts, percentileMs } from '../../src/history/latency.ts';
import { addSamples } from '../../src/history/samples.ts';
import { addUsage, UsageBoard } from '../../src/history/usage-board.ts';
import { splitTurn } from '../../src/telemetry/turn-split.ts';
import { accepted, ROUTE, record, start } from '../telemetry/facts.ts';

function history(changes: Partial<ConstructorParameters<typeof History>[0]> = {}) {
  const time = { ms: 1_000_000 };
  const all = new History({
    maxEntries: 1_000,
    maxTurnsPerSession: 100,
    maxEndedSessions: 2,
    clock: () => time.ms,
    ...changes,
  });
  return { all, time };
}

function turn(session: ReturnType<History['session']>, turnId: string, acceptedAtMs = 1_000) {
  session.fact(accepted({ turnId, atMs: acceptedAtMs }));
  const ended = record({ turnId, acceptedAtMs });
  session.turnEnded(ended, splitTurn(ended, 0), undefined);
}

describe('what is remembered of a session', () => {
  test('is nothing while it does nothing', () => {
    const { all } = history();
    const session = all.session(start());
    expect([session.turns, session.links, session.marks]).toEqual([[], [], []]);
    // One list for all sessions: nothing is made for this one.
    expect(session.turns).toBe(all.session(start({ sessionId: 'other' })).turns);
    session.end('OK');
    expect(all.get('session-1')).toBeUndefined();
  });

  test('is its last turns, and the count of those that went', () => {
    const { all } = history({ maxTurnsPerSession: 3 });
    const session = all.session(start());
    for (const id of ['a', 'b', 'c', 'd', 'e']) turn(session, id);
    expect(session.turns.map(({ turnId }) => turnId)).toEqual(['c', 'd', 'e']);
    expect([session.turnsTotal, session.dropped]).toEqual([5, 2]);
  });

  test('is bounded over all sessions: the oldest entry goes, whosever it is', () => {
    const { all } = history({ maxEntries: 4 });
    const one = all.session(start({ sessionId: 'one' }));
    const other = all.session(start({ sessionId: 'other' }));
    turn(one, 'a');
    turn(one, 'b');
    for (const id of ['c', 'd', 'e']) turn(other, id);
    expect(one.turns.map(({ turnId }) => turnId)).toEqual(['b']);
    expect(other.turns.map(({ turnId }) => turnId)).toEqual(['c', 'd', 'e']);
  });

  test('outlives its end for the last few', () => {
    const { all } = history();
    for (const sessionId of ['a', 'b', 'c']) {
      const session = all.session(start({ sessionId }));
      turn(session, 't');
      session.end('OK');
    }
    expect([...all.sessions()].map((session) => session.start.sessionId)).toEqual(['b', 'c']);
  });

  test('is bounded by words too: names are whatever a caller or an upstream says', () => {
    const { all } = history();
    const session = all.session(start());
    const long = 'm'.repeat(1_000_000);
    session.forked('t', long);
    session.fact(accepted({ turnId: 't', atMs: 1_000, model: long }));
    session.fact({ kind: 'toolCalled', turnId: 't', name: long, atMs: 1_000 });
    session.fact({ kind: 'responseCreated', turnId: 't', responseId: long, atMs: 1_000 });
    const ended = record({
      turnId: 't',
      acceptedAtMs: 1_000,
      requestModel: long,
      responseModel: long,
      serviceTier: long,
      finishReason: long,
    });
    session.turnEnded(ended, splitTurn(ended, 0), undefined);
    const kept = JSON.stringify([session.turns, session.lastModel, all.usage()]);
    expect(kept.length).toBeLessThan(5_000);
  });

  test('of a session that comes back is what it does now, and it does not go with those that have ended', () => {
    const { all } = history();
    const before = all.session(start());
    turn(before, 'a');
    before.end('OK');
    const back = all.session(start());
    turn(back, 'b');
    for (const sessionId of ['x', 'y', 'z']) {
      const other = all.session(start({ sessionId }));
      turn(other, 't');
      other.end('OK');
    }
    expect(all.get('session-1')).toBe(back);
    all.tick(0);
    expect(all.lastSample()?.gauges.sessions).toBe(1);
  });

  test('of a session that is over here after it has come back changes nothing of the new one', () => {
    const { all } = history();
    const before = all.session(start());
    turn(before, 'a');
    const back = all.session(start());
    before.end('OK');
    expect(all.get('session-1')).toBe(back);
    expect(back.state).toBe('detached');
    all.tick(0);
    expect(all.lastSample()?.gauges.sessions).toBe(1);
  });

  test('has forks, steers, links and what befell them', () => {
    const { all, time } = history();
    const session = all.session(start({ takenOverSinceMs: time.ms - 50 }));
    session.fact({ kind: 'linkDialing', linkId: 1, purpose: 'session', atMs: 10 });
    session.fact({ kind: 'linkUp', linkId: 1, route: ROUTE, atMs: 20 });
    session.forked('t', 'resp_parent');
    session.fact(accepted({ turnId: 't', atMs: 30 }));
    session.fact({ kind: 'turnSent', turnId: 't', linkId: 1, atMs: 31 });
    session.fact({ kind: 'responseCreated', turnId: 't', responseId: 'resp_1', atMs: 32 });
    session.steered({ kind: 'steerTurn', laneId: '', turnId: 't', input: ['"never kept"'] });
    session.fact({ kind: 'responseCreated', turnId: 't', responseId: 'resp_2', atMs: 33 });
    session.fact({ kind: 'linkDown', linkId: 1, reason: 'closed', closeCode: 1006, atMs: 40 });
    const rebuilt = { linkId: 2, turnId: 't', reason: 'link_lost', bytes: 9, startedAtMs: 40, endedAtMs: 45 };
    session.fact({ kind: 'recovered', ...rebuilt });
    session.resumed('RESUMED');
    expect(session.turns).toMatchObject([
      {
        turnId: 't',
        fromResponseId: 'resp_parent',
        responseIds: ['resp_1', 'resp_2'],
        linkId: 1,
        sentAtMs: 31,
      },
    ]);
    expect(session.links).toMatchObject([
      { upAtMs: 20, downAtMs: 40, downReason: 'closed', upstream: 'primary' },
    ]);
    expect(session.marks.map(({ kind }) => kind)).toEqual(['takenOver', 'steered', 'recovered', 'resumed']);
    expect(JSON.stringify([session.turns, session.links, session.marks])).not.toContain('never kept');
  });
});

describe('a second', () => {
  test('counts what happened in it, and starts anew', () => {
    const { all } = history();
    const session = all.session(start());
    turn(session, 'a');
    session.fact(accepted({ turnId: 'b', atMs: 2_000 }));
    all.tick(3);
    expect(all.lastSample()).toMatchObject({
      gauges: { sessions: 1, turnsRunning: 1, links: 3 },
      counts: { turnsStarted: 2, completed: 1, outputTokens: 80, bytesSaved: 48_000 },
    });
    session.end('CANCELLED');
    all.tick(0);
    expect(all.lastSample()).toMatchObject({
      gauges: { sessions: 0, turnsRunning: 0 },
      counts: { turnsStarted: 0, completed: 0 },
    });
  });

  test('becomes part of a longer one, and the hour is all that is kept', () => {
    const { all, time } = history();
    for (let second = 1; second <= 3_700; second += 1) {
      time.ms = second * 1_000;
      if (second > 3_690) turn(all.session(start({ sessionId: `s${second}` })), 't');
      all.tick(0);
    }
    const past = all.past(10);
    expect(past.length).toBe(360);
    expect(past.at(-1)).toMatchObject({ atS: 3_700, spanS: 10, counts: { completed: 10 } });
    expect(past[0]?.atS).toBe(110);
  });

  test('of two processes adds up, percentiles too', () => {
    const one = history();
    const other = history();
    for (let index = 0; index < 3; index += 1) turn(one.all.session(start({ sessionId: `s${index}` })), 't');
    turn(other.all.session(start()), 't');
    one.all.tick(2);
    other.all.tick(5);
    const sum = addSamples([one.all, other.all].flatMap((each) => each.lastSample() ?? []));
    expect(sum).toMatchObject({ gauges: { sessions: 4, links: 7 }, counts: { completed: 4 } });
    const busy = (eventLoopShare: number) => {
      const sample = one.all.lastSample() as NonNullable<typeof sum>;
      return { ...sample, gauges: { ...sample.gauges, eventLoopShare } };
    };
    expect(addSamples([busy(0.7), busy(0.9)])?.gauges.eventLoopShare).toBe(0.9);
    // First output came after 400 ms.
    expect(percentileMs(sum?.firstToken ?? [], 0.95)).toBeGreaterThan(350);
    expect(percentileMs(sum?.firstToken ?? [], 0.95)).toBeLessThan(450);
  });
});

test.each([0.4, 1, 3, 20, 150, 999, 12_345, 600_000])(
  'a percentile of %d ms is at most an eighth off',
  (ms) => {
    const counts = new LatencyCounts();
    for (let index = 0; index < 10; index += 1) counts.add(ms);
    const p50 = percentileMs(counts.take(), 0.5) ?? 0;
    expect(Math.abs(p50 - ms)).toBeLessThanOrEqual(Math.max(0.5, ms * 0.125));
  },
);

test('what priced turns cost adds up exactly', () => {
  const { all } = history();
  const session = all.session(start());
  for (const [turnId, amount] of [
    ['a', '0.1'],
    ['b', '0.2'],
  ] as const) {
    session.fact(accepted({ turnId, atMs: 1_000 }));
    const cost = { amount, currency: 'USD', pricesAsOf: '2026-11-01' };
    const ended = record({ turnId, acceptedAtMs: 1_000, cost });
    session.turnEnded(ended, splitTurn(ended, 0), undefined);
  }
  expect(session.cost).toEqual({ amount: '0.3', currency: 'USD' });
  expect(all.usage()).toMatchObject([{ currency: 'USD', total: { cost: expect.closeTo(0.3) } }]);
});

test('usage of the last hour forgets minute by minute, and models of callers make no rows without end', () => {
  const board = new UsageBoard();
  const minute = 60_000;
  board.add('acme', record({ turnId: 'a', acceptedAtMs: 0 }), 10 * minute);
  board.add('acme', record({ turnId: 'b', acceptedAtMs: 0 }), 40 * minute);
  const turns = (atMs: number) =>
    board.rows(atMs).map(({ total, lastHour }) => [total.turns, lastHour.turns]);
  expect(turns(41 * minute)).toEqual([[2, 2]]);
  expect(turns(70 * minute)).toEqual([[2, 1]]);
  expect(turns(500 * minute)).toEqual([[2, 0]]);
  for (let index = 0; index < 1_000; index += 1)
    board.add('acme', record({ turnId: 'c', acceptedAtMs: 0, responseModel: `m${index}` }), minute);
  expect(board.rows(minute).length).toBeLessThan(210);
  const twice = addUsage([board.rows(0), board.rows(0)]);
  expect(twice.reduce((sum, { total }) => sum + total.turns, 0)).toBe(2 * 1_002);
});
