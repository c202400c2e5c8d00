import { EventEmitter, once } from 'node:events';
import { createServer as createTcpServer, type Socket } from 'node:net';
import { inspect } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { GatewayError } from '../../src/errors.ts';
import { createCredential } from '../../src/upstream/credential.ts';
import { createDialer, type DialerOptions } from '../../src/upstream/dialer.ts';
import type { DialRequest } from '../../src/upstream/types.ts';
import type { UpstreamOptions } from '../../src/upstream/upstream.ts';
import { Cleanup, dialRequest, Observed, Recorder, startServer } from './harness.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

function gatewayTo(upstreams: readonly UpstreamOptions[], options: Partial<DialerOptions> = {}) {
  const observed = new Observed();
  const dialer = cleanup.add(
    createDialer({ upstreams, pool: { size: 0 }, observe: observed.observe, ...options }),
  );
  const dial = (changes: Partial<DialRequest> = {}) => {
    const recorder = new Recorder();
    return { recorder, link: dialer.dial(dialRequest(changes), recorder) };
  };
  return { dialer, observed, dial };
}

const openai = (url: string, changes: Partial<UpstreamOptions> = {}): UpstreamOptions => ({
  name: 'main',
  provider: 'openai',
  url,
  ...changes,
});

/** A server that answers every upgrade with this. */
async function refusing(status: number, headers: Record<string, string> = {}, body = '') {
  return cleanup.add(
    await startServer({
      upgrade: false,
      onRequest: (_request, response) => response.writeHead(status, headers).end(body),
    }),
  );
}

/** A port where nothing listens. */
async function closedPort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

const COMPACT = { method: 'POST', path: ['responses', 'compact'], body: '{}' } as const;

