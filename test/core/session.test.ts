import { describe, expect, it } from 'vitest';
import { toFrame, userItem } from './fake-upstream.ts';
import { OPENAI, ready, sent, World } from './world.ts';

function texts(world: World): readonly (readonly string[])[] {
  return world.upstream.executions.map(({ context }) => context);
}

function lateUsages(world: World) {
  return world.outputs.flatMap((output) =>
    output.kind === 'fact' && output.fact.kind === 'lateUsage' ? [output.fact] : [],
  );
}

describe('chaining', () => {
  it('sends only the new input and names the last response', () => {
    const world = ready();
    world.start({ text: 'one' });
    world.settle();
    world.start({ text: 'two' });
    world.settle();
    expect(sent(world)).toEqual([
      {
        type: 'response.create',
        model: 'm',
        store: false,
        input: [{ type: 'message', role: 'user', content: 'one' }],
      },
      {
        type: 'response.create',
        model: 'm',
        store: false,
        previous_response_id: 'resp_1',
        input: [{ type: 'message', role: 'user', content: 'two' }],
      },
    ]);
    expect(texts(world)[1]).toEqual(['one', 'out:resp_1', 'two']);
  });

  it('keeps the order of a lane and runs lanes side by side', () => {
    const world = ready();
    for (const lane of ['a', 'b']) for (const n of [1, 2]) world.start({ lane, turn: `${lane}${n}` });
    expect(sent(world).map(({ stream_id }) => stream_id)).toEqual(['a', 'b']);
    world.settle();
    expect(world.upstream.executions.map(({ lane, context }) => [lane, context.length])).toEqual([
      ['a', 1],
      ['b', 1],
      ['a', 3],
      ['b', 3],
    ]);
  });

  it('opens further links for more lanes than one has names, and never names a 33rd', () => {
    const world = ready({ maxLinks: 4 });
    for (let n = 0; n < 100; n += 1) world.start({ lane: `lane${n}` });
    world.settle();
    expect(world.upstream.violations).toEqual([]);
    expect(world.received.filter(({ outcome }) => outcome === 'COMPLETED')).toHaveLength(100);
    for (let n = 0; n < 100; n += 1) world.start({ lane: `lane${n}` });
    world.settle();
    expect(world.upstream.violations).toEqual([]);
    expect(texts(world).filter(({ length }) => length === 3)).toHaveLength(100);
  });

  it('takes any number of lanes: idle links make room', () => {
    const world = ready({ maxLinks: 2 });
    for (let n = 0; n < 300; n += 1) {
      world.start({ lane: `lane${n}` });
      world.settle();
    }
    world.start({ lane: 'lane0' });
    world.settle();
    expect(world.session.inspect().links.length).toBeLessThanOrEqual(2);
    expect(texts(world).at(-1)).toEqual(['t1', 'out:resp_1', 't301']);
  });

  it('holds the parent lane until a fork of an unstored response runs', () => {
    const world = ready();
    world.start({ lane: 'main' });
    world.settle();
    world.start({ lane: 'fork', chain: { kind: 'from', responseId: 'resp_1' } });
    world.start({ lane: 'main' });
    expect(sent(world)).toHaveLength(2);
    world.deliver(1);
    world.deliver(1);
    expect(sent(world)).toHaveLength(3);
    world.settle();
    expect(texts(world).slice(1)).toEqual([
      ['t1', 'out:resp_1', 't2'],
      ['t1', 'out:resp_1', 't3'],
    ]);
  });

  it('uses one link for each lane where the upstream has no lanes', () => {
    const world = new World();
    world.capabilities = { ...OPENAI, multiplexed: false, maxInFlight: 1, maxNamedLanes: 0 };
    world.answerDial();
    for (const lane of ['a', 'b', 'c']) world.start({ lane });
    world.settle();
    expect(new Set(world.upstream.executions.map(({ linkId }) => linkId)).size).toBe(3);
    expect(sent(world).every(({ stream_id }) => stream_id === undefined)).toBe(true);
    world.start({ lane: 'b' });
    world.settle();
    expect(texts(world).at(-1)).toEqual(['t2', expect.stringContaining('out:'), 't4']);
    expect(
      world.received
        .filter(({ outcome }) => outcome === 'COMPLETED')
        .map(({ laneId }) => laneId)
        .sort(),
    ).toEqual(['a', 'b', 'b', 'c']);
  });
});

