import { describe, expect, it } from 'vitest';
import { inputOf, OPENAI, OVER_HTTP, ready, SPARE, sent, World } from './world.ts';

const created = (id: string) => ({ type: 'response.created', response: { id } });
const said = (text: string) => ({
  type: 'response.output_item.done',
  output_index: 0,
  item: { type: 'message', role: 'assistant', content: [{ type: 'output_text', text }] },
});
const completed = (id: string, type = 'response.completed', status = 'completed') => ({
  type,
  response: { id, status, output: [] },
});
const failed = {
  type: 'response.failed',
  sequence_number: 4,
  response: { id: 'r1', error: { code: 'server_error' } },
};
const error = { type: 'error', sequence_number: 3, code: 'server_error', message: 'boom', param: null };

const outcomeOf = (world: World, turn: string) => world.outcomes(turn)[0]?.outcome;
const answersTo = (world: World, turn: string) =>
  world.received
    .filter(({ turnId, type }) => turnId === turn && type === 'response.output_item.done')
    .map(
      ({ frame }) =>
        (frame?.json()['item'] as { content?: { text: string }[] } | undefined)?.content?.[0]?.text,
    );

describe('a turn gets its own answer', () => {
  it.each([
    ['a terminal told twice', [created('r1'), completed('r1'), completed('r1')], 'COMPLETED'],
    ['a response told as created twice', [created('r1'), created('r1'), completed('r1')], 'COMPLETED'],
    ['an error, then the same failure', [created('r1'), error, failed], 'FAILED'],
    ['a failure, then the same error', [created('r1'), failed, { ...error, sequence_number: 5 }], 'FAILED'],
    [
      'a private end behind the real one',
      [created('r1'), completed('r1'), { type: 'response.done', response: {} }],
      'COMPLETED',
    ],
    [
      'a second life cycle',
      [created('r1'), completed('r1'), created('x'), said('stray'), completed('x')],
      'COMPLETED',
    ],
    ['content behind the end', [created('r1'), completed('r1'), said('late')], 'COMPLETED'],
    ['response.cancelled', [created('r1'), completed('r1', 'response.cancelled', 'cancelled')], 'CANCELLED'],
    ['response.done', [created('r1'), completed('r1', 'response.done', 'incomplete')], 'INCOMPLETE'],
    [
      'an end that is cut off by its status alone',
      [created('r1'), completed('r1', 'response.completed', 'incomplete')],
      'INCOMPLETE',
    ],
    [
      'an end that has failed by its status alone',
      [created('r1'), completed('r1', 'response.completed', 'failed')],
      'FAILED',
    ],
    [
      'another response announced in the middle, of which nothing more is heard',
      [created('r1'), said('a'), created('x'), completed('r1')],
      'COMPLETED',
    ],
    [
      'a response that begins anew under another id',
      [created('r1'), created('x'), said('a'), completed('r1'), completed('x')],
      'COMPLETED',
    ],
    [
      'a second life cycle that runs beside the first',
      [created('r1'), created('x'), said('a'), completed('r1'), said('stray'), completed('x')],
      'COMPLETED',
    ],
    [
      'a second life cycle that is done first',
      [created('r1'), created('x'), said('a'), completed('x'), said('stray'), completed('r1')],
      'COMPLETED',
    ],
    [
      'a second life cycle that says nothing until it ends',
      [created('r1'), said('a'), created('x'), completed('x'), completed('r1')],
      'COMPLETED',
    ],
    [
      'an attempt that is called off when the next has begun',
      [
        created('r1'),
        created('x'),
        said('a'),
        completed('r1', 'response.cancelled', 'cancelled'),
        completed('x'),
      ],
      'COMPLETED',
    ],
  ])('after %s', (_, frames, outcome) => {
    const world = ready();
    for (const turn of ['t1', 't2', 't3']) world.start({ turn });
    world.burst(frames);
    for (const id of ['r2', 'r3']) world.burst([created(id), said(`answer ${id}`), completed(id)]);
    world.read();
    expect(outcomeOf(world, 't1')).toBe(outcome);
    expect(answersTo(world, 't2')).toEqual(['answer r2']);
    expect(answersTo(world, 't3')).toEqual(['answer r3']);
  });
});

it('shows the client one of two responses to one create, and goes on from that', () => {
  const world = ready();
  world.start({ turn: 't1' });
  world.burst([created('r1'), created('x'), said('a'), completed('r1'), said('stray'), completed('x')]);
  world.read();
  expect(answersTo(world, 't1')).toEqual(['a']);
  world.start({ turn: 't2' });
  expect(sent(world).at(-1)?.['previous_response_id']).toBe('r1');
});