describe('a refused dial', () => {
  it('tells the status as a reason', async () => {
    const cases = [
      [401, 'UPSTREAM_AUTH', true],
      [403, 'UPSTREAM_AUTH', true],
      [404, 'UPSTREAM_UNAVAILABLE', true],
      [407, 'UPSTREAM_UNAVAILABLE', true],
      [408, 'UPSTREAM_UNAVAILABLE', false],
      [426, 'UPSTREAM_UNAVAILABLE', true],
      [429, 'UPSTREAM_RATE_LIMITED', false],
      [500, 'UPSTREAM_UNAVAILABLE', false],
      [503, 'UPSTREAM_UNAVAILABLE', false],
      [529, 'UPSTREAM_OVERLOADED', false],
      [200, 'UPSTREAM_PROTOCOL', true],
      [302, 'UPSTREAM_PROTOCOL', true],
    ] as const;
    for (const [status, reason, permanent] of cases) {
      const server = await refusing(status);
      const { dial } = gatewayTo([openai(server.url, { transport: 'websocket' })]);
      const { recorder } = dial();
      expect(recorder.downs, 'nothing before dial has returned').toEqual([]);
      const down = await recorder.down();
      expect([down.httpStatus, down.error.reason, down.permanent, down.during]).toEqual([
        status,
        reason,
        permanent,
        'dial',
      ]);
    }
  });

  it('takes what the upstream says about waiting and quota', async () => {
    const quota = await refusing(
      429,
      {},
      '{"error":{"code":"insufficient_quota","type":"t","message":"no money"}}',
    );
    const { recorder } = gatewayTo([openai(quota.url)]).dial();
    const down = await recorder.down();
    expect(down.error.reason).toBe('UPSTREAM_QUOTA_EXCEEDED');
    expect(down.permanent).toBe(true);
    expect(down.error.upstream).toEqual({
      status: 429,
      type: 't',
      code: 'insufficient_quota',
      message: 'no money',
    });

    const busy = await refusing(429, { 'retry-after': '7' });
    expect(
      (
        await gatewayTo([openai(busy.url)])
          .dial()
          .recorder.down()
      ).retryAfterMs,
    ).toBe(7_000);
    const dated = await refusing(503, { 'retry-after': new Date(Date.now() + 60_000).toUTCString() });
    const retryAfterMs =
      (
        await gatewayTo([openai(dated.url)])
          .dial()
          .recorder.down()
      ).retryAfterMs ?? 0;
    expect(retryAfterMs).toBeGreaterThan(55_000);
    expect(retryAfterMs).toBeLessThanOrEqual(60_000);
  });

  it('never repeats the key, even when the upstream does', async () => {
    const key = 'sk-canary-5f1c';
    const body = JSON.stringify({ error: { message: `Incorrect API key provided: ${key}`, code: key } });
    for (const status of [401, 403]) {
      const server = await refusing(status, { 'x-key': key }, body);
      const { recorder } = gatewayTo([openai(server.url, { credential: createCredential(key) })]).dial();
      const down = await recorder.down();
      expect(server.requests[0]?.headers.authorization).toBe(`Bearer ${key}`);
      expect(inspect(down, { depth: 20, showHidden: true })).not.toContain(key);
    }
    const credential = createCredential(key);
    expect(
      `${credential} ${JSON.stringify({ credential })} ${inspect(credential, { showHidden: true })}`,
    ).not.toContain(key);
    expect(createCredential(key).fingerprint).toBe(credential.fingerprint);
    expect(createCredential('sk-other').fingerprint).not.toBe(credential.fingerprint);
  });

  it('follows no redirect: the key goes to the configured URL only', async () => {
    const trap = cleanup.add(await startServer());
    for (const status of [301, 302, 307, 308]) {
      const server = await refusing(status, { location: `ws://127.0.0.1:${trap.port}/v1/responses` });
      const { recorder } = gatewayTo([
        openai(server.url, { credential: createCredential('sk-canary') }),
      ]).dial();
      expect((await recorder.down()).error.reason).toBe('UPSTREAM_PROTOCOL');
    }
    expect(trap.requests).toEqual([]);
  });

  it('is told when nothing listens, when nothing answers, and when the answer drips', async () => {
    const nobody = gatewayTo([openai(`ws://127.0.0.1:${await closedPort()}`)]).dial();
    const refused = await nobody.recorder.down();
    expect([refused.error.reason, refused.error.metadata['cause'], refused.permanent]).toEqual([
      'UPSTREAM_UNAVAILABLE',
      'ECONNREFUSED',
      false,
    ]);
    const mute = createTcpServer((socket) => {
      socket.on('error', () => {});
      // A byte now and then keeps a mere idle time-out from firing.
      const timer = setInterval(() => socket.write('H'), 10);
      socket.once('close', () => clearInterval(timer));
    }).listen(0, '127.0.0.1');
    cleanup.add(mute);
    await once(mute, 'listening');
    const { port } = mute.address() as { port: number };
    for (const transport of ['websocket', 'auto'] as const) {
      const limits = { handshakeTimeoutMs: 50 };
      const { recorder } = gatewayTo([openai(`ws://127.0.0.1:${port}`, { transport, limits })]).dial();
      const down = await recorder.down();
      expect(down.error.reason).toBe('UPSTREAM_UNAVAILABLE');
    }
  });

  it('reads a bounded part of an endless refusal', async () => {
    const server = cleanup.add(
      await startServer({
        upgrade: false,
        onRequest: (_request, response) => {
          response.writeHead(503);
          response.on('error', () => {});
          const more = () => {
            while (!response.destroyed && response.write('x'.repeat(10_000)));
          };
          response.on('drain', more);
          more();
        },
      }),
    );
    const down = await gatewayTo([openai(server.url)])
      .dial()
      .recorder.down();
    expect([down.httpStatus, down.error.upstream]).toEqual([503, { status: 503 }]);
    const headers: Record<string, string> = { 'x-pad': 'x'.repeat(100_000) };
    const padded = await refusing(503, headers);
    expect(
      (
        await gatewayTo([openai(padded.url)])
          .dial()
          .recorder.down()
      ).error.reason,
    ).toBe('UPSTREAM_UNAVAILABLE');
  });

  it('can be given up', async () => {
    const server = cleanup.add(await startServer());
    const { dial } = gatewayTo([openai(server.url)]);
    const { link, recorder } = dial();
    link.close(1000, '');
    const second = dial();
    await second.recorder.up();
    expect(recorder.ups).toEqual([]);
    expect(recorder.downs).toEqual([]);
  });
});

