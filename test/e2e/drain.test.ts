import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Client, credentials, Metadata, type StatusObject } from '@grpc/grpc-js';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { checkSeq, endedBy, NO_OUTCOME, TestClient, type TestEvent, userMessage } from '../harness/client.ts';
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

const same = (bytes: Buffer) => bytes;

/** grpc.health.v1 by hand: HealthCheckRequest { service = 1 }, HealthCheckResponse { status = 1 }. */
function health(client: Client, service: string): Promise<string> {
  const request = Buffer.concat([Buffer.from([0x0a, service.length]), Buffer.from(service)]);
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      '/grpc.health.v1.Health/Check',
      same,
      same,
      request,
      new Metadata(),
      (error, reply) =>
        error ? reject(error) : resolve(['UNKNOWN', 'SERVING', 'NOT_SERVING'][reply?.[1] ?? 0] ?? ''),
    );
  });
}

const outcomes = (events: readonly TestEvent[]) =>
  events.map((event) => event.outcome).filter((outcome) => outcome !== NO_OUTCOME);

describe('drain', () => {
  it('tells every session, lets running turns finish and ends with OK', async () => {
    await start();
    const prober = new Client(gateway.address, credentials.createInsecure());
    expect(await health(prober, '')).toBe('SERVING');
    expect(await health(prober, 'responses.gateway.v1.ResponsesService')).toBe('SERVING');

    const client = gateway.client();
    const busy = client.connect();
    const idle = client.connect();
    const { resume_token: token } = await busy.opened();
    await idle.opened();
    busy.startTurn({ turn_id: 't1' }, 'at length #deltas=800 #tps=200');
    await busy.event('response.output_text.delta');

    const drained = gateway.server.drain(10_000);
    await busy.until(() => busy.goAways.length > 0);
    expect(busy.goAways[0]).toMatchObject({ reason: 'GO_AWAY_REASON_DRAINING' });
    const goAway = busy.goAways[0] as { time_left: { seconds: number; nanos: number }; resume_token: string };
    const leftMs = goAway.time_left.seconds * 1_000 + goAway.time_left.nanos / 1e6;
    expect(leftMs).toBeGreaterThan(5_000);
    expect(leftMs).toBeLessThanOrEqual(10_000);
    expect(goAway.resume_token).toHaveLength(43);
    expect(goAway.resume_token).not.toBe(token);
    expect(await health(prober, '')).toBe('NOT_SERVING');

    busy.startTurn({ turn_id: 't2' }, 'too late');
    expect((await busy.turn('t2')).at(-1)?.turn_failed).toMatchObject({ code: 14, reason: 'DRAINING' });
    expect(await client.connect().ended()).toMatchObject({ code: 14, reason: 'DRAINING' });
    expect((await client.createResponse({}).result).ended).toMatchObject({ reason: 'DRAINING' });

    expect(await idle.ended()).toMatchObject({ code: 0 });
    expect(await busy.ended()).toMatchObject({ code: 0 });
    expect(outcomes(busy.events.filter((event) => event.turn_id === 't1'))).toEqual([
      'TURN_OUTCOME_COMPLETED',
    ]);
    checkSeq(busy.events);
    prober.close();
    client.close();
    await drained;
    expect(gateway.server.registry.size).toBe(0);
  });

  it('refuses a call whose request comes after it began', async () => {
    await start();
    const raw = new Client(gateway.address, credentials.createInsecure());
    // As a client whose request is large: the headers are there long before.
    const path = '/responses.gateway.v1.ResponsesService/CreateResponse';
    const late = raw.makeBidiStreamRequest(path, same, same);
    late.on('error', () => {});
    const ended = new Promise<StatusObject>((resolve) => late.resume().once('status', resolve));
    await vi.waitFor(() => expect(gateway.access.callers).toHaveLength(1));
    const drained = gateway.server.drain(10_000);
    late.write(Buffer.alloc(0));
    late.end();
    expect(endedBy(await ended)).toMatchObject({ code: 14, reason: 'DRAINING' });
    await drained;
    raw.close();
  });

  it('waits for a compaction, whose upstream stays open', async () => {
    const upstream = createServer((request) => request.resume()).listen(0, '127.0.0.1');
    await once(upstream, 'listening');
    const { port } = upstream.address() as AddressInfo;
    await start({
      upstreamUrl: `http://127.0.0.1:${port}/v1`,
      upstream: { provider: 'compatible', transport: 'sse' },
    });
    const client = new TestClient(gateway.address);
    const running = client.compactResponse({ compact: { model: 'gpt-6', input: [userMessage('one')] } });
    const [, response] = (await once(upstream, 'request')) as [unknown, ServerResponse];
    // As the program does it: what the gateway dialled is closed as well.
    const gone = gateway.server.drain(10_000).then(() => gateway.close());
    // Longer than a server gives its streams to leave.
    setTimeout(() => response.end('{"object":"response.compaction","output":[]}'), 2_500);
    expect((await running).ended).toMatchObject({ code: 0 });
    await gone;
    client.close();
    upstream.close();
  });

  it('tells a client that resumes meanwhile', async () => {
    await start();
    const left = gateway.client().connect();
    const { resume_token: token } = await left.opened();
    left.startTurn({ turn_id: 't1' }, 'at length #deltas=300 #tps=100');
    await left.event('response.output_text.delta');
    left.cancel();
    await vi.waitFor(() => expect(gateway.server.registry.sessions()[0]?.driver.attached).toBe(false));
    const drained = gateway.server.drain(10_000);
    const resumed = gateway.client().connect({ resume: { token, last_seq: 0 } });
    const opened = await resumed.opened();
    expect(opened.resume_outcome).toBe('RESUME_OUTCOME_RESUMED');
    await resumed.until(() => resumed.goAways.length > 0);
    expect(resumed.goAways[0]).toMatchObject({
      reason: 'GO_AWAY_REASON_DRAINING',
      resume_token: opened.resume_token,
    });
    expect((await resumed.turn('t1')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect(await resumed.ended()).toMatchObject({ code: 0 });
    expect(resumed.goAways).toHaveLength(1);
    await drained;
  });

  it('does not wait for a client that left before its turn ended', async () => {
    await start();
    const left = gateway.client().connect();
    await left.opened();
    left.startTurn({ turn_id: 't1' }, 'at length #deltas=50 #tps=500');
    await left.event('response.output_text.delta');
    left.cancel();
    const [session] = gateway.server.registry.sessions();
    await vi.waitFor(() => expect(session?.core.inspect()).toMatchObject({ attached: false, turns: [] }));
    expect(session?.core.pendingEvents).toBeGreaterThan(0);
    await gateway.server.drain(3_600_000);
    expect(gateway.server.registry.size).toBe(0);
  });

  it('fails what still runs at the deadline, in words', async () => {
    await start();
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 't1' }, 'for ever #hang');
    await stream.event('response.created');
    const drained = gateway.server.drain(100);
    const failed = (await stream.turn('t1')).at(-1);
    expect(failed?.turn_failed).toMatchObject({ reason: 'DRAINING', replay: 'REPLAY_VERDICT_UNSAFE' });
    expect(await stream.ended()).toMatchObject({
      code: 14,
      reason: 'DRAINING',
      details: ['ErrorInfo', 'RetryInfo'],
    });
    await drained;
  });

  it('closes at once when asked to, with a client that does not leave', async () => {
    await start();
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 't1' }, 'for ever #hang');
    await stream.event('response.created');
    await gateway.server.close();
    expect((await stream.turn('t1')).at(-1)?.turn_failed?.reason).toBe('DRAINING');
    expect(await stream.ended()).toMatchObject({ code: 14, reason: 'DRAINING' });
  });
});

