import { describe, expect, onTestFinished, test } from 'vitest';
import { createAccessControl } from '../../src/access/access.ts';
import { createCredential } from '../../src/upstream/credential.ts';
import type { TestEvent, TestStream } from '../harness/client.ts';
import { startGateway, type TestGateway } from '../harness/gateway.ts';
import { answer, type Behaviour, type HostileUpstreamOptions, startHostileUpstream } from './upstream.ts';

const KEY = 'sk-planted-provider-key-0123456789';
const MIB = 1024 * 1024;

interface Expected {
  readonly name: string;
  /** For the first create; the ones after it are answered as they should be. */
  readonly first: Behaviour;
  /** How the turn ends: an outcome, or the reason of its failure. */
  readonly ends: RegExp;
}

const CASES: readonly Expected[] = [
  {
    name: 'text that is no JSON',
    first: (socket) => socket.send('<html>502 Bad Gateway</html>'),
    ends: /UPSTREAM_/,
  },
  { name: 'JSON that is no object', first: (socket) => socket.send('[1,2,3]'), ends: /UPSTREAM_/ },
  {
    name: 'an object without a type',
    first: (socket) => socket.send('{"sequence_number":1}'),
    ends: /UPSTREAM_/,
  },
  {
    name: 'half a document',
    first: (socket) => socket.send('{"type":"response.created","response":{"id":'),
    ends: /UPSTREAM_/,
  },
  { name: 'a binary frame', first: (socket) => socket.send(Buffer.from([0, 1, 2, 255])), ends: /UPSTREAM_/ },
  {
    name: 'a million brackets',
    first: (socket) => socket.send(`{"type":"x","a":${'['.repeat(1_000_000)}`),
    ends: /UPSTREAM_/,
  },
  { name: 'a close in the middle', first: (socket) => socket.terminate(), ends: /UPSTREAM_LINK_LOST/ },
  {
    name: 'a close with a reason full of escapes',
    first: (socket) => socket.close(4321, '\u001b[2J\u001b[31mgone\r\nx: y'),
    ends: /UPSTREAM_/,
  },
  {
    name: 'events for lanes that do not exist',
    first: (socket, create) => {
      for (const stream_id of ['nowhere', '__proto__', '', 'x'.repeat(10_000)]) {
        for (const type of [
          'response.created',
          'response.output_text.delta',
          'response.completed',
          'error',
        ]) {
          if (stream_id === '' && type !== 'response.output_text.delta') continue;
          socket.send(JSON.stringify({ type, stream_id, response: { id: 'resp_x' }, delta: 'x' }));
        }
      }
      answer(socket, create);
    },
    ends: /COMPLETED|UPSTREAM_/,
  },
  {
    name: 'a wrong sequence: the end first, everything twice, deltas after it',
    first: (socket, create) => {
      socket.send(JSON.stringify({ type: 'response.output_text.delta', sequence_number: 9, delta: 'early' }));
      answer(socket, create);
      answer(socket, create);
      socket.send(JSON.stringify({ type: 'response.output_text.delta', sequence_number: -1, delta: 'late' }));
      socket.send(JSON.stringify({ type: 'response.completed', response: { id: 'resp_never' } }));
    },
    ends: /COMPLETED/,
  },
  {
    name: 'prototype keys all over',
    first: (socket, create) => {
      const evil = '"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}';
      socket.send(`{"type":"response.created",${evil},"response":{"id":"__proto__",${evil}}}`);
      socket.send(
        `{"type":"response.output_item.done","output_index":"__proto__","item":{"id":"constructor",${evil}}}`,
      );
      socket.send(
        `{"type":"response.completed","response":{"id":"__proto__","usage":{${evil}},"output":[{${evil}}]}}`,
      );
      void create;
    },
    ends: /COMPLETED/,
  },
  {
    name: 'fields of the wrong kind everywhere',
    first: (socket) => {
      socket.send('{"type":"response.created","response":7}');
      socket.send('{"type":"response.created","response":{"id":{},"output":"x","usage":[1],"model":null}}');
      socket.send('{"type":"response.output_item.done","item":[],"output_index":"1e999"}');
      socket.send('{"type":"error","error":"text","status":"four","headers":[["retry-after"]]}');
    },
    ends: /UPSTREAM_/,
  },
  {
    name: 'an error that asks to wait for ever, with headers of its own',
    first: (socket) =>
      socket.send(
        JSON.stringify({
          type: 'error',
          status: 429,
          error: {
            code: 'rate_limit_exceeded',
            message: 'a\r\nb\u001b[31m',
            headers: { 'retry-after': '1e308', 'x\r\ny': 'z' },
          },
        }),
      ),
    ends: /UPSTREAM_RATE_LIMITED/,
  },
];

