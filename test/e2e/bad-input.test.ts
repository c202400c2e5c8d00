import { Client, type ClientDuplexStream, credentials, Metadata, type StatusObject } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GatewayError } from '../../src/errors.ts';
import { type Ended, endedBy, NO_OUTCOME, type TestEvent, userMessage } from '../harness/client.ts';
import type { OpenAccess, RecordedTelemetry } from '../harness/fakes.ts';
import { type GatewayOptions, startGateway, type TestGateway } from '../harness/gateway.ts';

let gateway: TestGateway;

async function start(options: GatewayOptions<OpenAccess, RecordedTelemetry> = {}): Promise<TestGateway> {
  await gateway?.close();
  gateway = await startGateway(options);
  return gateway;
}

beforeEach(async () => {
  gateway = await startGateway();
});

afterEach(async () => {
  await gateway.close();
  expect(gateway.bugs).toEqual([]);
  expect(gateway.access.openSessions).toBe(0);
});

/** A client that writes bytes as they are. */
function rawConnect(): { call: ClientDuplexStream<Buffer, Buffer>; ended: Promise<Ended> } {
  const client = new Client(gateway.address, credentials.createInsecure());
  const same = (bytes: Buffer) => bytes;
  const path = '/responses.gateway.v1.ResponsesService/Connect';
  const call = client.makeBidiStreamRequest(path, same, same, new Metadata());
  const ended = new Promise<Ended>((resolve) => {
    call.on('data', () => {});
    call.on('error', () => {});
    call.on('status', (status: StatusObject) => {
      client.close();
      resolve(endedBy(status));
    });
  });
  return { call, ended };
}

const last = (events: readonly TestEvent[]) => events.at(-1) as TestEvent;

describe('trouble with the stream ends the stream', () => {
  it('refuses a message before Open', async () => {
    const stream = gateway.client().connect(null);
    stream.send({ ack: { seq: 1 } });
    const ended = await stream.ended();
    expect(ended).toMatchObject({ code: 9, reason: 'OPEN_REQUIRED' });
    expect(ended.details).toEqual(['ErrorInfo']);
  });

  it('refuses a stream that ends before Open', async () => {
    const stream = gateway.client().connect(null);
    stream.halfClose();
    expect(await stream.ended()).toMatchObject({ code: 9, reason: 'OPEN_REQUIRED' });
  });

  it('refuses a second Open, and the session can be resumed', async () => {
    const client = gateway.client();
    const stream = client.connect();
    const { resume_token } = await stream.opened();
    stream.send({ open: {} });
    expect(await stream.ended()).toMatchObject({ code: 9, reason: 'ALREADY_OPEN' });
    const again = client.connect({ resume: { token: resume_token, last_seq: 0 } });
    expect((await again.opened()).resume_outcome).toBe('RESUME_OUTCOME_RESUMED');
  });

  it('refuses an empty message, first or later', async () => {
    const first = rawConnect();
    first.call.write(Buffer.alloc(0));
    expect(await first.ended).toMatchObject({ code: 3, reason: 'EMPTY_MESSAGE' });
    const later = gateway.client().connect();
    await later.opened();
    later.send({});
    expect(await later.ended()).toMatchObject({ code: 3, reason: 'EMPTY_MESSAGE' });
  });

  it('refuses bytes that are no message', async () => {
    for (const bytes of ['ffffffffffff', '0a', '0a05ff', '12ffffffff0f']) {
      const { call, ended } = rawConnect();
      call.write(Buffer.from(bytes, 'hex'));
      expect(await ended).toMatchObject({ code: 3, reason: 'MALFORMED_MESSAGE' });
    }
  });

  it('refuses a message over the limit and takes no more of it', async () => {
    await start({ server: { maxMessageBytes: 100_000 } });
    const stream = gateway.client().connect();
    await stream.opened();
    stream.startTurn({ turn_id: 't1' }, 'x'.repeat(200_000));
    const ended = await stream.ended();
    expect(ended).toMatchObject({ code: 8, reason: 'MESSAGE_TOO_LARGE' });
    expect(ended.metadata).toMatchObject({ max_bytes: '100000' });
  });

  it('gives up on a stream that says nothing', async () => {
    await start({ server: { openTimeoutMs: 50 } });
    const stream = gateway.client().connect(null);
    expect(await stream.ended()).toMatchObject({ code: 4, reason: 'OPEN_TIMEOUT' });
  });

  it('refuses metadata beyond all need, also for other services', async () => {
    const stream = gateway.client().connect({}, { 'x-much': 'a'.repeat(9_000) });
    expect(await stream.ended()).toMatchObject({ code: 8, reason: 'LIMIT_EXCEEDED' });
  });

  it('refuses callers it does not know, before it reads them', async () => {
    const stream = gateway.client().connect({}, { authorization: 'Bearer wrong' });
    expect(await stream.ended()).toMatchObject({ code: 16, reason: 'UNAUTHENTICATED' });
    expect(gateway.telemetry.sessions).toEqual([]);
  });

  it('refuses new streams while it is overloaded', async () => {
    gateway.access.overloadError = new GatewayError('OVERLOADED', 'no memory', { retryAfterMs: 1_000 });
    const ended = await gateway.client().connect().ended();
    expect(ended).toMatchObject({ code: 8, reason: 'OVERLOADED', details: ['ErrorInfo', 'RetryInfo'] });
  });

  it('refuses labels beyond the contract', async () => {
    const metadata = Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, 'v']));
    expect(await gateway.client().connect({ metadata }).ended()).toMatchObject({
      code: 3,
      reason: 'INVALID_FIELD',
      metadata: { field: 'open.metadata' },
      details: ['ErrorInfo', 'BadRequest'],
    });
  });
});

