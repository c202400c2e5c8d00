import { expect, it } from 'vitest';
import { userItem } from './fake-upstream.ts';
import { inputOf, ready, sent, type World } from './world.ts';

const call = (n: number) => ({
  id: `fc_${n}`,
  type: 'function_call',
  call_id: `c${n}`,
  name: 'f',
  arguments: '{}',
});
const output = (n: number) => `{"type":"function_call_output","call_id":"c${n}","output":"o${n}"}`;
const limited = (headers: Readonly<Record<string, string>>) => ({
  type: 'error',
  status: 429,
  headers,
  error: { type: 'rate_limit_error', code: 'rate_limit_exceeded', message: 'slow down' },
});

/** Two calls at once; the second is done first, and the terminal does not list them. */
function callsOutOfOrder(world: World): void {
  world.say({ type: 'response.created', response: { id: 'resp_a', status: 'in_progress' } });
  for (const n of [1, 0]) world.say({ type: 'response.output_item.done', output_index: n, item: call(n) });
  world.say({ type: 'response.completed', response: { id: 'resp_a', status: 'completed', output: [] } });
}

it('replays items in their order, however they were done', () => {
  const world = ready();
  world.start({ text: 'one' });
  callsOutOfOrder(world);
  world.cut(1);
  world.start({ text: 'two' });
  world.advance(1_000);
  world.answerDial();
  expect(inputOf(sent(world).at(-1))).toEqual(['one', 'c0', 'c1', 'two']);
});

it('knows items that were done out of order in a full history', () => {
  const world = ready();
  world.start({ mode: 'fullHistory', input: [userItem('one')] });
  callsOutOfOrder(world);
  const calls = [0, 1].map((n) => JSON.stringify(call(n)));
  world.start({ mode: 'fullHistory', input: [userItem('one'), ...calls, output(0), output(1)] });
  expect(sent(world).at(-1)?.['previous_response_id']).toBe('resp_a');
  expect(inputOf(sent(world).at(-1))).toEqual(['o0', 'o1']);
});

it('begins a replay at a compaction item that only the terminal lists', () => {
  const world = ready();
  world.start({ text: 'one' });
  world.say({ type: 'response.created', response: { id: 'resp_a', status: 'in_progress' } });
  const listed = [
    { type: 'compaction', encrypted_content: 'z' },
    { type: 'message', role: 'assistant', content: 'hi' },
  ];
  world.say({ type: 'response.completed', response: { id: 'resp_a', status: 'completed', output: listed } });
  world.cut(1);
  world.start({ text: 'two' });
  world.advance(1_000);
  world.answerDial();
  expect(inputOf(sent(world).at(-1))).toEqual(['compaction', 'hi', 'two']);
});

it('does not write a turn again whose output began without response.created', () => {
  const world = ready();
  world.start({ wait: true });
  world.say({ type: 'response.output_text.delta', delta: 'a' });
  world.say(limited({ 'retry-after': '1' }));
  world.advance(2_000);
  expect(sent(world)).toHaveLength(1);
});

it('waits although a rate limit says that it need not', () => {
  const world = ready();
  world.start({ wait: true });
  for (let n = 0; n < 50; n += 1) world.say(limited({ 'retry-after': '0' }));
  expect(sent(world)).toHaveLength(1);
});

it('does not wait for what is no wait, and lets the next turn go', () => {
  const world = ready();
  world.start({ turn: 't1', wait: true });
  world.start({ turn: 't2' });
  const error = { code: 'rate_limit_exceeded', message: 'm', headers: { 'retry-after': '1764500000' } };
  world.say({ type: 'error', status: 429, error });
  world.read();
  expect(world.outcomes('t1')[0]?.turnFailed).toMatchObject({
    error: { reason: 'UPSTREAM_RATE_LIMITED', retryAfterMs: 86_400_000 },
    replay: 'SAFE',
  });
  expect(sent(world)).toHaveLength(2);
});

it('does not let the next turn wait for the rate limit of one that has failed', () => {
  const world = ready();
  const limitedTurn = world.start({ wait: true });
  world.say(limited({ 'retry-after': '600' }));
  world.cut(1);
  for (let n = 0; n < 10 && world.outcomes(limitedTurn).length === 0; n += 1) {
    if (world.dials.length > 0) world.failDial();
    world.advance(6_000);
    world.read();
  }
  expect(world.outcomes(limitedTurn)).toHaveLength(1);
  const before = sent(world).length;
  world.start();
  world.advance(1_000);
  world.answerDial();
  expect(sent(world)).toHaveLength(before + 1);
});

it('counts the calls that the upstream runs, not those that it leaves to clients', () => {
  const world = ready();
  world.start();
  world.say({ type: 'response.created', response: { id: 'resp_a', status: 'in_progress' } });
  for (const type of ['computer_call', 'local_shell_call', 'apply_patch_call', 'web_search_call'])
    world.say({ type: 'response.output_item.done', output_index: 0, item: { type, id: type } });
  world.say({ type: 'response.completed', response: { id: 'resp_a', status: 'completed', output: [] } });
  const records = world.outputs.flatMap((output) =>
    output.kind === 'fact' && output.fact.kind === 'turnEnded' ? [output.fact.record] : [],
  );
  expect(records.map(({ hostedCalls }) => hostedCalls)).toEqual([new Map([['web_search_call', 1]])]);
});

it.each([
  ['no id', { status: 'in_progress' }],
  ['an id that is no text', { id: 5 }],
  ['nothing', null],
])('ends a response that is announced with %s, says nothing and ends so', (_, response) => {
  const world = ready();
  world.start({ turn: 't1' });
  world.burst([
    { type: 'response.created', response },
    { type: 'response.completed', response },
  ]);
  world.start({ turn: 't2' });
  world.burst([
    { type: 'response.created', response: { id: 'resp_2' } },
    { type: 'response.completed', response: { id: 'resp_2', output: [] } },
  ]);
  world.read();
  expect(['t1', 't2'].map((turn) => world.outcomes(turn).map(({ outcome }) => outcome))).toEqual([
    ['COMPLETED'],
    ['COMPLETED'],
  ]);
});

it('goes back to the first id where a relay announces a second one, and then the first again', () => {
  const world = ready();
  world.start({ turn: 't1' });
  world.burst([
    ...['resp_1', 'resp_x', 'resp_1'].map((id) => ({ type: 'response.created', response: { id } })),
    { type: 'response.output_item.done', output_index: 0, item: call(1) },
    { type: 'response.completed', response: { id: 'resp_1', output: [] } },
  ]);
  world.read();
  expect(world.outcomes('t1')).toHaveLength(1);
  world.start({ turn: 't2', input: [output(1)] });
  expect(sent(world).at(-1)?.['previous_response_id']).toBe('resp_1');
});
