import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { checkSeq, NO_OUTCOME, type TestEvent, type TestStream, textOf } from '../harness/client.ts';
import type { OpenAccess, RecordedTelemetry } from '../harness/fakes.ts';
import { type GatewayOptions, startGateway, type TestGateway } from '../harness/gateway.ts';
import { encodeCreateResponse } from '../hostile/encode.ts';
import { grpcFrame, openCall, openHttp2, outcomeOf } from '../hostile/raw.ts';

const MIB = 1024 * 1024;

let gateway: TestGateway;

const start = async (options: GatewayOptions<OpenAccess, RecordedTelemetry> = {}) => {
  gateway = await startGateway(options);
};

afterEach(async () => {
  await gateway.close();
  expect(gateway.bugs).toEqual([]);
  expect(gateway.access.openSessions).toBe(0);
  expect(gateway.access.openLanes).toBe(0);
});

const tick = () => new Promise<void>((resolve) => setImmediate(resolve));

const deltaOf = (event: TestEvent) => (event.output_text_delta as { delta: string } | undefined)?.delta ?? '';

/** What the gateway holds for its one session. */
function held() {
  const [session] = gateway.server.registry.sessions();
  return session?.core.inspect() ?? { bufferedBytes: 0, resumeBytes: 0, links: [] };
}

describe('many at once', () => {
  it('runs 10 sessions of 40 lanes each', async () => {
    await start({ simulator: { journal: { maxEntries: 2_000 } } });
    const lanes = Array.from({ length: 40 }, (_, lane) => `lane-${lane}`);
    const run = async (stream: TestStream, name: string) => {
      await stream.opened();
      for (const lane of lanes) {
        for (const turn of [1, 2]) {
          const text = `session ${name} ${lane} turn ${turn} #deltas=20`;
          stream.startTurn({ lane_id: lane, turn_id: `${lane}/${turn}` }, text);
        }
      }
      stream.halfClose();
      expect(await stream.ended()).toMatchObject({ code: 0 });
      checkSeq(stream.events);
      for (const lane of lanes) {
        const ends = stream.events.filter((e) => e.lane_id === lane && e.outcome !== NO_OUTCOME);
        expect(ends.map((event) => [event.turn_id, event.outcome])).toEqual([
          [`${lane}/1`, 'TURN_OUTCOME_COMPLETED'],
          [`${lane}/2`, 'TURN_OUTCOME_COMPLETED'],
        ]);
      }
    };
    const names = Array.from({ length: 10 }, (_, index) => String(index));
    const clients = [gateway.client(), gateway.client()];
    await Promise.all(
      names.map((name, index) => run((clients[index % 2] ?? gateway.client()).connect(), name)),
    );

    const { entries } = gateway.simulator.journal;
    expect(entries).toHaveLength(800);
    // No conversation saw anything of another: one item at first, then that, the answer and one more.
    expect(entries.filter((entry) => entry.contextItems === 1)).toHaveLength(400);
    expect(entries.filter((entry) => entry.contextItems === 3)).toHaveLength(400);
    for (const connection of new Set(entries.map((entry) => entry.connection))) {
      const onIt = entries.filter((entry) => entry.connection === connection);
      expect(new Set(onIt.map((entry) => entry.lane)).size).toBeLessThanOrEqual(32);
    }
    expect(gateway.access.settled).toHaveLength(800);
  }, 60_000);
});

