import { describe, expect, it } from 'vitest';
import { closedLink } from '../../src/dialect/link-down.ts';
import { inputOf, ROUTE, ready, SPARE, sent, type World } from './world.ts';

const lane = (id: string) => (id === '' ? {} : { stream_id: id });

/** One response of the test's own making. */
function respond(world: World, id: string, items: readonly object[], { link = 1, on = '' } = {}): void {
  world.say({ type: 'response.created', ...lane(on), response: { id, status: 'in_progress' } }, link);
  items.forEach((item, output_index) => {
    world.say({ type: 'response.output_item.done', ...lane(on), output_index, item }, link);
  });
  world.say(
    { type: 'response.completed', ...lane(on), response: { id, status: 'completed', output: [] } },
    link,
  );
  world.read();
}

const message = (text: string) => ({ id: `msg_${text}`, type: 'message', role: 'assistant', content: text });
const user = (text: string) => ({ type: 'message', role: 'user', content: text });
const outcomeOf = (world: World, turn: string) => {
  world.read();
  const last = world.outcomes(turn)[0];
  return last?.turnFailed?.error.reason ?? last?.outcome;
};

/** Cuts the link and goes on at the one that is dialled for it. */
function moveTo(
  world: World,
  link: number,
  destination = { capabilities: world.capabilities, route: ROUTE },
): void {
  world.cut(link);
  world.advance(10_000);
  world.answerDial(undefined, destination);
}

describe('a parent that the upstream has forgotten', () => {
  it.each([
    [
      'an error frame',
      (world: World) =>
        world.say({
          type: 'error',
          status: 404,
          error: { code: 404, message: "Response with id 'resp_1' not found." },
        }),
    ],
    [
      'a failed response',
      (world: World) => {
        world.say({ type: 'response.created', response: { id: 'resp_x', status: 'in_progress' } });
        const error = { code: 'previous_response_not_found', message: 'not found' };
        world.say({ type: 'response.failed', response: { id: 'resp_x', status: 'failed', error } });
      },
    ],
  ])('is replayed after %s, once', (_, refuse) => {
    const world = ready();
    world.start({ text: 'one' });
    respond(world, 'resp_1', [message('A')]);
    world.start({ turn: 't2', text: 'two' });
    refuse(world);
    expect(inputOf(sent(world).at(-1))).toEqual(['one', 'A', 'two']);
    expect(sent(world).at(-1)).not.toHaveProperty('previous_response_id');
    respond(world, 'resp_2', [message('B')]);
    expect(outcomeOf(world, 't2')).toBe('COMPLETED');
    expect(world.notices()).toContain('replayed:previous_response_not_found');
    world.start({ turn: 't3', text: 'three' });
    expect(sent(world).at(-1)?.['previous_response_id']).toBe('resp_2');
  });
});

it('is not lost by a turn that named no parent', () => {
  const world = ready();
  world.start({ turn: 't1' });
  world.say({ type: 'error', status: 400, error: { code: 'previous_response_not_found', message: 'm' } });
  expect(outcomeOf(world, 't1')).toBe('UPSTREAM_INVALID_REQUEST');
});

