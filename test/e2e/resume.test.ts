import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { checkSeq, NO_OUTCOME, TestClient, type TestEvent, textOf } from '../harness/client.ts';
import type { OpenAccess, RecordedTelemetry } from '../harness/fakes.ts';
import { type GatewayOptions, startGateway, type TestGateway } from '../harness/gateway.ts';

let gateway: TestGateway;

const start = async (options: GatewayOptions<OpenAccess, RecordedTelemetry> = {}) => {
  gateway = await startGateway(options);
};

afterEach(async () => {
  await gateway.close();
  expect(gateway.bugs).toEqual([]);
  expect(gateway.access.openSessions).toBe(0);
});

const lastSeq = (events: readonly TestEvent[]) => events.at(-1)?.seq ?? 0;

/** The session as the gateway has it, once it has noticed that its stream is gone. */
async function detached(): Promise<void> {
  const [session] = gateway.server.registry.sessions();
  while (session?.driver.attached) await new Promise((resolve) => setImmediate(resolve));
}

describe('resume', () => {
  it('sends what was missed, in order, exactly once, while the turn goes on', async () => {
    await start();
    const client = gateway.client();
    let stream = client.connect();
    let { resume_token: token } = await stream.opened();
    stream.startTurn({ lane_id: 'l', turn_id: 't1' }, 'at length #deltas=600 #tps=300');
    const all: TestEvent[] = [];
    for (let cut = 0; cut < 4; cut++) {
      const wanted = lastSeq(all) + 20;
      await stream.until(() => lastSeq(stream.events) >= wanted);
      stream.cancel();
      all.push(...stream.events);
      stream = client.connect({ resume: { token, last_seq: lastSeq(all) } });
      const opened = await stream.opened();
      expect(opened).toMatchObject({
        resume_outcome: 'RESUME_OUTCOME_RESUMED',
        next_seq: lastSeq(all) + 1,
        active_turns: [{ lane_id: 'l', turn_id: 't1', phase: 'TURN_PHASE_OUTPUT_STARTED' }],
      });
      expect(opened.resume_token).not.toBe(token);
      token = opened.resume_token;
    }
    await stream.turn('t1');
    all.push(...stream.events);
    checkSeq(all);
    expect(textOf(all)).toBe(gateway.simulator.journal.entries[0]?.finalText);
    expect(gateway.simulator.journal.entries).toHaveLength(1);
    expect(all.filter((event) => event.outcome !== NO_OUTCOME)).toHaveLength(1);
    expect(gateway.telemetry.resumes).toEqual(Array(4).fill('RESUMED'));
    expect(new Set(gateway.telemetry.streams.map((one) => one.sessionId)).size).toBe(1);
  });

  it('finds the sessions of connections that a proxy closes in good order', async () => {
    await start();
    let closeInOrder = (): void => {};
    const proxy = createServer((client) => {
      const toGateway = connect(gateway.port, '127.0.0.1');
      // To the gateway it is a FIN, without any word of HTTP/2.
      closeInOrder = () => {
        client.unpipe(toGateway);
        toGateway.end();
      };
      client.pipe(toGateway).pipe(client);
      for (const socket of [client, toGateway]) socket.on('error', () => {});
    }).listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    const tokens: string[] = [];
    for (let round = 0; round < 6; round++) {
      const client = new TestClient(`127.0.0.1:${(proxy.address() as AddressInfo).port}`);
      const streams = Array.from({ length: 5 }, () => client.connect());
      for (const stream of streams) tokens.push((await stream.opened()).resume_token);
      closeInOrder();
      await Promise.all(streams.map((stream) => stream.ended()));
      client.close();
    }
    proxy.close();
    const client = gateway.client();
    for (const token of tokens) {
      const stream = client.connect({ resume: { token, last_seq: 0 } });
      expect((await stream.opened()).resume_outcome).toBe('RESUME_OUTCOME_RESUMED');
      stream.halfClose();
      await stream.ended();
    }
  });

  it('finds the sessions of clients that cancel, and none of those that half-close', async () => {
    await start();
    const client = gateway.client();
    const streams = Array.from({ length: 100 }, () => client.connect());
    const tokens = await Promise.all(streams.map(async (stream) => (await stream.opened()).resume_token));
    for (const [n, stream] of streams.entries()) {
      if (n % 2 === 0) stream.cancel();
      else stream.halfClose();
    }
    await Promise.all(streams.filter((_, n) => n % 2 === 1).map((stream) => stream.ended()));
    const { registry } = gateway.server;
    while (registry.sessions().some(({ driver }) => driver.attached)) await new Promise(setImmediate);
    expect(registry.sessions()).toHaveLength(50);
    for (const [n, token] of tokens.entries()) {
      if (n % 10 !== 0) continue;
      const again = client.connect({ resume: { token, last_seq: 0 } });
      expect(await again.opened()).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RESUMED' });
    }
  });

  it('sends again what the client has not processed, though it was delivered', async () => {
    await start();
    const client = gateway.client();
    const first = client.connect();
    const { resume_token: token } = await first.opened();
    first.startTurn({ turn_id: 't1' }, 'hello');
    const events = await first.turn('t1');
    first.cancel();
    const second = client.connect({ resume: { token, last_seq: 3 }, payload: 'PAYLOAD_FORMAT_JSON' });
    await second.until(() => second.events.length === events.length - 3);
    expect(second.events.map((event) => event.seq)).toEqual(events.slice(3).map((event) => event.seq));
    expect(second.events.every((event) => event.json.length > 0)).toBe(true);
    second.startTurn({ turn_id: 't2' }, 'and on');
    await second.turn('t2');
    checkSeq(second.events, 4);
  });

  it('runs a turn once when its StartTurn is sent again after the resume', async () => {
    await start();
    const client = gateway.client();
    const first = client.connect();
    const { resume_token: token } = await first.opened();
    first.startTurn({ turn_id: 't1' }, 'hello #deltas=50 #tps=500');
    await first.event('response.created');
    first.cancel();
    const second = client.connect({ resume: { token, last_seq: 0 } });
    second.startTurn({ turn_id: 't1' }, 'hello #deltas=50 #tps=500');
    await second.turn('t1');
    second.startTurn({ turn_id: 't1' }, 'hello #deltas=50 #tps=500');
    second.startTurn({ turn_id: 't2' }, 'next');
    await second.turn('t2');
    checkSeq(second.events);
    expect(gateway.simulator.journal.entries).toHaveLength(2);
    expect(gateway.access.settled).toHaveLength(2);
    expect(gateway.access.admitted.length - gateway.access.abandoned).toBe(2);
  });

  it('fences the first stream when a second comes with its token', async () => {
    await start();
    const first = gateway.client().connect();
    const { resume_token: token, session_id: id } = await first.opened();
    first.startTurn({ turn_id: 't1' }, 'at length #deltas=100 #tps=400');
    await first.event('response.output_text.delta');
    const second = gateway.client().connect({ resume: { token, last_seq: lastSeq(first.events) } });
    expect((await second.opened()).session_id).toBe(id);
    expect(await first.ended()).toMatchObject({ code: 10, reason: 'SESSION_SUPERSEDED' });
    await second.turn('t1');
    // What the first got after the second had said how far it was comes twice, once on each stream.
    const seen = new Map([...first.events, ...second.events].map((event) => [event.seq, event]));
    checkSeq([...seen.values()].sort((a, b) => a.seq - b.seq));
    checkSeq(second.events, second.events[0]?.seq);
  });

  it('refuses a token once its successor was used', async () => {
    await start();
    const client = gateway.client();
    const tokens: string[] = [];
    let stream = client.connect();
    tokens.push((await stream.opened()).resume_token);
    for (let i = 0; i < 2; i++) {
      stream.cancel();
      stream = client.connect({ resume: { token: tokens[i], last_seq: 0 } });
      tokens.push((await stream.opened()).resume_token);
    }
    const replayed = await client.connect({ resume: { token: tokens[0], last_seq: 0 } }).opened();
    expect(replayed.resume_outcome).toBe('RESUME_OUTCOME_GONE');
    expect(stream.endedWith).toBeUndefined();
    stream.startTurn({ turn_id: 't1' }, 'not disturbed');
    await stream.turn('t1');
  });

  it('answers GONE with a new session for unknown, foreign and expired tokens', async () => {
    await start({ limits: { resumeGraceMs: 30 } });
    const client = gateway.client();
    const first = client.connect({}, { authorization: 'Bearer alice' });
    const { resume_token: token, session_id: id } = await first.opened();
    for (const [bearer, guess] of [
      ['bob', token],
      ['alice', 'A'.repeat(43)],
      ['alice', ''],
    ]) {
      const stream = client.connect(
        { resume: { token: guess, last_seq: 7 } },
        { authorization: `Bearer ${bearer}` },
      );
      const opened = await stream.opened();
      expect(opened).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_GONE', next_seq: 1 });
      expect(opened.session_id).not.toBe(id);
      stream.startTurn({ turn_id: 't1' }, 'on we go');
      await stream.turn('t1');
      checkSeq(stream.events);
    }
    first.cancel();
    await detached();
    while (gateway.server.registry.get(id) !== undefined) await new Promise((r) => setTimeout(r, 5));
    const late = client.connect({ resume: { token, last_seq: 0 } }, { authorization: 'Bearer alice' });
    expect((await late.opened()).resume_outcome).toBe('RESUME_OUTCOME_GONE');
    expect(gateway.telemetry.resumes).toEqual(Array(4).fill('GONE'));
  });

  it('says PARTIAL and the oldest seq when events were let go', async () => {
    await start({ limits: { maxResumeBytes: 20_000 } });
    const client = gateway.client();
    const first = client.connect();
    const { resume_token: token } = await first.opened();
    first.startTurn({ turn_id: 't1' }, 'at length #deltas=200');
    const events = await first.turn('t1');
    first.cancel();
    const second = client.connect({ resume: { token, last_seq: 2 } });
    const opened = await second.opened();
    expect(opened.resume_outcome).toBe('RESUME_OUTCOME_PARTIAL');
    const oldest = opened.oldest_seq as number;
    expect(oldest).toBeGreaterThan(3);
    await second.until(() => lastSeq(second.events) === lastSeq(events));
    checkSeq(second.events, oldest);
  });

  it('loses nothing when the stream is cut within an event larger than all that is kept', async () => {
    await start();
    const client = gateway.client();
    const large = { max_message_bytes: 64 * 1024 * 1024 };
    const first = client.connect(large);
    const { resume_token: token } = await first.opened();
    first.startTurn({ turn_id: 't1' }, 'much #bytes=6000000');
    await first.event('response.created');
    first.call.pause();
    const [session] = gateway.server.registry.sessions();
    while ((session?.core.inspect().resumeBytes ?? 0) < 6_000_000) await new Promise((r) => setImmediate(r));
    first.cancel();
    const second = client.connect({ ...large, resume: { token, last_seq: lastSeq(first.events) } });
    expect((await second.opened()).resume_outcome).toBe('RESUME_OUTCOME_RESUMED');
    await second.turn('t1');
    checkSeq([...first.events, ...second.events]);
    expect(textOf(second.events) === gateway.simulator.journal.entries[0]?.finalText).toBe(true);
  });

  it('survives a cut of both sides at once', async () => {
    await start({ simulator: { faults: [{ kind: 'cut', atEvent: 0, totalRequest: 2, times: 1 }] } });
    const client = gateway.client();
    const first = client.connect();
    const { resume_token: token } = await first.opened();
    first.startTurn({ turn_id: 't1', create: { store: false } }, 'remember this');
    await first.turn('t1');
    first.startTurn({ turn_id: 't2', create: { store: false } }, 'now');
    first.cancel();
    await detached();
    const second = client.connect({ resume: { token, last_seq: 0 } });
    second.startTurn({ turn_id: 't2', create: { store: false } }, 'now');
    const events = await second.turn('t2');
    checkSeq(second.events);
    expect(events.filter((event) => event.outcome !== NO_OUTCOME)).toHaveLength(1);
    second.startTurn({ turn_id: 't3', create: { store: false } }, 'then');
    expect((await second.turn('t3')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  });
});