describe('a hostile upstream', () => {
  test.each(CASES)('$name: one turn ends, the session goes on', async ({ first, ends }) => {
    const { gateway, stream } = await open({
      onCreate: (socket, create, n, request) =>
        n === 1 ? first(socket, create, n, request) : answer(socket, create),
    });
    const startedAtMs = performance.now();
    const events = await oneTurn(stream, 't1');
    expect(performance.now() - startedAtMs).toBeLessThan(5_000);
    expect(endOf(events)).toMatch(ends);
    expect(events.filter(({ outcome }) => outcome !== 'TURN_OUTCOME_UNSPECIFIED')).toHaveLength(1);

    expect(endOf(await oneTurn(stream, 't2'))).toMatch(/COMPLETED/);
    expect(gateway.bugs).toEqual([]);
    expect(Reflect.get({}, 'polluted')).toBeUndefined();
    expect(stream.events.map(({ seq }) => seq)).toEqual(stream.events.map((_, at) => at + 1));
  });

  test('a frame over the limit ends the link, and is not kept', async () => {
    const limitBytes = 32 * MIB;
    const { stream } = await open(
      {
        onCreate: (socket, create, n) =>
          n === 1 ? socket.send(giant(4 * limitBytes)) : answer(socket, create),
      },
      { limits: { maxInboundBytes: limitBytes } },
    );
    const before = process.memoryUsage();
    expect(endOf(await oneTurn(stream, 't1'))).toMatch(/UPSTREAM_/);
    const grown = process.memoryUsage().external - before.external;
    // The frame itself lives in this process as well, in the sender's hands.
    expect(grown).toBeLessThan(6 * limitBytes);
    expect(endOf(await oneTurn(stream, 't2'))).toMatch(/COMPLETED/);
  });

  test('an endless response ends by the turn’s own time limit, and its lane goes on', async () => {
    const { stream } = await open({
      onCreate: (socket, create, n) => {
        if (n > 1) return answer(socket, create);
        socket.send(JSON.stringify({ type: 'response.created', response: { id: 'resp_endless' } }));
        const timer = setInterval(
          () =>
            socket.send(JSON.stringify({ type: 'response.output_text.delta', delta: 'more '.repeat(100) })),
          1,
        );
        socket.once('close', () => clearInterval(timer));
      },
    });
    stream.startTurn({ turn_id: 't1', timeout: { seconds: 0, nanos: 300_000_000 } }, 'hello');
    const startedAtMs = performance.now();
    expect(endOf(await stream.turn('t1'))).toMatch(/TURN_TIMEOUT|DEADLINE_EXCEEDED/);
    expect(performance.now() - startedAtMs).toBeLessThan(3_000);
    expect(endOf(await oneTurn(stream, 't2'))).toMatch(/COMPLETED/);
  });

  test('a flood for a client that does not read is held back at the source', async () => {
    let sent = 0;
    const { gateway, stream } = await open({
      onCreate: (socket) => {
        socket.send(JSON.stringify({ type: 'response.created', response: { id: 'resp_flood' } }));
        const delta = JSON.stringify({ type: 'response.output_text.delta', delta: 'x'.repeat(64 * 1024) });
        const more = () => {
          while (socket.readyState === socket.OPEN && socket.bufferedAmount < 4 * MIB && sent < 400 * MIB) {
            sent += delta.length;
            socket.send(delta);
          }
          if (socket.readyState === socket.OPEN && sent < 400 * MIB) setImmediate(more);
        };
        more();
      },
    });
    stream.call.pause();
    stream.startTurn({ turn_id: 't1' }, 'hello');
    // It stops growing: two looks with a pause between them that a loopback socket would fill many times over.
    await expect
      .poll(
        async () => {
          const before = sent;
          await new Promise((resolve) => setTimeout(resolve, 500));
          return before > 0 && sent - before < MIB;
        },
        { timeout: 15_000 },
      )
      .toBe(true);
    // Buffers of sockets and of the sender are in it, none of which grows.
    expect(sent).toBeLessThan(64 * MIB);
    expect(gateway.bugs).toEqual([]);
    // A client that stays and does not read would hold up the end of the test.
    stream.cancel();
  });
});

