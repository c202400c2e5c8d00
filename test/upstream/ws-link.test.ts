import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import type { WebSocket } from 'ws';
import { createCredential } from '../../src/upstream/credential.ts';
import { createDialer, type DialerOptions } from '../../src/upstream/dialer.ts';
import type { UpstreamOptions } from '../../src/upstream/upstream.ts';
import { startChaosProxy } from '../harness/chaos-proxy.ts';
import {
  Cleanup,
  dialRequest,
  Observed,
  outgoing,
  Recorder,
  startServer,
  type TestServerOptions,
} from './harness.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

async function connected(
  server: TestServerOptions = {},
  upstream: Partial<UpstreamOptions> = {},
  dialer: Partial<DialerOptions> = {},
) {
  const upstreamServer = cleanup.add(await startServer(server));
  const observed = new Observed();
  const gateway = cleanup.add(
    createDialer({
      upstreams: [{ name: 'main', provider: 'openai', url: upstreamServer.url, ...upstream }],
      pool: { size: 0 },
      observe: observed.observe,
      ...dialer,
    }),
  );
  const recorder = new Recorder();
  const link = gateway.dial(dialRequest(), recorder);
  const { capabilities, route } = await recorder.up();
  return {
    server: upstreamServer,
    socket: await upstreamServer.socket(),
    link,
    recorder,
    observed,
    capabilities,
    route,
  };
}

const delta = '{"type":"response.output_text.delta","stream_id":"lane","delta":"héllo"}';