describe('a history that is refused', () => {
  const refusal = { type: 'error', status: 400, error: { code: 'invalid_encrypted_content', message: 'm' } };
  const reasoning = { id: 'rs_1', type: 'reasoning', summary: [], encrypted_content: 'zip' };

  function refused(): World {
    const world = ready();
    world.start({ text: 'one' });
    respond(world, 'resp_1', [reasoning, message('A')]);
    moveTo(world, 1);
    world.start({ turn: 't2', text: 'two' });
    expect(inputOf(sent(world).at(-1))).toEqual(['one', 'reasoning', 'A', 'two']);
    world.say(refusal, 2);
    return world;
  }

  it('is told again in a milder form, and said so', () => {
    const world = refused();
    expect(inputOf(sent(world).at(-1))).toEqual(['one', 'A', 'two']);
    respond(world, 'resp_2', [message('B')], { link: 2 });
    expect(outcomeOf(world, 't2')).toBe('COMPLETED');
    expect(world.notices()).toContain('replayed:history_refused');
  });

  it('is not tried in the refused form again', () => {
    const world = refused();
    respond(world, 'resp_2', [{ ...reasoning, id: 'rs_2' }, message('B')], { link: 2 });
    moveTo(world, 2);
    world.start({ turn: 't3', text: 'three' });
    expect(inputOf(sent(world).at(-1))).toEqual(['one', 'A', 'two', 'B', 'three']);
  });

  it('fails the turn when the milder form is refused as well', () => {
    const world = refused();
    const frames = sent(world).length;
    world.say(refusal, 2);
    expect(outcomeOf(world, 't2')).toBe('UPSTREAM_INVALID_REQUEST');
    expect(sent(world)).toHaveLength(frames);
  });

  it('is not sent to and fro by an upstream that contradicts itself', () => {
    const world = ready();
    world.start({ text: 'one' });
    respond(world, 'resp_1', [message('A')]);
    moveTo(world, 1);
    world.start({ turn: 't2', text: 'two' });
    for (const message of ["Missing required parameter: 'input[1].id'.", "Item with id 'msg_A' not found."]) {
      for (let n = 0; n < 3; n += 1) world.say({ type: 'error', status: 400, error: { message } }, 2);
    }
    expect(outcomeOf(world, 't2')).toBe('UPSTREAM_INVALID_REQUEST');
    expect(sent(world).length).toBeLessThanOrEqual(4);
  });

  it('is not sent again when nothing of it was ours', () => {
    const world = ready();
    world.start({ turn: 't1', input: [JSON.stringify(reasoning)] });
    world.say(refusal);
    expect(outcomeOf(world, 't1')).toBe('UPSTREAM_INVALID_REQUEST');
    expect(sent(world)).toHaveLength(1);
  });
});

describe('a call that was cut off', () => {
  const half = {
    type: 'function_call',
    id: 'fc_1',
    call_id: 'c1',
    name: 'f',
    arguments: '{"a',
    status: 'incomplete',
  };
  const refusal = {
    type: 'error',
    status: 400,
    error: { message: 'No tool output found for function call c1.' },
  };

  function cutOff(item: object): World {
    const world = ready();
    world.start({ text: 'one' });
    world.say({ type: 'response.created', response: { id: 'resp_1', status: 'in_progress' } });
    world.say({ type: 'response.output_item.done', output_index: 0, item });
    world.say({ type: 'response.incomplete', response: { id: 'resp_1', status: 'incomplete', output: [] } });
    world.start({ turn: 't2', text: 'two' });
    expect(sent(world).at(-1)?.['previous_response_id']).toBe('resp_1');
    world.say(refusal);
    return world;
  }

  it('does not end a lane whose upstream refuses to go on from it', () => {
    const world = cutOff(half);
    expect(inputOf(sent(world).at(-1))).toEqual(['one', 'two']);
    expect(sent(world).at(-1)).not.toHaveProperty('previous_response_id');
    respond(world, 'resp_2', [message('B')]);
    expect(outcomeOf(world, 't2')).toBe('COMPLETED');
    world.start({ turn: 't3', text: 'three' });
    expect(sent(world).at(-1)?.['previous_response_id']).toBe('resp_2');
  });

  it('is not one that the client forgot to answer', () => {
    const world = cutOff({ ...half, arguments: '{}', status: 'completed' });
    expect(outcomeOf(world, 't2')).toBe('UPSTREAM_INVALID_REQUEST');
  });
});

it('goes to another upstream without what that cannot read', () => {
  const world = ready();
  world.start({ text: 'one' });
  const reasoning = { id: 'rs_1', type: 'reasoning', summary: [], encrypted_content: 'zip' };
  respond(world, 'resp_1', [reasoning, message('A')]);
  moveTo(world, 1, SPARE);
  world.start({ text: 'two' });
  expect(inputOf(sent(world).at(-1))).toEqual(['one', 'A', 'two']);
});

it('goes to another upstream from before a compaction that it cannot read', () => {
  const world = ready();
  world.start({ text: 'one' });
  respond(world, 'resp_1', [message('A')]);
  world.start({ text: 'two' });
  respond(world, 'resp_2', [{ type: 'compaction', encrypted_content: 'zip' }, message('B')]);
  moveTo(world, 1, SPARE);
  world.start({ text: 'three' });
  expect(inputOf(sent(world).at(-1))).toEqual(['one', 'A', 'two', 'B', 'three']);
});

