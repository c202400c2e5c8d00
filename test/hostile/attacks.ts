import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { constants } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { type Ended, TestClient, type TestStream } from '../harness/client.ts';
import { encodeStartTurn } from './encode.ts';
import { grpcFrame, openCall, openHttp2, outcomeOf, sendRawHeaders } from './raw.ts';

export interface Target {
  readonly port: number;
  readonly key: string;
  /** Of another tenant, to steal from it. */
  readonly otherKey: string;
  /** Counts an answer and the time since `startedAtMs`. */
  note(outcome: string, startedAtMs: number): void;
  stopped(): boolean;
}

/** One round; repeated until the measurement is over. */
export type Attack = (target: Target) => Promise<void>;

const MIB = 1024 * 1024;
const OPEN = Buffer.of(0x0a, 0x00);
/** 20 kB on the wire. */
const BOMB = (() => {
  const frame = grpcFrame(gzipSync(Buffer.alloc(19 * MIB), { level: 9 }));
  frame[0] = 1;
  return frame;
})();

export const attacks = {
  /** Messages over the limit, whole. */
  oversized: (target) =>
    withClient(target, async (client) => {
      const startedAtMs = performance.now();
      const stream = client.connect({ metadata: { filler: 'x'.repeat(21 * MIB) } });
      target.note(nameOf(await stream.ended()), startedAtMs);
    }),

  /** A length of almost 4 GiB, and bytes for as long as the gateway takes them. */
  neverEnding: async (target) => {
    const session = await openHttp2(target.port);
    const startedAtMs = performance.now();
    const stream = openCall(session, bearer(target.key));
    const outcome = outcomeOf(stream);
    const chunk = Buffer.alloc(64 * 1024);
    stream.write(grpcFrame(OPEN, 0xffff_fff0));
    const feed = setInterval(() => stream.writable && stream.write(chunk), 1);
    target.note(await outcome, startedAtMs);
    // It does not stop at the answer.
    if (!stream.closed) await new Promise((resolve) => stream.once('close', resolve));
    target.note(`then reset ${stream.rstCode}`, startedAtMs);
    clearInterval(feed);
    session.destroy();
  },

  /** A message within the limit that comes a byte at a time, on many streams. */
  slowSending: async (target) => {
    const session = await openHttp2(target.port);
    const calls = Array.from({ length: 200 }, async () => {
      const startedAtMs = performance.now();
      const stream = openCall(session, bearer(target.key));
      const outcome = outcomeOf(stream);
      stream.write(grpcFrame(OPEN, 1_000_000));
      const drip = setInterval(() => stream.writable && stream.write(Buffer.of(0)), 50);
      target.note(await outcome, startedAtMs);
      clearInterval(drip);
    });
    await Promise.all(calls);
    session.destroy();
  },

  /** Opened sessions that each keep most of a large message waiting for its last byte. */
  halfMessages: async (target) => {
    const session = await openHttp2(target.port);
    const most = grpcFrame(Buffer.alloc(4 * MIB), 19 * MIB);
    const startedAtMs = performance.now();
    const outcomes = Array.from({ length: 120 }, () => {
      const stream = openCall(session, bearer(target.key));
      stream.write(grpcFrame(OPEN));
      stream.write(most);
      return outcomeOf(stream);
    });
    await untilStopped(target, 5_000);
    session.destroy();
    for (const outcome of outcomes) target.note(await outcome, startedAtMs);
  },

  /** Kilobytes to an open service, without any credential, that inflate to gigabytes. */
  inflating: async (target) => {
    const session = await openHttp2(target.port);
    const startedAtMs = performance.now();
    const outcomes = Array.from({ length: 40 }, () => {
      const path = '/grpc.health.v1.Health/Check';
      const stream = openCall(session, { ':path': path, 'grpc-encoding': 'gzip' });
      stream.end(BOMB);
      return outcomeOf(stream);
    });
    for (const outcome of outcomes) target.note(await outcome, startedAtMs);
    session.destroy();
  },

  /** The same by a caller, as requests of a session. */
  inflatingRequests: async (target) => {
    const session = await openHttp2(target.port);
    const startedAtMs = performance.now();
    const outcomes = Array.from({ length: 20 }, () => {
      const stream = openCall(session, { ...bearer(target.key), 'grpc-encoding': 'gzip' });
      stream.write(grpcFrame(OPEN));
      stream.write(BOMB);
      return outcomeOf(stream);
    });
    for (const outcome of outcomes) target.note(await outcome, startedAtMs);
    session.destroy();
  },

  /** Requests of very many very small parts. */
  manyItems: (target) =>
    withClient(target, async (client) => {
      const stream = client.connect();
      await stream.opened();
      const text = { input_text: { text: 'hello' } };
      const few = { message: { role: 'user', content: [text] } };
      await oneTurn(
        target,
        stream,
        'items',
        Array.from({ length: 100_000 }, () => few),
      );
      const parts = Array.from({ length: 100_000 }, () => text);
      await oneTurn(target, stream, 'parts', [{ message: { role: 'user', content: parts } }]);
      const values = Buffer.from(`{"role":"user","content":[${'1,'.repeat(5_000_000)}1]}`);
      await oneTurn(target, stream, 'values', [{ json: values }]);
      await oneTurn(
        target,
        stream,
        'fits',
        Array.from({ length: 10_000 }, () => few),
      );
    }),

  /** Small requests that are each answered, by a client that reads no answers. */
  unreadAnswers: async (target) => {
    const session = await openHttp2(target.port, { window: 0 });
    const startedAtMs = performance.now();
    const stream = openCall(session, bearer(target.key));
    const outcome = outcomeOf(stream);
    stream.write(grpcFrame(OPEN));
    const cancel = grpcFrame(Buffer.from([0x22, 0x06, 0x0a, 0x01, 0x6c, 0x12, 0x01, 0x78]));
    const many = Buffer.concat(Array.from({ length: 2_000 }, () => cancel));
    for (let round = 0; round < 100 && !stream.closed && !target.stopped(); round++) {
      if (!stream.write(many)) await Promise.race([once(stream, 'drain'), outcome, delay(100)]);
    }
    await untilStopped(target, 3_000);
    session.destroy();
    target.note(await outcome, startedAtMs);
  },

  /** Megabytes of instructions in turns that wait for one that never ends. */
  queuedInstructions: async (target) =>
    withClient(target, async (client) => {
      const stream = client.connect();
      await stream.opened();
      stream.startTurn({ turn_id: 'first' }, 'in the way #hang');
      const startedAtMs = performance.now();
      const create = { model: 'gpt-6', instructions: 'x'.repeat(2 * MIB) };
      for (let n = 0; n < 24; n++) stream.send({ start_turn: { turn_id: `q${n}`, create } });
      await untilStopped(target, 2_000);
      // Still heard.
      stream.send({ cancel_turn: { turn_id: 'first' } });
      target.note(outcomeName(await stream.turn('first')), startedAtMs);
    }),

  /** Connections that say nothing. */
  silentConnections: async (target) => {
    const startedAtMs = performance.now();
    const sockets = Array.from({ length: 500 }, () => {
      const socket = connectTcp(target.port, '127.0.0.1');
      socket.on('error', () => {}).resume();
      return socket;
    });
    const left = () => sockets.filter(({ destroyed }) => !destroyed).length;
    // However soon the neighbour is done: the gateway takes a moment to see that they are silent.
    while (left() > 200 && performance.now() < startedAtMs + 8_000) await delay(20);
    target.note(left() <= 200 ? 'made place' : `${left()} left`, startedAtMs);
    for (const socket of sockets) socket.destroy();
  },

  /** Ten thousand streams on one connection. */
  streams: async (target) => {
    const session = await openHttp2(target.port);
    const outcomes = Array.from({ length: 10_000 }, async () => {
      const startedAtMs = performance.now();
      const stream = openCall(session, bearer(target.key));
      const outcome = await outcomeOf(stream);
      // Node cancels what is left on a connection that was closed; by itself a cancelled stream is no answer.
      const isClosed = outcome === 'reset 8' && (session.closed || session.destroyed);
      target.note(isClosed ? 'connection closed' : outcome, startedAtMs);
      // Makes room for the next: a thousand at a time are let in.
      stream.close();
    });
    await Promise.all(outcomes);
    session.destroy();
  },

  /** Streams that are reset as soon as they are opened (CVE-2023-44487). */
  rapidReset: async (target) => {
    const session = await openHttp2(target.port);
    const startedAtMs = performance.now();
    const gone = new Promise((resolve) => session.once('close', resolve));
    let opened = 0;
    while (!session.closed && !session.destroyed && opened < 20_000) {
      for (let n = 0; n < 100 && !session.closed && !session.destroyed; n++) {
        const stream = openCall(session, bearer(target.key));
        stream.close(constants.NGHTTP2_CANCEL);
        opened += 1;
      }
      await delay(0);
    }
    if (opened < 20_000) target.note('connection closed', startedAtMs);
    session.destroy();
    await gone;
  },

  /** Large answers asked for and not read: the client's window stays shut. */
  slowReading: async (target) => {
    const session = await openHttp2(target.port, { window: 0 });
    const startedAtMs = performance.now();
    const streams = Array.from({ length: 20 }, () => {
      const stream = openCall(session, bearer(target.key));
      stream.write(grpcFrame(OPEN));
      for (let n = 0; n < 20; n++) stream.write(grpcFrame(startTurn(`t${n}`, `#bytes=200000 ${n}`)));
      return outcomeOf(stream);
    });
    await Promise.race([untilStopped(target, 5_000), Promise.all(streams)]);
    session.destroy();
    for (const outcome of streams) target.note(await outcome, startedAtMs);
  },

  /** PING frames as fast as they are answered. */
  pings: async (target) => {
    const session = await openHttp2(target.port);
    const startedAtMs = performance.now();
    let answered = 0;
    while (!target.stopped() && !session.destroyed && answered < 50_000) {
      const round = Array.from(
        { length: 100 },
        () =>
          new Promise<void>((resolve) => {
            if (!session.destroyed) session.ping(() => resolve());
            else resolve();
          }),
      );
      await Promise.all(round);
      answered += round.length;
    }
    target.note(session.destroyed ? 'connection closed' : 'answered', startedAtMs);
    session.destroy();
  },

  /** Hundreds of headers, and headers of many kilobytes. */
  headers: async (target) => {
    const session = await openHttp2(target.port);
    const many = Object.fromEntries(Array.from({ length: 300 }, (_, n) => [`x-flood-${n}`, 'v']));
    const long = { 'x-long': 'v'.repeat(30_000) };
    const some = Object.fromEntries(Array.from({ length: 80 }, (_, n) => [`x-flood-${n}`, 'v']));
    for (const headers of [many, long, some]) {
      const startedAtMs = performance.now();
      if (session.destroyed) break;
      target.note(await outcomeOf(openCall(session, { ...bearer(target.key), ...headers })), startedAtMs);
    }
    session.destroy();
  },

  /** CR, LF, NUL and non-ASCII in header values and names, written past every client-side check. */
  headerInjection: async (target) => {
    const values = ['a\r\nx-upstream-api-key: stolen', 'a\nb', 'a\u0000b', 'schl\u00fcssel', '\u001b[31m'];
    const call: readonly (readonly [string, string])[] = [
      [':method', 'POST'],
      [':scheme', 'http'],
      [':path', '/responses.gateway.v1.ResponsesService/Connect'],
      [':authority', 'localhost'],
      ['content-type', 'application/grpc'],
      ['te', 'trailers'],
    ];
    for (const value of values) {
      for (const [name, text] of [
        ['authorization', `Bearer ${value}`],
        ['traceparent', value],
        [`x-${value}`, 'v'],
      ] as const) {
        const startedAtMs = performance.now();
        target.note(await sendRawHeaders(target.port, [...call, [name, text]]), startedAtMs);
      }
    }
  },

  /** JSON as deep, as wide and as long as it goes where the gateway passes it through. */
  hugeJson: (target) =>
    withSession(target, async (stream) => {
      const documents = [
        '['.repeat(1_000_000),
        `${'['.repeat(500_000)}${']'.repeat(500_000)}`,
        `{"a":${'{"a":'.repeat(300_000)}1${'}'.repeat(300_000)}}`,
        `{${Array.from({ length: 200_000 }, (_, n) => `"k${n}":0`).join(',')}}`,
        `["${'\\u0041'.repeat(500_000)}"]`,
        `{"n":${'9'.repeat(1_000_000)}}`,
      ];
      for (const [at, document] of documents.entries())
        await oneTurn(target, stream, `json-${at}`, [{ json: Buffer.from(document) }]);
    }),

  /** Keys that mean something to objects, wherever a key can stand. */
  prototypeKeys: (target) =>
    withClient(target, async (client) => {
      const keys = {
        ['__proto__']: 'polluted',
        constructor: 'polluted',
        prototype: 'polluted',
        toString: 'x',
      };
      const stream = client.connect({ metadata: keys });
      const item =
        '{"type":"message","role":"user","content":[],"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}';
      await stream.opened();
      await oneTurn(target, stream, '__proto__', [{ json: Buffer.from(item) }], '__proto__');
      await oneTurn(target, stream, 'constructor', [{ json: Buffer.from(item) }], 'constructor');
      const startedAtMs = performance.now();
      stream.send({
        start_turn: {
          turn_id: 'extra',
          create: { model: 'gpt-6', extra_json: Buffer.from('{"__proto__":{"polluted":true}}') },
        },
      });
      target.note(outcomeName(await stream.turn('extra')), startedAtMs);
      stream.halfClose();
      await stream.ended();
    }),

  /** Bytes that are no UTF-8, in strings and in JSON. */
  invalidUtf8: (target) =>
    withSession(target, async (stream) => {
      for (const bytes of [
        [0x22, 0xff, 0xfe, 0x22],
        [0x22, 0xc0, 0x80, 0x22],
        [0x22, 0xed, 0xa0, 0x80, 0x22],
        [0x80],
      ]) {
        await oneTurn(target, stream, `utf8-${bytes.join('-')}`, [{ json: Buffer.from(bytes) }]);
      }
    }).then(() =>
      withRawSession(target, async (stream) => {
        // Open, with an upstream of three stray bytes.
        stream.write(grpcFrame(Buffer.of(0x0a, 0x05, 0x22, 0x03, 0xff, 0xfe, 0x80)));
        stream.end();
      }),
    ),

  /** Not protobuf at all. */
  garbage: (target) =>
    withRawSession(target, async (stream) => {
      stream.write(grpcFrame(randomBytes(1_000)));
    }),

  /** Thousands of turns on one lane. */
  turnFlood: (target) =>
    withSession(target, async (stream) => {
      const startedAtMs = performance.now();
      const turns = 2_000;
      for (let n = 0; n < turns; n++) stream.startTurn({ turn_id: `flood-${n}` }, '#deltas=20');
      await stream.until(
        () => stream.events.filter(({ outcome }) => outcome !== 'TURN_OUTCOME_UNSPECIFIED').length >= turns,
      );
      for (const event of stream.events) {
        if (event.outcome !== 'TURN_OUTCOME_UNSPECIFIED') target.note(outcomeName([event]), startedAtMs);
      }
    }),

  /** Random resume tokens. */
  tokenGuessing: (target) =>
    withClient(target, async (client) => {
      const guesses = Array.from({ length: 50 }, async () => {
        const startedAtMs = performance.now();
        const stream = client.connect({ resume: { token: randomBytes(32).toString('base64url') } });
        const { resume_outcome } = await stream.opened();
        target.note(resume_outcome, startedAtMs);
        stream.halfClose();
        await stream.ended();
      });
      await Promise.all(guesses);
    }),

  /** A token used again after its successor was used, and by another tenant. */
  tokenReplay: (target) =>
    withClient(target, async (client) => {
      const first = client.connect();
      const { resume_token: stale, session_id } = await first.opened();
      const second = client.connect({ resume: { token: stale } });
      const { resume_token: fresh } = await second.opened();
      const third = client.connect({ resume: { token: fresh } });
      await third.opened();

      const thief = new TestClient(`127.0.0.1:${target.port}`, {
        metadata: { authorization: `Bearer ${target.otherKey}` },
      });
      for (const [who, by, token] of [
        ['own', client, stale],
        ['foreign', thief, fresh],
      ] as const) {
        const startedAtMs = performance.now();
        const stream = by.connect({ resume: { token } });
        const opened = await stream.opened();
        const same = opened.session_id === session_id ? ', SAME SESSION' : '';
        target.note(`${who}: ${opened.resume_outcome}${same}`, startedAtMs);
        stream.halfClose();
        await stream.ended();
      }
      third.halfClose();
      await third.ended();
      thief.close();
    }),

  /** Calls without a good key. */
  badKeys: (target) =>
    withClient({ ...target, key: `${target.key.slice(0, -6)}AAAAAA` }, async (client) => {
      const calls = Array.from({ length: 200 }, async () => {
        const startedAtMs = performance.now();
        target.note(nameOf(await client.connect().ended()), startedAtMs);
      });
      await Promise.all(calls);
    }),

  /** More sessions than the tenant may have. */
  sessionFlood: (target) =>
    withClient(target, async (client) => {
      const streams = Array.from({ length: 300 }, () => ({
        stream: client.connect(),
        startedAtMs: performance.now(),
      }));
      for (const { stream, startedAtMs } of streams) {
        await stream.until(() => stream.openedMessage !== undefined || stream.endedWith !== undefined);
        target.note(stream.endedWith === undefined ? 'opened' : nameOf(stream.endedWith), startedAtMs);
      }
      for (const { stream } of streams) stream.halfClose();
      await Promise.all(streams.map(({ stream }) => stream.ended()));
    }),

  /**
   * A turn id that access control may still know and the core has forgotten, used again for another tenant's
   * response.
   */
  forgottenTurnId: (target) =>
    withSession(target, async (stream) => {
      stream.startTurn({ turn_id: 'old', lane_id: 'a' }, '#hang');
      stream.send({ cancel_turn: { lane_id: 'a', turn_id: 'old' } });
      await stream.turn('old');
      for (let n = 0; n < 4_200; n++)
        stream.send({ start_turn: { turn_id: `x${n}`, previous_response_id: 'resp_foreign' } });
      await stream.turn('x4199');
      stream.events.length = 0;
      const startedAtMs = performance.now();
      stream.send({
        start_turn: {
          turn_id: 'old',
          lane_id: 'b',
          previous_response_id: 'resp_foreign',
          create: { model: 'gpt-6' },
        },
      });
      target.note(outcomeName(await stream.turn('old')), startedAtMs);
    }),
} satisfies Readonly<Record<string, Attack>>;

