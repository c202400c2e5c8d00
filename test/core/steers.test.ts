import { describe, expect, it } from 'vitest';
import { inputOf, ready, sent, type World } from './world.ts';

const CALL = { type: 'function_call', call_id: 'c', name: 'f', arguments: '{}' };
const OUTPUT = '{"type":"function_call_output","call_id":"c","output":"42"}';
const STEER = { id: 'steer_1', previous_response_id: 'resp_a' };
const REFUSED = {
  type: 'error',
  status: 400,
  error: { type: 'invalid_request_error', code: 'invalid_tools', message: 'no' },
};

function created(world: World): void {
  world.say({ type: 'response.created', response: { id: 'resp_a', status: 'in_progress' } });
}

/** A turn that ended for a tool, with an accepted steer that waits for the tool's output. */
function withWaitingSteer(world = ready(), steer: object = STEER): World {
  world.start({ text: 'one' });
  created(world);
  world.steer('', 'be brief');
  world.say({ type: 'response.steer.accepted', steer });
  world.say({ type: 'response.output_item.done', output_index: 0, item: CALL });
  world.say({ type: 'response.completed', response: { id: 'resp_a', status: 'completed' } });
  world.say({
    type: 'response.steer.pending',
    steer,
    reason: 'waiting_for_required_input',
    required_input: [],
  });
  world.read();
  return world;
}

describe('a steer that waits for the output of a tool', () => {
  it.each([
    ['is refused', (world: World) => world.say(REFUSED)],
    ['loses its link', (world: World) => world.cut(1)],
    ['is cancelled', (world: World, turn: string) => world.cancel('', turn)],
  ])('is not lost when the turn with the output %s', (_, end) => {
    const world = withWaitingSteer();
    const turn = world.start({ input: [OUTPUT] });
    end(world, turn);
    world.read();
    expect(world.outcomes(turn)).toHaveLength(1);
    world.start({ input: [OUTPUT] });
    world.advance(1_000);
    world.answerDial();
    const said = sent(world).flatMap(inputOf);
    expect(said.slice(said.lastIndexOf('be brief'))).toEqual(['be brief', '42']);
  });

  it.each([
    ['no id', { previous_response_id: 'resp_a' }],
    ['no response', { id: 'steer_1' }],
    ['nothing', {}],
  ])('is known by answers that name %s', (_, steer) => {
    const world = withWaitingSteer(ready(), steer);
    expect(world.outcomes('t1').map(({ outcome }) => outcome)).toEqual(['COMPLETED']);
    world.cut(1);
    world.start({ input: [OUTPUT] });
    world.advance(1_000);
    world.answerDial();
    expect(inputOf(sent(world).at(-1))).toEqual(['one', 'c', 'be brief', '42']);
  });

  it.each([
    ['its id', { id: 'steer_1' }],
    ['its words', { input: [{ type: 'message', role: 'user', content: 'be brief' }] }],
  ])('is not sent once more when it is given back by %s alone', (_, steer) => {
    const world = withWaitingSteer(ready(), { id: 'steer_1' });
    world.say({ type: 'response.steer.failed', steer, error: { code: 'gone', message: 'no' } });
    world.cut(1);
    world.start({ input: [OUTPUT] });
    world.advance(1_000);
    world.answerDial();
    expect(inputOf(sent(world).at(-1))).toEqual(['one', 'c', '42']);
  });

  it('is not meant by the refusal of a further one, which has no id', () => {
    const world = ready();
    world.start({ text: 'one' });
    created(world);
    world.steer('', 'more');
    world.say({ type: 'response.steer.accepted', steer: STEER });
    world.steer('', 'less');
    const steer = { previous_response_id: 'resp_a' };
    const error = { type: 'invalid_request_error', code: 'too_many_pending_steers', message: 'no' };
    world.say({ type: 'response.steer.failed', steer, error });
    world.say({ type: 'response.output_item.done', output_index: 0, item: CALL });
    world.say({ type: 'response.completed', response: { id: 'resp_a', status: 'completed' } });
    world.say({ type: 'response.steer.pending', steer: STEER, reason: 'x', required_input: [] });
    world.cut(1);
    world.start({ input: [OUTPUT] });
    world.advance(1_000);
    world.answerDial();
    expect(inputOf(sent(world).at(-1))).toEqual(['one', 'c', 'more', '42']);
  });

  it.each([
    ['is not lost while its upstream holds it', false, ['transcript_dropped:recovery_off']],
    [
      'is told to be lost when that is gone',
      true,
      ['transcript_dropped:recovery_off', 'recovered:link_lost', 'steer_lost:transcript_limit'],
    ],
  ])('%s where nothing is kept', (_, isCut, notices) => {
    const world = withWaitingSteer(ready({ maxTranscriptBytes: 0 }));
    if (isCut) world.cut(1);
    world.start({ input: [OUTPUT] });
    world.advance(1_000);
    world.answerDial();
    world.read();
    expect(inputOf(sent(world).at(-1))).toEqual(['42']);
    expect(world.notices()).toEqual(notices);
  });

  it('reaches the model once when its lane rotates', () => {
    const world = ready();
    world.advance(2_990_000);
    withWaitingSteer(world);
    world.advance(310_000);
    expect(world.dials).toEqual([2]);
    world.answerDial();
    const warmUp = sent(world).at(-1);
    expect(warmUp?.['generate']).toBe(false);
    for (const [type, status] of [
      ['response.created', 'in_progress'],
      ['response.completed', 'completed'],
    ])
      world.say({ type, response: { id: 'resp_w', status } }, 2);
    world.start({ input: [OUTPUT] });
    const create = sent(world).at(-1);
    expect(create?.['previous_response_id']).toBe('resp_w');
    expect([...inputOf(warmUp), ...inputOf(create)]).toEqual(['one', 'c', 'be brief', '42']);
  });
});