describe('trouble with a turn is an event of the turn', () => {
  /** Runs `bad`, and checks that another lane goes on before, during and after. */
  async function beside(
    bad: (stream: ReturnType<ReturnType<TestGateway['client']>['connect']>) => Promise<void>,
  ): Promise<void> {
    const stream = gateway.client().connect();
    await stream.opened();
    stream.startTurn({ lane_id: 'good', turn_id: 'g1' }, 'go on #deltas=50 #tps=500');
    await stream.event('response.output_text.delta', 'g1');
    await bad(stream);
    stream.startTurn({ lane_id: 'good', turn_id: 'g2' }, 'and on');
    for (const turn of ['g1', 'g2']) {
      expect(last(await stream.turn(turn)).outcome).toBe('TURN_OUTCOME_COMPLETED');
    }
  }

  const failedBefore = (reason: string, code: number) => ({
    type: 'gateway.turn.failed',
    outcome: 'TURN_OUTCOME_FAILED',
    turn_failed: {
      code,
      reason,
      replay: 'REPLAY_VERDICT_SAFE',
      phase: 'TURN_PHASE_NOT_SENT',
    },
  });

  it.each([
    ['a bad lane name', { lane_id: 'no spaces', turn_id: 'b' }, 'INVALID_LANE_ID'],
    ['a lane name that is too long', { lane_id: 'x'.repeat(257), turn_id: 'b' }, 'INVALID_LANE_ID'],
    ['an empty turn id', { lane_id: 'bad', turn_id: '' }, 'INVALID_TURN_ID'],
    ['malformed json', { turn_id: 'b', create: { input: [{ json: Buffer.from('{"a":') }] } }, 'INVALID_JSON'],
    [
      'json with two values',
      { turn_id: 'b', create: { input: [{ json: Buffer.from('{} {}') }] } },
      'INVALID_JSON',
    ],
    ['a field out of bounds', { turn_id: 'b', create: { temperature: 3 } }, 'INVALID_FIELD'],
    ['a negative timeout', { turn_id: 'b', timeout: { seconds: -1, nanos: 0 } }, 'INVALID_FIELD'],
    ['background work', { turn_id: 'b', create: { background: true } }, 'INVALID_FIELD'],
  ])('refuses %s', async (_, turn, reason) => {
    await beside(async (stream) => {
      stream.startTurn(turn as never);
      const failed = await stream.event('gateway.turn.failed', turn.turn_id);
      expect(failed).toMatchObject(failedBefore(reason, 3));
    });
  });

  it('refuses a create over the upstream limit', async () => {
    await start({ limits: { maxFrameBytes: 100_000 } });
    await beside(async (stream) => {
      stream.startTurn({ turn_id: 'big' }, 'x'.repeat(200_000));
      expect(last(await stream.turn('big'))).toMatchObject(failedBefore('FRAME_TOO_LARGE', 8));
    });
  });

  it('refuses what access control refuses', async () => {
    gateway.access.onTurn = ({ model }) => {
      if (model === 'forbidden') throw new GatewayError('MODEL_NOT_ALLOWED', 'not for you');
    };
    await beside(async (stream) => {
      stream.startTurn({ turn_id: 'b', create: { model: 'forbidden' } }, 'please');
      expect(last(await stream.turn('b'))).toMatchObject(failedBefore('MODEL_NOT_ALLOWED', 7));
    });
  });

  it('rejects a turn id that was used for something else, and ignores a repetition', async () => {
    await beside(async (stream) => {
      stream.startTurn({ lane_id: 'l', turn_id: 'same' }, 'one');
      stream.startTurn({ lane_id: 'l', turn_id: 'same' }, 'one');
      stream.startTurn({ lane_id: 'l', turn_id: 'same' }, 'another');
      const rejected = await stream.event('gateway.request.rejected', 'same');
      expect(rejected).toMatchObject({
        outcome: NO_OUTCOME,
        turn_failed: { code: 9, reason: 'TURN_ID_REUSED' },
      });
      await stream.turn('same');
      stream.startTurn({ lane_id: 'l', turn_id: 'same' }, 'one');
      stream.startTurn({ lane_id: 'l', turn_id: 'next' }, 'two');
      await stream.turn('next');
      const ends = stream.events.filter((event) => event.turn_id === 'same' && event.outcome !== NO_OUTCOME);
      expect(ends).toHaveLength(1);
      expect(gateway.simulator.journal.entries.filter((entry) => entry.lane === 'l')).toHaveLength(2);
    });
    expect(gateway.access.settled).toHaveLength(4);
  });

  it('rejects steering and cancelling what does not exist', async () => {
    await beside(async (stream) => {
      stream.send({ steer_turn: { lane_id: 'nowhere', turn_id: 's', input: [userMessage('hi')] } });
      expect((await stream.event('gateway.request.rejected', 's')).turn_failed).toMatchObject({
        code: 9,
        reason: 'UNKNOWN_LANE',
      });
      stream.send({ cancel_turn: { lane_id: 'nowhere', turn_id: 'c' } });
      expect((await stream.event('gateway.request.rejected', 'c')).turn_failed?.reason).toBe('UNKNOWN_LANE');
      stream.send({ cancel_turn: { lane_id: 'good', turn_id: 'no-such-turn' } });
      const unknown = await stream.event('gateway.request.rejected', 'no-such-turn');
      expect(unknown.turn_failed?.reason).toBe('UNKNOWN_TURN');
    });
  });
});