describe('full history', () => {
  it('sends the delta when the history extends what the upstream has', () => {
    const world = ready();
    const first = [userItem('one')];
    world.start({ mode: 'fullHistory', input: first });
    world.settle();
    // Spelled as another SDK would: no ids, no status, plain text for parts.
    const answer = JSON.stringify({ role: 'assistant', content: 'out:resp_1', status: null });
    world.start({ mode: 'fullHistory', input: [...first, answer, userItem('two')] });
    world.settle();
    expect(sent(world)[1]).toMatchObject({ previous_response_id: 'resp_1', input: [{ content: 'two' }] });
    expect(world.notices()).toEqual([]);
  });

  it.each([
    ['differs', [userItem('ONE'), userItem('two'), userItem('three')], 'history_differs'],
    ['is shorter', [userItem('two')], 'history_shorter_than_known'],
  ])('sends everything and says why when it %s', (_, input, reason) => {
    const world = ready();
    world.start({ mode: 'fullHistory', input: [userItem('one')] });
    world.settle();
    world.start({ mode: 'fullHistory', input });
    world.settle();
    expect(sent(world)[1]).not.toHaveProperty('previous_response_id');
    expect(sent(world)[1]?.input).toHaveLength(input.length);
    expect(world.notices()).toEqual([`full_input_sent:${reason}`]);
  });
});