describe('headers and URLs', () => {
  it('sends the key as the provider wants it, to the provider’s path', async () => {
    const server = cleanup.add(await startServer());
    const credential = createCredential('key-1');
    const base = `ws://127.0.0.1:${server.port}`;
    const cases: [Partial<UpstreamOptions>, string, Record<string, string>][] = [
      [{ provider: 'openai', url: base }, '/v1/responses', { authorization: 'Bearer key-1' }],
      [{ provider: 'xai', url: `${base}/v1/` }, '/v1/responses', { authorization: 'Bearer key-1' }],
      [
        { provider: 'compatible', url: `${base}/api/responses` },
        '/api/responses',
        { authorization: 'Bearer key-1' },
      ],
      [{ provider: 'azure', url: base }, '/openai/v1/responses', { 'api-key': 'key-1' }],
      [
        { provider: 'azure', url: base, apiVersion: 'preview' },
        '/openai/v1/responses?api-version=preview',
        { 'api-key': 'key-1' },
      ],
      [
        { provider: 'openai', url: base, headers: { 'OpenAI-Project': 'p' } },
        '/v1/responses',
        { 'openai-project': 'p', authorization: 'Bearer key-1' },
      ],
    ];
    for (const [changes, path, headers] of cases) {
      const { recorder, link } = gatewayTo([{ ...openai(base), credential, ...changes }]).dial();
      await recorder.up();
      const handshake = server.requests.at(-1);
      expect(handshake?.url).toBe(path);
      expect(handshake?.headers).toMatchObject(headers);
      if (changes.provider === 'azure') expect(handshake?.headers.authorization).toBeUndefined();
      link.close(1000, '');
    }
  });

  it('refuses at start what could not be sent safely', () => {
    const bad: [Partial<UpstreamOptions>, RegExp][] = [
      [{ headers: { 'x-a': 'one\r\nx-evil: 1' } }, /x-a/],
      [{ headers: { 'x-a': 'one\nx-evil: 1' } }, /x-a/],
      [{ headers: { 'x a': 'one' } }, /header name/],
      [{ headers: { 'x-a\r\nx-evil': 'one' } }, /header name/],
      [{ headers: { Authorization: 'Bearer x' } }, /Authorization/],
      [{ headers: { HOST: 'elsewhere' } }, /HOST/],
      [{ headers: { 'Sec-WebSocket-Key': 'x' } }, /Sec-WebSocket-Key/],
      [{ url: 'ftp://127.0.0.1/v1' }, /absolute URL/],
      [{ url: 'ws://user:pass@127.0.0.1/v1' }, /without user/],
      [{ url: 'ws://upstream.example/v1' }, /clear/],
      [{ fallback: ['nobody'] }, /unknown fallback/],
      [
        { proxies: { httpProxy: 'socks5://p' }, url: 'http://upstream.example', allowPlaintext: true },
        /proxy/,
      ],
    ];
    for (const [changes, message] of bad) {
      expect(() => createDialer({ upstreams: [openai('ws://127.0.0.1:1/v1', changes)] })).toThrow(message);
    }
    expect(() => createDialer({ upstreams: [] })).toThrow(RangeError);
    expect(() => createCredential('key\r\nx-evil: 1')).toThrow(GatewayError);
  });

  it('refuses a key that would start another header, and leaves out such a trace context', async () => {
    const server = cleanup.add(await startServer());
    const evil = { fingerprint: 'f', fingerprintIn: () => 'f', reveal: () => 'key\r\nx-evil: 1' };
    for (const transport of ['websocket', 'sse'] as const) {
      const down = await gatewayTo([openai(server.url, { transport })])
        .dial({ credential: evil })
        .recorder.down();
      expect([down.error.reason, down.permanent]).toEqual(['UPSTREAM_AUTH', true]);
    }
    expect(server.requests).toEqual([]);
    const traceContext = { traceparent: '00-ab-cd-01', tracestate: 'a=b\r\nx-evil: 1' };
    await gatewayTo([openai(server.url)])
      .dial({ traceContext })
      .recorder.up();
    expect(server.requests[0]?.headers).toMatchObject({ traceparent: '00-ab-cd-01' });
    expect(server.requests[0]?.headers['tracestate']).toBeUndefined();
  });
});

