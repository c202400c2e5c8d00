import { expect, test } from 'vitest';
import { sessionQuerySchema } from '../../src/admin/api.ts';
import type { SessionSource } from '../../src/admin/source.ts';
import { answerOf, mergedSessions, NO_ANSWER } from '../../src/app/merged-sessions.ts';
import { sessionSource } from '../../src/app/session-source.ts';
import { History } from '../../src/history/history.ts';
import { SessionRegistry } from '../../src/session/registry.ts';
import { accepted, start } from '../telemetry/facts.ts';

/** A process that has the session, with these turns at these times. */
function process(turns: Readonly<Record<string, number>>, ended = false): SessionSource {
  const history = new History({ maxEntries: 100, maxTurnsPerSession: 100, maxEndedSessions: 10 });
  const session = history.session(start());
  for (const [turnId, atMs] of Object.entries(turns)) session.fact(accepted({ turnId, atMs }));
  if (ended) session.end('OK');
  return sessionSource({
    history,
    registry: new SessionRegistry(),
    telemetry: { linkCounts: () => [] },
    clock: () => 10_000,
    traceUrl: undefined,
    drainTimeoutMs: 1_000,
  });
}

const together = (...sources: readonly (SessionSource | typeof NO_ANSWER)[]) =>
  mergedSessions((question) =>
    Promise.all(sources.map((source) => (source === NO_ANSWER ? source : answerOf(source, question)))),
  );

test('the turns of a session that moved are those of both processes, each once and in order', async () => {
  const before = process({ a: 1_000, b: 2_000 }, true);
  const now = process({ b: 2_500, c: 3_000 });
  for (const all of [together(before, now), together(now, before)]) {
    const page = await all.turns('session-1', { offset: 0, limit: 500 });
    expect(shown(page)?.turns.map(({ turnId, acceptedAtMs }) => [turnId, acceptedAtMs])).toEqual([
      ['a', 1_000],
      ['b', 2_500],
      ['c', 3_000],
    ]);
    expect(shown(page)?.total).toBe(3);
    const second = await all.turns('session-1', { offset: 1, limit: 1 });
    expect(second).toMatchObject({ turns: [{ turnId: 'b' }], total: 3, offset: 1, limit: 1 });
    expect(shown(await all.session('session-1'))?.session.state).toBe('running');
  }
  expect(await together(now).turns('nobody', { offset: 0, limit: 500 })).toBeUndefined();
});

test('an act that a process did not answer is not told as one on a session that does not exist', async () => {
  const known = process({ a: 1_000 });
  expect(await together(known, known).drainSession('other')).toBe('unknownSession');
  expect(await together(known, NO_ANSWER).drainSession('other')).toBe('noAnswer');
  expect(await together(known, NO_ANSWER).cancelTurn('other', 'a')).toBe('noAnswer');
  expect(shown(await together(NO_ANSWER, known).session('session-1'))?.session.id).toBe('session-1');
});

test('what leaves out a silent process says so, and a session that it may have is not told as unknown', async () => {
  const known = process({ a: 1_000 });
  const query = sessionQuerySchema.parse({});
  expect((await together(known, known).keys(query)).silentProcesses).toBe(0);
  expect(await together(known, NO_ANSWER).keys(query)).toMatchObject({
    keys: [[expect.anything(), 'session-1']],
    silentProcesses: 1,
  });
  expect((await together(known, NO_ANSWER, NO_ANSWER).board()).silentProcesses).toBe(2);
  expect(await together(known, NO_ANSWER).session('other')).toBe('noAnswer');
  expect(await together(known, NO_ANSWER).turns('other', { offset: 0, limit: 1 })).toBe('noAnswer');
  expect(await together(known, known).session('other')).toBeUndefined();
});

function shown<T>(answer: T | 'noAnswer'): T | undefined {
  return answer === 'noAnswer' ? undefined : answer;
}
