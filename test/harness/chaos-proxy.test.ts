import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { type ChaosProxyOptions, startChaosProxy } from './chaos-proxy.ts';

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** A client and the server's side of its connection, with the proxy between. */
async function pair(options: Omit<ChaosProxyOptions, 'target'> = {}) {
  const server = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => server.close());
  const target = { host: '127.0.0.1', port: (server.address() as AddressInfo).port };
  const proxy = await startChaosProxy({ ...options, target });
  closers.push(() => proxy.close());
  const join = async () => {
    const accepted = once(server, 'connection');
    const client = connect({ port: proxy.port, host: '127.0.0.1', allowHalfOpen: true });
    const [remote] = (await accepted) as [Socket];
    for (const socket of [client, remote]) {
      socket.on('error', () => {});
      closers.push(() => socket.destroy());
    }
    return { client, remote };
  };
  return { proxy, join, ...(await join()) };
}

async function read(socket: Socket, length: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let got = 0;
  while (got < length) {
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    chunks.push(chunk);
    got += chunk.length;
  }
  return Buffer.concat(chunks);
}

const pattern = (length: number) => Buffer.from(Array.from({ length }, (_, at) => at % 251));

describe('the chaos proxy', () => {
  it('passes everything on unharmed, both ways, with the end', async () => {
    const { client, remote, proxy } = await pair();
    const bytes = pattern(1_000_000);
    client.end(bytes);
    expect((await read(remote, bytes.length)).equals(bytes)).toBe(true);
    await once(remote, 'end');
    remote.end('answer');
    expect(String(await read(client, 6))).toBe('answer');
    expect(proxy.connections[0]).toMatchObject({ bytesUp: 1_000_000, bytesDown: 6 });
    await once(client, 'close');
    while (proxy.connections.length > 0) await new Promise((resolve) => setImmediate(resolve));
  });

  it('delays without slowing down, keeps the order, leaves the other direction alone', async () => {
    const { client, remote } = await pair({ up: { latencyMs: 200, jitterMs: 50 } });
    const startedAt = performance.now();
    const bytes = pattern(500_000);
    const arrived = read(remote, bytes.length);
    for (let at = 0; at < bytes.length; at += 50_000) client.write(bytes.subarray(at, at + 50_000));
    remote.write('x');
    await read(client, 1);
    expect(remote.bytesRead).toBe(0);
    expect((await arrived).equals(bytes)).toBe(true);
    const tookMs = performance.now() - startedAt;
    expect(tookMs).toBeGreaterThanOrEqual(150);
    // Ten writes one after the other would have taken two seconds.
    expect(tookMs).toBeLessThan(1_500);
  });

  it('throttles to the rate and pushes back on the sender', async () => {
    const { client, remote, proxy } = await pair({ down: { bytesPerSecond: 1_000_000 } });
    const startedAt = performance.now();
    const bytes = pattern(300_000);
    remote.write(bytes);
    expect((await read(client, bytes.length)).equals(bytes)).toBe(true);
    const tookMs = performance.now() - startedAt;
    expect(tookMs).toBeGreaterThan(250);
    expect(tookMs).toBeLessThan(5_000);
    remote.write(Buffer.alloc(50_000_000));
    await read(client, 10_000);
    expect(remote.writableLength).toBeGreaterThan(10_000_000);
    proxy.set({});
    await read(client, 49_000_000);
  });

  it('starts slowly where told, is warm after that, and starts slowly again after a pause', async () => {
    const roundTripMs = 80;
    const latencyMs = roundTripMs / 2;
    const tcp = { latencyMs, slowStart: { roundTripMs } };
    const [cold, other, endless] = await Promise.all([
      pair({ up: tcp, down: tcp }),
      pair({ up: tcp, down: tcp }),
      pair({ up: { latencyMs }, down: { latencyMs } }),
    ]);
    const done: string[] = [];
    const exchange = async (name: string, { client, remote }: typeof cold) => {
      const startedAt = performance.now();
      const bytes = pattern(100_000);
      client.write(bytes);
      expect((await read(remote, bytes.length)).equals(bytes)).toBe(true);
      remote.write('x');
      await read(client, 1);
      done.push(name);
      return performance.now() - startedAt;
    };
    // 14,600 bytes, twice that, and the rest.
    const [coldMs] = await Promise.all([exchange('cold', cold), exchange('no slow start', endless)]);
    expect(coldMs).toBeGreaterThanOrEqual(3 * roundTripMs);
    await Promise.all([exchange('cold too', other), exchange('warm', cold)]);
    expect(done).toEqual(['no slow start', 'cold', 'warm', 'cold too']);
    // Two retransmission timeouts: a quarter of the 200,000 that the window has grown to.
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(await exchange('after a pause', cold)).toBeGreaterThanOrEqual(2 * roundTripMs);
  });

  it('never limits without a round trip', async () => {
    const slow = { slowStart: { roundTripMs: 0, initialWindowBytes: 1 } };
    const { client, remote } = await pair({ up: slow, down: slow });
    const bytes = pattern(1_000_000);
    client.end(bytes);
    expect((await read(remote, bytes.length)).equals(bytes)).toBe(true);
    await once(remote, 'end');
  });

  it('slices writes', async () => {
    const { client, remote } = await pair({ up: { slice: { bytes: 10, delayMs: 1 } } });
    const sizes: number[] = [];
    remote.on('data', (chunk: Buffer) => sizes.push(chunk.length));
    client.end(pattern(100));
    await once(remote, 'end');
    expect(Math.max(...sizes)).toBeLessThan(100);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(100);
    expect(sizes.length).toBeGreaterThan(2);
  });

  it('cuts with a reset, by hand and after a number of bytes', async () => {
    const first = await pair();
    const reset = Promise.all(
      [first.client, first.remote].map(async (socket) => (await once(socket, 'error'))[0].code),
    );
    first.proxy.cutAll();
    expect(await reset).toEqual(['ECONNRESET', 'ECONNRESET']);
    expect(first.proxy.connections).toEqual([]);

    const limited = await pair({ up: { limitBytes: 1_000 } });
    limited.remote.resume();
    const cut = once(limited.client, 'error');
    limited.client.write(pattern(5_000));
    expect((await cut)[0].code).toBe('ECONNRESET');
    expect(limited.remote.bytesRead).toBeLessThanOrEqual(1_000);
  });

  it('stalls and goes on where it was', async () => {
    const { client, remote, proxy } = await pair();
    proxy.stallAll();
    client.write('held');
    remote.write('held too');
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect([remote.bytesRead, client.bytesRead]).toEqual([0, 0]);
    const arrived = [read(remote, 4), read(client, 8)];
    proxy.set({});
    expect((await Promise.all(arrived)).map(String)).toEqual(['held', 'held too']);
  });

  it('swallows: the peer hears nothing, not even the end', async () => {
    const { client, remote, proxy } = await pair();
    proxy.set({ up: { swallow: true }, down: { swallow: true } });
    let heard = 0;
    for (const name of ['data', 'end', 'close', 'error']) client.on(name, () => (heard += 1));
    client.write('lost');
    remote.write('lost');
    remote.destroy();
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(heard).toBe(0);
    expect(remote.bytesRead).toBe(0);
    expect(proxy.connections.length).toBe(1);
    client.destroy();
  });

  it('delivers nothing more after bytes that it swallowed: no TCP stream has holes', async () => {
    const { client, remote, proxy } = await pair();
    proxy.set({ up: { swallow: true } });
    const heard: string[] = [];
    remote.on('data', (chunk: Buffer) => heard.push(String(chunk)));
    client.write('lost');
    await new Promise((resolve) => setTimeout(resolve, 30));
    proxy.set({});
    client.write('late');
    remote.write('down');
    expect(String(await read(client, 4))).toBe('down');
    client.end();
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(heard).toEqual([]);
  });

  it('can treat one connection differently', async () => {
    const { proxy, join, remote } = await pair();
    const other = await join();
    proxy.connections[0]?.cut();
    await once(remote, 'error');
    other.client.write('fine');
    expect(String(await read(other.remote, 4))).toBe('fine');
    expect(proxy.connections.length).toBe(1);
  });

  it('resets the client when the target does not listen', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    const proxy = await startChaosProxy({ target: { host: '127.0.0.1', port } });
    closers.push(() => proxy.close());
    const client = connect(proxy.port, '127.0.0.1');
    expect((await once(client, 'error'))[0].code).toBe('ECONNRESET');
  });
});