describe('recovery', () => {
  it('rebuilds a lane from the transcript when the upstream forgot it, without the ids', () => {
    const world = ready();
    world.start();
    world.settle();
    world.upstream.evictAll(1);
    world.start();
    world.settle();
    expect(texts(world).at(-1)).toEqual(['t1', 'out:resp_1', 't2']);
    expect(sent(world).at(-1)).not.toHaveProperty('previous_response_id');
    expect(world.notices()).toEqual(['replayed:previous_response_not_found']);
    expect(world.outcomes('t2').map(({ outcome }) => outcome)).toEqual(['COMPLETED']);
  });

  it('continues a stored response by id on a new link', () => {
    const world = ready();
    world.start({ store: true });
    world.settle();
    world.cut(1);
    world.advance(1_000);
    world.start({ store: true });
    world.settle();
    expect(sent(world).at(-1)).toMatchObject({ previous_response_id: 'resp_1', input: [{ content: 't2' }] });
    expect(world.notices()).toEqual(['recovered:link_lost']);
  });

  it('tells of a recovery that was given up, once a turn has a link again', () => {
    const world = ready();
    world.start({ store: true });
    world.settle();
    world.cut(1);
    world.advance(1_000);
    expect(world.dials).toEqual([2]);
    world.failDial();
    world.advance(60_000);
    expect(world.dials).toEqual([]);
    world.start({ store: true });
    world.settle();
    expect(world.notices()).toEqual(['recovered:link_lost']);
    world.start({ store: true });
    world.settle();
    expect(world.notices()).toEqual(['recovered:link_lost']);
  });

  it.each([
    [0, 'UNKNOWN', 'SENT'],
    [1, 'UNSAFE', 'CREATED'],
    [3, 'UNSAFE', 'OUTPUT_STARTED'],
  ])('fails a turn that was cut after %i frames as %s and never sends it again', (frames, replay, phase) => {
    const world = ready();
    world.start();
    for (let n = 0; n < frames; n += 1) world.deliver(1);
    world.cut(1);
    world.settle();
    world.advance(60_000);
    expect(world.outcomes('t1')[0]?.turnFailed).toMatchObject({
      replay,
      phase,
      error: { reason: 'UPSTREAM_LINK_LOST' },
    });
    expect(world.upstream.executions).toHaveLength(1);
  });

  it('lets queued turns wait for the new link', () => {
    const world = ready();
    world.start({ lane: 'a' });
    world.start({ lane: 'a' });
    world.cut(1);
    world.advance(1_000);
    world.settle();
    expect(world.outcomes('t1')[0]?.outcome).toBe('FAILED');
    expect(world.outcomes('t2')[0]?.outcome).toBe('COMPLETED');
  });

  it('fails queued turns as safe when nobody answers the dial', () => {
    const world = new World({ maxDialAttempts: 3 });
    world.start();
    for (let n = 0; n < 3; n += 1) {
      world.failDial();
      world.advance(10_000);
    }
    world.read();
    expect(world.outcomes('t1')[0]?.turnFailed).toMatchObject({
      replay: 'SAFE',
      phase: 'NOT_SENT',
      error: { reason: 'UPSTREAM_UNAVAILABLE' },
    });
  });

  it('asks for encrypted reasoning when nothing is stored and the turn reasons', () => {
    const world = ready();
    world.start({ fields: { reasoning: '{"effort":"high"}', include: '["message.output_text.logprobs"]' } });
    world.start({ lane: 'plain' });
    expect(sent(world)[0]?.include).toEqual(['message.output_text.logprobs', 'reasoning.encrypted_content']);
    expect(sent(world)[1]).not.toHaveProperty('include');
  });

  it('tells once that a lane can no longer be rebuilt', () => {
    const world = ready({ maxTranscriptBytes: 2_000 });
    for (let n = 0; n < 3; n += 1) {
      world.start({ text: 'x'.repeat(1_500) });
      world.settle();
    }
    expect(world.notices()).toEqual(['transcript_dropped:transcript_limit']);
    expect(texts(world)[2]).toHaveLength(5);
    world.cut(1);
    world.start();
    world.settle();
    world.advance(10_000);
    world.settle();
    expect(world.outcomes('t4')[0]?.turnFailed).toMatchObject({
      replay: 'SAFE',
      error: { reason: 'CHAIN_LOST' },
    });
  });

  it('gives up transcripts when memory is short, tells so, and goes on over the link that it has', () => {
    const world = ready();
    world.start({ text: 'x'.repeat(1_500) });
    world.feed({ kind: 'shed', what: 'transcript' });
    expect(world.notices()).toEqual([]);
    world.settle();
    const before = world.session.transcriptBytes;
    world.feed({ kind: 'shed', what: 'transcript' });
    expect(world.session.transcriptBytes).toBeLessThan(before - 1_500);
    world.settle();
    expect(world.notices()).toEqual(['transcript_dropped:memory_short']);
    world.start();
    world.settle();
    expect(world.outcomes('t2')[0]?.outcome).toBe('COMPLETED');
    // What was said since then is kept, but no longer the whole.
    world.cut(1);
    world.start();
    world.settle();
    world.advance(10_000);
    world.settle();
    expect(world.outcomes('t3')[0]?.turnFailed?.error.reason).toBe('CHAIN_LOST');
    expect(world.notices().filter((notice) => notice.startsWith('transcript_dropped'))).toHaveLength(1);
  });

  it('counts what a client asked for until it has its end, in the memory that it takes', () => {
    const world = ready();
    expect(world.session.heldInputBytes).toBe(0);
    world.start({ text: 'x'.repeat(100_000) });
    world.start({ text: `${'x'.repeat(100_000)}漢` });
    const both = world.session.heldInputBytes;
    expect(both).toBeGreaterThan(300_000);
    expect(both).toBeLessThan(310_000);
    world.feed({ kind: 'steerTurn', laneId: '', turnId: 't1', input: [userItem('y'.repeat(50_000))] });
    expect(world.session.heldInputBytes).toBeGreaterThan(both + 50_000);
    world.settle();
    expect(world.session.heldInputBytes).toBe(0);
    // Given up: its upstream goes on, its request is nobody's any more.
    world.start({ text: 'x'.repeat(100_000) });
    world.feed({ kind: 'cancelTurn', laneId: '', turnId: 't3' });
    expect(world.session.heldInputBytes).toBe(0);
  });

  it('leaves a session to its record when memory is short and its client is away', () => {
    const world = ready({}, { keepsContent: true, open: true });
    world.start();
    world.settle();
    world.feed({ kind: 'shed', what: 'transcript' });
    expect(world.session.closed).toBe(false);
    expect(world.session.transcriptBytes).toBeGreaterThan(0);
    world.feed({ kind: 'detach' });
    world.feed({ kind: 'shed', what: 'transcript' });
    expect(world.outputs.at(-1)).toMatchObject({ kind: 'closed', record: 'release' });
    expect(world.session.transcriptBytes).toBe(0);
  });

  it('gives up events kept for a resume when memory is short', () => {
    const world = ready();
    world.start();
    world.settle();
    expect(world.session.keptEventBytes).toBeGreaterThan(0);
    world.feed({ kind: 'shed', what: 'keptEvents' });
    expect(world.session.keptEventBytes).toBe(0);
    world.feed({ kind: 'detach' });
    world.feed({ kind: 'attach', lastSeq: 0 });
    expect(world.session.resumePoint).toMatchObject({ outcome: 'PARTIAL' });
  });

  it('starts a replay at the latest compaction item', () => {
    const world = ready();
    world.start();
    world.settle();
    world.start();
    const compaction = { type: 'compaction', id: 'cmp_1', encrypted_content: 'zip' };
    world.deliver(1);
    world.deliver(1);
    world.feed({
      kind: 'frame',
      linkId: 1,
      frame: toFrame({ type: 'response.output_item.done', output_index: 0, item: compaction }),
    });
    const response = { id: 'resp_2', status: 'completed', output: [] };
    world.feed({ kind: 'frame', linkId: 1, frame: toFrame({ type: 'response.completed', response }) });
    world.cut(1);
    world.start();
    world.advance(1_000);
    world.answerDial();
    expect(sent(world).at(-1)?.input).toEqual([
      { type: 'compaction', encrypted_content: 'zip' },
      { type: 'message', role: 'user', content: 't3' },
    ]);
  });
});

