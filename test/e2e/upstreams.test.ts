import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Simulator, type SimulatorOptions, startSimulator } from '../../src/simulator/index.ts';
import type { UpstreamOptions } from '../../src/upstream/upstream.ts';
import { startChaosProxy } from '../harness/chaos-proxy.ts';
import { checkSeq, type TestEvent, type TestStream, textOf, userMessage } from '../harness/client.ts';
import { type GatewayOptions, startGateway, type TestGateway } from '../harness/gateway.ts';

let gateway: TestGateway;
let simulators: Simulator[] = [];

beforeEach(() => {
  simulators = [];
});

afterEach(async () => {
  await gateway.close();
  for (const simulator of simulators) await simulator.close();
  expect(gateway.bugs).toEqual([]);
});

/** A gateway before one simulator for each entry, in order of preference. */
async function start(
  upstreams: Readonly<Record<string, { simulator?: SimulatorOptions; upstream?: Partial<UpstreamOptions> }>>,
  options: Partial<GatewayOptions<never, never>> = {},
): Promise<Record<string, Simulator>> {
  const started: Record<string, Simulator> = {};
  const list: UpstreamOptions[] = [];
  for (const [name, { simulator: wanted, upstream }] of Object.entries(upstreams)) {
    const simulator = await startSimulator(wanted ?? {});
    simulators.push(simulator);
    started[name] = simulator;
    list.push({ name, provider: 'openai', url: simulator.url, allowPlaintext: true, ...upstream });
  }
  gateway = (await startGateway({
    upstreamUrl: 'http://127.0.0.1:9/v1',
    ...options,
    dialer: { upstreams: list, ...options.dialer },
  })) as unknown as TestGateway;
  return started;
}

const last = (events: readonly TestEvent[]) => events.at(-1) as TestEvent;
const notices = (stream: TestStream) =>
  stream.events.filter(({ notice }) => notice != null).map(({ notice }) => notice?.kind);
const entriesOf = (simulator: Simulator | undefined) => simulator?.journal.entries ?? [];
const inputsOf = (simulator: Simulator | undefined) =>
  entriesOf(simulator).map(({ request }) => (request?.input as unknown[] | undefined)?.length ?? 0);

/** Until the first session has heard of so many lost links and failed dials. */
const linksDown = (count: number) =>
  expect
    .poll(() => gateway.telemetry.sessions[0]?.facts.filter(({ kind }) => kind === 'linkDown').length)
    .toBeGreaterThanOrEqual(count);

async function ask(stream: TestStream, turn: { readonly turn_id: string }, text: string) {
  stream.startTurn(turn, text);
  return stream.turn(turn.turn_id);
}

