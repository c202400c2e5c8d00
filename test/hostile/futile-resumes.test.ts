import { once } from 'node:events';
import { afterEach, describe, expect, test } from 'vitest';
import { startGateway, type TestGateway } from '../harness/gateway.ts';
import { encodeOpen } from './encode.ts';
import { grpcFrame, openCall, openHttp2, outcomeOf } from './raw.ts';

const KIB = 1024;
const MAX_CUT_STREAMS = 4;

let gateway: TestGateway;
afterEach(() => gateway.close());

async function start() {
  gateway = await startGateway({ server: { maxCutStreams: MAX_CUT_STREAMS, maxMessageBytes: 64 * KIB } });
  const stream = gateway.client().connect();
  const { resume_token: token } = await stream.opened();
  stream.cancel();
  await closed(1);
  return token;
}

/** So many streams are over, for the gateway as well. */
function closed(count: number) {
  return expect
    .poll(() => gateway.telemetry.streams.filter(({ status }) => status !== undefined).length)
    .toBe(count);
}

const heldBack = () => gateway.telemetry.heldResumes.map(({ result, isFirst }) => `${result} ${isFirst}`);

describe('a client that resumes and sends what does not come through', () => {
  test('a message over the limit: the session is not resumed any more, and the client is told why', async () => {
    const token = await start();
    const resume = async (lastSeq: number) => {
      const stream = gateway.client().connect({ resume: { token, last_seq: lastSeq } });
      stream.startTurn({ turn_id: 'large' }, 'x'.repeat(100 * KIB));
      return stream.ended();
    };
    for (let n = 0; n < MAX_CUT_STREAMS; n++) {
      expect((await resume(0)).reason).toBe('MESSAGE_TOO_LARGE');
      await closed(n + 2);
    }
    for (const isFirst of [true, false]) {
      expect(await resume(0)).toMatchObject({
        code: 8,
        reason: 'LIMIT_EXCEEDED',
        metadata: { limit: 'cut_streams', value: String(MAX_CUT_STREAMS), scope: 'session' },
      });
      expect(heldBack().at(-1)).toBe(`refused ${isFirst}`);
    }
    // Another session of the same caller goes on.
    const other = gateway.client().connect();
    await other.opened();
    other.startTurn({ turn_id: 't' }, 'hello');
    expect((await other.turn('t')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect(gateway.bugs).toEqual([]);
  });

  test('a message that the path cuts off, with small ones before it', async () => {
    const token = await start();
    const http2 = await openHttp2(gateway.port);
    const ack = grpcFrame(Buffer.from([0x2a, 0]));
    for (let n = 0; n < MAX_CUT_STREAMS; n++) {
      const stream = openCall(http2, {});
      stream.write(Buffer.concat([grpcFrame(encodeOpen({ token, last_seq: 0 })), ack]));
      await once(stream, 'data');
      stream.write(grpcFrame(Buffer.alloc(10), 50 * KIB));
      // Until the gateway has it.
      await new Promise<void>((resolve) => http2.ping(() => resolve()));
      stream.close();
      await closed(n + 2);
    }
    const last = openCall(http2, {});
    const outcome = outcomeOf(last);
    last.write(grpcFrame(encodeOpen({ token, last_seq: 0 })));
    expect(await outcome).toBe('status 8');
    http2.destroy();
    expect(heldBack()).toEqual(['refused true']);
  });

  test('an honest client on a bad path, whose turns come through between the cuts, is let in each time', async () => {
    let token = await start();
    let lastSeq = 0;
    for (let n = 0; n < 3 * MAX_CUT_STREAMS; n++) {
      const stream = gateway.client().connect({ resume: { token, last_seq: lastSeq } });
      const opened = await stream.opened();
      expect(opened.resume_outcome).toBe('RESUME_OUTCOME_RESUMED');
      token = opened.resume_token;
      stream.startTurn({ turn_id: `t${n}` }, 'hello');
      expect((await stream.turn(`t${n}`)).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
      lastSeq = stream.events.at(-1)?.seq ?? 0;
      stream.startTurn({ turn_id: 'large' }, 'x'.repeat(100 * KIB));
      expect((await stream.ended()).reason).toBe('MESSAGE_TOO_LARGE');
      await closed(n + 2);
    }
    expect(heldBack()).toEqual([]);
  });
});