describe('rate limits', () => {
  it('waits as long as the upstream says and sends again, when asked to', () => {
    const world = ready();
    world.nextFault = 'rate_limit';
    world.start({ wait: true });
    world.settle();
    expect(world.upstream.executions).toHaveLength(0);
    expect(world.notices()).toEqual(['rate_limited:rate_limit_exceeded']);
    world.advance(1_499);
    expect(sent(world)).toHaveLength(1);
    world.advance(1);
    world.settle();
    expect(world.outcomes('t1')[0]?.outcome).toBe('COMPLETED');
  });

  it('fails with the time to wait otherwise', () => {
    const world = ready();
    world.nextFault = 'rate_limit';
    world.start();
    world.settle();
    const failed = world.outcomes('t1')[0]?.turnFailed;
    expect(failed).toMatchObject({
      replay: 'SAFE',
      error: { reason: 'UPSTREAM_RATE_LIMITED', retryAfterMs: 1_500 },
    });
  });

  it('does not wait past the timeout of the turn', () => {
    const world = ready();
    world.nextFault = 'rate_limit';
    world.start({ wait: true, timeoutMs: 1_000 });
    world.settle();
    expect(world.outcomes('t1')[0]).toMatchObject({
      outcome: 'FAILED',
      turnFailed: { error: { reason: 'UPSTREAM_RATE_LIMITED' } },
    });
  });
});