describe('an upstream without WebSocket', () => {
  const noWebSocket = { sim: { simulator: { switches: { websocket: false } } } };

  it('continues by id where responses are stored', async () => {
    const { sim } = await start(noWebSocket);
    const stream = gateway.client().connect();
    for (const id of ['t1', 't2', 't3']) {
      const events = await ask(stream, { turn_id: id }, id);
      expect(last(events).outcome).toBe('TURN_OUTCOME_COMPLETED');
      expect(textOf(events)).toBe(entriesOf(sim).at(-1)?.finalText);
    }
    expect(entriesOf(sim).map(({ transport }) => transport)).toEqual(['http', 'http', 'http']);
    expect(inputsOf(sim)).toEqual([1, 1, 1]);
    expect(entriesOf(sim).map(({ contextItems }) => contextItems)).toEqual([1, 3, 5]);
    expect(notices(stream)).toEqual([]);
    checkSeq(stream.events);
  });

  it('is sent the transcript where nothing is stored; the client sends only what is new', async () => {
    const { sim } = await start(noWebSocket);
    const stream = gateway.client().connect();
    for (const id of ['t1', 't2', 't3']) {
      await ask(stream, { turn_id: id, create: { store: false } } as never, id);
    }
    expect(inputsOf(sim)).toEqual([1, 3, 5]);
    expect(entriesOf(sim).map(({ previousResponseId }) => previousResponseId)).toEqual([null, null, null]);
    expect(notices(stream)).toEqual([]);
  });

  it('runs a tool loop over lanes side by side', async () => {
    const { sim } = await start(noWebSocket);
    const stream = gateway.client().connect();
    const tools = [
      { function: { name: 'look', parameters: Buffer.from('{"type":"object","properties":{}}') } },
    ];
    const loop = async (lane: string) => {
      let input: object[] = [userMessage(`go ${lane} #tools=3`)];
      for (let n = 1; ; n += 1) {
        stream.startTurn({
          lane_id: lane,
          turn_id: `${lane}${n}`,
          create: { tools, input, store: false },
        } as never);
        const events = await stream.turn(`${lane}${n}`);
        expect(last(events).outcome).toBe('TURN_OUTCOME_COMPLETED');
        input = events.flatMap((event) => {
          const call = (
            event.output_item_done as { item?: { function_call?: { call_id: string } } } | undefined
          )?.item?.function_call;
          return call ? [{ function_call_output: { call_id: call.call_id, output: '1' } }] : [];
        });
        if (input.length === 0) return n;
      }
    };
    expect(await Promise.all(['a', 'b', 'c'].map(loop))).toEqual([4, 4, 4]);
    expect(Math.max(...inputsOf(sim))).toBe(7);
    checkSeq(stream.events);
  });

  it('cancels one lane at once, which goes on from where it was', async () => {
    const { sim } = await start(noWebSocket);
    const stream = gateway.client().connect();
    await ask(stream, { turn_id: 't1' }, 'one');
    stream.startTurn({ turn_id: 't2' }, 'at length #deltas=500 #tps=200');
    await stream.event('response.output_text.delta', 't2');
    stream.send({ cancel_turn: { turn_id: 't2' } });
    expect(last(await stream.turn('t2')).outcome).toBe('TURN_OUTCOME_CANCELLED');
    await ask(stream, { turn_id: 't3' }, 'three');
    expect(entriesOf(sim).at(-1)).toMatchObject({ contextItems: 3 });
  });

  it('answers steering and warm-up in words', async () => {
    await start(noWebSocket);
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 'w', create: { generate: false } }, 'warm');
    expect(last(await stream.turn('w')).turn_failed).toMatchObject({
      reason: 'NOT_SUPPORTED_BY_UPSTREAM',
      replay: 'REPLAY_VERDICT_SAFE',
    });
    stream.startTurn({ turn_id: 't1', create: { model: 'gpt-6-astra' } }, 'long #deltas=100 #tps=200');
    await stream.event('response.output_text.delta', 't1');
    stream.send({ steer_turn: { turn_id: 't1', input: [userMessage('in French')] } });
    const rejected = await stream.event('gateway.request.rejected', 't1');
    expect(rejected.turn_failed).toMatchObject({ reason: 'NOT_SUPPORTED_BY_UPSTREAM' });
    expect(last(await stream.turn('t1')).outcome).toBe('TURN_OUTCOME_COMPLETED');
  });

  it('waits out a rate limit that it answers as HTTP', async () => {
    const { sim } = await start({
      sim: {
        simulator: {
          switches: { websocket: false },
          faults: [
            {
              kind: 'error',
              atEvent: 0,
              status: 429,
              code: 'rate_limit_exceeded',
              headers: { 'retry-after': '0.1' },
              times: 1,
            },
          ],
        },
      },
    });
    const stream = gateway.client().connect();
    const events = await ask(stream, { turn_id: 't1', wait_on_rate_limit: true } as never, 'hello');
    expect(last(events).outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect(notices(stream)).toEqual(['rate_limited']);
    expect(sim?.journal.counters.requestsHttp).toBe(2);
  });

  it('is left for the next one when it is gone, without a lost turn', async () => {
    const { first, second } = await start({
      first: { simulator: { switches: { websocket: false } } },
      second: {},
    });
    const stream = gateway.client().connect();
    await ask(stream, { turn_id: 't1' }, 'one');
    await first?.close();
    const events = await ask(stream, { turn_id: 't2' }, 'two');
    expect(last(events)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
    expect(entriesOf(second).at(-1)).toMatchObject({ contextItems: 3 });
    expect(notices(stream)).toContain('upstream_changed');
  });
});

