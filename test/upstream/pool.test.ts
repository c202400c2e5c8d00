import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { createCredential } from '../../src/upstream/credential.ts';
import { createDialer, type DialerOptions } from '../../src/upstream/dialer.ts';
import type { DialRequest } from '../../src/upstream/types.ts';
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

async function pooled(pool: NonNullable<DialerOptions['pool']> = {}, serverOptions: TestServerOptions = {}) {
  const server = cleanup.add(await startServer(serverOptions));
  const observed = new Observed();
  const dialer = cleanup.add(
    createDialer({
      upstreams: [{ name: 'main', provider: 'openai', url: server.url }],
      pool,
      observe: observed.observe,
    }),
  );
  const dial = async (changes: Partial<DialRequest> = {}) => {
    const recorder = new Recorder();
    const link = dialer.dial(dialRequest(changes), recorder);
    const up = await recorder.up();
    return { recorder, link, ...up };
  };
  const idle = (count: number) => observed.until(() => observed.of('poolSize').at(-1)?.idle === count);
  return { server, observed, dialer, dial, idle };
}

describe('the pool', () => {
  it('has links ready once a key was used, and hands them out', async () => {
    const { dial, idle, server, observed } = await pooled();
    const first = await dial();
    expect(first.route.pooled).toBe(false);
    await idle(2);
    expect(server.requests.length).toBe(3);
    const second = await dial();
    expect(second.route).toMatchObject({ upstream: 'main', pooled: true });
    await idle(2);
    const arrived = Promise.race(
      server.sockets.map(async (socket) => String((await once(socket, 'message'))[0])),
    );
    second.link.send(outgoing('{"type":"response.create"}'), undefined);
    expect(await arrived).toBe('{"type":"response.create"}');
    expect(observed.of('poolHit').length).toBe(1);
    expect(observed.of('poolMiss').length).toBe(1);
    expect(observed.of('dial').map(({ purpose }) => purpose)).toEqual(['session', 'pool', 'pool', 'pool']);
  });

  it('delivers what comes on a link to its new owner, the end too', async () => {
    const { dial, idle, server } = await pooled({ size: 1 });
    await dial();
    await idle(1);
    const { recorder } = await dial();
    const socket = server.sockets[1];
    socket?.send('{"type":"response.created"}');
    expect((await recorder.frame()).type).toBe('response.created');
    socket?.close(1012, '');
    expect((await recorder.down()).closeCode).toBe(1012);
  });

  it('counts the age of a link from its own upgrade', async () => {
    const { dial, idle } = await pooled({ size: 1 });
    const first = await dial();
    await idle(1);
    const readyAt = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 30));
    const waitedMs = performance.now() - readyAt;
    const { capabilities } = await dial();
    expect(capabilities.maxAgeMs).toBeLessThanOrEqual(first.capabilities.maxAgeMs - waitedMs);
    expect(capabilities.rotateAfterMs).toBeLessThanOrEqual(
      (first.capabilities.rotateAfterMs ?? 0) - waitedMs,
    );
    expect(capabilities.maxAgeMs).toBeGreaterThan(first.capabilities.maxAgeMs - 10_000);
  });

  it('never gives a link to another tenant or key', async () => {
    const { dial, idle } = await pooled({ size: 1 });
    const own = { tenantId: 'a', credential: createCredential('one') };
    await dial(own);
    await idle(1);
    expect((await dial({ ...own, tenantId: 'b' })).route.pooled).toBe(false);
    expect((await dial({ ...own, credential: createCredential('two') })).route.pooled).toBe(false);
    expect((await dial({ ...own, credential: createCredential('one') })).route.pooled).toBe(true);
  });

  it('drops a link that speaks or ends while it waits', async () => {
    const { dial, idle, server } = await pooled({ size: 1 });
    await dial();
    await idle(1);
    const closed = once(await server.socket(1), 'close');
    server.sockets[1]?.send(
      '{"type":"error","status":400,"error":{"code":"websocket_connection_limit_reached"}}',
    );
    await closed;
    await idle(0);
    expect((await dial()).route.pooled).toBe(false);
    await idle(1);
    server.sockets.at(-1)?.terminate();
    await idle(0);
    expect((await dial()).route.pooled).toBe(false);
  });

  it('replaces links that waited long while the key is in use, then lets go', async () => {
    const { dial, idle, server, observed } = await pooled({ size: 1, maxIdleMs: 80 });
    const session = await dial();
    await idle(1);
    const first = once(await server.socket(1), 'close');
    await first;
    await idle(0);
    // The key was not asked for again: nothing is dialled for it any more.
    await new Promise((resolve) => setTimeout(resolve, 120));
    expect(observed.of('poolSize').at(-1)?.idle).toBe(0);
    expect(server.requests.length).toBeLessThanOrEqual(3);
    expect(session.recorder.downs).toEqual([]);
  });

  it('dials anew when a dial has failed before', async () => {
    const { dial, idle } = await pooled({ size: 1 });
    await dial();
    await idle(1);
    expect((await dial({ purpose: 'recovery', attempt: 1 })).route.pooled).toBe(false);
  });

  it('keeps to its total, and can be off', async () => {
    const { dial, idle, server } = await pooled({ size: 2, maxIdleLinks: 3 });
    await dial({ tenantId: 'a' });
    await idle(2);
    await dial({ tenantId: 'b' });
    await idle(3);
    expect(server.requests.length).toBe(5);
    const off = await pooled({ size: 0 });
    await off.dial();
    await off.dial();
    expect(off.server.requests.length).toBe(2);
    expect(off.observed.of('poolMiss')).toEqual([]);
  });

  it('does not hammer an upstream that takes no more links', async () => {
    let accept = 1;
    const { dial, observed, server } = await pooled(
      { size: 2 },
      { ws: { verifyClient: (_info, done) => (accept-- > 0 ? done(true) : done(false, 503)) } },
    );
    await dial();
    await observed.until(
      () => observed.of('dial').filter(({ failure }) => failure !== undefined).length === 2,
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(server.requests.length).toBe(3);
  });

  it('closes what waits when the dialer closes', async () => {
    const { dial, idle, server, dialer } = await pooled();
    await dial();
    await idle(2);
    const closed = Promise.all(server.sockets.map((socket) => once(socket, 'close')));
    await dialer.close();
    await closed;
  });
});