describe('rotation', () => {
  it('leaves a lane that was idle for long to its next turn', () => {
    const world = ready();
    world.start({ lane: 'a' });
    world.settle();
    world.advance(3_200_000);
    world.settle();
    expect(world.notices()).toEqual(['rotated:max_age']);
    // Idle for longer than a warm-up is worth: it moves when it is used.
    world.start({ lane: 'a' });
    world.settle();
    expect(texts(world).at(-1)).toEqual(['t1', 'out:resp_1', 't2']);
  });

  it('warms the lanes in use, so that the turn after it names the warm response', () => {
    const world = ready();
    world.advance(2_990_000);
    world.start({ lane: 'a' });
    world.settle();
    world.advance(200_000);
    expect(world.dials).toHaveLength(1);
    world.settle();
    expect(world.notices()).toEqual(['rotated:max_age']);
    const warm = world.upstream.executions.at(-1);
    expect(warm).toMatchObject({ warmUp: true, context: ['t1', 'out:resp_1'] });
    world.start({ lane: 'a' });
    expect(sent(world).at(-1)).toMatchObject({
      previous_response_id: warm?.responseId,
      input: [{ content: 't2' }],
    });
    world.settle();
    expect(world.received.filter(({ turnId }) => turnId.startsWith('warm'))).toEqual([]);
  });

  it('runs a turn that comes while the lane warms on the old link, at once', () => {
    const world = ready();
    world.advance(2_990_000);
    world.start({ lane: 'a' });
    world.settle();
    world.advance(200_000);
    world.answerDial();
    world.start({ lane: 'a' });
    expect(world.upstream.executions.at(-1)).toMatchObject({
      linkId: 1,
      context: ['t1', 'out:resp_1', 't2'],
    });
    world.settle();
    world.start({ lane: 'a' });
    world.settle();
    expect(world.upstream.executions.at(-1)).toMatchObject({
      linkId: 2,
      context: ['t1', 'out:resp_1', 't2', expect.any(String), 't3'],
    });
    // What the second warm-up carried is only what the first had not.
    const warmUps = world.upstream.executions.filter(({ warmUp }) => warmUp);
    expect(warmUps.map(({ input }) => input.length)).toEqual([2, 2]);
    expect(world.notices()).toEqual(['rotated:max_age']);
  });

  it('leaves a successor that does not answer its warm-up', () => {
    const world = ready();
    world.advance(2_990_000);
    world.start({ lane: 'a' });
    world.settle();
    world.advance(200_000);
    world.answerDial();
    world.cut(1);
    world.start({ lane: 'a' });
    expect(sent(world).filter(({ generate }) => generate !== false)).toHaveLength(1);
    world.advance(30_000);
    world.answerDial();
    expect(sent(world).at(-1)).toMatchObject({
      input: [{ content: 't1' }, { role: 'assistant' }, { content: 't2' }],
    });
  });

  it.each(['', 'b'])(
    'takes a late answer to the warm-up of lane "%s" for nobody else\'s, and runs nothing twice',
    (warmed) => {
      const world = ready();
      world.start({ lane: warmed, wait: true });
      world.settle();
      world.advance(3_200_000 - 60_000);
      world.start({ lane: warmed, wait: true });
      world.settle();
      world.advance(100_000);
      world.nextFault = 'rate_limit';
      world.answerDial();
      expect(sent(world).at(-1)).toMatchObject({ generate: false });
      world.advance(30_000);

      // The answer to the warm-up waits before those to the turn.
      world.start({ lane: 'a', text: 'once', wait: true });
      world.settle();
      world.advance(10_000);
      world.settle();
      expect(world.upstream.executions.filter(({ input }) => input.includes('once'))).toHaveLength(1);
      expect(world.outcomes('t3').map(({ outcome }) => outcome)).toEqual(['COMPLETED']);
      expect(world.received.filter(({ type }) => type === 'error')).toEqual([]);
    },
  );

  it('keeps the old link when the successor cannot be dialled', () => {
    const world = ready();
    world.advance(3_200_000);
    world.failDial();
    world.start();
    world.settle();
    expect(world.outcomes('t1')[0]?.outcome).toBe('COMPLETED');
  });

  it('sends again what the upstream dropped at its age limit, and lets running turns finish', () => {
    const world = ready();
    world.start({ lane: 'runs' });
    world.deliver(1);
    world.start({ lane: 'waits' });
    const limit = world.upstream.announceLimit(1);
    if (limit !== undefined) world.feed({ kind: 'frame', linkId: 1, frame: limit });
    world.settle();
    expect(
      world.received
        .filter(({ outcome }) => outcome !== undefined)
        .map(({ turnId, outcome }) => [turnId, outcome]),
    ).toEqual(
      expect.arrayContaining([
        ['t1', 'COMPLETED'],
        ['t2', 'COMPLETED'],
      ]),
    );
    expect(world.notices()).toContain('recovered:connection_limit');
  });
});