describe('routing', () => {
  it('chooses by name, by model, and says what fits nothing', async () => {
    const [one, two] = [cleanup.add(await startServer()), cleanup.add(await startServer())];
    const { dial, dialer } = gatewayTo([
      openai(one.url, { name: 'one', models: ['gpt-*'] }),
      openai(two.url, { name: 'two', models: ['grok-*', '*-mini'] }),
    ]);
    const name = async (changes: Partial<DialRequest>) => (await dial(changes).recorder.up()).route.upstream;
    expect(await name({ model: 'gpt-5.5' })).toBe('one');
    expect(await name({ model: 'grok-4' })).toBe('two');
    expect(await name({ model: 'o9-mini' })).toBe('two');
    expect(await name({})).toBe('one');
    expect(await name({ upstream: 'two', model: 'gpt-5.5' })).toBe('two');
    expect(dialer.route('grok-4')).toBe('two');
    expect(dialer.route('claude')).toBeUndefined();
    expect((await dial({ model: 'claude' }).recorder.down()).error.reason).toBe('MODEL_NOT_ALLOWED');
    const unknown = await dial({ upstream: 'three' }).recorder.down();
    expect([unknown.error.reason, unknown.permanent]).toEqual(['INVALID_FIELD', true]);
  });

  it('takes a new session to the next upstream that serves the model', async () => {
    const dead = `ws://127.0.0.1:${await closedPort()}`;
    const full = await refusing(503);
    const good = cleanup.add(await startServer());
    const { dial, observed } = gatewayTo([
      openai(dead, { name: 'dead' }),
      openai(full.url, { name: 'full' }),
      openai(good.url, { name: 'other', models: ['grok-*'] }),
      openai(good.url, { name: 'good' }),
    ]);
    expect((await dial({ model: 'gpt-5.5' }).recorder.up()).route.upstream).toBe('good');
    expect(observed.of('failover').map(({ from, to }) => `${from} → ${to}`)).toEqual([
      'dead → full',
      'full → good',
    ]);
    expect(observed.of('dial').map(({ upstream, failure }) => [upstream, failure?.reason])).toEqual([
      ['dead', 'UPSTREAM_UNAVAILABLE'],
      ['full', 'UPSTREAM_UNAVAILABLE'],
      ['good', undefined],
    ]);
  });

  it('leaves a named upstream only for its own fallbacks', async () => {
    const dead = `ws://127.0.0.1:${await closedPort()}`;
    const good = cleanup.add(await startServer());
    const upstreams = (fallback?: string[]) => [
      openai(dead, { name: 'dead', ...(fallback && { fallback }) }),
      openai(good.url, { name: 'good' }),
    ];
    expect((await gatewayTo(upstreams()).dial({ upstream: 'dead' }).recorder.down()).during).toBe('dial');
    const { recorder } = gatewayTo(upstreams(['good'])).dial({ upstream: 'dead' });
    expect((await recorder.up()).route.upstream).toBe('good');
  });

  it('moves a live session only to recover, and only after failed redials', async () => {
    const dead = `ws://127.0.0.1:${await closedPort()}`;
    const good = cleanup.add(await startServer());
    const { dial } = gatewayTo([openai(dead, { name: 'dead' }), openai(good.url, { name: 'good' })]);
    for (const purpose of ['lanes', 'rotation'] as const) {
      await dial({ purpose, attempt: 9, current: 'dead' }).recorder.down();
    }
    await dial({ purpose: 'recovery', attempt: 0, current: 'dead' }).recorder.down();
    await dial({ purpose: 'recovery', attempt: 1, current: 'dead' }).recorder.down();
    const { recorder } = dial({ purpose: 'recovery', attempt: 2, current: 'dead' });
    expect((await recorder.up()).route.upstream).toBe('good');
    const stays = dial({ purpose: 'lanes', current: 'good' });
    expect((await stays.recorder.up()).route.upstream).toBe('good');
    expect(good.requests.length).toBe(2);
  });

  it('takes a caller’s own key nowhere else', async () => {
    const dead = `ws://127.0.0.1:${await closedPort()}`;
    const good = cleanup.add(await startServer());
    const { dial } = gatewayTo([openai(dead, { name: 'dead' }), openai(good.url, { name: 'good' })]);
    await dial({ credential: createCredential('sk-callers-own') }).recorder.down();
    expect(good.requests).toEqual([]);
  });

  it('asks for the upstream’s key at every dial', async () => {
    const server = cleanup.add(await startServer());
    let count = 0;
    const credential = async () => createCredential(`key-${count++}`);
    const { dial } = gatewayTo([openai(server.url, { credential })]);
    await dial().recorder.up();
    await dial().recorder.up();
    expect(server.requests.map(({ headers }) => headers.authorization)).toEqual([
      'Bearer key-0',
      'Bearer key-1',
    ]);
    const broken = gatewayTo([openai(server.url, { credential: () => Promise.reject(new Error('disk')) })]);
    const down = await broken.dial().recorder.down();
    expect([down.error.reason, down.permanent]).toEqual(['UPSTREAM_AUTH', false]);
  });
});

