import { describe, expect, it } from 'vitest';
import { type EndedStream, type PacedSession, ResumePacing } from '../../src/session/resume-pacing.ts';

const NOTHING: EndedStream = { isCut: false, heard: false, ackedSeq: 0 };
const CUT: EndedStream = { isCut: true, heard: true, ackedSeq: 0 };

function setUp(maxCutStreams?: number) {
  let nowMs = 0;
  const pacing = new ResumePacing(() => nowMs, maxCutStreams);
  const newSession = (subject = 'alice') => ({
    principal: { tenantId: 'acme', subject },
    driver: { turnsTaken: 0 },
  });
  /** A stream that ended so, and the resume after it. */
  const again = (session: PacedSession, stream: Partial<EndedStream>, lastSeq = 0) => {
    pacing.ended(session, { ...NOTHING, ...stream });
    return pacing.resumed(session, lastSeq);
  };
  return {
    newSession,
    again,
    pass: (ms: number) => {
      nowMs += ms;
    },
  };
}

describe('ResumePacing', () => {
  it('lets a client that does nothing but come back wait longer each time, and never refuses it', () => {
    const { newSession, again } = setUp();
    const session = newSession();
    const paces = Array.from({ length: 50 }, () => again(session, NOTHING));
    expect(paces.slice(0, 5).map(({ kind }) => kind)).toEqual(Array(5).fill('free'));
    paces.slice(5).forEach((pace, n) => {
      const mostMs = Math.min(5_000, 200 * 2 ** n);
      if (pace.kind !== 'slowed') throw new Error(pace.kind);
      expect(pace.waitMs).toBeGreaterThanOrEqual(mostMs / 2);
      expect(pace.waitMs).toBeLessThanOrEqual(mostMs);
      expect(pace.isFirst).toBe(n === 0);
    });
    expect(again(session, { heard: true })).toEqual({ kind: 'free' });
  });

  it('refuses a session after as many cut streams as there may be, whatever else came in whole', () => {
    const { newSession, again } = setUp(8);
    const session = newSession();
    const kinds = Array.from({ length: 10 }, () => again(session, CUT).kind);
    expect(kinds).toEqual([...Array(5).fill('free'), 'slowed', 'slowed', ...Array(3).fill('refused')]);
    expect(again(session, CUT)).toEqual({ kind: 'refused', cuts: 11, isFirst: false });
    expect(again(newSession(), CUT)).toEqual({ kind: 'free' });
  });

  it.each<[string, { newTurn?: true; stream: EndedStream; lastSeq?: number }]>([
    ['a new turn', { newTurn: true, stream: CUT }],
    ['an acknowledgement', { stream: { ...CUT, ackedSeq: 7 } }],
    ['events that the client has seen', { stream: CUT, lastSeq: 7 }],
    ['a stream that was not cut', { stream: { ...NOTHING, heard: true } }],
  ])('begins anew after %s', (_, { newTurn, stream, lastSeq }) => {
    const { newSession, again } = setUp(4);
    const session = newSession();
    for (let round = 0; round < 3; round++) again(session, CUT);
    if (newTurn) session.driver.turnsTaken += 1;
    again(session, stream, lastSeq);
    for (let round = 0; round < 3; round++) expect(again(session, CUT, lastSeq)).toEqual({ kind: 'free' });
    expect(again(session, CUT, lastSeq).kind).toBe('refused');
  });

  it('slows the cut sessions of a caller that has many, and nobody else’s', () => {
    const { newSession, again, pass } = setUp();
    for (let n = 0; n < 60; n++) expect(again(newSession(), CUT).kind).toBe('free');
    expect(again(newSession(), CUT).kind).toBe('slowed');
    expect(again(newSession(), { heard: true }).kind).toBe('free');
    expect(again(newSession('bob'), CUT).kind).toBe('free');
    pass(60_000);
    expect(again(newSession(), CUT).kind).toBe('free');
  });
});
