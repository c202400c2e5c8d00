import { once } from 'node:events';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { createFrame } from '../../src/dialect/frames.ts';
import type { CreateBody } from '../../src/dialect/types.ts';
import { createCredential } from '../../src/upstream/credential.ts';
import { createDialer, type DialerOptions } from '../../src/upstream/dialer.ts';
import type { UpstreamOptions } from '../../src/upstream/upstream.ts';
import { bodyOf, Cleanup, dialRequest, Observed, outgoing, Recorder, startServer } from './harness.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly body: string;
}

/** A server without WebSocket whose POSTs the test answers itself. */
async function overHttp(
  changes: Partial<UpstreamOptions> = { transport: 'sse' },
  options: Partial<DialerOptions> = {},
  onRequest?: RequestListener,
) {
  const calls: Call[] = [];
  const waiting: (() => void)[] = [];
  const server = cleanup.add(
    await startServer({
      upgrade: false,
      onRequest: async (request, response) => {
        if (onRequest !== undefined) return onRequest(request, response);
        if (request.method !== 'POST') return response.writeHead(405).end();
        calls.push({ request, response, body: String(await bodyOf(request)) });
        for (const wake of waiting.splice(0)) wake();
      },
    }),
  );
  const observed = new Observed();
  const dialer = cleanup.add(
    createDialer({
      upstreams: [{ name: 'main', provider: 'openai', url: server.url, ...changes }],
      observe: observed.observe,
      ...options,
    }),
  );
  const recorder = new Recorder();
  const link = dialer.dial(dialRequest(), recorder);
  return {
    server,
    observed,
    dialer,
    recorder,
    link,
    calls,
    call: async (index = 0): Promise<Call> => {
      while (calls[index] === undefined) await new Promise<void>((resolve) => waiting.push(resolve));
      return calls[index] as Call;
    },
  };
}

const eventStream = { 'content-type': 'text/event-stream; charset=utf-8' };
const event = (json: string) => `event: ${JSON.parse(json).type}\ndata: ${json}\n\n`;
const create = (lane: string | undefined, text = 'hi') =>
  JSON.stringify({ type: 'response.create', stream_id: lane, model: 'm', input: text });
const created = '{"type":"response.created","sequence_number":0,"response":{"id":"resp_1"}}';
const delta = '{"type":"response.output_text.delta","delta":"héllo \\u0000 1.0"}';
const completed = '{"type":"response.completed","response":{"id":"resp_1"}}';

