import { expect, it } from 'vitest';
import { type JournalEntry, JournalFold, type SavedNode } from '../../src/core/journal.ts';

const node = (
  id: string,
  parentId: string | undefined,
  items:
    | { readonly input: string[]; readonly output: string[]; readonly compactionIndex?: number }
    | undefined,
): SavedNode => ({
  id,
  laneId: '',
  parentId,
  parentLaneId: '',
  stored: false,
  upstream: 'main',
  items: items && { compactionIndex: undefined, ...items },
});

let commits = 0;
function commit(...nodes: SavedNode[]): JournalEntry {
  commits += 1;
  const turnId = `t${commits}`;
  return {
    kind: 'commit',
    outcome: {
      commit: commits,
      seq: commits,
      laneId: '',
      turnId,
      outcome: 'COMPLETED',
      type: 'response.completed',
      frame: undefined,
      failed: undefined,
      notice: undefined,
      headBefore: undefined,
    },
    fingerprint: turnId,
    lane: { laneId: '', headId: nodes.at(-1)?.id, carried: [] },
    nodes,
    heardSeq: 0,
  };
}

it('keeps what a compacted response says where what was said before is gone', () => {
  const fold = new JournalFold();
  fold.apply(commit(node('same', 'older', undefined)));
  fold.apply(
    commit(
      node('compacted', 'same', { input: ['"more"'], output: ['"sum"', '"answer"'], compactionIndex: 0 }),
      node('plain', 'same', { input: ['"what?"'], output: ['"that"'] }),
    ),
  );
  // Its id comes once more, and the first response under it is found by nobody.
  fold.apply(commit(node('same', undefined, { input: ['"new"'], output: [] })));
  const { nodes } = fold.state();
  const items = new Map(nodes.map((one) => [one.id, one.items]));
  expect(nodes.find(({ id }) => id === 'compacted')?.parentId).toBe('');
  expect(items.get('compacted')).toEqual({
    input: ['"more"'],
    output: ['"sum"', '"answer"'],
    compactionIndex: 0,
  });
  expect(items.get('plain')).toBeUndefined();
});

it('says what a response was before that nobody finds any more with its children', () => {
  const fold = new JournalFold();
  fold.apply(commit(node('same', undefined, { input: ['"a"'], output: ['"b"'] })));
  fold.apply(commit(node('child', 'same', { input: ['"c"'], output: ['"d"'] })));
  fold.apply(commit(node('same', 'child', { input: ['"e"'], output: ['"f"'] })));
  expect(fold.state().nodes.find(({ id }) => id === 'child')).toMatchObject({
    parentId: undefined,
    items: { input: ['"a"', '"b"', '"c"'], output: ['"d"'] },
  });
});
