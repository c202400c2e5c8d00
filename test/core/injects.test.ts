import { describe, expect, it } from 'vitest';
import { OPENAI, ready, sent, World } from './world.ts';

const CALL = { id: 'fc_1', type: 'function_call', call_id: 'c', name: 'f', arguments: '{}' };
const OUTPUT = '{"type":"function_call_output","call_id":"c","output":"42"}';
const OTHER = '{"type":"function_call_output","call_id":"d","output":"43"}';

/** A multi-agent response that has called a tool and runs on. */
function calling(): World {
  const world = new World();
  world.capabilities = { ...OPENAI, injecting: true };
  world.start({ text: 'one' });
  world.answerDial();
  world.say({ type: 'response.created', response: { id: 'resp_a', status: 'in_progress' } });
  world.say({ type: 'response.output_item.done', output_index: 0, item: CALL });
  return world;
}

const taken = { type: 'response.inject.created', response_id: 'resp_a', sequence_number: 3 };

function complete(world: World): void {
  world.say({ type: 'response.completed', response: { id: 'resp_a', status: 'completed' } });
}

function heard(world: World): readonly string[] {
  world.read();
  return world.received.map(({ type, outcome, notice, turnFailed }) =>
    [type, outcome, notice?.kind, turnFailed?.error.reason].filter(Boolean).join(' '),
  );
}

describe('an inject', () => {
  it('goes into the running response, and its answer is an event of the turn', () => {
    const world = calling();
    world.inject('', OUTPUT);
    expect(sent(world).at(-1)).toEqual({
      type: 'response.inject',
      response_id: 'resp_a',
      input: [JSON.parse(OUTPUT)],
    });
    world.say(taken);
    complete(world);
    expect(heard(world).slice(-2)).toEqual(['response.inject.created', 'response.completed COMPLETED']);
    expect(world.received.every(({ turnId }) => turnId === 't1')).toBe(true);
  });

  it('is told with its call when the conversation is told anew', () => {
    const world = calling();
    world.inject('', OUTPUT);
    world.say(taken);
    const message = { id: 'msg_1', type: 'message', role: 'assistant', content: [] };
    world.say({ type: 'response.output_item.done', output_index: 1, item: message });
    complete(world);
    world.cut(1);
    world.start({ text: 'two' });
    world.advance(1_000);
    world.answerDial();
    const input = sent(world).at(-1)?.['input'] as { type?: string }[];
    expect(input.map(({ type }) => type ?? 'message')).toEqual([
      'message',
      'function_call',
      'function_call_output',
      'message',
      'message',
    ]);
  });

  it('is not told twice where the response tells it', () => {
    const world = calling();
    world.inject('', OUTPUT);
    world.say(taken);
    world.say({ type: 'response.output_item.done', output_index: 1, item: JSON.parse(OUTPUT) });
    complete(world);
    world.cut(1);
    world.start({ text: 'two' });
    world.advance(1_000);
    world.answerDial();
    const input = sent(world).at(-1)?.['input'] as { type?: string }[];
    expect(input.filter(({ type }) => type === 'function_call_output')).toHaveLength(1);
  });

  it('that fails leaves no trace, and the right one of two', () => {
    const world = calling();
    world.inject('', OUTPUT);
    world.inject('', OTHER);
    const error = { code: 'response_not_found', message: 'no' };
    world.say({
      ...taken,
      type: 'response.inject.failed',
      input: [JSON.parse(OTHER)],
      error,
    });
    world.say(taken);
    complete(world);
    world.cut(1);
    world.start({ text: 'two' });
    world.advance(1_000);
    world.answerDial();
    const said = JSON.stringify(sent(world).at(-1));
    expect([said.includes('"42"'), said.includes('"43"')]).toEqual([true, false]);
  });

  it('or a steer that is larger than the upstream takes is refused, and the link with its turns stays', () => {
    const world = new World({ maxFrameBytes: 2_000 });
    world.capabilities = { ...OPENAI, injecting: true };
    world.start({ text: 'one' });
    world.answerDial();
    world.say({ type: 'response.created', response: { id: 'resp_a', status: 'in_progress' } });
    const before = sent(world).length;
    const held = world.session.heldInputBytes;
    world.inject('', JSON.stringify({ ...JSON.parse(OUTPUT), output: 'x'.repeat(2_000) }));
    world.steer('', 'x'.repeat(2_000));
    expect(sent(world)).toHaveLength(before);
    expect(heard(world).slice(-2)).toEqual([
      'gateway.request.rejected FRAME_TOO_LARGE',
      'gateway.request.rejected FRAME_TOO_LARGE',
    ]);
    expect(world.session.heldInputBytes).toBe(held);
    complete(world);
    expect(heard(world).at(-1)).toBe('response.completed COMPLETED');
  });

  it.each([
    ['completes', complete, 'gateway.request.rejected TURN_NOT_RUNNING'],
    ['loses its link', (world: World) => world.cut(1), 'gateway.notice inject_lost'],
    ['is cancelled', (world: World) => world.cancel('', 't1'), 'gateway.notice inject_lost'],
  ])('without an answer is told before the end of a turn that %s', (_, end, told) => {
    const world = calling();
    world.inject('', OUTPUT);
    end(world);
    expect(heard(world).at(-2)).toBe(told);
    expect(world.outcomes('t1')).toHaveLength(1);
    expect(world.session.heldInputBytes).toBe(0);
    world.say({ ...taken, type: 'response.inject.failed', input: [JSON.parse(OUTPUT)] });
    expect(world.outcomes('t1')).toHaveLength(1);
  });

  it.each([
    ['of an unknown lane', (world: World) => world.inject('x', OUTPUT), 'UNKNOWN_LANE'],
    [
      'for another turn',
      (world: World) => world.feed({ kind: 'injectTurn', laneId: '', turnId: 'none', input: [OUTPUT] }),
      'UNKNOWN_TURN',
    ],
    [
      'after the end',
      (world: World) => {
        complete(world);
        world.inject('', OUTPUT);
      },
      'TURN_NOT_RUNNING',
    ],
    [
      'above 32 that wait',
      (world: World) => {
        for (let i = 0; i < 33; i++) world.inject('', OUTPUT);
      },
      'LIMIT_EXCEEDED',
    ],
  ])('%s is refused, and the turn goes on', (_, submit, reason) => {
    const world = calling();
    const before = world.outcomes('t1').length;
    submit(world);
    expect(heard(world).at(-1)).toBe(`gateway.request.rejected ${reason}`);
    expect(world.outcomes('t1').length).toBeGreaterThanOrEqual(before);
  });

  it('is refused where the upstream has no such beta', () => {
    const world = ready();
    world.start({ text: 'one' });
    world.say({ type: 'response.created', response: { id: 'resp_a', status: 'in_progress' } });
    world.inject('', OUTPUT);
    expect(heard(world).at(-1)).toBe('gateway.request.rejected NOT_SUPPORTED_BY_UPSTREAM');
    expect(sent(world)).toHaveLength(1);
  });

  it('answered without the name of its lane does not refute lanes', () => {
    const world = new World();
    world.capabilities = { ...OPENAI, injecting: true };
    world.start({ lane: 'a', text: 'one' });
    world.answerDial();
    world.say({
      type: 'response.created',
      stream_id: 'a',
      response: { id: 'resp_a', status: 'in_progress' },
    });
    world.inject('a', OUTPUT);
    world.say(taken);
    expect(heard(world).at(-1)).toBe('response.inject.created');
    expect(world.received.at(-1)).toMatchObject({ laneId: 'a', turnId: 't1' });
  });
});