test.each([
  { upstreams: ['first'], reached: 0, ends: /UPSTREAM_/ },
  { upstreams: ['*'], reached: 1, ends: /COMPLETED/ },
])('failover stays with what the tenant may use: $upstreams', async ({ upstreams, reached, ends }) => {
  const first = await startHostileUpstream({ onHandshake: () => refusal(503, 'later') });
  const second = await startHostileUpstream({ onCreate: (socket, create) => answer(socket, create) });
  const access = createAccessControl({
    auth: [{ kind: 'none', tenant: 'blue' }],
    tenants: [{ id: 'blue', upstreams }],
    upstreamNames: ['first', 'second'],
    loopbackOnly: true,
  });
  const shared = { provider: 'openai', transport: 'websocket', allowPlaintext: true } as const;
  const gateway = await startGateway({
    upstreamUrl: first.url,
    access,
    dialer: {
      upstreams: [
        { ...shared, name: 'first', url: first.url, fallback: ['second'] },
        { ...shared, name: 'second', url: second.url },
      ],
    },
    limits: { maxDialAttempts: 3 },
  });
  onTestFinished(async () => {
    await gateway.close();
    await access.close();
    await first.close();
    await second.close();
  });
  const stream = gateway.client().connect({ upstream: 'first' });
  await stream.opened();
  expect(endOf(await oneTurn(stream, 't1'))).toMatch(ends);
  expect(first.seen.length).toBeGreaterThan(0);
  expect(second.seen.length > 0).toBe(reached > 0);
});