function bearer(key: string): { readonly authorization: string } {
  return { authorization: `Bearer ${key}` };
}

async function withClient(
  target: Pick<Target, 'port' | 'key'>,
  use: (client: TestClient) => Promise<void>,
): Promise<void> {
  const client = new TestClient(`127.0.0.1:${target.port}`, { metadata: bearer(target.key) });
  try {
    await use(client);
  } finally {
    client.close();
  }
}

function withSession(target: Target, use: (stream: TestStream) => Promise<void>): Promise<void> {
  return withClient(target, async (client) => {
    const stream = client.connect();
    await stream.opened();
    await use(stream);
    stream.halfClose();
    await stream.ended();
  });
}

async function withRawSession(
  target: Target,
  use: (stream: ReturnType<typeof openCall>) => Promise<void>,
): Promise<void> {
  const session = await openHttp2(target.port);
  const startedAtMs = performance.now();
  const stream = openCall(session, bearer(target.key));
  const outcome = outcomeOf(stream);
  await use(stream);
  target.note(await outcome, startedAtMs);
  session.destroy();
}

async function oneTurn(
  target: Target,
  stream: TestStream,
  turnId: string,
  input: readonly object[],
  laneId = '',
): Promise<void> {
  const startedAtMs = performance.now();
  const id = `${turnId}-${startedAtMs}`;
  stream.send({ start_turn: { turn_id: id, lane_id: laneId, create: { model: 'gpt-6', input } } });
  target.note(outcomeName(await stream.turn(id)), startedAtMs);
}

function outcomeName(events: TestStream['events']): string {
  const last = events.at(-1);
  return last?.turn_failed?.reason ?? last?.outcome ?? 'nothing';
}

function nameOf({ code, reason }: Ended): string {
  return reason ?? `status ${code}`;
}

async function untilStopped(target: Target, atMostMs: number): Promise<void> {
  for (const until = performance.now() + atMostMs; !target.stopped() && performance.now() < until; )
    await delay(20);
}

/** ConnectRequest { start_turn { turn_id, create { model, input: [text] } } }, for clients that do not read. */
function startTurn(turnId: string, text: string): Buffer {
  const item = JSON.stringify({ type: 'message', role: 'user', content: [{ type: 'input_text', text }] });
  return encodeStartTurn(turnId, item);
}