describe('the age of a stream', () => {
  it('is announced, ends with OK, and the session goes on elsewhere', async () => {
    await start({ server: { maxConnectionAgeMs: 400, maxConnectionAgeGraceMs: 1_500 } });
    const first = gateway.client().connect();
    await first.opened();
    first.startTurn({ turn_id: 't1' }, 'at length #deltas=1000 #tps=100');
    await first.until(() => first.goAways.length > 0);
    expect(first.goAways[0]).toMatchObject({ reason: 'GO_AWAY_REASON_MAX_AGE' });
    const token = first.goAways[0]?.resume_token;
    expect(await first.ended()).toMatchObject({ code: 0 });
    const second = gateway.client().connect({ resume: { token, last_seq: first.events.at(-1)?.seq ?? 0 } });
    expect((await second.opened()).resume_outcome).toBe('RESUME_OUTCOME_RESUMED');

    // Who follows GoAway at once sees no error on the stream that was left behind.
    await second.until(() => second.goAways.length > 0);
    const third = gateway.client().connect({
      resume: { token: second.goAways[0]?.resume_token, last_seq: second.events.at(-1)?.seq ?? 0 },
    });
    expect((await third.opened()).resume_outcome).toBe('RESUME_OUTCOME_RESUMED');
    expect(await second.ended()).toMatchObject({ code: 0 });
  });
});