describe('trouble with a steer', () => {
  it('is told as such, and the turn goes on', async () => {
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 't1', create: { model: 'gpt-6-astra' } }, 'go on #deltas=60 #tps=100');
    await stream.event('response.output_text.delta', 't1');
    const bad = [{ json: Buffer.from('{') }];
    gateway.access.onSteer = () => {
      throw new GatewayError('PERMISSION_DENIED', 'not for you');
    };
    stream.send({ steer_turn: { turn_id: 't1', input: bad } });
    stream.send({ steer_turn: { turn_id: 't1' } });
    stream.send({ steer_turn: { input: bad } });
    stream.send({ steer_turn: { turn_id: 't1', input: [userMessage('x')] } });
    expect(last(await stream.turn('t1')).outcome).toBe('TURN_OUTCOME_COMPLETED');
    const told = stream.events.filter(({ turn_failed: failed }) => failed != null);
    expect(
      told.map((event) => [event.type, event.turn_id, event.outcome, event.turn_failed?.reason]),
    ).toEqual([
      ['gateway.request.rejected', 't1', NO_OUTCOME, 'INVALID_JSON'],
      ['gateway.request.rejected', 't1', NO_OUTCOME, 'INVALID_FIELD'],
      ['gateway.request.rejected', '', NO_OUTCOME, 'INVALID_JSON'],
      ['gateway.request.rejected', 't1', NO_OUTCOME, 'PERMISSION_DENIED'],
    ]);
  });
});