describe('cancel and time', () => {
  it('ends a turn for the client at once and swallows the rest', () => {
    const world = ready();
    world.start({ lane: 'a' });
    world.start({ lane: 'b' });
    world.deliver(1);
    world.cancel('a', 't1');
    world.read();
    expect(world.outcomes('t1')).toMatchObject([
      { outcome: 'CANCELLED', turnFailed: { replay: 'UNSAFE', phase: 'CREATED' } },
    ]);
    world.start({ lane: 'a' });
    world.settle();
    expect(world.received.filter(({ turnId }) => turnId === 't1').at(-1)?.outcome).toBe('CANCELLED');
    // The cancelled turn left no trace in the conversation.
    expect(texts(world).at(-1)).toEqual(['t3']);
    expect(world.outputs.some((output) => output.kind === 'closeLink')).toBe(false);
    expect(world.outputs.some((output) => output.kind === 'fact' && output.fact.kind === 'lateUsage')).toBe(
      true,
    );
  });

  it('tells the usage of every response that a cancelled turn still gets', () => {
    const world = ready();
    world.start({ turn: 'other', lane: 'y' });
    world.say({ type: 'response.created', stream_id: 'y', response: { id: 'ry' } });
    const say = (frame: Record<string, unknown>) => world.say({ stream_id: 'x', ...frame });
    world.start({ turn: 't1', lane: 'x' });
    say({ type: 'response.created', response: { id: 'r1' } });
    world.steer('x', 'more');
    say({ type: 'response.steer.accepted', steer: { id: 's1', previous_response_id: 'r1' } });
    world.cancel('x', 't1');
    const usage = { input_tokens: 10, output_tokens: 3 };
    say({ type: 'response.incomplete', response: { id: 'r1', usage } });
    say({ type: 'response.created', response: { id: 'r2' } });
    say({ type: 'response.completed', response: { id: 'r2', usage } });
    expect(lateUsages(world)).toMatchObject([
      { turnId: 't1', responseId: 'r1', usage: { inputTokens: 10, outputTokens: 3 } },
      { turnId: 't1', responseId: 'r2', usage: { inputTokens: 10, outputTokens: 3 } },
    ]);
  });

  it('tells the usage of its own warm-ups', () => {
    const world = new World();
    world.capabilities = { ...OPENAI, rotateAfterMs: 60_000 };
    world.answerDial();
    world.start({ turn: 't1', lane: 'a', text: 'x'.repeat(5_000) });
    world.settle();
    expect(lateUsages(world)).toEqual([]);
    world.advance(70_000);
    world.answerDial();
    world.settle();
    expect(world.upstream.executions.filter(({ warmUp }) => warmUp)).toHaveLength(1);
    expect(lateUsages(world)).toMatchObject([{ turnId: '' }]);
  });

  it('closes the link of the only running turn, and finds the conversation again', () => {
    const world = ready();
    world.start();
    world.settle();
    world.start();
    world.deliver(1);
    world.cancel('', 't2');
    expect(world.outputs).toContainEqual({ kind: 'closeLink', linkId: 1, code: 1000, reason: 'cancelled' });
    world.start();
    world.settle();
    expect(texts(world).at(-1)).toEqual(['t1', 'out:resp_1', 't3']);
  });

  it('gives a turn its own time, queued or running', () => {
    const world = ready();
    world.start({ timeoutMs: 5_000 });
    world.start({ timeoutMs: 3_000 });
    world.advance(3_000);
    world.read();
    expect(world.outcomes('t2')[0]).toMatchObject({
      outcome: 'DEADLINE_EXCEEDED',
      turnFailed: { replay: 'SAFE', phase: 'NOT_SENT' },
    });
    world.advance(2_000);
    world.read();
    expect(world.outcomes('t1')[0]).toMatchObject({
      outcome: 'DEADLINE_EXCEEDED',
      turnFailed: { replay: 'UNKNOWN', phase: 'SENT' },
    });
  });

  it('aborts the request of one lane where every lane has its own', () => {
    const world = new World();
    world.capabilities = {
      ...OPENAI,
      transport: 'sse',
      keepsUnstored: false,
      warmUp: false,
      steering: false,
    };
    world.answerDial();
    world.start({ lane: 'a' });
    world.start({ lane: 'b' });
    world.deliver(1);
    world.cancel('a', 't1');
    expect(world.outputs).toContainEqual({ kind: 'abort', linkId: 1, streamId: 'a' });
    world.start({ lane: 'a' });
    expect(sent(world)).toHaveLength(3);
  });
});

