import { expect, it } from 'vitest';
import { Random } from './conversations/random.ts';
import { inputOf, ready, sent, type World } from './world.ts';

const DURABLE = { keepsContent: true, open: true };
const LANES = ['', 'a', 'b'];

/** One turn on the lane, whose response the upstream gives this id. */
function speak(world: World, lane: string, text: string, id: string, from?: string | 'new'): void {
  const chain =
    from === undefined
      ? undefined
      : from === 'new'
        ? ({ kind: 'newConversation' } as const)
        : ({ kind: 'from', responseId: from } as const);
  world.start({ lane, text, ...(chain !== undefined && { chain }) });
  // A session that was taken over dials when a turn needs it.
  world.answerDial();
  const named = lane === '' ? {} : { stream_id: lane };
  const item = { id: `msg_${text}`, type: 'message', role: 'assistant', content: `re: ${text}` };
  world.burst([
    { type: 'response.created', ...named, response: { id, status: 'in_progress' } },
    { type: 'response.output_item.done', ...named, output_index: 0, item },
    { type: 'response.completed', ...named, response: { id, status: 'completed', output: [] } },
  ]);
}

it("does not take another lane's conversation for its own, where two responses have one id", () => {
  const world = ready({}, DURABLE);
  speak(world, 'a', 'of a', 'resp_1');
  speak(world, 'b', 'of b', 'resp_1');
  const next = world.takenOver();
  next.start({ lane: 'a', text: 'more' });
  next.start({ lane: 'b', text: 'more' });
  next.answerDial();
  expect(sent(next).map(inputOf)).toEqual([
    ['of a', 're: of a', 'more'],
    ['of b', 're: of b', 'more'],
  ]);
});

it('keeps a fork from a response whose id was given again', () => {
  const world = ready({}, DURABLE);
  speak(world, 'a', 'one', 'resp_1');
  speak(world, 'b', 'fork', 'resp_2', 'resp_1');
  speak(world, 'a', 'two', 'resp_1', 'new');
  const next = world.takenOver();
  next.start({ lane: 'b', text: 'more' });
  next.answerDial();
  expect(inputOf(sent(next).at(-1))).toEqual(['one', 're: one', 'fork', 're: fork', 'more']);
});

it.each(Array.from({ length: 60 }, (_, seed) => seed))(
  'has every conversation at every owner, however often ids repeat (seed %i)',
  (seed) => {
    const random = new Random(seed);
    const ids = Array.from({ length: 1 + random.below(4) }, (_, n) => `resp_${n}`);
    const own = new Map<string, readonly string[]>();
    const newest = new Map<string, readonly string[]>();
    const heads = new Map<string, readonly string[]>();
    let world = ready({}, DURABLE);
    for (let n = 0; n < 25; n += 1) {
      const lane = random.pick(LANES);
      const id = random.chance(0.8) ? random.pick(ids) : `resp_of_${n}`;
      const from = random.chance(0.3) ? random.pick(['new', ...newest.keys()]) : undefined;
      const before =
        from === undefined
          ? (heads.get(lane) ?? [])
          : from === 'new'
            ? []
            : (own.get(`${lane} ${from}`) ?? newest.get(from) ?? []);
      speak(world, lane, `t${n}`, id, from);
      const said = [...before, `t${n}`, `re: t${n}`];
      own.set(`${lane} ${id}`, said);
      newest.set(id, said);
      heads.set(lane, said);
      if (random.chance(0.1)) {
        world.feed({ kind: 'journalLost' });
        world.feed({ kind: 'journalBack' });
      }
      if (random.chance(0.25)) world = world.takenOver();
    }
    world = world.takenOver();
    for (const [lane, said] of heads) {
      world.start({ lane, text: 'next' });
      world.answerDial();
      expect(inputOf(sent(world).at(-1))).toEqual([...said, 'next']);
    }
  },
);