describe('trouble from the upstream', () => {
  it('ends the turns of a link that says something that is not JSON, and goes on with another', async () => {
    await start({ simulator: { faults: [{ kind: 'malformed', atEvent: 3, totalRequest: 1 }] } });
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 't1', create: { store: false } }, 'hello');
    expect(last(await stream.turn('t1'))).toMatchObject({
      outcome: 'TURN_OUTCOME_FAILED',
      turn_failed: { reason: 'UPSTREAM_PROTOCOL', replay: 'REPLAY_VERDICT_UNSAFE' },
    });
    stream.startTurn({ turn_id: 't2', create: { store: false }, new_conversation: {} }, 'hello again');
    expect(last(await stream.turn('t2')).outcome).toBe('TURN_OUTCOME_COMPLETED');
  });

  it('passes on events that nobody knows, byte for byte, under any revision', async () => {
    const event = { type: 'response.from_the_future', zebra: 1, apple: [1.5e300, '\u2028'] };
    await start({ simulator: { faults: [{ kind: 'unknown-event', atEvent: 2, event }] } });
    for (const open of [{}, { schema_revision: 1 }, { payload: 'PAYLOAD_FORMAT_JSON' }]) {
      const stream = gateway.client().connect(open);
      stream.startTurn({ turn_id: 't1' }, 'hello');
      const events = await stream.turn('t1');
      const unknown = events.find(({ type }) => type === event.type);
      expect(unknown?.payload).toBeUndefined();
      expect(JSON.parse(unknown?.json.toString() ?? '')).toMatchObject(event);
      expect(last(events).outcome).toBe('TURN_OUTCOME_COMPLETED');
    }
  });

  it('reports an upstream error as the failure of its turn', async () => {
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 't1' }, 'oops #error=429');
    expect(last(await stream.turn('t1'))).toMatchObject({
      outcome: 'TURN_OUTCOME_FAILED',
      turn_failed: { code: 8, reason: 'UPSTREAM_RATE_LIMITED' },
    });
    stream.startTurn({ turn_id: 't2' }, 'oops #fail');
    expect(last(await stream.turn('t2'))).toMatchObject({ outcome: 'TURN_OUTCOME_FAILED' });
    stream.startTurn({ turn_id: 't3', new_conversation: {} }, 'fine');
    expect(last(await stream.turn('t3')).outcome).toBe('TURN_OUTCOME_COMPLETED');
  });

  it('fails turns in words when no upstream answers', async () => {
    await start({ simulator: { faults: [{ kind: 'refuse', status: 503 }] }, limits: { maxDialAttempts: 2 } });
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 't1' }, 'hello');
    expect(last(await stream.turn('t1'))).toMatchObject({
      turn_failed: { code: 14, replay: 'REPLAY_VERDICT_SAFE', phase: 'TURN_PHASE_NOT_SENT' },
    });
  });
});
