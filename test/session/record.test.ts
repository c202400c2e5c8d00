import { describe, expect, it } from 'vitest';
import { EMPTY_STATE, type SavedNode, type SavedOutcome } from '../../src/core/journal.ts';
import {
  decodeEntry,
  encodeEntry,
  type RecordEntry,
  RecordFold,
  snapParts,
} from '../../src/session/record.ts';

const opening = {
  tenantId: 'acme',
  subject: 'alice',
  method: 'Connect',
  model: 'm',
  upstream: undefined,
  recovery: true,
  labels: [['job', 'x']],
  clientName: undefined,
  clientVersion: undefined,
} as const;
const owner = { process: 'p1', address: '' };
const rest = { opening, owner, tokens: [{ digest: 'd', issuedAtSeq: 1 }] };

const node = (id: string, parentId?: string, text = '{"b":1,"a":"ü\\u0000 \\n"}'): SavedNode => ({
  id,
  parentId,
  stored: false,
  upstream: 'main',
  items: { input: [text], output: ['{"o":[]}', '{"x":1.0}'], compactionIndex: undefined },
});

const outcome = (commit: number, seq: number, turnId: string): SavedOutcome => ({
  commit,
  seq,
  laneId: 'l',
  turnId,
  outcome: 'COMPLETED',
  type: 'response.completed',
  frame: '{"type":"response.completed","é":1e2}',
  failed: undefined,
  notice: undefined,
  headBefore: undefined,
});

const commit = (n: number, seq: number, nodes: readonly SavedNode[] = []): RecordEntry => ({
  kind: 'commit',
  outcome: outcome(n, seq, `t${n}`),
  fingerprint: 'f',
  lane: {
    laneId: 'l',
    headId: `r${n}`,
    carried: [{ responseId: 'r', steers: [['{"s":1}']], outputs: ['{}'] }],
  },
  nodes,
  heardSeq: 0,
});

const open: RecordEntry = { kind: 'open', opening, owner, tokens: [] };

describe('an entry', () => {
  it.each<[string, RecordEntry]>([
    ['open', open],
    ['begin', { kind: 'begin', turnId: 't', laneId: '', fingerprint: 'f' }],
    ['commit', commit(1, 5, [node('r1')])],
    ['commit without content', commit(1, 5, [{ ...node('r1'), items: undefined }])],
    [
      'outbox',
      {
        kind: 'outbox',
        events: [
          {
            ...{ seq: 3, laneId: 'l', turnId: 't', type: 'response.created', outcome: undefined },
            ...{ commit: undefined, notice: undefined, frame: '{"é":1}', failed: undefined },
          },
        ],
      },
    ],
    [
      'snap',
      {
        kind: 'snap',
        first: true,
        nodes: [node('r1')],
        rest: { ...rest, state: { ...EMPTY_STATE, outcomes: [outcome(1, 2, 't')] } },
      },
    ],
  ])('comes back to the letter: %s', (_name, entry) => {
    const read = decodeEntry(encodeEntry(entry));
    // What is undefined may be missing.
    expect(JSON.parse(JSON.stringify(read))).toEqual(JSON.parse(JSON.stringify(entry)));
  });

  it('does not encode raw JSON twice', () => {
    expect(encodeEntry(commit(1, 5, [node('r1')])).toString()).toContain('{"b":1,"a":"ü\\u0000 \\n"}');
  });

  it.each(['', 'x', '{"v":2,"kind":"end"}\n', '{"v":1'])('that is none is refused: %j', (text) => {
    expect(() => decodeEntry(Buffer.from(text))).toThrow(/format 2|not an entry/);
  });
});

describe('a record', () => {
  const fold = (...entries: readonly (readonly [fence: number, n: number, entry: RecordEntry])[]) => {
    const record = new RecordFold();
    for (const [fence, n, entry] of entries) record.apply({ fence, n }, entry);
    return record.record();
  };

  it('says who holds it, with which tokens, and what it was opened with', () => {
    const taken = { process: 'p2', address: '' };
    expect(
      fold(
        [1, 0, open],
        [1, 1, { kind: 'token', tokens: rest.tokens }],
        [1, 2, { kind: 'release' }],
        [7, 0, { kind: 'take', owner: taken }],
      ),
    ).toMatchObject({ opening, owner: taken, tokens: rest.tokens, released: false, damaged: false });
  });

  it('with a hole is damaged until everything was written again', () => {
    const begin: RecordEntry = { kind: 'begin', turnId: 't9', laneId: '', fingerprint: 'f' };
    const [snap] = snapParts({ ...EMPTY_STATE, commit: 4 }, rest) as Iterable<RecordEntry>;
    expect(fold([1, 0, open], [1, 2, begin])?.damaged).toBe(true);
    expect(fold([1, 0, open], [1, 2, begin], [1, 3, snap as RecordEntry])).toMatchObject({
      damaged: false,
      state: { commit: 4, running: [] },
    });
    // Without its beginning there is no telling what it was.
    expect(fold([1, 5, begin])).toBeUndefined();
  });

  it('takes a snap only whole', () => {
    const big = Array.from({ length: 4 }, (_, n) =>
      node(`r${n}`, n ? `r${n - 1}` : undefined, `"${'x'.repeat(200_000)}"`),
    );
    const parts = [...snapParts({ ...EMPTY_STATE, commit: 9, nodes: big }, rest)];
    expect(parts.length).toBeGreaterThan(2);
    const numbered = parts.map((part, index) => [1, index + 2, part] as const);
    const before = [
      [1, 0, open],
      [1, 1, commit(1, 5)],
    ] as const;
    expect(fold(...before, ...numbered.slice(0, -1))?.state.commit).toBe(1);
    expect(fold(...before, ...numbered)?.state).toMatchObject({
      commit: 9,
      nodes: big.map(({ id }) => ({ id })),
    });
    expect(fold(...numbered)).toMatchObject({ damaged: false, state: { commit: 9 } });
    // A takeover in the middle: the rest is another's.
    const taken = [3, 0, { kind: 'take', owner }] as const;
    expect(fold(...before, ...numbered.slice(0, 2), taken)?.state.commit).toBe(1);
  });

  it('keeps outcomes until they were heard', () => {
    const heard = { ...(commit(3, 9) as Extract<RecordEntry, { kind: 'commit' }>), heardSeq: 5 };
    const state = fold([1, 0, open], [1, 1, commit(1, 5)], [1, 2, commit(2, 7)], [1, 3, heard])?.state;
    expect(state?.outcomes.map(({ turnId }) => turnId)).toEqual(['t2', 't3']);
    expect(state?.ended.map(([id]) => id)).toEqual(['t1', 't2', 't3']);
  });
});