describe('a WebSocket link', () => {
  it('carries frames both ways, byte for byte', async () => {
    const { socket, link, recorder, capabilities, route, server } = await connected();
    const create = '{"type":"response.create","stream_id":"lane","input":"héllo"}';
    const arrived = once(socket, 'message');
    link.send(outgoing(create), undefined);
    const [data, isBinary] = await arrived;
    expect(String(data)).toBe(create);
    expect(isBinary).toBe(false);
    socket.send(delta);
    const frame = await recorder.frame();
    expect(frame.type).toBe('response.output_text.delta');
    expect(frame.streamId).toBe('lane');
    expect(Buffer.from(frame.bytes).toString('utf8')).toBe(delta);
    expect(capabilities).toMatchObject({
      transport: 'websocket',
      multiplexed: true,
      maxInFlight: 16,
      maxNamedLanes: 32,
    });
    expect(route).toEqual({
      upstream: 'main',
      provider: 'openai',
      serverAddress: '127.0.0.1',
      serverPort: server.port,
      pooled: false,
    });
  });

  it('goes to /v1/responses with the key in one header, offers no compression', async () => {
    const { server } = await connected({}, { credential: createCredential('sk-canary-1') });
    const [handshake] = server.requests;
    expect(handshake?.url).toBe('/v1/responses');
    expect(handshake?.headers.authorization).toBe('Bearer sk-canary-1');
    expect(handshake?.headers['sec-websocket-extensions']).toBeUndefined();
  });

  it('reports an end by the upstream at its close frame, with its code', async () => {
    const cases = [
      [1000, 'UPSTREAM_LINK_LOST'],
      [1001, 'UPSTREAM_LINK_LOST'],
      [1002, 'UPSTREAM_PROTOCOL'],
      [1003, 'UPSTREAM_PROTOCOL'],
      [1007, 'UPSTREAM_PROTOCOL'],
      [1008, 'UPSTREAM_PERMISSION_DENIED'],
      [1009, 'FRAME_TOO_LARGE'],
      [1011, 'UPSTREAM_LINK_LOST'],
      [1012, 'UPSTREAM_LINK_LOST'],
      [1013, 'UPSTREAM_LINK_LOST'],
      [4402, 'UPSTREAM_QUOTA_EXCEEDED'],
    ] as const;
    for (const [code, reason] of cases) {
      const { socket, recorder } = await connected();
      socket.close(code, 'because');
      const down = await recorder.down();
      expect([down.closeCode, down.error.reason, down.during]).toEqual([code, reason, 'open']);
      expect(down.error.upstream?.message).toBe('because');
      expect(down.permanent).toBe(false);
    }
  });

  it('reports 1005 for an empty close frame and 1006 for a lost connection', async () => {
    const empty = await connected();
    empty.socket.close();
    expect((await empty.recorder.down()).closeCode).toBe(1005);
    const lost = await connected();
    lost.socket.terminate();
    const down = await lost.recorder.down();
    expect([down.closeCode, down.error.reason]).toEqual([1006, 'UPSTREAM_LINK_LOST']);
  });

  it('ends on what no upstream may send, once', async () => {
    const cases: [string, (socket: WebSocket) => void][] = [
      ['binary', (socket) => socket.send(Buffer.from(delta), { binary: true })],
      ['no JSON', (socket) => socket.send('nonsense')],
      ['array', (socket) => socket.send('[{"type":"a"}]')],
      ['no type', (socket) => socket.send('{"event":"response.created"}')],
      ['type is no string', (socket) => socket.send('{"type":7}')],
      ['inherited type', (socket) => socket.send('{"__proto__":{"type":"error"}}')],
      ['truncated', (socket) => socket.send('{"type":"response.created"')],
      ['over the limit', (socket) => socket.send(`{"type":"x","pad":"${'x'.repeat(5_000)}"}`)],
      ['bad UTF-8', (socket) => socket.send(Buffer.from([0x7b, 0xff, 0x7d]), { binary: false })],
    ];
    for (const [name, misbehave] of cases) {
      const { socket, recorder } = await connected({}, { limits: { maxInboundBytes: 4_096 } });
      misbehave(socket);
      socket.send(delta);
      await once(socket, 'close');
      expect(
        recorder.downs.map(({ error }) => error.reason),
        name,
      ).toEqual(['UPSTREAM_PROTOCOL']);
      expect(recorder.frames, name).toEqual([]);
    }
  });

  it('takes an untyped headers frame for what it is', async () => {
    const { socket, recorder } = await connected();
    socket.send('{"headers":{"x-request-id":"r"}}');
    socket.send(delta);
    expect((await recorder.frame()).type).toBe('response.output_text.delta');
    expect(recorder.downs).toEqual([]);
  });

  it('takes frames of 20 MB', async () => {
    const { socket, recorder } = await connected();
    const image = `{"type":"response.image_generation_call.partial_image","partial_image_b64":"${'A'.repeat(20_000_000)}"}`;
    socket.send(image);
    expect((await recorder.frame()).bytes.length).toBe(image.length);
  });

  it('answers pings while a frame of 10 MB is being written', async () => {
    const server = cleanup.add(await startServer());
    const proxy = cleanup.add(
      await startChaosProxy({
        target: { host: '127.0.0.1', port: server.port },
        up: { bytesPerSecond: 4_000_000 },
      }),
    );
    const gateway = cleanup.add(
      createDialer({
        upstreams: [{ name: 'main', provider: 'openai', url: `ws://127.0.0.1:${proxy.port}/v1` }],
        pool: { size: 0 },
      }),
    );
    const recorder = new Recorder();
    const link = gateway.dial(dialRequest(), recorder);
    await recorder.up();
    const socket = await server.socket();
    const order: string[] = [];
    socket.on('pong', (data) => order.push(String(data)));
    socket.on('message', (data) => order.push(`message of ${(data as Buffer).length}`));
    const create = `{"type":"response.create","input":"${'x'.repeat(10_000_000)}"}`;
    link.send(outgoing(create), undefined);
    expect(recorder.flow).toEqual(['blocked']);
    socket.ping('during the write');
    await once(socket, 'message');
    expect(order).toEqual(['during the write', `message of ${create.length}`]);
    await recorder.until(() => recorder.flow.length === 2);
    expect(recorder.flow).toEqual(['blocked', 'writable']);
  });

  it('answers pings in time on a slow path, whose buffers would hold the whole frame', async () => {
    const server = cleanup.add(await startServer());
    const target = { host: '127.0.0.1', port: server.port };
    const proxy = cleanup.add(await startChaosProxy({ target, up: { bytesPerSecond: 1_000_000 } }));
    const url = `ws://127.0.0.1:${proxy.port}/v1`;
    const gateway = cleanup.add(
      createDialer({ upstreams: [{ name: 'main', provider: 'openai', url }], pool: { size: 0 } }),
    );
    const recorder = new Recorder();
    const link = gateway.dial(dialRequest(), recorder);
    await recorder.up();
    const socket = await server.socket();
    const waitsMs: number[] = [];
    socket.on('pong', (sentAt) => waitsMs.push(performance.now() - Number(String(sentAt))));
    link.send(outgoing(`{"type":"response.create","input":"${'x'.repeat(4_000_000)}"}`), undefined);
    const pings = setInterval(() => socket.ping(String(performance.now())), 100);
    await once(socket, 'message');
    clearInterval(pings);
    expect(waitsMs.length).toBeGreaterThan(5);
    // Half a megabyte is under way at most; without the window it would be all of the frame, four seconds.
    expect(Math.max(...waitsMs)).toBeLessThan(2_000);
  });

  it('keeps the order of large and small frames', async () => {
    const { socket, link } = await connected();
    const sent = [900_000, 10, 300_000, 0, 5].map(
      (length) => `{"type":"response.create","input":"${'y'.repeat(length)}"}`,
    );
    const got: string[] = [];
    const all = new Promise<void>((resolve) => {
      socket.on('message', (data) => {
        got.push(String(data));
        if (got.length === sent.length) resolve();
      });
    });
    for (const text of sent) link.send(outgoing(text), undefined);
    await all;
    expect(got).toEqual(sent);
  });

  it('reports a full send buffer when the upstream does not read, and room when it does', async () => {
    const { socket, link, recorder } = await connected(
      {},
      { limits: { highWaterBytes: 300_000, lowWaterBytes: 1_000 } },
    );
    socket.pause();
    const text = `{"type":"response.create","input":"${'z'.repeat(100_000)}"}`;
    let sent = 0;
    while (recorder.flow.length === 0) {
      link.send(outgoing(text), undefined);
      sent += 1;
      if (sent % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(recorder.flow).toEqual(['blocked']);
    const counted = new Promise<void>((resolve) => {
      let got = 0;
      socket.on('message', () => {
        got += 1;
        if (got === sent) resolve();
      });
    });
    socket.resume();
    await counted;
    await recorder.until(() => recorder.flow.length === 2);
    expect(recorder.flow).toEqual(['blocked', 'writable']);
  });

  it('answers pings while paused, delivers the rest after resume', async () => {
    const { socket, link, recorder } = await connected({}, { limits: { pausedReadIntervalMs: 20 } });
    link.pause();
    const pong = once(socket, 'pong');
    socket.ping('still there');
    expect(String((await pong)[0])).toBe('still there');
    const count = 2_000;
    for (let at = 0; at < count; at += 1)
      socket.send(`{"type":"response.output_text.delta","pad":"${'p'.repeat(1_000)}"}`);
    const secondPong = once(socket, 'pong');
    socket.ping('behind 2 MB');
    link.resume();
    await secondPong;
    await recorder.frame(count);
    expect(recorder.frames.length).toBe(count);
  });

  it('holds the upstream back while paused', async () => {
    const { socket, link, recorder } = await connected({}, { limits: { pausedReadIntervalMs: 60_000 } });
    link.pause();
    const frame = `{"type":"response.output_text.delta","pad":"${'p'.repeat(100_000)}"}`;
    // More than the kernel's buffers take.
    for (let at = 0; at < 300; at += 1) socket.send(frame);
    await new Promise((resolve) => setImmediate(resolve));
    expect(recorder.frames.length).toBeLessThan(5);
    expect(socket.bufferedAmount).toBeGreaterThan(1_000_000);
    link.resume();
    await recorder.frame(300);
  });

  it.each(['before', 'during'])(
    'uploads without waiting for pongs while paused, %s the upload',
    async (when) => {
      const { socket, link } = await connected(
        { ws: { autoPong: false } },
        { limits: { pausedReadIntervalMs: 60_000, pongTimeoutMs: 60_000 } },
      );
      let arrived = 0;
      socket.on('message', () => {
        arrived += 1;
      });
      if (when === 'before') link.pause();
      const create = `{"type":"response.create","input":"${'x'.repeat(500_000)}"}`;
      for (let at = 0; at < 8; at += 1) link.send(outgoing(create), undefined);
      while (arrived === 0) await once(socket, 'message');
      // Half a megabyte is all that goes out unanswered while the link reads.
      if (when === 'during') link.pause();
      while (arrived < 8) await once(socket, 'message');
    },
  );

  it('pings, measures the round trip, and gives up a silent upstream', async () => {
    const { recorder, observed, socket } = await connected(
      { ws: { autoPong: true } },
      { limits: { pingIntervalMs: 20, pongTimeoutMs: 5_000 } },
    );
    await observed.until(() => observed.of('rtt').length >= 2);
    expect(observed.of('rtt')[0]?.ms).toBeGreaterThanOrEqual(0);
    expect(recorder.downs).toEqual([]);
    socket.terminate();
    const silent = await connected(
      { ws: { autoPong: false } },
      { limits: { pingIntervalMs: 20, pongTimeoutMs: 60 } },
    );
    const down = await silent.recorder.down();
    expect([down.error.reason, down.error.metadata['cause'], down.closeCode]).toEqual([
      'UPSTREAM_LINK_LOST',
      'heartbeat',
      1006,
    ]);
    expect(silent.observed.of('heartbeatLost').length).toBe(1);
  });

  it('does not take a stall of its own process for silence', async () => {
    const program = `
      const { WebSocketServer } = require('ws');
      const server = new WebSocketServer({ port: 0, host: '127.0.0.1', autoPong: false }, () => {
        require('node:worker_threads').parentPort.postMessage(server.address().port);
      });
      server.on('connection', (socket) => {
        socket.on('ping', (data) => setTimeout(() => socket.pong(data), 20));
      });`;
    const worker = new Worker(program, { eval: true });
    cleanup.add({ close: () => worker.terminate() });
    const [port] = await once(worker, 'message');
    const gateway = cleanup.add(
      createDialer({
        upstreams: [
          {
            name: 'main',
            provider: 'openai',
            url: `ws://127.0.0.1:${port}/v1`,
            limits: { pingIntervalMs: 10, pongTimeoutMs: 100 },
          },
        ],
        pool: { size: 0 },
      }),
    );
    const recorder = new Recorder();
    gateway.dial(dialRequest(), recorder);
    await recorder.up();
    for (let stalls = 0; stalls < 8; stalls += 1) {
      // Most of the time a ping is out; its answer and its time-out both fall into the stall.
      // In an IO callback: what follows then are the timers, and only after them the sockets.
      await stat('.');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 150);
      await new Promise((resolve) => setTimeout(resolve, 15 + stalls));
    }
    expect(recorder.downs).toEqual([]);
  });

  it('takes events for life signs', async () => {
    const { socket, recorder } = await connected(
      { ws: { autoPong: false } },
      { limits: { pingIntervalMs: 20, pongTimeoutMs: 100 } },
    );
    const timer = setInterval(() => socket.send(delta), 10);
    await recorder.frame(40);
    clearInterval(timer);
    expect(recorder.downs).toEqual([]);
    expect((await recorder.down()).error.metadata['cause']).toBe('heartbeat');
  });

  it('says nothing after close, and closes with the given code', async () => {
    const { socket, link, recorder } = await connected();
    const closed = once(socket, 'close');
    socket.send(delta);
    link.close(1000, 'done');
    const [code, reason] = await closed;
    expect([code, String(reason)]).toEqual([1000, 'done']);
    expect(recorder.downs).toEqual([]);
    expect(recorder.frames).toEqual([]);
  });

  it('closes while paused', async () => {
    const { socket, link } = await connected();
    const closed = once(socket, 'close');
    link.pause();
    link.close(1001, '');
    expect((await closed)[0]).toBe(1001);
  });

  it('survives a flood of pings, or drops the flooder', async () => {
    const { socket, recorder } = await connected();
    for (let at = 0; at < 5_000; at += 1) socket.ping('x'.repeat(125));
    socket.send(delta);
    await recorder.until(() => recorder.frames.length + recorder.downs.length > 0);
    expect(recorder.frames.length + recorder.downs.length).toBe(1);
  });

  it('reports frames in the order of the wire, however they are cut into packets', async () => {
    const server = cleanup.add(await startServer());
    const proxy = cleanup.add(
      await startChaosProxy({
        target: { host: '127.0.0.1', port: server.port },
        down: { slice: { bytes: 3 } },
      }),
    );
    const url = `ws://127.0.0.1:${proxy.port}/v1`;
    const gateway = cleanup.add(
      createDialer({ upstreams: [{ name: 'main', provider: 'openai', url }], pool: { size: 0 } }),
    );
    const recorder = new Recorder();
    gateway.dial(dialRequest(), recorder);
    await recorder.up();
    const socket = await server.socket();
    const texts = Array.from(
      { length: 50 },
      (_, at) => `{"type":"response.output_text.delta","delta":"é${at}"}`,
    );
    for (const text of texts) socket.send(text);
    await recorder.frame(texts.length);
    expect(recorder.frames.map(({ bytes }) => Buffer.from(bytes).toString('utf8'))).toEqual(texts);
  });
});