it('keeps of two responses to one create what the end lists as its own', () => {
  const world = ready();
  world.start({ turn: 't1' });
  const items = ['a', 'b'].map((text) => said(text).item);
  const end = { type: 'response.completed', response: { id: 'r1', status: 'completed', output: [items[0]] } };
  world.burst([created('r1'), said('a'), created('x'), said('b'), end]);
  world.cut(1);
  world.start({ turn: 't2' });
  world.advance(1_000);
  world.answerDial();
  expect(inputOf(sent(world).at(-1))).toEqual(['t1', items[0]?.content, 't2']);
});

it('takes one wrong answer at most where a second life cycle comes after the next create was written', () => {
  const world = ready();
  for (const turn of ['t1', 't2', 't3', 't4']) world.start({ turn });
  const answered = (id: string, parent: string | null) =>
    world.burst([
      { type: 'response.created', response: { id, previous_response_id: parent } },
      said(id),
      { type: 'response.completed', response: { id, previous_response_id: parent } },
    ]);
  answered('r1', null);
  // Nothing tells it from the answer to t2, which was written when r1 had ended.
  answered('x1', null);
  answered('r2', 'r1');
  answered('x2', 'r1');
  answered('r3', 'x1');
  answered('x3', 'x1');
  answered('r4', 'r3');
  world.read();
  expect(['t3', 't4'].flatMap((turn) => answersTo(world, turn))).toEqual(['r3', 'r4']);
});

it('takes the answer of a relay that names the parent as it began', () => {
  const world = ready();
  for (const turn of ['t1', 't2', 't3']) world.start({ turn });
  for (const [at, parent] of [
    [1, null],
    [2, 'inner_1'],
    [3, 'inner_2'],
  ] as const)
    world.burst([
      { type: 'response.created', response: { id: `inner_${at}`, previous_response_id: parent } },
      said(`r${at}`),
      { type: 'response.completed', response: { id: `public_${at}`, previous_response_id: parent } },
    ]);
  world.read();
  expect(['t1', 't2', 't3'].flatMap((turn) => answersTo(world, turn))).toEqual(['r1', 'r2', 'r3']);
});

it('continues from the id that the terminal names', () => {
  const world = ready();
  world.start();
  world.burst([created('raw'), completed('public')]);
  world.start();
  expect(sent(world).at(-1)?.['previous_response_id']).toBe('public');
});

it('lets a response of another conversation interrupt, and go on with nothing', () => {
  const continuing = (id: string, parent: string | null) => ({
    type: 'response.created',
    response: { id, previous_response_id: parent },
  });
  const world = ready();
  for (const turn of ['t1', 't2', 't3']) world.start({ turn });
  world.burst([continuing('r1', null), completed('r1')]);
  world.burst([continuing('r2', 'r1'), continuing('x', null), said('stray'), completed('x')]);
  world.burst([said('own'), completed('r2')]);
  world.burst([continuing('r3', 'r2'), said('next'), completed('r3')]);
  world.read();
  expect([answersTo(world, 't2'), answersTo(world, 't3')]).toEqual([['own'], ['next']]);
});

it('lets a response of another conversation interrupt one that was given up', () => {
  const continuing = (id: string, parent: string | null) => ({
    type: 'response.created',
    response: { id, previous_response_id: parent },
  });
  const world = ready();
  world.start({ turn: 't1' });
  world.burst([continuing('r1', null), completed('r1')]);
  const cancelled = world.start();
  world.start({ lane: 'other' });
  world.burst([continuing('r2', 'r1')]);
  world.cancel('', cancelled);
  world.burst([continuing('x', null), said('stray'), completed('x')]);
  const turn = world.start();
  world.burst([said('late'), completed('r2'), continuing('r3', 'r1'), said('own'), completed('r3')]);
  world.settle();
  expect(answersTo(world, turn)).not.toContain('late');
  expect(outcomeOf(world, turn)).toBe('COMPLETED');
});

it('goes on from its own warm-up when another response interrupts that', () => {
  const world = ready();
  const onLane = (frame: object) => ({ ...frame, stream_id: 'a' });
  for (const [id, laterMs] of [
    ['r1', 2_995_000],
    ['r2', 305_000],
  ] as const) {
    world.start({ lane: 'a' });
    world.burst([created(id), completed(id)].map(onLane));
    world.advance(laterMs);
  }
  world.answerDial();
  expect(sent(world).at(-1)).toMatchObject({ generate: false, stream_id: 'a' });
  world.burst([created('w'), created('x'), completed('w')].map(onLane), 2);
  world.start({ lane: 'a' });
  expect(sent(world).at(-1)).toMatchObject({ previous_response_id: 'w' });
});

it('takes nothing of a request over HTTP that was given up for the next answer', () => {
  const world = new World();
  world.answerDial(1, OVER_HTTP);
  const cancelled = world.start({ lane: 'a' });
  const onLane = (frame: object) => ({ ...frame, stream_id: 'a' });
  world.burst([created('r1'), said('begun')].map(onLane));
  world.cancel('a', cancelled);
  const turn = world.start({ lane: 'a' });
  world.burst([said('late'), completed('r1'), created('r2'), said('own'), completed('r2')].map(onLane));
  world.read();
  expect(answersTo(world, turn)).toEqual(['own']);
});

