import { describe, expect, it } from 'vitest';
import { createLinkCensus } from '../../src/telemetry/link-census.ts';
import { FakeUpstream } from './fake-upstream.ts';
import { OPENAI, ready, SPARE, sent, World } from './world.ts';

/** When every link rotates, whatever its jitter. */
const ROTATION_MS = 3_300_000;

function purposes(world: World): readonly string[] {
  return world.outputs.flatMap((output) => (output.kind === 'dial' ? [output.purpose] : []));
}

/** One lane in use, and its link's successor asked for. */
function rotating(): World {
  const world = ready();
  world.start({ lane: 'a' });
  world.settle();
  world.advance(ROTATION_MS);
  return world;
}

/** Nobody answers until the turn has ended. */
function refuseDials(world: World, turnId: string): void {
  for (let n = 0; n < 10 && world.outcomes(turnId).length === 0; n += 1) {
    if (world.dials.length > 0) world.failDial();
    world.advance(6_000);
    world.read();
  }
}

describe('a lane that is first used during a rotation', () => {
  it('runs on the old link while the successor is dialled', () => {
    const world = rotating();
    expect(world.dials).toEqual([2]);
    world.start({ lane: 'b' });
    expect(sent(world)).toHaveLength(2);
  });

  it('does not fail because the successor cannot be dialled', () => {
    const world = rotating();
    const turn = world.start({ lane: 'b' });
    refuseDials(world, turn);
    world.settle();
    expect(world.outcomes(turn).map(({ outcome }) => outcome)).toEqual(['COMPLETED']);
  });
});

it.each([
  ['a single lane', { multiplexed: false, maxInFlight: 1, maxNamedLanes: 0 }],
  ['two names', { maxNamedLanes: 2 }],
])('finds links for every lane when the successor takes no more than %s', (_, fewer) => {
  const world = ready();
  const lanes = ['a', 'b', 'c', 'd'];
  const run = () => {
    const turns = lanes.map((lane) => world.start({ lane }));
    world.settle();
    return turns.map((turn) => world.outcomes(turn)[0]?.outcome);
  };
  run();
  world.advance(ROTATION_MS);
  world.capabilities = { ...OPENAI, ...fewer };
  world.settle();
  expect(run()).toEqual(['COMPLETED', 'COMPLETED', 'COMPLETED', 'COMPLETED']);
  expect(world.upstream.violations).toEqual([]);
  const read = world.upstream.executions.filter(({ warmUp }) => !warmUp).map(({ context }) => context);
  for (const n of [1, 2, 3, 4])
    expect(read).toContainEqual([`t${n}`, expect.stringMatching('^out:'), `t${n + 4}`]);
  const names = new Map<number, Set<string>>();
  for (const output of world.outputs)
    if (output.kind === 'send' && output.linkId > 1 && output.frame.streamId !== undefined)
      names.set(output.linkId, (names.get(output.linkId) ?? new Set()).add(output.frame.streamId));
  for (const given of names.values())
    expect(given.size).toBeLessThanOrEqual(world.capabilities.maxNamedLanes);
});

describe('the last link is lost', () => {
  it('recovers wherever that is possible when its successor was being dialled', () => {
    const world = rotating();
    world.cut(1);
    refuseDials(world, world.start({ lane: 'a' }));
    expect(purposes(world).slice(2)).toContain('recovery');
  });

  it('recovers wherever that is possible when a further one was being dialled', () => {
    const world = new World();
    world.answerDial(1, SPARE);
    world.capabilities = SPARE.capabilities;
    world.start({ lane: 'a' });
    world.settle();
    const turn = world.start({ lane: 'b' });
    world.cut(1);
    refuseDials(world, turn);
    expect(purposes(world)).toContain('recovery');
  });
});

it('waits for the first link when a further one is refused', () => {
  const world = ready();
  for (let n = 0; n < 17; n += 1) world.start({ lane: `l${n}`, turn: `x${n}` });
  expect(world.dials).toEqual([2]);
  refuseDials(world, 'x16');
  world.settle();
  expect(world.outcomes('x16').map(({ outcome }) => outcome)).toEqual(['COMPLETED']);
});