describe('steering', () => {
  it('keeps the turn open until the successor ends, and remembers what was said', () => {
    const world = ready();
    world.start({ lane: 'a' });
    world.steer('a', 'shorter');
    world.deliver(1);
    world.settle();
    const types = world.received.map(
      ({ type, outcome }) => `${type}${outcome === undefined ? '' : `=${outcome}`}`,
    );
    expect(types.filter((type) => !type.includes('delta'))).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.done',
      'response.steer.accepted',
      'response.incomplete',
      'response.created',
      'response.in_progress',
      'response.output_item.done',
      'response.completed=COMPLETED',
    ]);
    world.upstream.evictAll(1);
    world.start({ lane: 'a' });
    world.settle();
    expect(texts(world).at(-1)).toEqual([
      't1',
      'out:resp_1',
      'shorter',
      expect.stringContaining('out:'),
      't2',
    ]);
  });

  it('gives waiting steers to the next create itself when the link that held them is gone', () => {
    const world = ready();
    world.start();
    world.steer('', 'and be brief');
    const feed = (json: Record<string, unknown>) =>
      world.feed({ kind: 'frame', linkId: 1, frame: toFrame(json) });
    const steer = { id: 'steer_1', previous_response_id: 'resp_1' };
    feed({ type: 'response.created', response: { id: 'resp_1' } });
    feed({ type: 'response.steer.accepted', steer });
    const call = { id: 'fc_1', type: 'function_call', call_id: 'c1', name: 'f', arguments: '{}' };
    feed({ type: 'response.output_item.done', output_index: 0, item: call });
    feed({ type: 'response.completed', response: { id: 'resp_1', status: 'completed', output: [] } });
    world.read();
    expect(world.outcomes('t1')).toEqual([]);
    feed({ type: 'response.steer.pending', steer, reason: 'waiting_for_required_input', required_input: [] });
    world.read();
    expect(world.outcomes('t1')).toMatchObject([{ type: 'response.steer.pending', outcome: 'COMPLETED' }]);
    world.cut(1);
    world.start({ input: [JSON.stringify({ type: 'function_call_output', call_id: 'c1', output: '42' })] });
    world.advance(1_000);
    world.answerDial();
    const input = sent(world).at(-1)?.input as Record<string, unknown>[] | undefined;
    expect(input?.map(({ type }) => type)).toEqual([
      'message',
      'function_call',
      'message',
      'function_call_output',
    ]);
  });

  it.each([
    ['an unknown lane', 'nowhere', 'UNKNOWN_LANE'],
    ['a lane at rest', '', 'TURN_NOT_RUNNING'],
  ])('refuses %s and ends nothing', (_, lane, reason) => {
    const world = ready();
    world.start();
    world.settle();
    world.steer(lane, 'x');
    world.read();
    expect(world.received.at(-1)).toMatchObject({
      type: 'gateway.request.rejected',
      outcome: undefined,
      turnFailed: { error: { reason } },
    });
  });
});