describe('the circuit breaker', () => {
  it('fails fast after failures in a row, probes, and closes again', async () => {
    let nowMs = 0;
    const port = await closedPort();
    const { dial, observed } = gatewayTo([openai(`ws://127.0.0.1:${port}`)], {
      breaker: { failures: 2, openMinMs: 1_000, openMaxMs: 8_000 },
      now: () => nowMs,
      random: () => 0,
    });
    const reason = async () => (await dial({ purpose: 'recovery' }).recorder.down()).error.reason;
    expect(await reason()).toBe('UPSTREAM_UNAVAILABLE');
    expect(await reason()).toBe('UPSTREAM_UNAVAILABLE');
    const open = await dial().recorder.down();
    expect([open.error.reason, open.retryAfterMs, open.permanent]).toEqual([
      'UPSTREAM_CIRCUIT_OPEN',
      1_000,
      false,
    ]);
    nowMs = 999;
    expect(await reason()).toBe('UPSTREAM_CIRCUIT_OPEN');
    nowMs = 1_000;
    const [probe, beside] = [dial(), dial()];
    expect((await beside.recorder.down()).error.reason).toBe('UPSTREAM_CIRCUIT_OPEN');
    expect((await probe.recorder.down()).error.reason).toBe('UPSTREAM_UNAVAILABLE');
    nowMs = 2_999;
    expect(await reason()).toBe('UPSTREAM_CIRCUIT_OPEN');
    nowMs = 3_000;
    expect(await reason()).toBe('UPSTREAM_UNAVAILABLE');
    expect(observed.of('breaker').map(({ state }) => state)).toEqual([
      'open',
      'halfOpen',
      'open',
      'halfOpen',
      'open',
    ]);
  });

  it('a key that is refused stays our fault, and is not the upstream’s circuit', async () => {
    const server = cleanup.add(
      await startServer({ ws: { verifyClient: (_info, done) => done(false, 401) } }),
    );
    const { dial, dialer, observed } = gatewayTo([openai(server.url)], { breaker: { failures: 2 } });
    for (let n = 0; n < 4; n++) {
      const down = await dial().recorder.down();
      expect([down.error.reason, down.error.fault, down.permanent]).toEqual([
        'UPSTREAM_AUTH',
        'gateway',
        true,
      ]);
    }
    const request = { purpose: 'session', attempt: 0, upstream: undefined, model: 'm' } as const;
    const compacted = dialer.call(
      { ...request, tenantId: 'a', credential: undefined, traceContext: undefined },
      COMPACT,
      new AbortController().signal,
    );
    await expect(compacted).rejects.toMatchObject({ reason: 'UPSTREAM_AUTH' });
    expect(observed.of('breaker')).toEqual([]);
    expect(observed.of('dial')).toHaveLength(2);
  });

  it('takes the calls of one tenant that make an upstream fail for one failure', async () => {
    const server = cleanup.add(
      await startServer({ onRequest: (_request, response) => void response.writeHead(500).end('{}') }),
    );
    const { dialer, observed } = gatewayTo([openai(server.url)], { breaker: { failures: 3 } });
    const call = (tenantId: string) =>
      expect(
        dialer.call(dialRequest({ tenantId }), COMPACT, new AbortController().signal),
      ).rejects.toMatchObject({ metadata: { http_status: '500' } });
    for (let n = 0; n < 6; n++) await call('a');
    expect(observed.of('breaker')).toEqual([]);
    await call('b');
    await call('c');
    expect(observed.of('breaker')).toMatchObject([{ state: 'open' }]);
  });

  it('keeps credentials apart and forgets failures after a success', async () => {
    let refuse = true;
    const server = cleanup.add(
      await startServer({ ws: { verifyClient: (_info, done) => (refuse ? done(false, 503) : done(true)) } }),
    );
    const { dial, observed } = gatewayTo([openai(server.url)], { breaker: { failures: 2 } });
    const bad = createCredential('bad');
    await dial({ credential: bad }).recorder.down();
    refuse = false;
    await dial({ credential: bad }).recorder.up();
    refuse = true;
    await dial({ credential: bad }).recorder.down();
    expect(observed.of('breaker')).toEqual([]);
    await dial({ credential: bad }).recorder.down();
    expect((await dial({ credential: bad }).recorder.down()).error.reason).toBe('UPSTREAM_CIRCUIT_OPEN');
    const other = await dial({ credential: createCredential('other') }).recorder.down();
    expect(other.error.reason).toBe('UPSTREAM_UNAVAILABLE');
  });
});