describe('a link over HTTP', () => {
  it('makes a POST of a create, without the WebSocket’s own members, the rest byte for byte', async () => {
    const { link, recorder, call } = await overHttp({
      transport: 'sse',
      credential: createCredential('sk-1'),
    });
    const { capabilities } = await recorder.up();
    expect(capabilities).toMatchObject({
      transport: 'sse',
      multiplexed: true,
      maxInFlight: 16,
      keepsUnstored: false,
      storesResponses: true,
      steering: false,
      warmUp: false,
      rotateAfterMs: undefined,
    });
    const fields = new Map([
      ['generate', 'true'],
      ['temperature', '1.0'],
      ['z', '{"stream":"{\\"type\\":1}","b":[1e2,{"type":"x"}]}'],
      ['a', '"\\u00e9\\""'],
    ]);
    const plan = { wireParentId: undefined, replayedItems: [], ownInput: ['{"a":"\\\\"}'] };
    link.send(createFrame({ fields, store: true } as unknown as CreateBody, plan, 'lane'), undefined);
    const { request, body } = await call();
    expect(body).toBe(
      '{"stream":true,"temperature":1.0,"z":{"stream":"{\\"type\\":1}","b":[1e2,{"type":"x"}]},"a":"\\u00e9\\"","input":[{"a":"\\\\"}]}',
    );
    expect([request.method, request.url]).toEqual(['POST', '/v1/responses']);
    expect(request.headers).toMatchObject({
      authorization: 'Bearer sk-1',
      accept: 'text/event-stream',
      'content-type': 'application/json',
    });
  });

  it('names the lane of every event and leaves its bytes alone', async () => {
    const { link, recorder, call } = await overHttp();
    await recorder.up();
    link.send(outgoing(create('lane')), undefined);
    const { response } = await call();
    response.writeHead(200, eventStream);
    response.write(': keep-alive\n\n');
    // Split inside a character, inside a line and between CR and LF.
    const bytes = Buffer.from(
      `${event(created)}${event(delta).replaceAll('\n', '\r\n')}${event(completed)}data: [DONE]\n\n`,
    );
    for (let at = 0; at < bytes.length; at += 7) response.write(bytes.subarray(at, at + 7));
    response.end();
    await recorder.frame(3);
    expect(recorder.frames.map(({ type, streamId }) => [type, streamId])).toEqual([
      ['response.created', 'lane'],
      ['response.output_text.delta', 'lane'],
      ['response.completed', 'lane'],
    ]);
    expect(Buffer.from(recorder.frames[1]?.bytes ?? []).toString('utf8')).toBe(delta);
    expect(recorder.frames[2]?.json()['response']).toEqual({ id: 'resp_1' });
    expect(recorder.downs).toEqual([]);
  });

  it('runs lanes side by side, on kept connections', async () => {
    const { link, recorder, call, calls } = await overHttp();
    await recorder.up();
    for (const lane of ['a', 'b', undefined]) link.send(outgoing(create(lane, `for ${lane}`)), undefined);
    await call(2);
    for (const { body, response } of [...calls].reverse()) {
      const id = JSON.parse(body).input;
      response.writeHead(200, eventStream);
      response.end(event(`{"type":"response.completed","response":{"id":"${id}"}}`));
    }
    await recorder.frame(3);
    const lanes = recorder.frames.map((frame) => [
      (frame.json()['response'] as { id: string }).id,
      frame.streamId,
    ]);
    expect(Object.fromEntries(lanes)).toEqual({ 'for a': 'a', 'for b': 'b', 'for undefined': undefined });
    const sockets = new Set(calls.map(({ request }) => request.socket));
    link.send(outgoing(create('a')), undefined);
    expect(sockets).toContain((await call(3)).request.socket);
  });

  it('makes an error frame of an HTTP error, with status and time to wait', async () => {
    const { link, recorder, call } = await overHttp();
    await recorder.up();
    const answers: [number, Record<string, string>, string, Record<string, unknown>][] = [
      [
        400,
        {},
        '{"error":{"type":"invalid_request_error","code":"previous_response_not_found","message":"gone","param":"previous_response_id"}}',
        {
          type: 'invalid_request_error',
          code: 'previous_response_not_found',
          message: 'gone',
          param: 'previous_response_id',
        },
      ],
      [429, { 'retry-after': '2' }, '{"detail":"slow down"}', { code: null, message: 'slow down' }],
      [
        422,
        {},
        '{"object":"error","message":"flat","type":"BadRequest","code":"x"}',
        { type: 'BadRequest', code: 'x', message: 'flat' },
      ],
      [502, {}, '<html>', { message: 'the upstream answered HTTP 502' }],
      [
        401,
        {},
        '{"error":{"code":"invalid_api_key","message":"bad key sk-…1"}}',
        { code: null, message: 'the upstream answered HTTP 401' },
      ],
    ];
    for (const [index, [status, headers, body, error]] of answers.entries()) {
      link.send(outgoing(create('lane')), undefined);
      (await call(index)).response.writeHead(status, headers).end(body);
      const frame = await recorder.frame(index + 1);
      expect([frame.type, frame.streamId]).toEqual(['error', 'lane']);
      const json = frame.json();
      expect(json).toEqual(JSON.parse(Buffer.from(frame.bytes).toString('utf8')));
      expect(json['status']).toBe(status);
      expect(json['error']).toMatchObject(error);
      if (status === 429) expect(json['headers']).toEqual({ 'retry-after': '2' });
    }
    expect(recorder.downs).toEqual([]);
  });

  it('does not let an upstream echo the key', async () => {
    const { link, recorder, call } = await overHttp({
      transport: 'sse',
      credential: createCredential('sk-canary-9'),
    });
    await recorder.up();
    link.send(outgoing(create('lane')), undefined);
    (await call()).response
      .writeHead(400)
      .end('{"error":{"message":"you sent sk-canary-9","code":"sk-canary-9"}}');
    const frame = await recorder.frame();
    expect(Buffer.from(frame.bytes).toString('utf8')).not.toContain('canary');
  });

  it('tells one lane alone that its stream was lost', async () => {
    const { link, recorder, call } = await overHttp();
    await recorder.up();
    link.send(outgoing(create('cut')), undefined);
    link.send(outgoing(create('ended')), undefined);
    link.send(outgoing(create('good')), undefined);
    const byLane = new Map<string, ServerResponse>();
    for (const index of [0, 1, 2]) {
      const { response } = await call(index);
      response.writeHead(200, eventStream).write(event(created));
      byLane.set(['cut', 'ended', 'good'][index] as string, response);
    }
    await recorder.frame(3);
    byLane.get('cut')?.destroy();
    byLane.get('ended')?.end();
    await recorder.frame(5);
    byLane.get('good')?.end(event(completed));
    await recorder.frame(6);
    const ends = recorder.frames.slice(3).map((frame) => {
      const error = frame.json()['error'] as { code: string } | undefined;
      return [frame.streamId, frame.type, error?.code];
    });
    expect(ends.slice(0, 2)).toEqual(
      expect.arrayContaining([
        ['cut', 'error', 'upstream_stream_lost'],
        ['ended', 'error', 'upstream_stream_lost'],
      ]),
    );
    expect(ends[2]).toEqual(['good', 'response.completed', undefined]);
    expect(recorder.downs).toEqual([]);
  });

  it('reports what is no event stream of JSON objects, and goes on', async () => {
    const { link, recorder, call } = await overHttp({
      transport: 'sse',
      limits: { maxInboundBytes: 10_000 },
    });
    await recorder.up();
    const answers: ((response: ServerResponse) => void)[] = [
      (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{"id":"resp_1"}'),
      (response) => response.writeHead(200, eventStream).end('data: nonsense\n\n'),
      (response) => response.writeHead(200, eventStream).end('data: [1]\n\n'),
      (response) => response.writeHead(200, eventStream).end('data: {"type":7,"error":{}}\n\n'),
      (response) =>
        response.writeHead(200, eventStream).write(`data: {"type":"x","pad":"${'x'.repeat(20_000)}`),
      (response) => response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end(),
      (response) => response.writeHead(204).end(),
    ];
    for (const [index, answer] of answers.entries()) {
      link.send(outgoing(create('lane')), undefined);
      answer((await call(index)).response);
      const frame = await recorder.frame(index + 1);
      expect(frame.json()).toMatchObject({
        type: 'error',
        status: 502,
        error: { code: 'upstream_protocol' },
      });
    }
    link.send(outgoing(create('lane')), undefined);
    (await call(answers.length)).response.writeHead(200, eventStream).end(event(completed));
    expect((await recorder.frame(answers.length + 1)).type).toBe('response.completed');
  });

  it.each(['event: ping\ndata:\n\n', 'data\n\n', 'event: ping\ndata: {}\n\n', 'data: {"ping":1}\n\n'])(
    'takes %j for a heartbeat, not for a broken stream',
    async (heartbeat) => {
      const { link, recorder, call } = await overHttp();
      await recorder.up();
      link.send(outgoing(create('lane')), undefined);
      const { response } = await call();
      response.writeHead(200, eventStream);
      response.end(`${heartbeat}${event(created)}${heartbeat}${heartbeat}${event(completed)}`);
      await recorder.frame(2);
      expect(recorder.frames.map(({ type }) => type)).toEqual(['response.created', 'response.completed']);
    },
  );

  it.each([
    [
      '{"error":{"message":"context too long","type":"BadRequestError","param":null,"code":400}}',
      { status: 400, error: { type: 'BadRequestError', message: 'context too long' } },
    ],
    [
      '{"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}',
      { error: { type: 'rate_limit_error', code: 'rate_limit_exceeded', message: 'slow down' } },
    ],
    ['{"error":"out of memory"}', { error: { message: 'out of memory' } }],
    ['{"error":{"code":{"toString":1,"valueOf":1},"message":"odd"}}', { error: { message: 'odd' } }],
    ['{"error":{}}', { error: { message: 'the upstream answered an error' } }],
    [
      '{"error":{"message":"you sent sk-\\u0063anary-9","code":"x"}}',
      { error: { code: null, message: 'the upstream answered an error' } },
    ],
    [
      '{"error":{"message":"bad key sk-…9","code":"401"}}',
      { status: 401, error: { code: null, message: 'the upstream answered HTTP 401' } },
    ],
  ])('tells what the upstream said when %s breaks off the stream', async (said, json) => {
    const { link, recorder, call } = await overHttp({
      transport: 'sse',
      credential: createCredential('sk-canary-9'),
    });
    await recorder.up();
    link.send(outgoing(create('lane')), undefined);
    const { response } = await call();
    response.writeHead(200, eventStream).end(`${event(created)}data: ${said}\n\ndata: [DONE]\n\n`);
    const frame = await recorder.frame(2);
    expect([frame.type, frame.streamId]).toEqual(['error', 'lane']);
    expect(frame.json()).toMatchObject(json);
    expect('status' in frame.json()).toBe('status' in json);
    expect(frame.json()).toEqual(JSON.parse(Buffer.from(frame.bytes).toString('utf8')));
  });

  it('takes an event of 20 MB and says nothing after a terminal one', async () => {
    const { link, recorder, call } = await overHttp();
    await recorder.up();
    link.send(outgoing(create('lane')), undefined);
    const image = `{"type":"response.image_generation_call.partial_image","b64":"${'A'.repeat(20_000_000)}"}`;
    const { response } = await call();
    response.writeHead(200, eventStream).write(`data: ${image}\n\n`);
    expect((await recorder.frame()).bytes.length).toBe(image.length);
    response.end(event(completed) + event(delta) + event(completed));
    await once(response, 'close');
    link.send(outgoing(create('lane')), undefined);
    (await call(1)).response.writeHead(200, eventStream).end(event(completed));
    await recorder.frame(3);
    expect(recorder.frames.map(({ type }) => type).slice(1)).toEqual([
      'response.completed',
      'response.completed',
    ]);
  });

  it('aborts one lane’s request and reports nothing of it', async () => {
    const { link, recorder, call } = await overHttp();
    await recorder.up();
    link.send(outgoing(create('a')), undefined);
    link.send(outgoing(create('b')), undefined);
    const first = await call(0);
    const second = await call(1);
    const [a, b] = JSON.parse(first.body).input === 'hi' ? [first, second] : [second, first];
    const closed = once(a.response, 'close');
    link.abort?.('a');
    await closed;
    b.response.writeHead(200, eventStream).end(event(completed));
    await recorder.frame(1);
    expect(recorder.frames.map(({ streamId, type }) => [streamId, type])).toEqual([
      ['b', 'response.completed'],
    ]);
    expect(recorder.downs).toEqual([]);
  });

  it('answers what only a WebSocket takes with an error on the lane, and sends nothing', async () => {
    const { link, recorder, calls } = await overHttp();
    await recorder.up();
    link.send(outgoing('{"type":"response.steer","previous_response_id":"resp_1","input":"x"}'), undefined);
    link.send(
      outgoing('{"type":"response.create","stream_id":"lane","generate":false,"model":"m"}'),
      undefined,
    );
    await recorder.frame(2);
    expect(recorder.frames.map((frame) => [frame.streamId, frame.json()['status']])).toEqual([
      [undefined, 400],
      ['lane', 400],
    ]);
    expect(recorder.frames[1]?.json()['error']).toMatchObject({ code: 'not_supported_over_http' });
    expect(calls).toEqual([]);
  });

  it('holds the events back while paused', async () => {
    const { link, recorder, call } = await overHttp();
    await recorder.up();
    link.send(outgoing(create('lane')), undefined);
    const { response } = await call();
    link.pause();
    response.writeHead(200, eventStream);
    const big = event(`{"type":"response.output_text.delta","pad":"${'p'.repeat(100_000)}"}`);
    for (let at = 0; at < 200; at += 1) response.write(big);
    await new Promise((resolve) => setImmediate(resolve));
    expect(response.writableLength).toBeGreaterThan(1_000_000);
    expect(recorder.frames.length).toBeLessThan(5);
    link.resume();
    response.end(event(completed));
    await recorder.frame(201);
  });

  it('reports a body that the upstream does not take, and room when it does', async () => {
    const held: IncomingMessage[] = [];
    const { link, recorder } = await overHttp(
      { transport: 'sse', limits: { highWaterBytes: 100_000, lowWaterBytes: 10_000 } },
      {},
      (request, response) => {
        held.push(request);
        request.on('end', () => response.writeHead(200, eventStream).end(event(completed)));
      },
    );
    await recorder.up();
    link.send(outgoing(create('lane', 'x'.repeat(30_000_000))), undefined);
    expect(recorder.flow).toEqual(['blocked']);
    while (held[0] === undefined) await new Promise((resolve) => setImmediate(resolve));
    expect(recorder.flow).toEqual(['blocked']);
    held[0].resume();
    await recorder.until(() => recorder.flow.length === 2);
    expect(recorder.flow).toEqual(['blocked', 'writable']);
    expect((await recorder.frame()).type).toBe('response.completed');
  });

  it('fails the dial when nothing listens', async () => {
    const probe = createTcpServer().listen(0, '127.0.0.1');
    await once(probe, 'listening');
    const { port } = probe.address() as { port: number };
    probe.close();
    await once(probe, 'close');
    const { recorder } = await overHttp({ transport: 'sse', url: `http://127.0.0.1:${port}/v1` });
    const down = await recorder.down();
    expect([down.during, down.error.reason]).toEqual(['dial', 'UPSTREAM_UNAVAILABLE']);
  });

  it('proves that a request was not sent when the upstream is gone, and ends', async () => {
    const { link, recorder, server } = await overHttp();
    await recorder.up();
    await server.close();
    link.send(outgoing(create('lane')), undefined);
    const frame = await recorder.frame();
    expect(frame.json()).toMatchObject({ status: 503, error: { code: 'upstream_not_reached' } });
    const down = await recorder.down();
    expect([down.during, down.error.reason]).toEqual(['open', 'UPSTREAM_UNAVAILABLE']);
  });

  it('says nothing after close and drops its requests', async () => {
    const { link, recorder, call } = await overHttp();
    await recorder.up();
    link.send(outgoing(create('lane')), undefined);
    const { response } = await call();
    const closed = once(response, 'close');
    link.close(1000, '');
    await closed;
    expect([recorder.frames, recorder.downs]).toEqual([[], []]);
  });
});

describe('an upstream without WebSocket', () => {
  it('is spoken to over HTTP, and asked for WebSocket again only after a while', async () => {
    for (const status of [426, 404, 405, 501]) {
      let nowMs = 0;
      const { recorder, dialer, server, observed } = await overHttp(
        {},
        { now: () => nowMs, refusedUpgradeMs: 1_000 },
        (_request, response) => response.writeHead(status).end(),
      );
      expect((await recorder.up()).capabilities.transport).toBe('sse');
      expect(server.requests.length).toBe(1);
      expect(observed.of('sseFallback')).toEqual([
        { kind: 'sseFallback', upstream: 'main', httpStatus: status, forMs: 1_000 },
      ]);
      nowMs = 999;
      const second = new Recorder();
      dialer.dial(dialRequest(), second);
      await second.up();
      expect(server.requests.length).toBe(1);
      nowMs = 1_000;
      const third = new Recorder();
      dialer.dial(dialRequest(), third);
      await third.up();
      expect(server.requests.length).toBe(2);
      expect(observed.of('breaker')).toEqual([]);
    }
  });

  it('may answer the upgrade in other ways when it is merely compatible', async () => {
    for (const status of [200, 400, 403]) {
      const answer: RequestListener = (_request, response) => response.writeHead(status).end();
      const compatible = await overHttp({ provider: 'compatible' }, {}, answer);
      expect((await compatible.recorder.up()).capabilities).toMatchObject({
        transport: 'sse',
        storesResponses: false,
      });
      const openai = await overHttp({}, {}, answer);
      expect((await openai.recorder.down()).httpStatus).toBe(status);
    }
  });
});

describe('the events of a stored response', () => {
  /** Says the same events each time, and breaks off. */
  async function followed(events: readonly string[]) {
    let requests = 0;
    const { dialer } = await overHttp({ transport: 'sse' }, {}, (request, response) => {
      if (request.method !== 'GET') return void response.writeHead(405).end();
      requests += 1;
      response.writeHead(200, eventStream);
      response.write(events.map(event).join(''), () => response.destroy());
    });
    const types: string[] = [];
    await new Promise<void>((resolve) => {
      dialer.follow(dialRequest(), {
        responseId: 'resp_1',
        after: undefined,
        query: [],
        onFrame: ({ type }) => {
          types.push(type);
          if (type === 'error' || types.length > 10) resolve();
        },
      });
    });
    return { types, requests };
  }

  it('without numbers end with their stream: there is nowhere to go on', async () => {
    const unnumbered = created.replace('"sequence_number":0,', '');
    expect(await followed([unnumbered, delta])).toEqual({
      types: ['response.created', 'response.output_text.delta', 'error'],
      requests: 1,
    });
  });
});