describe('a steer that waits for one response', () => {
  /** Lane b has gone on from that response, and from there to another conversation. */
  function withFork(): World {
    const world = withWaitingSteer();
    for (const [id, chain] of [
      ['resp_b', { kind: 'from', responseId: 'resp_a' }],
      ['resp_c', { kind: 'newConversation' }],
    ] as const) {
      world.start({ lane: 'b', input: id === 'resp_b' ? [OUTPUT] : [OUTPUT.replace('"c"', '"d"')], chain });
      for (const [type, status] of [
        ['response.created', 'in_progress'],
        ['response.completed', 'completed'],
      ])
        world.say({ type, stream_id: 'b', response: { id, status } });
    }
    return world;
  }

  it('is not committed by a turn that continues another response', () => {
    const world = withFork();
    world.start({ text: 'two', chain: { kind: 'from', responseId: 'resp_b' } });
    const create = sent(world).at(-1);
    // Naming resp_a, which the upstream knows, would have put the steer between its call and the output.
    expect(create?.['previous_response_id']).toBeUndefined();
    expect(inputOf(create)).toEqual(['one', 'c', '42', 'two']);
  });

  it('is committed by the turn that continues it, after another one went round it', () => {
    const world = withFork();
    world.start({ turn: 't8', text: 'two', chain: { kind: 'from', responseId: 'resp_b' } });
    world.say({ type: 'response.created', response: { id: 'resp_d', status: 'in_progress' } });
    world.say({ type: 'response.completed', response: { id: 'resp_d', status: 'completed' } });
    world.cut(1);
    world.start({ input: [OUTPUT], chain: { kind: 'from', responseId: 'resp_a' } });
    world.advance(1_000);
    world.answerDial();
    expect(inputOf(sent(world).at(-1))).toEqual(['one', 'c', 'be brief', '42']);
  });
});

describe('a steer that was not sent yet', () => {
  const rejected = (world: World) =>
    world.received.filter(({ type }) => type === 'gateway.request.rejected').length;

  it.each([
    ['is refused', (world: World) => world.say(REFUSED)],
    ['loses its link', (world: World) => world.cut(1)],
    ['is cancelled', (world: World) => world.cancel('', 't1')],
    ['runs out of time', (world: World) => world.advance(10_000)],
  ])('is answered when its turn %s', (_, end) => {
    const world = ready();
    world.start({ turn: 't1', timeoutMs: 5_000 });
    world.steer('', 'more');
    end(world);
    world.read();
    expect(world.outcomes('t1')).toHaveLength(1);
    expect(rejected(world)).toBe(1);
  });

  it('is answered when its turn waits for the answer to another steer and ends', () => {
    const world = ready();
    world.start();
    created(world);
    world.steer('', 'first');
    world.say({ type: 'response.completed', response: { id: 'resp_a', status: 'completed' } });
    world.steer('', 'second');
    world.say({
      type: 'response.steer.failed',
      steer: { previous_response_id: 'resp_a', input: [] },
      error: { code: 'response_already_completed', type: 'invalid_request_error', message: 'late' },
    });
    world.read();
    expect(rejected(world)).toBe(1);
  });
});

it.each([
  [
    'answered',
    (world: World) =>
      world.say({
        type: 'response.steer.failed',
        steer: { ...STEER, input: [] },
        error: { type: 'invalid_request_error', code: 'response_not_active', message: 'gone' },
      }),
  ],
  ['never answered', (world: World) => world.advance(60_000)],
  ['lost with the link', (world: World) => world.cut(1)],
])('a failed turn says why although its steer is %s', (_, decide) => {
  const world = ready();
  const turn = world.start();
  created(world);
  world.steer('', 'more');
  world.say({ type: 'response.steer.accepted', steer: STEER });
  const error = { code: 'server_error', message: 'boom' };
  world.say({ type: 'response.failed', response: { id: 'resp_a', status: 'failed', error } });
  decide(world);
  world.read();
  expect(world.outcomes(turn)).toMatchObject([
    { outcome: 'FAILED', turnFailed: { replay: 'UNSAFE', error: { reason: 'RESPONSE_FAILED' } } },
  ]);
});