it('rotates again after a cancel has closed the successor', () => {
  const world = ready();
  world.start({ lane: 'a' });
  world.settle();
  world.advance(2_995_000);
  world.start({ lane: 'a' });
  world.settle();
  world.advance(305_000);
  world.start({ lane: 'a' });
  world.answerDial();
  const turn = world.start({ lane: 'n' });
  world.cancel('n', turn);
  world.settle();
  world.advance(60_000);
  const { links } = world.session.inspect();
  expect(links.filter(({ state }) => state === 'rotating')).toHaveLength(links.length - 1);
});

it('writes what was not begun again when the connection limit comes on a link that retires already', () => {
  const world = ready({ silentTurnTimeoutMs: undefined });
  world.start({ lane: 'b' });
  world.settle();
  world.start({ lane: 'a', turn: 'long' });
  world.deliver(1);
  world.deliver(1);
  world.advance(3_569_000);
  const turn = world.start({ lane: 'b' });
  world.advance(2_000);
  expect(world.session.inspect().links.map(({ state }) => state)).toContain('retiring');
  const limit = world.upstream.announceLimit(1);
  if (limit !== undefined) world.feed({ kind: 'frame', linkId: 1, frame: limit });
  world.settle();
  expect(world.outcomes(turn).map(({ outcome }) => outcome)).toEqual(['COMPLETED']);
});

describe.each([1, 9, 30])('an upstream that has lost %i stored responses', (turns) => {
  it('is sent the transcript after one refusal', () => {
    const world = ready();
    for (let n = 0; n < turns; n += 1) {
      world.start({ store: true });
      world.settle();
    }
    world.cut(1);
    Object.assign(world, { upstream: new FakeUpstream() });
    const before = sent(world).length;
    const turn = world.start({ store: true });
    world.advance(60_000);
    world.settle();
    expect(world.outcomes(turn).map(({ outcome }) => outcome)).toEqual(['COMPLETED']);
    expect(sent(world).length - before).toBe(2);
    expect(world.upstream.executions[0]?.context).toHaveLength(2 * turns + 1);
  });
});

it.each(['rotations', 'cancels'])('are no longer counted after %s have closed them', (how) => {
  const world = ready();
  for (let n = 0; n < 3; n += 1) {
    const turn = world.start();
    if (how === 'cancels') world.cancel('', turn);
    world.settle();
    world.advance(how === 'cancels' ? 1_000 : ROTATION_MS);
    world.settle();
  }
  const census = createLinkCensus(() => 0);
  const owner = {};
  for (const output of world.outputs) {
    if (output.kind !== 'fact') continue;
    const { fact } = output;
    if (fact.kind === 'linkDialing') census.dialing(fact.linkId, owner);
    if (fact.kind === 'linkUp') census.opened(fact.linkId, owner);
    if (fact.kind === 'linkDown') census.closed(fact.linkId, owner);
  }
  const counted = [...census.count()].reduce((sum, [count]) => sum + count, 0);
  expect(counted).toBe(world.session.inspect().links.length);
});

it('holds the parent lane until every fork of it runs', () => {
  const world = ready();
  world.start({ lane: 'main' });
  world.settle();
  for (const lane of ['f1', 'f2']) world.start({ lane, chain: { kind: 'from', responseId: 'resp_1' } });
  world.start({ lane: 'main' });
  world.deliver(1, 2);
  world.deliver(1, 2);
  expect(sent(world).map(({ stream_id }) => stream_id)).toEqual(['main', 'f1', 'f2']);
  world.settle();
  expect(sent(world).at(-1)?.['previous_response_id']).toBe('resp_1');
});

it('names nothing that a cancelled turn has pushed out of the cache', () => {
  const world = ready();
  world.start({ lane: 'a' });
  world.settle();
  world.start({ lane: 'b' });
  const cancelled = world.start({ lane: 'a' });
  for (let n = 0; n < 2; n += 1) world.deliver(1, n);
  world.cancel('a', cancelled);
  const turn = world.start({ lane: 'a' });
  world.settle();
  expect(world.outcomes(turn).map(({ outcome }) => outcome)).toEqual(['COMPLETED']);
  const lane = sent(world).filter(({ stream_id }) => stream_id === 'a');
  expect(lane.map((frame) => frame['previous_response_id'])).toEqual([undefined, 'resp_1', undefined]);
});
