import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkSeq, type Message, type TestEvent, textOf, userMessage } from '../harness/client.ts';
import { startGateway, type TestGateway } from '../harness/gateway.ts';

let gateway: TestGateway;

beforeEach(async () => {
  gateway = await startGateway();
});

afterEach(async () => {
  await gateway.close();
  expect(gateway.bugs).toEqual([]);
  expect(gateway.access.openSessions).toBe(0);
  expect(gateway.access.openLanes).toBe(0);
});

const tool = (name: string): Message => ({
  function: { name, parameters: Buffer.from('{"type":"object","properties":{}}') },
});

const inputOf = (index: number): unknown[] =>
  gateway.simulator.journal.entries[index]?.request?.input as unknown[];

const outcomes = (events: readonly TestEvent[]) =>
  events.map((event) => event.outcome).filter((outcome) => outcome !== 'TURN_OUTCOME_UNSPECIFIED');

const responseId = (events: readonly TestEvent[]) => {
  const created = events.find((event) => event.type === 'response.created') as TestEvent;
  return (created.response_created as { response: { id: string } }).response.id;
};

describe('a session', () => {
  it('streams a turn from first event to outcome', async () => {
    const stream = gateway.client().connect();
    const opened = await stream.opened();
    expect(opened).toMatchObject({
      resume_outcome: 'RESUME_OUTCOME_NEW',
      next_seq: 1,
      limits: { max_message_bytes: 20 * 1024 * 1024, max_frame_bytes: 16 * 1024 * 1024 },
    });
    stream.startTurn({ turn_id: 't1' }, 'hello');
    const events = await stream.turn('t1');
    checkSeq(stream.events);
    expect(events[0]?.type).toBe('response.created');
    expect(outcomes(events)).toEqual(['TURN_OUTCOME_COMPLETED']);
    expect(textOf(events)).toBe(gateway.simulator.journal.entries[0]?.finalText);
    expect(events.every((event) => event.json.length === 0)).toBe(true);
    stream.halfClose();
    expect(await stream.ended()).toMatchObject({ code: 0 });
    expect(gateway.telemetry.sessions[0]?.end).toBe('OK');
    expect(gateway.telemetry.streams).toEqual([{ sessionId: opened.session_id, status: 'OK' }]);
  });

  it('sends only what is new and names the last response', async () => {
    const stream = gateway.client().connect({ model: 'gpt-6-default' });
    for (const turn of ['t1', 't2', 't3']) {
      stream.startTurn({ turn_id: turn, create: { model: undefined } }, `this is ${turn}`);
    }
    const third = await stream.turn('t3');
    const { entries } = gateway.simulator.journal;
    expect(entries.map((entry) => entry.previousResponseId)).toEqual([
      null,
      entries[0]?.responseId,
      entries[1]?.responseId,
    ]);
    expect(entries.map((_, index) => inputOf(index))).toMatchObject([[{}], [{}], [{}]]);
    expect(entries.map((entry) => entry.contextItems)).toEqual([1, 3, 5]);
    expect(entries.map((entry) => entry.request?.model)).toEqual(Array(3).fill('gpt-6-default'));
    expect(textOf(third)).toBe(entries[2]?.finalText);
    expect(gateway.simulator.journal.counters.connectionsAccepted).toBeLessThanOrEqual(3);
    expect(new Set(entries.map((entry) => entry.connection)).size).toBe(1);
  });

  it('runs an agent loop of tool calls', async () => {
    const stream = gateway.client().connect();
    const tools = [tool('look'), tool('book')];
    let input: Message[] = [userMessage('go #tools=20')];
    let answer = '';
    for (let turn = 1; turn <= 21; turn++) {
      stream.startTurn({ turn_id: `t${turn}`, create: { tools, input } });
      const events = await stream.turn(`t${turn}`);
      const done = events.filter((event) => event.type === 'response.output_item.done');
      input = done.flatMap((event) => {
        const item = (event.output_item_done as { item: { function_call?: { call_id: string } } }).item;
        const call = item.function_call;
        return call ? [{ function_call_output: { call_id: call.call_id, output: '{"ok":true}' } }] : [];
      });
      answer = textOf(events);
      if (turn <= 20) expect(input).toHaveLength(1);
    }
    expect(input).toHaveLength(0);
    const { entries } = gateway.simulator.journal;
    expect(entries).toHaveLength(21);
    expect(answer).toBe(entries[20]?.finalText);
    expect(entries[20]?.contextItems).toBe(41);
    expect(inputOf(20)).toHaveLength(1);
    checkSeq(stream.events);
  });

  it('keeps lanes apart while they run side by side', async () => {
    const stream = gateway.client().connect();
    for (const lane of ['a', 'b']) {
      stream.startTurn({ lane_id: lane, turn_id: `${lane}1` }, `first of ${lane} #deltas=50`);
      stream.startTurn({ lane_id: lane, turn_id: `${lane}2` }, `second of ${lane}`);
    }
    const [a2, b2] = await Promise.all([stream.turn('a2'), stream.turn('b2')]);
    const { entries } = gateway.simulator.journal;
    const ofLane = (lane: string) => entries.filter((entry) => entry.lane === lane);
    expect(ofLane('a').map((entry) => entry.contextItems)).toEqual([1, 3]);
    expect(ofLane('b').map((entry) => entry.contextItems)).toEqual([1, 3]);
    expect(textOf(a2)).toBe(ofLane('a')[1]?.finalText);
    expect(textOf(b2)).toBe(ofLane('b')[1]?.finalText);
    expect(new Set(a2.map((event) => event.lane_id))).toEqual(new Set(['a']));
  });

  it('forks from a response of another lane', async () => {
    const stream = gateway.client().connect();
    stream.startTurn({ lane_id: 'trunk', turn_id: 't1' }, 'the root');
    const root = responseId(await stream.turn('t1'));
    stream.startTurn({ lane_id: 'trunk', turn_id: 't2' }, 'onwards');
    stream.startTurn({ lane_id: 'branch', turn_id: 'f1', previous_response_id: root }, 'sideways');
    stream.startTurn({ lane_id: 'trunk', turn_id: 'n1', new_conversation: {} }, 'afresh');
    await Promise.all([stream.turn('t2'), stream.turn('f1'), stream.turn('n1')]);
    const { entries } = gateway.simulator.journal;
    const parents = new Map(entries.map((entry) => [entry.responseId, entry.previousResponseId]));
    expect([...parents.values()].filter((parent) => parent === root)).toHaveLength(2);
    expect(parents.get(responseId(stream.events.filter((event) => event.turn_id === 'n1')))).toBeNull();
    expect(gateway.access.admitted.map((turn) => turn.responseIds)).toContainEqual([root]);
    expect(gateway.access.owned).toEqual(expect.arrayContaining(entries.map((entry) => entry.responseId)));
  });

  it('steers a running turn', async () => {
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 't1', create: { model: 'gpt-6-astra' } }, 'write #deltas=200 #tps=200');
    await stream.event('response.output_text.delta', 't1');
    stream.send({ steer_turn: { turn_id: 't1', input: [userMessage('in French')] } });
    const events = await stream.turn('t1');
    expect(events.some((event) => event.type === 'response.steer.accepted')).toBe(true);
    expect(outcomes(events)).toHaveLength(1);
    const successor = gateway.simulator.journal.entries.find((entry) => entry.successorOf !== null);
    expect(successor?.finalText).toBeTruthy();
    expect(textOf(events).endsWith(successor?.finalText ?? '-')).toBe(true);
  });

  it('warms up without output, and continues from there', async () => {
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 'w', create: { generate: false, instructions: 'be brief' } }, 'the context');
    const warm = await stream.turn('w');
    expect(outcomes(warm)).toEqual(['TURN_OUTCOME_COMPLETED']);
    expect(textOf(warm)).toBe('');
    stream.startTurn({ turn_id: 't1', create: { instructions: 'be brief' } }, 'the question');
    await stream.turn('t1');
    const { entries } = gateway.simulator.journal;
    expect(entries.map((entry) => entry.warmUp)).toEqual([true, false]);
    expect(entries[1]?.previousResponseId).toBe(entries[0]?.responseId);
  });

  it('cancels a turn at once and leaves other lanes alone', async () => {
    const stream = gateway.client().connect();
    stream.startTurn({ lane_id: 'a', turn_id: 'a1' }, 'at length #deltas=300 #tps=500');
    stream.startTurn({ lane_id: 'b', turn_id: 'b1' }, 'go on #deltas=100 #tps=500');
    await stream.event('response.output_text.delta', 'a1');
    await stream.event('response.output_text.delta', 'b1');
    stream.send({ cancel_turn: { lane_id: 'a', turn_id: 'a1' } });
    expect(outcomes(await stream.turn('a1'))).toEqual(['TURN_OUTCOME_CANCELLED']);
    const b1 = await stream.turn('b1');
    expect(outcomes(b1)).toEqual(['TURN_OUTCOME_COMPLETED']);
    expect(textOf(b1)).toBe(gateway.simulator.journal.entries.find((entry) => entry.lane === 'b')?.finalText);
    stream.startTurn({ lane_id: 'a', turn_id: 'a2', new_conversation: {} }, 'again');
    expect(outcomes(await stream.turn('a2'))).toEqual(['TURN_OUTCOME_COMPLETED']);
    checkSeq(stream.events);
  });

  it('frees the lane of a cancelled turn whose upstream hangs as soon as nobody else runs there', async () => {
    const stream = gateway.client().connect();
    stream.startTurn({ lane_id: 'a', turn_id: 'a1' }, 'wait #hang #deltas=10');
    stream.startTurn({ lane_id: 'b', turn_id: 'b1' }, 'go on #deltas=100 #tps=500');
    await stream.event('response.output_text.delta', 'a1');
    stream.send({ cancel_turn: { lane_id: 'a', turn_id: 'a1' } });
    stream.startTurn({ lane_id: 'a', turn_id: 'a2', new_conversation: {} }, 'again');
    expect(outcomes(await stream.turn('b1'))).toEqual(['TURN_OUTCOME_COMPLETED']);
    expect(outcomes(await stream.turn('a2'))).toEqual(['TURN_OUTCOME_COMPLETED']);
    stream.startTurn({ lane_id: 'b', turn_id: 'b2' }, 'and on');
    await stream.turn('b2');
    const b = gateway.simulator.journal.entries.filter((entry) => entry.lane === 'b');
    expect(b.map((entry) => entry.contextItems)).toEqual([1, 3]);
  });

  it("ends a turn at its own timeout, not the stream's", async () => {
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 't1', timeout: { seconds: 0, nanos: 60_000_000 } }, 'wait #hang');
    const events = await stream.turn('t1');
    expect(outcomes(events)).toEqual(['TURN_OUTCOME_DEADLINE_EXCEEDED']);
    expect(events.at(-1)?.turn_failed).toMatchObject({ code: 4, reason: 'TURN_TIMEOUT' });
    stream.startTurn({ turn_id: 't2', new_conversation: {} }, 'still here');
    expect(outcomes(await stream.turn('t2'))).toEqual(['TURN_OUTCOME_COMPLETED']);
  });

  it('works out the delta of a full history', async () => {
    const stream = gateway.client().connect({ payload: 'PAYLOAD_FORMAT_BOTH' });
    const first = { json: Buffer.from('{"role":"user","content":"one"}') };
    stream.startTurn({ turn_id: 't1', input_mode: 'INPUT_MODE_FULL_HISTORY', create: { input: [first] } });
    const events = await stream.turn('t1');
    const items = events
      .filter((event) => event.type === 'response.output_item.done')
      .map((event) => ({ json: Buffer.from(JSON.stringify(JSON.parse(event.json.toString()).item)) }));
    expect(items).toHaveLength(1);
    const second = { json: Buffer.from('{"role":"user","content":"two"}') };
    const input = [first, ...items, second];
    stream.startTurn({ turn_id: 't2', input_mode: 'INPUT_MODE_FULL_HISTORY', create: { input } });
    await stream.turn('t2');
    expect(inputOf(1)).toEqual([{ role: 'user', content: 'two' }]);
    expect(gateway.simulator.journal.entries[1]?.contextItems).toBe(3);

    // A history that does not extend what was there goes up as a whole, and the client is told.
    stream.startTurn({ turn_id: 't3', input_mode: 'INPUT_MODE_FULL_HISTORY', create: { input: [second] } });
    await stream.turn('t3');
    expect(inputOf(2)).toHaveLength(1);
    expect(gateway.simulator.journal.entries[2]?.contextItems).toBe(1);
    expect(
      stream.events.filter((event) => event.type === 'gateway.notice').map((e) => e.notice?.kind),
    ).toEqual(['full_input_sent']);
  });

  it('gives the exact JSON when asked for it', async () => {
    const stream = gateway.client().connect({ payload: 'PAYLOAD_FORMAT_JSON' });
    stream.startTurn({ turn_id: 't1' }, 'hello');
    const events = await stream.turn('t1');
    expect(events.every((event) => event.payload === undefined)).toBe(true);
    const bodies = events.map((event) => JSON.parse(event.json.toString()));
    expect(bodies.map((body) => body.type)).toEqual(events.map((event) => event.type));
    expect(bodies.map((body) => body.sequence_number)).toEqual(events.map((_, index) => index));
  });

  it('finishes running turns after a half-close', async () => {
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 't1' }, 'one #deltas=100 #tps=1000');
    stream.startTurn({ turn_id: 't2' }, 'two');
    stream.halfClose();
    expect(await stream.ended()).toMatchObject({ code: 0 });
    expect(stream.events.map((event) => event.turn_id).filter((id, i, all) => id !== all[i - 1])).toEqual([
      't1',
      't2',
    ]);
    expect(outcomes(stream.events)).toEqual(['TURN_OUTCOME_COMPLETED', 'TURN_OUTCOME_COMPLETED']);
  });

  it('settles every turn with access control and tells telemetry the facts', async () => {
    const stream = gateway.client().connect({ client_name: 'billing-agent', metadata: { job: 'nightly' } });
    stream.startTurn({ turn_id: 't1', create: { max_output_tokens: 4_000 } }, 'hello');
    await stream.turn('t1');
    const [turn] = gateway.access.admitted;
    expect(turn).toMatchObject({ model: 'gpt-6', maxOutputTokens: 4_000, conversation: false });
    expect(gateway.access.settled).toHaveLength(1);
    expect(gateway.access.settled[0]?.usage?.outputTokens).toBeGreaterThan(0);
    const [session] = gateway.telemetry.sessions;
    expect(session?.start).toMatchObject({ clientName: 'billing-agent', tenantId: 'anonymous' });
    expect(Object.fromEntries(session?.start.labels ?? [])).toEqual({ job: 'nightly' });
    const kinds = session?.facts.map((fact) => fact.kind);
    expect(kinds?.slice(0, 1)).toEqual(['linkDialing']);
    for (const kind of [
      'linkUp',
      'turnAccepted',
      'turnSent',
      'responseCreated',
      'firstOutput',
      'turnEnded',
    ]) {
      expect(kinds).toContain(kind);
    }
    expect(gateway.telemetry.events).toBe(stream.events.length);
    expect(gateway.telemetry.batches).toBe(stream.batches);
  });
});