describe('names of lanes that were never given', () => {
  const answer = (name: string | undefined) =>
    [created('r1'), said('own'), completed('r1')].map((frame) => ({ ...frame, stream_id: name }));

  it.each([
    ['the unnamed lane', '', OPENAI, 'default'],
    ['a probe', 'a', { ...OPENAI, lanesUnproven: true }, 's1'],
    ['a probe, empty', 'a', { ...OPENAI, lanesUnproven: true }, ''],
    ['a link of one lane', 'a', SPARE.capabilities, 'a1'],
  ])('say nothing about %s', (_, lane, capabilities, name) => {
    const world = new World();
    world.capabilities = capabilities;
    world.answerDial();
    const turn = world.start({ lane });
    world.burst(answer(name));
    world.read();
    expect(outcomeOf(world, turn)).toBe('COMPLETED');
    expect(answersTo(world, turn)).toEqual(['own']);
    world.start({ lane: 'b' });
    const isProven = capabilities === OPENAI;
    expect(world.dials).toEqual(isProven ? [] : [2]);
  });

  it('do not hide whom an error is about', () => {
    const world = new World();
    world.capabilities = { ...OPENAI, lanesUnproven: true };
    world.answerDial();
    const turn = world.start({ lane: 'a' });
    world.say({ ...error, stream_id: 's1' });
    world.read();
    expect(world.outcomes(turn)[0]?.turnFailed?.error.reason).toBe('UPSTREAM_ERROR');
  });

  it('are not needed in the middle of the only answer that is under way', () => {
    const world = ready();
    const turn = world.start({ lane: 'a' });
    world.burst([{ ...created('r1'), stream_id: 'a' }, said('own'), completed('r1')]);
    world.read();
    expect([outcomeOf(world, turn), answersTo(world, turn)]).toEqual(['COMPLETED', ['own']]);
  });

  it('are not missed in what the unnamed lane is owed', () => {
    const world = ready({ silentTurnTimeoutMs: 10_000 });
    world.start();
    world.advance(5_000);
    const turn = world.start({ lane: 'a' });
    world.advance(6_000);
    const onLane = (frame: object) => ({ ...frame, stream_id: 'a' });
    world.burst([created('late'), onLane(created('r1')), said('late'), completed('late')]);
    world.burst([said('own'), completed('r1')].map(onLane));
    world.read();
    expect([outcomeOf(world, turn), answersTo(world, turn)]).toEqual(['COMPLETED', ['own']]);
  });

  it('are not needed by an error in the middle of the only answer that is under way', () => {
    const world = ready();
    const turn = world.start({ lane: 'a' });
    world.burst([{ ...created('r1'), stream_id: 'a' }, error]);
    world.read();
    expect(world.outcomes(turn)[0]?.turnFailed?.error.reason).toBe('UPSTREAM_ERROR');
  });
});

it('finds the turn that an error without a lane is about when the others are answered', () => {
  const world = ready();
  for (const lane of ['bad', 'good']) world.start({ lane, turn: lane });
  world.say({
    type: 'error',
    status: 400,
    error: { type: 'invalid_request_error', code: 'invalid_value', message: 'no' },
  });
  world.burst([
    { ...created('r1'), stream_id: 'good' },
    { ...completed('r1'), stream_id: 'good' },
  ]);
  world.read();
  expect([outcomeOf(world, 'good'), outcomeOf(world, 'bad')]).toEqual(['COMPLETED', 'FAILED']);
});

it('ends a turn of which nothing is heard, and goes on over another link', () => {
  const world = ready({ silentTurnTimeoutMs: 10_000 });
  const turn = world.start();
  world.advance(11_000);
  world.read();
  expect(world.outcomes(turn)[0]?.turnFailed?.error.reason).toBe('UPSTREAM_SILENT');
  const next = world.start();
  world.settle();
  expect(outcomeOf(world, next)).toBe('COMPLETED');
});

it('keeps the tool outputs that a cancelled turn brought', () => {
  const call = { type: 'function_call', id: 'fc', call_id: 'c1', name: 'f', arguments: '{}' };
  const world = ready();
  world.start();
  world.burst([
    created('r1'),
    { type: 'response.output_item.done', output_index: 0, item: call },
    completed('r1'),
  ]);
  const output = JSON.stringify({ type: 'function_call_output', call_id: 'c1', output: 'result' });
  const turn = world.start({ input: [output] });
  world.cancel('', turn);
  world.start({ text: 'never mind' });
  world.settle();
  expect(inputOf(sent(world).at(-1)).slice(-2)).toEqual(['result', 'never mind']);
});