describe('the provider key', () => {
  test('goes to the configured address only: redirects of the handshake are not followed', async () => {
    const thief = await startHostileUpstream({});
    onTestFinished(() => thief.close());
    for (const status of [301, 302, 307, 308]) {
      const location = `ws://127.0.0.1:${thief.port}/v1/responses`;
      const { stream } = await open(
        {
          onHandshake: () =>
            `HTTP/1.1 ${status} Moved\r\nLocation: ${location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
        },
        { transport: 'websocket' },
      );
      expect(endOf(await oneTurn(stream, 't1'))).toMatch(/UPSTREAM_/);
    }
    expect(thief.seen).toEqual([]);
  });

  test('goes to the configured address only: redirects of HTTP calls are not followed', async () => {
    const thief = await startHostileUpstream({});
    onTestFinished(() => thief.close());
    const location = `http://127.0.0.1:${thief.port}/v1/responses`;
    const { gateway, stream } = await open(
      { onRequest: (_, response) => response.writeHead(307, { location }).end() },
      { transport: 'sse' },
    );
    expect(endOf(await oneTurn(stream, 't1'))).toMatch(/UPSTREAM_/);
    const { ended } = await gateway.client().compactResponse({
      compact: { model: 'm', input: [{ json: Buffer.from('{"role":"user","content":"x"}') }] },
    });
    expect(ended.code).not.toBe(0);
    expect(thief.seen).toEqual([]);
  });

  test('is the only thing of the caller that goes up; what callers send as metadata does not', async () => {
    const { upstream, stream, gateway } = await open({
      onCreate: (socket, create) => answer(socket, create),
    });
    expect(endOf(await oneTurn(stream, 't1'))).toMatch(/COMPLETED/);
    const nosy = gateway.client({
      metadata: {
        authorization: 'Bearer caller-secret',
        cookie: 'c=caller-secret',
        'x-custom': 'caller-secret',
        traceparent: `00-${'1'.repeat(32)}-${'2'.repeat(16)}-01`,
      },
    });
    const other = nosy.connect();
    await other.opened();
    expect(endOf(await oneTurn(other, 't1'))).toMatch(/COMPLETED/);
    for (const headers of upstream.seen) {
      expect(headers.authorization).toBe(`Bearer ${KEY}`);
      expect(JSON.stringify(headers)).not.toContain('caller-secret');
      expect(headers.traceparent).toBeUndefined();
    }
  });

  test.each([
    ['in the refusal of the handshake', { onHandshake: () => refusal(401, KEY) }],
    [
      'in an error frame',
      {
        onCreate: ((socket) =>
          socket.send(
            JSON.stringify({
              type: 'error',
              status: 401,
              error: { code: 'invalid_api_key', message: `Incorrect API key provided: ${KEY}` },
            }),
          )) as Behaviour,
      },
    ],
    [
      'in an error frame, spelled in escapes',
      {
        onCreate: ((socket) =>
          socket.send(`{"type":"error","error":{"message":"\\u0073${KEY.slice(1)}"}}`)) as Behaviour,
      },
    ],
    ['in a close reason', { onCreate: ((socket) => socket.close(1008, KEY)) as Behaviour }],
  ])('does not come back to the caller when the upstream repeats it %s', async (_, options) => {
    const { stream } = await open(options, { transport: 'websocket' });
    const events = await oneTurn(stream, 't1');
    expect(endOf(events)).toMatch(/UPSTREAM_/);
    const text = JSON.stringify(events, (_key, value: unknown) =>
      isBufferJson(value) ? Buffer.from(value.data).toString() : value,
    );
    expect(text).not.toContain(KEY);
  });
});

async function open(
  options: HostileUpstreamOptions,
  upstreamOptions: NonNullable<Parameters<typeof startGateway>[0]>['upstream'] = {},
): Promise<{
  gateway: TestGateway;
  stream: TestStream;
  upstream: Awaited<ReturnType<typeof startHostileUpstream>>;
}> {
  const upstream = await startHostileUpstream(options);
  const gateway = await startGateway({
    upstreamUrl: upstream.url,
    upstream: { credential: createCredential(KEY), ...upstreamOptions },
    limits: { maxDialAttempts: 2 },
  });
  onTestFinished(async () => {
    await gateway.close();
    await upstream.close();
  });
  const stream = gateway.client().connect();
  await stream.opened();
  return { gateway, stream, upstream };
}

function oneTurn(stream: TestStream, turnId: string): Promise<TestEvent[]> {
  stream.startTurn({ turn_id: turnId, new_conversation: {} }, 'hello');
  return stream.turn(turnId);
}

function endOf(events: readonly TestEvent[]): string {
  const last = events.at(-1);
  return last?.turn_failed?.reason ?? last?.outcome ?? 'nothing';
}

function giant(bytes: number): string {
  return `{"type":"response.output_text.delta","delta":"${'x'.repeat(bytes)}"}`;
}

function refusal(status: number, text: string): string {
  const body = JSON.stringify({ error: { message: `Incorrect API key provided: ${text}`, code: text } });
  return `HTTP/1.1 ${status} No\r\nContent-Type: application/json\r\nX-Key: ${text}\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`;
}

function isBufferJson(
  value: unknown,
): value is { readonly type: 'Buffer'; readonly data: readonly number[] } {
  return (
    typeof value === 'object' &&
    value !== null &&
    'type' in value &&
    value.type === 'Buffer' &&
    'data' in value
  );
}