describe('the dialer', () => {
  it('dials an upstream so many times at once, and takes the next as soon as one is decided', async () => {
    const sockets: Socket[] = [];
    const accepted = new EventEmitter();
    const server = createTcpServer((socket) => {
      socket.on('error', () => {});
      sockets.push(socket);
      accepted.emit('one');
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const { dial, dialer } = gatewayTo([openai(`ws://127.0.0.1:${port}/v1`)], { maxDialing: 2 });
    const until = async (count: number) => {
      while (sockets.length < count) await once(accepted, 'one');
      // What would come too early comes now.
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(sockets).toHaveLength(count);
    };
    const dials = Array.from({ length: 6 }, () => dial());
    await until(2);
    dials[2]?.link.close(1000, '');
    dials[0]?.link.close(1000, '');
    await until(3);
    sockets[1]?.resetAndDestroy();
    expect((await dials[1]?.recorder.down())?.error.reason).toBe('UPSTREAM_UNAVAILABLE');
    await until(4);
    await dialer.close();
    server.close();
  });

  it('waits for a place no longer than a handshake may take, and goes to what answers', async () => {
    const hole = createTcpServer((socket) => void socket.on('error', () => {})).listen(0, '127.0.0.1');
    await once(hole, 'listening');
    cleanup.add({ close: () => void hole.close() });
    const { port } = hole.address() as { port: number };
    const good = cleanup.add(await startServer());
    const { dial, observed } = gatewayTo(
      [
        openai(`ws://127.0.0.1:${port}/v1`, { fallback: ['good'], limits: { handshakeTimeoutMs: 400 } }),
        openai(good.url, { name: 'good' }),
      ],
      { maxDialing: 1, breaker: { failures: 100 } },
    );
    const beganAtMs = performance.now();
    const dials = Array.from({ length: 6 }, () => dial());
    for (const { recorder } of dials) await recorder.up();
    // One after the other they would have taken six times as long.
    expect(performance.now() - beganAtMs).toBeLessThan(4 * 400);
    // Who only waited has learned nothing of the upstream.
    expect(observed.of('dial').filter(({ failure }) => failure !== undefined).length).toBeLessThan(4);
  });

  it('closes its links and dials no more', async () => {
    const server = cleanup.add(await startServer());
    const { dial, dialer } = gatewayTo([openai(server.url)]);
    await dial().recorder.up();
    const closed = once(await server.socket(), 'close');
    await dialer.close();
    expect((await closed)[0]).toBe(1001);
    const down = await dial().recorder.down();
    expect([down.error.reason, down.permanent]).toEqual(['DRAINING', true]);
  });
});
