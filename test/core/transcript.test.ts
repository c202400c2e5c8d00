import { expect, it } from 'vitest';
import { type NewNode, Transcript } from '../../src/core/transcript.ts';
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

it.each([
  ['is all the same', ['resp_mock', 'resp_mock', 'resp_mock']],
  ['returns further up the path', ['a', 'b', 'a']],
])('keeps the whole conversation where the id of its responses %s', (_, ids) => {
  const kept = transcript();
  ['one', 'two', 'three'].forEach((said, n) => {
    kept.add(node(ids[n] as string, ids[n - 1], said), () => ids);
  });
  const last = ids.at(-1) as string;
  expect(kept.isComplete(last)).toBe(true);
  expect(kept.itemsSince(last, () => false)?.items).toEqual([
    'one',
    're: one',
    'two',
    're: two',
    'three',
    're: three',
  ]);
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
