import { describe, expect, it } from 'vitest';
import { type NewNode, Transcript, type TranscriptNode } from '../../src/core/transcript.ts';
import { OVER_HTTP, ready, World } from './world.ts';

const transcript = () => new Transcript(1 << 20, { tryTake: () => true, give: () => {} });

function node(id: string, parentId: string | undefined, said: string): NewNode {
  return {
    id,
    parentId,
    stored: false,
    upstream: 'main',
    input: [said],
    output: [`re: ${said}`],
    compactionIndex: undefined,
    overflowed: false,
  };
}

const itemsOf = (kept: Transcript, id: string, laneId = '') =>
  kept.pathSince(id, () => false, { laneId })?.steps.flatMap(({ input, output }) => [...input, ...output]);

it.each([
  ['is all the same', ['resp_mock', 'resp_mock', 'resp_mock']],
  ['returns further up the path', ['a', 'b', 'a']],
])('keeps the whole conversation where the id of its responses %s', (_, ids) => {
  const kept = transcript();
  ['one', 'two', 'three'].forEach((said, n) => {
    kept.add(node(ids[n] as string, ids[n - 1], said), () => ids);
  });
  const last = ids.at(-1) as string;
  expect(kept.isComplete(last, '')).toBe(true);
  expect(itemsOf(kept, last)).toEqual(['one', 're: one', 'two', 're: two', 'three', 're: three']);
});

it('ends every walk, whatever ids and parents an upstream names', () => {
  const names = ['a', 'b', 'c', 'd'];
  let seed = 7;
  const random = (bound: number) => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 16) % bound;
  };
  for (const maxBytes of [1 << 20, 3_000]) {
    const kept = new Transcript(maxBytes, { tryTake: () => true, give: () => {} });
    for (let n = 0; n < 1_000; n += 1) {
      const id = names[random(4)] as string;
      const parentId = [...names, id, undefined][random(6)];
      kept.add({ ...node(id, parentId, 'x'.repeat(random(50))), laneId: names[random(2)] as string }, () => [
        id,
      ]);
      for (const name of names) {
        kept.isComplete(name, '');
        kept.pathSince(name, () => false);
        if (random(9) === 0) kept.releaseBehind(name, '', () => names);
      }
      expect(kept.bytes).toBeLessThanOrEqual(maxBytes);
    }
    kept.clear();
    expect(kept.bytes).toBe(0);
  }
});

it("does not take the response of another lane for a lane's own, where their ids are the same", () => {
  const kept = transcript();
  const say = (laneId: string, said: string, parentId?: string) =>
    kept.add({ ...node('resp_mock', parentId, said), laneId }, () => ['resp_mock']);
  say('a', 'a1');
  say('b', 'b1');
  say('a', 'a2', 'resp_mock');
  say('b', 'b2', 'resp_mock');
  expect(itemsOf(kept, 'resp_mock', 'a')).toEqual(['a1', 're: a1', 'a2', 're: a2']);
  expect(itemsOf(kept, 'resp_mock', 'b')).toEqual(['b1', 're: b1', 'b2', 're: b2']);
});

it('can be saved by lanes and ids alone, and comes back the same', () => {
  for (const ids of [
    ['a', 'b', 'c'],
    ['x', 'x', 'x'],
    ['a', 'b', 'a', 'b'],
  ]) {
    const kept = transcript();
    for (const [n, id] of ids.entries()) kept.add(node(id, ids[n - 1], `${n}`), () => ids);
    const again = transcript();
    for (const found of kept.findable()) {
      const { parentId, items } = kept.folded(found);
      again.add(
        { ...node(found.id, parentId, ''), input: items?.input ?? [], output: items?.output ?? [] },
        () => ids,
      );
    }
    const last = ids.at(-1) as string;
    expect(itemsOf(again, last)).toEqual(itemsOf(kept, last));
  }
});

it('frees what a repeated id and a cut path leave behind', () => {
  const kept = transcript();
  for (let n = 0; n < 100; n += 1) kept.add(node('a', 'a', `${n}`), () => ['a']);
  const chained = kept.bytes;
  for (let n = 0; n < 100; n += 1) kept.add(node('a', undefined, `${n}`), () => ['a']);
  expect(kept.bytes).toBeLessThan(chained / 50);
});

describe('the path behind a compaction', () => {
  const compacted = (id: string, parentId: string) => ({
    ...node(id, parentId, 'two'),
    output: ['{"type":"compaction"}', 're: two'],
    compactionIndex: 0,
  });

  it('stays for a fork from there, while there is room', () => {
    const kept = transcript();
    kept.add(node('a', undefined, 'one'), () => []);
    kept.add(compacted('b', 'a'), () => ['b']);
    kept.releaseBehind('b', '', () => ['b']);
    expect(itemsOf(kept, 'a')).toEqual(['one', 're: one']);
    expect(itemsOf(kept, 'b')).toEqual(['{"type":"compaction"}', 're: two']);
  });

  it('is the first to go when there is none, in the session or in the process', () => {
    const small = new Transcript(2_500, { tryTake: () => true, give: () => {} });
    const shared = new Transcript(1 << 20, { tryTake: () => true, give: () => {}, scarce: true });
    for (const kept of [small, shared]) {
      kept.add(node('a', undefined, 'x'.repeat(700)), () => []);
      kept.add(compacted('b', 'a'), () => ['b']);
      kept.releaseBehind('b', '', () => ['b']);
      expect(kept.get('a', '')).toBeUndefined();
      expect(kept.isComplete('b', '')).toBe(true);
      const { parent, items } = kept.folded(kept.get('b', '') as TranscriptNode);
      expect([parent, items?.output]).toEqual([undefined, ['{"type":"compaction"}', 're: two']]);
    }
  });

  it('is read where the compaction item cannot be', () => {
    const kept = transcript();
    kept.add(node('a', undefined, 'one'), () => []);
    kept.add(compacted('b', 'a'), () => ['b']);
    const path = kept.pathSince('b', () => false, { canRead: () => false });
    expect(path?.steps.map((step) => step.node.id)).toEqual(['a', 'b']);
  });
});

it('accounts a repeated id once', () => {
  const kept = transcript();
  kept.add(node('a', undefined, 'one'), () => []);
  const bytes = kept.bytes;
  kept.add(node('a', undefined, 'two'), () => []);
  expect(kept.bytes).toBe(bytes);
});

it.each(['http', 'websocket'])('goes on with such an upstream over %s', (transport) => {
  const world = transport === 'http' ? new World() : ready();
  if (transport === 'http') world.answerDial(1, OVER_HTTP);
  for (let n = 1; n <= 4; n += 1) {
    world.start({ turn: `t${n}` });
    for (const [type, status] of [
      ['response.created', 'in_progress'],
      ['response.completed', 'completed'],
    ])
      world.say({ type, response: { id: 'resp_mock', status, output: [] } });
    world.read();
    expect(world.outcomes(`t${n}`).map(({ outcome }) => outcome)).toEqual(['COMPLETED']);
  }
});