it('keeps both items that come under one output_index, and one that is done twice once', () => {
  const world = ready();
  world.start({ text: 'one' });
  world.say({ type: 'response.created', response: { id: 'resp_1', status: 'in_progress' } });
  for (const [output_index, item] of [
    [0, { type: 'function_call', id: '', call_id: 'c0' }],
    [1, message('A')],
    [0, { type: 'function_call', id: '', call_id: 'c1' }],
    [1, { ...message('A'), status: 'completed' }],
  ] as const) {
    world.say({ type: 'response.output_item.done', output_index, item });
  }
  world.say({ type: 'response.completed', response: { id: 'resp_1', status: 'completed', output: [] } });
  moveTo(world, 1);
  const outputs = ['c0', 'c1'].map((call_id) => JSON.stringify({ type: 'function_call_output', call_id }));
  world.start({ input: outputs });
  expect(inputOf(sent(world).at(-1))).toEqual(['one', 'c0', 'c1', 'A', 'c0', 'c1']);
});

it('keeps the numbers of 64 bits that an item brought', () => {
  const world = ready();
  world.start({ text: 'one' });
  const text =
    '{"type":"response.output_item.done","output_index":0,"item":{"type":"x","n":9223372036854775807}}';
  world.say({ type: 'response.created', response: { id: 'resp_1', status: 'in_progress' } });
  world.feed({
    kind: 'frame',
    linkId: 1,
    frame: {
      type: 'response.output_item.done',
      streamId: undefined,
      bytes: Buffer.from(text),
      byteLength: text.length,
      json: () => JSON.parse(text) as Record<string, unknown>,
    },
  });
  world.say({ type: 'response.completed', response: { id: 'resp_1', status: 'completed', output: [] } });
  moveTo(world, 1);
  world.start({ text: 'two' });
  const last = world.outputs.findLast((output) => output.kind === 'send');
  expect(last?.frame.body.join('')).toContain('"n":9223372036854775807');
});

it('forks from a response behind a compaction, named before it or after', () => {
  const world = ready();
  world.start({ text: 'one' });
  respond(world, 'resp_1', [message('A')]);
  world.start({ text: 'two' });
  world.start({ turn: 'queued', text: 'fork', chain: { kind: 'from', responseId: 'resp_1' } });
  respond(world, 'resp_2', [{ type: 'compaction', encrypted_content: 'zip' }, message('B')]);
  expect(inputOf(sent(world).at(-1))).toEqual(['one', 'A', 'fork']);
  respond(world, 'resp_3', [message('C')]);
  world.start({ turn: 'later', text: 'again', chain: { kind: 'from', responseId: 'resp_1' } });
  expect(inputOf(sent(world).at(-1))).toEqual(['one', 'A', 'again']);
});

it.each([
  ['all of it', 0],
  ['what its upstream reads', 6],
  ['what it once read', 3],
])('knows a compacted conversation when a client tells %s', (_, from) => {
  const world = ready();
  world.start({ text: 'one' });
  respond(world, 'resp_1', [message('A')]);
  world.start({ text: 'two' });
  const compaction = (id: string) => ({ type: 'compaction', id, encrypted_content: `zip of ${id}` });
  respond(world, 'resp_2', [compaction('cm_1'), message('B')]);
  world.start({ text: 'three' });
  respond(world, 'resp_3', [compaction('cm_2'), message('C')]);
  const first = [user('one'), message('A'), user('two'), compaction('cm_1'), message('B')];
  const told = [...first, user('three'), compaction('cm_2'), message('C')].slice(from);
  const input = [...told, user('four')].map((item) => JSON.stringify(item));
  world.start({ input, mode: 'fullHistory' });
  expect(sent(world).at(-1)).toMatchObject({ previous_response_id: 'resp_3', input: [user('four')] });
  expect(world.notices()).toEqual([]);
});

it('tells of a frame that is too large only the turn whose frame it was', () => {
  const world = ready();
  world.start({ lane: 'a', turn: 'running' });
  world.say({ type: 'response.created', stream_id: 'a', response: { id: 'resp_1', status: 'in_progress' } });
  world.start({ lane: 'b', turn: 'small' });
  world.start({ lane: 'c', turn: 'large', text: 'x'.repeat(10_000) });
  world.feed({ kind: 'linkDown', linkId: 1, down: closedLink(1009, '') });
  expect(['running', 'small', 'large'].map((turn) => outcomeOf(world, turn))).toEqual([
    'UPSTREAM_LINK_LOST',
    'UPSTREAM_LINK_LOST',
    'FRAME_TOO_LARGE',
  ]);
});