describe.each(['xai', 'azure'] as const)('%s, whose links have no lanes', (provider) => {
  it('runs several lanes side by side, each on a link of its own', async () => {
    const { sim } = await start({
      sim: { simulator: { switches: { lanes: false } }, upstream: { provider } },
    });
    const stream = gateway.client().connect();
    const lanes = ['', 'a', 'b', 'c', 'd'];
    const turns = async (n: number) => {
      for (const lane of lanes) {
        stream.startTurn(
          { lane_id: lane, turn_id: `t${n}${lane}`, create: { store: false } },
          `${n} of ${lane} #deltas=20 #tps=200`,
        );
      }
      return Promise.all(lanes.map((lane) => stream.turn(`t${n}${lane}`)));
    };
    for (const n of [1, 2, 3]) {
      for (const events of await turns(n))
        expect(last(events)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
    }
    expect(entriesOf(sim).every(({ lane }) => lane === '')).toBe(true);
    expect(new Set(entriesOf(sim).map(({ connection }) => connection)).size).toBe(5);
    expect(
      entriesOf(sim)
        .map(({ contextItems }) => contextItems)
        .sort(),
    ).toEqual([1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5]);
    checkSeq(stream.events);
  });
});

describe('the upstream of a session', () => {
  const byModel = {
    first: { upstream: { models: ['gpt-*'] } },
    second: { upstream: { models: ['llama-*'] } },
  };
  const llama = { model: 'llama-4' };

  it('is that of its model', async () => {
    const { first, second } = await start(byModel);
    const stream = gateway.client().connect(llama);
    await ask(stream, { turn_id: 't1', create: { model: undefined } } as never, 'one');
    expect([entriesOf(first).length, entriesOf(second).length]).toEqual([0, 1]);
  });

  it.each(['at once', 'once a link is up'])('is that of its first turn, sent %s', async (when) => {
    const { first, second } = await start(byModel);
    const stream = gateway.client().connect();
    const ups = () => gateway.telemetry.sessions[0]?.facts.filter(({ kind }) => kind === 'linkUp').length;
    if (when !== 'at once') await expect.poll(ups).toBe(1);
    for (const id of ['t1', 't2']) await ask(stream, { turn_id: id, create: llama } as never, id);
    expect([entriesOf(first).length, entriesOf(second).length]).toEqual([0, 2]);
    expect(entriesOf(second).at(-1)).toMatchObject({ contextItems: 3 });
    expect(notices(stream)).toEqual([]);
  });

  it('is none for a model that nobody serves, and the session can go on with another', async () => {
    const { first } = await start(byModel);
    const stream = gateway.client().connect();
    const none = await ask(stream, { turn_id: 't1', create: { model: 'mistral' } } as never, 'one');
    expect(last(none).turn_failed).toMatchObject({
      reason: 'MODEL_NOT_ALLOWED',
      replay: 'REPLAY_VERDICT_SAFE',
    });
    expect(last(await ask(stream, { turn_id: 't2' }, 'two')).outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect(entriesOf(first)).toHaveLength(1);
  });
});

describe('failover', () => {
  const two = { first: {}, second: {} };

  it('opens a new session elsewhere when its upstream is gone', async () => {
    const { first, second } = await start(two);
    await first?.close();
    const stream = gateway.client().connect();
    expect(last(await ask(stream, { turn_id: 't1' }, 'one')).outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect(entriesOf(second)).toHaveLength(1);
  });

  it.each([true, false])('takes an idle session along, with its conversation (store: %s)', async (store) => {
    const { first, second } = await start(two);
    const stream = gateway.client().connect();
    await ask(stream, { turn_id: 't1', create: { store } } as never, 'one');
    await ask(stream, { turn_id: 't2', create: { store } } as never, 'two');
    await first?.close();
    await linksDown(1);
    const events = await ask(stream, { turn_id: 't3', create: { store } } as never, 'three');
    expect(last(events)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
    expect(entriesOf(second).at(-1)).toMatchObject({ contextItems: 5, previousResponseId: null });
    expect(notices(stream)).toEqual(expect.arrayContaining(['upstream_changed', 'replayed']));
    checkSeq(stream.events);
  });

  it('takes a session along that had been idle through the whole outage', async () => {
    const { first, second } = await start(two);
    const stream = gateway.client().connect();
    await ask(stream, { turn_id: 't1' }, 'one');
    await first?.close();
    // The link, and the one dial that a session makes while it has nothing to do.
    await linksDown(2);
    const events = await ask(stream, { turn_id: 't2' }, 'two');
    expect(last(events)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
    expect(entriesOf(second).at(-1)).toMatchObject({ contextItems: 3 });
  });

  it('takes a session along whose upstream is known to be down', async () => {
    const { first, second } = await start(two, { dialer: { breaker: { failures: 1 } } });
    const stream = gateway.client().connect();
    await ask(stream, { turn_id: 't1' }, 'one');
    await first?.close();
    await linksDown(1);
    await ask(gateway.client().connect(), { turn_id: 'other' }, 'opens the circuit');
    const events = await ask(stream, { turn_id: 't2' }, 'two');
    expect(last(events)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
    expect(entriesOf(second).at(-1)).toMatchObject({ contextItems: 3 });
  });

  it.each(['openai', 'xai'] as const)('takes along more lanes than a link of %s has', async (provider) => {
    const simulator = { switches: { lanes: provider === 'openai' } };
    const upstream = { provider };
    const { first, second } = await start({
      first: { simulator, upstream },
      second: { simulator, upstream },
    });
    const stream = gateway.client().connect();
    const lanes = Array.from({ length: provider === 'openai' ? 40 : 8 }, (_, n) => `lane-${n}`);
    const turn = (lane: string, n: number) =>
      ask(stream, { turn_id: `${lane}-${n}`, lane_id: lane, create: { store: false } } as never, 'go on');
    await Promise.all(lanes.map((lane) => turn(lane, 1)));
    const links = new Set(entriesOf(first).map(({ connection }) => connection)).size;
    await first?.close();
    await linksDown(links);
    const ends = await Promise.all(lanes.map(async (lane) => last(await turn(lane, 2)).outcome));
    expect(new Set(ends)).toEqual(new Set(['TURN_OUTCOME_COMPLETED']));
    const contexts = entriesOf(second).map(({ contextItems }) => contextItems);
    expect(contexts.filter((items) => items === 3)).toHaveLength(lanes.length);
    checkSeq(stream.events);
  });

  it('ends the turn that ran, in words, and takes the lane along', async () => {
    const { first, second } = await start(two);
    const stream = gateway.client().connect();
    await ask(stream, { turn_id: 't1' }, 'one');
    stream.startTurn({ turn_id: 't2' }, 'two #deltas=500 #tps=200');
    stream.startTurn({ turn_id: 't3' }, 'three');
    await stream.event('response.output_text.delta', 't2');
    await first?.close();
    expect(last(await stream.turn('t2')).turn_failed).toMatchObject({
      replay: 'REPLAY_VERDICT_UNSAFE',
      phase: 'TURN_PHASE_OUTPUT_STARTED',
    });
    expect(last(await stream.turn('t3'))).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
    expect(entriesOf(second).at(-1)).toMatchObject({ contextItems: 3 });
  });
});

describe('a session that wants no recovery', () => {
  it('is told so, and that its conversation is lost with the link', async () => {
    const { sim } = await start({ sim: {} });
    const stream = gateway.client().connect({ recovery: false });
    const create = { store: false };
    await ask(stream, { turn_id: 't1', create } as never, 'one');
    expect(stream.events.find(({ notice }) => notice != null)?.notice).toMatchObject({
      kind: 'transcript_dropped',
      reason: 'recovery_off',
    });
    sim?.cutConnections();
    await linksDown(1);
    expect(last(await ask(stream, { turn_id: 't2', create } as never, 'two')).turn_failed).toMatchObject({
      reason: 'CHAIN_LOST',
      replay: 'REPLAY_VERDICT_SAFE',
    });
    const afresh = { turn_id: 't3', create, new_conversation: {} };
    expect(last(await ask(stream, afresh, 'three')).outcome).toBe('TURN_OUTCOME_COMPLETED');
  });
});

describe('a circuit that is open', () => {
  it('fails turns at once, with the time to wait', async () => {
    const { sim } = await start({ sim: {} }, { dialer: { breaker: { failures: 1, openMinMs: 60_000 } } });
    await sim?.close();
    const stream = gateway.client().connect();
    const events = await ask(stream, { turn_id: 't1' }, 'one');
    expect(last(events).turn_failed).toMatchObject({
      code: 14,
      reason: 'UPSTREAM_CIRCUIT_OPEN',
      replay: 'REPLAY_VERDICT_SAFE',
    });
    expect(last(events).turn_failed?.retry_after).toBeTruthy();
  });
});

describe('a turn that found nobody', () => {
  it('does not keep others from dialling', async () => {
    const simulator = await startSimulator();
    simulators.push(simulator);
    const proxy = await startChaosProxy({ target: { host: '127.0.0.1', port: simulator.port } });
    const openMinMs = 60_000;
    gateway = await startGateway({
      upstreamUrl: `ws://127.0.0.1:${proxy.port}/v1`,
      dialer: { pool: { size: 0 }, breaker: { failures: 3, openMinMs, openMaxMs: openMinMs } },
    });
    proxy.set({ up: { limitBytes: 1 } });
    const failing = gateway.client().connect();
    expect(last(await ask(failing, { turn_id: 't1' }, 'one')).turn_failed?.reason).toBe(
      'UPSTREAM_UNAVAILABLE',
    );
    proxy.set({});
    const other = gateway.client().connect();
    expect(last(await ask(other, { turn_id: 't1' }, 'one')).outcome).toBe('TURN_OUTCOME_COMPLETED');
    // Three that find nobody are an outage.
    proxy.set({ up: { limitBytes: 1 } });
    const reasons = [];
    for (let n = 0; n < 4; n++) {
      reasons.push(last(await ask(gateway.client().connect(), { turn_id: 't' }, 'x')).turn_failed?.reason);
    }
    expect(reasons.at(-1)).toBe('UPSTREAM_CIRCUIT_OPEN');
    await proxy.close();
  });
});

describe('an upstream that asks to wait', () => {
  const limited = (message: string, headers?: Record<string, string>): SimulatorOptions => ({
    faults: [
      {
        kind: 'error',
        atEvent: 0,
        status: 429,
        code: 'rate_limit_exceeded',
        message,
        ...(headers ? { headers } : {}),
        times: 1,
      },
    ],
  });

  it.each([
    ['in its headers', limited('slow', { 'retry-after': '0.15' })],
    ['in words', limited('Rate limit reached. Please try again in 150ms.')],
  ])('is waited for when the client wants that: %s', async (_, simulator) => {
    const { sim } = await start({ sim: { simulator } });
    const stream = gateway.client().connect();
    const begun = performance.now();
    const events = await ask(stream, { turn_id: 't1', wait_on_rate_limit: true } as never, 'one');
    expect(performance.now() - begun).toBeGreaterThanOrEqual(150);
    expect(last(events).outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect(notices(stream)).toEqual(['rate_limited']);
    expect(entriesOf(sim)).toHaveLength(2);
  });

  it('fails the turn with that time otherwise', async () => {
    await start({ sim: { simulator: limited('slow', { 'retry-after': '7' }) } });
    const stream = gateway.client().connect();
    const { turn_failed: failed } = last(await ask(stream, { turn_id: 't1' }, 'one'));
    expect(failed).toMatchObject({ reason: 'UPSTREAM_RATE_LIMITED', replay: 'REPLAY_VERDICT_SAFE' });
    expect(failed?.retry_after).toMatchObject({ seconds: 7 });
  });

  it('fails the turn rather than waiting past its timeout', async () => {
    await start({ sim: { simulator: limited('slow', { 'retry-after': '3600' }) } });
    const stream = gateway.client().connect();
    const turn = { turn_id: 't1', wait_on_rate_limit: true, timeout: { seconds: 5, nanos: 0 } };
    expect(last(await ask(stream, turn, 'one')).turn_failed).toMatchObject({
      reason: 'UPSTREAM_RATE_LIMITED',
    });
  });

  it('holds up nobody but the turn that waits', async () => {
    await start({ sim: { simulator: limited('slow', { 'retry-after': '3600' }) } });
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 't1', wait_on_rate_limit: true }, 'one');
    await stream.event('gateway.notice', 't1');
    expect(last(await ask(stream, { turn_id: 'o1', lane_id: 'other' } as never, 'other')).outcome).toBe(
      'TURN_OUTCOME_COMPLETED',
    );
    stream.send({ cancel_turn: { turn_id: 't1' } });
    expect(last(await ask(stream, { turn_id: 't2' }, 'two')).outcome).toBe('TURN_OUTCOME_COMPLETED');
  });

  it('fails turns that do not want to wait when it says so at the dial', async () => {
    await start({
      sim: { simulator: { faults: [{ kind: 'refuse', status: 429, retryAfterSeconds: 3600 }] } },
    });
    const stream = gateway.client().connect();
    const { turn_failed: failed } = last(await ask(stream, { turn_id: 't1' }, 'one'));
    expect(failed).toMatchObject({ reason: 'UPSTREAM_RATE_LIMITED', replay: 'REPLAY_VERDICT_SAFE' });
    expect(failed?.retry_after).toMatchObject({ seconds: 3600 });
  });
});

describe('rotation', () => {
  it.each([true, false])('goes unnoticed by turns on many lanes (store: %s)', async (store) => {
    const { sim } = await start({
      sim: {
        simulator: { switches: { connectionAgeMs: 900 } },
        upstream: { capabilities: { maxAgeMs: 60_000, rotateAfterMs: 250 } },
      },
    });
    const stream = gateway.client().connect();
    const lanes = ['', 'a', 'b'];
    const run = async (lane: string) => {
      for (let n = 1; n <= 12; n += 1) {
        const turn = { lane_id: lane, turn_id: `${lane}-${n}`, create: { store } };
        const events = await ask(stream, turn, `turn ${n} #deltas=10 #tps=120`);
        expect(last(events)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
      }
    };
    await Promise.all(lanes.map(run));
    const kinds = notices(stream);
    expect(kinds.filter((kind) => kind === 'rotated').length).toBeGreaterThanOrEqual(1);
    expect(new Set(entriesOf(sim).map(({ connection }) => connection)).size).toBeGreaterThan(1);
    const answers = entriesOf(sim).filter(({ warmUp, status }) => !warmUp && status === 'completed');
    expect(answers).toHaveLength(36);
    expect(Math.max(...answers.map(({ contextItems }) => contextItems ?? 0))).toBe(23);
    checkSeq(stream.events);
  });
});