describe('large events', () => {
  it.each([
    [1, MIB],
    [20, 20 * MIB],
  ])(
    'passes %i MB in one delta',
    async (_, bytes) => {
      await start();
      const stream = gateway.client().connect({ max_message_bytes: 64 * MIB });
      stream.startTurn({ turn_id: 't1' }, `much #bytes=${bytes}`);
      const events = await stream.turn('t1');
      expect(Math.max(...events.map((event) => deltaOf(event).length))).toBe(bytes);
      expect(textOf(events) === gateway.simulator.journal.entries[0]?.finalText).toBe(true);
      expect(events.at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
      stream.startTurn({ turn_id: 't2', new_conversation: {} }, 'and on');
      await stream.turn('t2');
      checkSeq(stream.events);
    },
    60_000,
  );

  it('holds a client back that sends more than the lane takes, with bounded memory', async () => {
    await start();
    const stream = gateway.client().connect();
    await stream.opened();
    stream.startTurn({ turn_id: 't0', timeout: { seconds: 10, nanos: 0 } }, 'in the way #hang');
    for (let turn = 1; turn <= 6; turn++) {
      stream.startTurn({ turn_id: `t${turn}`, new_conversation: {} }, 'x'.repeat(10 * MIB));
    }
    const [session] = gateway.server.registry.sessions();
    while (session?.driver.inputBlocked !== true) await tick();
    // The bound, and the message that was being read when it was passed.
    expect(session.core.heldInputBytes).toBeGreaterThan(24 * MIB);
    expect(session.core.heldInputBytes).toBeLessThan(24 * MIB + 20 * MIB);
    expect(session.core.inspect().turns).toHaveLength(4);
    expect((await stream.turn('t0')).at(-1)?.outcome).toBe('TURN_OUTCOME_DEADLINE_EXCEEDED');
    for (let turn = 1; turn <= 6; turn++) {
      expect((await stream.turn(`t${turn}`)).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
    }
    expect(session.core.heldInputBytes).toBe(0);
    checkSeq(stream.events);
  }, 60_000);
});

describe('a session that holds as much input as it may', () => {
  it('still reads cancels, of what runs, what is queued and what has to wait', async () => {
    await start();
    const stream = gateway.client().connect();
    await stream.opened();
    stream.startTurn({ turn_id: 't0' }, 'in the way #hang');
    await stream.event('response.created', 't0');
    // The third passes the bound; the three behind it have to wait.
    for (let turn = 1; turn <= 6; turn++) stream.startTurn({ turn_id: `t${turn}` }, 'x'.repeat(10 * MIB));
    for (const turn of [6, 2, 1, 3, 4, 5, 0]) {
      stream.send({ cancel_turn: { turn_id: `t${turn}` } });
      expect((await stream.turn(`t${turn}`)).at(-1)?.outcome).toBe('TURN_OUTCOME_CANCELLED');
    }
    stream.startTurn({ turn_id: 'after', new_conversation: {} }, 'hello');
    expect((await stream.turn('after')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect(gateway.simulator.journal.entries).toHaveLength(2);
    checkSeq(stream.events);
  }, 60_000);

  it('runs what had to wait before it takes the end of the stream', async () => {
    await start();
    const stream = gateway.client().connect();
    await stream.opened();
    stream.startTurn({ turn_id: 't0' }, 'in the way #hang');
    await stream.event('response.created', 't0');
    const turns = ['t1', 't2', 't3', 't4', 't5'];
    for (const turn_id of turns) stream.startTurn({ turn_id, new_conversation: {} }, 'x'.repeat(10 * MIB));
    stream.send({ cancel_turn: { turn_id: 't0' } });
    stream.halfClose();
    for (const turn of turns)
      expect((await stream.turn(turn)).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect((await stream.ended()).code).toBe(0);
  }, 60_000);
});

describe('a client that reads slowly', () => {
  const limits = { maxBufferedBytes: 256 * 1024, maxResumeBytes: 2 * MIB, slowClientTimeoutMs: 60_000 };

  it('pauses its own upstream with bounded memory, disturbs nobody, and gets everything', async () => {
    await start({ limits });
    const slow = gateway.client().connect({ payload: 'PAYLOAD_FORMAT_JSON' });
    await slow.opened();
    slow.call.pause();
    slow.startTurn({ turn_id: 't1' }, 'endless #deltas=60000');
    let most = 0;
    // Until nothing moves any more: the gateway has paused the link and waits.
    while (gateway.telemetry.sessions[0]?.facts.every((fact) => fact.kind !== 'paused')) await tick();
    for (let i = 0; i < 300; i++) {
      most = Math.max(most, held().bufferedBytes);
      await tick();
    }
    // Chunks of the socket that were already read follow a pause; of some 20 MB in all that is little.
    expect(most).toBeLessThan(limits.maxBufferedBytes + 1024 * 1024);
    expect(held().resumeBytes).toBeLessThanOrEqual(limits.maxResumeBytes);

    const other = gateway.client().connect();
    other.startTurn({ turn_id: 'o1' }, 'quick #deltas=100');
    expect((await other.turn('o1')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');

    slow.call.resume();
    const events = await slow.turn('t1');
    checkSeq(slow.events);
    const text = events
      .filter((event) => event.type === 'response.output_text.delta')
      .map((event) => JSON.parse(event.json.toString()).delta)
      .join('');
    expect(text === gateway.simulator.journal.entries[0]?.finalText).toBe(true);
  }, 60_000);

  it('is cut after a while, and can resume where it was', async () => {
    await start({ limits: { ...limits, slowClientTimeoutMs: 100 } });
    const client = gateway.client();
    const slow = client.connect();
    const { resume_token: token } = await slow.opened();
    slow.call.pause();
    slow.startTurn({ turn_id: 't1' }, 'endless #deltas=40000');
    while (gateway.telemetry.streams[0]?.status === undefined) await tick();
    expect(gateway.telemetry.streams[0]?.status).toBe('RESOURCE_EXHAUSTED');
    slow.call.resume();
    expect(await slow.ended()).toMatchObject({ code: 8, reason: 'SLOW_CONSUMER' });
    checkSeq(slow.events);

    // A busy machine may be too slow again: then again.
    const all = [...slow.events];
    for (let next = token; all.at(-1)?.outcome === NO_OUTCOME; ) {
      const again = client.connect({ resume: { token: next, last_seq: all.at(-1)?.seq ?? 0 } });
      const opened = await again.opened();
      expect(opened.resume_outcome).toBe('RESUME_OUTCOME_RESUMED');
      next = opened.resume_token;
      const over = () => again.endedWith !== undefined || again.events.at(-1)?.outcome !== NO_OUTCOME;
      await again.until(() => again.events.length > 0 && over());
      all.push(...again.events);
    }
    checkSeq(all);
    expect(textOf(all) === gateway.simulator.journal.entries[0]?.finalText).toBe(true);
  }, 60_000);

  it('gets the end of its answer after a pause', async () => {
    await start();
    const http2 = await openHttp2(gateway.port);
    const call = openCall(http2, { ':path': '/responses.gateway.v1.ResponsesService/CreateResponse' });
    // HTTP/2's first window fills, and then nothing moves.
    call.pause();
    const outcome = outcomeOf(call);
    const closed = once(call, 'close');
    const message = { type: 'message', role: 'user', content: 'long #deltas=1500' };
    call.end(grpcFrame(encodeCreateResponse(JSON.stringify(message))));
    while (gateway.telemetry.rpcs.length === 0) await tick();
    // Longer than other calls get to leave, and well within slow_client_timeout.
    await new Promise((resolve) => setTimeout(resolve, 6_000));
    const chunks: Buffer[] = [];
    call.on('data', (chunk: Buffer) => chunks.push(chunk));
    call.resume();
    expect(await outcome).toBe('status 0');
    await closed;
    expect(Buffer.concat(chunks).includes('response.completed')).toBe(true);
    http2.close();
  }, 60_000);

  it('is reset when it does not even take its status', async () => {
    await start({ limits: { ...limits, slowClientTimeoutMs: 1_000 } });
    // Less is also what a busy machine takes, and then the status leaves.
    const slow = gateway.client().connect();
    await slow.opened();
    slow.call.pause();
    slow.startTurn({ turn_id: 't1' }, 'endless #deltas=40000');
    // Nobody reads: the status would never leave, were the stream not reset after a while.
    while (gateway.server.registry.sessions()[0]?.driver.attached !== false) await tick();
    while (!slow.call.destroyed && slow.endedWith === undefined) await tick();
    slow.call.resume();
    // A reset has no details, and CANCELLED tells a client that it may resume.
    expect(await slow.ended()).toMatchObject({ code: 1, details: [] });
  }, 60_000);
});