describe('the client', () => {
  it('hears what it missed exactly once after a resume', () => {
    const world = ready();
    world.start();
    world.deliver(1);
    world.read();
    world.detach();
    world.settle();
    world.attach(0);
    expect(world.session.resumePoint).toEqual({ outcome: 'RESUMED', oldestSeq: 1 });
    world.received.length = 0;
    world.settle();
    expect(world.received.map(({ seq }) => seq)).toEqual(world.received.map((_, index) => index + 1));
  });

  it('pauses the links of a client that does not read, cuts it in the end, and loses nothing', () => {
    const world = ready({ maxBufferedBytes: 300, slowClientTimeoutMs: 20_000 });
    world.start();
    for (let n = 0; n < 10; n += 1) world.deliver(1);
    expect(world.paused).toEqual(new Set([1]));
    world.advance(20_000);
    expect(world.outputs).toContainEqual(expect.objectContaining({ kind: 'endStream', resumable: true }));
    world.attach(0);
    world.settle();
    expect(world.outcomes('t1')[0]?.outcome).toBe('COMPLETED');
  });

  it('is waited for only so long', () => {
    const world = ready({ resumeGraceMs: 60_000 });
    world.start();
    world.detach();
    world.advance(59_999);
    expect(world.session.closed).toBe(false);
    world.advance(1);
    expect(world.session.closed).toBe(true);
    expect(world.upstream.openLinks).toEqual([]);
  });

  it('gets its running turns finished after a half-close', () => {
    const world = ready();
    world.start();
    world.feed({ kind: 'halfClose' });
    expect(world.ended).toBe(false);
    world.settle();
    expect(world.outcomes('t1')[0]?.outcome).toBe('COMPLETED');
    expect(world.ended).toBe(true);
  });

  it('may send the same turn twice, but not two turns under one id', () => {
    const world = ready();
    world.start({ turn: 'same', text: 'x' });
    world.start({ turn: 'same', text: 'x' });
    world.start({ turn: 'same', text: 'y' });
    world.settle();
    expect(world.outcomes('same')).toHaveLength(1);
    expect(world.upstream.executions).toHaveLength(1);
    expect(world.received.filter(({ type }) => type === 'gateway.request.rejected')).toMatchObject([
      { turnFailed: { error: { reason: 'TURN_ID_REUSED' } } },
    ]);
  });

  it('is told to go, and its turns finish within the time', () => {
    const world = ready();
    world.start();
    world.feed({ kind: 'drain', deadlineMs: world.now + 10_000 });
    expect(world.outputs).toContainEqual({
      kind: 'goAway',
      reason: 'draining',
      timeLeftMs: 10_000,
      movable: false,
    });
    world.start();
    world.settle();
    expect(world.outcomes('t1')[0]?.outcome).toBe('COMPLETED');
    expect(world.outcomes('t2')[0]?.turnFailed).toMatchObject({
      replay: 'SAFE',
      error: { reason: 'DRAINING' },
    });
    expect(world.ended).toBe(true);
  });

  it('is over at once when it is told to go, nothing runs and its client is away', () => {
    const world = ready();
    world.start();
    world.detach();
    world.settle();
    expect(world.session.pendingEvents).toBeGreaterThan(0);
    expect(world.ended).toBe(false);
    world.feed({ kind: 'drain', deadlineMs: world.now + 10_000 });
    expect(world.ended).toBe(true);
  });

  it('is over when the last turn ends, if its client went away while it drained', () => {
    const world = ready();
    world.start();
    world.feed({ kind: 'drain', deadlineMs: world.now + 10_000 });
    world.detach();
    expect(world.ended).toBe(false);
    world.settle();
    expect(world.ended).toBe(true);
  });
});

describe('frames that nobody asked for', () => {
  it.each([
    ['a connection event', { type: 'codex.rate_limits', plan: 'x' }, ''],
    [
      'an event of a lane that does not exist',
      { type: 'response.output_text.delta', stream_id: 'ghost' },
      '',
    ],
    ['an error about nothing', { type: 'error', code: 'odd', message: 'm', param: null }, ''],
  ])('hands on %s and ends no turn', (_, json, laneId) => {
    const world = ready();
    world.start({ lane: 'a' });
    world.start({ lane: 'b' });
    world.feed({ kind: 'frame', linkId: 1, frame: toFrame(json) });
    world.read();
    expect(world.received).toMatchObject([{ type: json.type, laneId, turnId: '', outcome: undefined }]);
    world.settle();
    expect(world.received.filter(({ outcome }) => outcome === 'COMPLETED')).toHaveLength(2);
  });
});
