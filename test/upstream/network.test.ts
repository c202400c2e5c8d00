import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { GatewayError } from '../../src/errors.ts';
import { createCredential } from '../../src/upstream/credential.ts';
import { createDialer } from '../../src/upstream/dialer.ts';
import { proxiesFromEnvironment, proxyFor } from '../../src/upstream/network.ts';
import type { UpstreamOptions } from '../../src/upstream/upstream.ts';
import { bodyOf, Cleanup, dialRequest, outgoing, Recorder, startServer } from './harness.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

const fixture = (name: string) => readFileSync(new URL(`fixtures/${name}`, import.meta.url), 'utf8');
const ca = fixture('ca.pem');
const completed = 'data: {"type":"response.completed"}\n\n';

/** Encrypted; answers WebSocket, event streams and compaction. */
async function tlsServer(maxVersion?: 'TLSv1.2' | 'TLSv1.1') {
  return cleanup.add(
    await startServer({
      server: createTlsServer({
        cert: fixture('server.pem'),
        key: fixture('server-key.pem'),
        ...(maxVersion === undefined
          ? {}
          : { maxVersion, minVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' }),
      }),
      onRequest: (_request, response) =>
        response.writeHead(200, { 'content-type': 'text/event-stream' }).end(completed),
    }),
  );
}

function dialerTo(changes: Partial<UpstreamOptions> & { readonly url: string }) {
  const upstream: UpstreamOptions = { name: 'main', provider: 'openai', ...changes };
  const dialer = cleanup.add(createDialer({ upstreams: [upstream], pool: { size: 0 } }));
  const recorder = new Recorder();
  return { dialer, recorder, link: dialer.dial(dialRequest(), recorder) };
}

describe('TLS to the upstream', () => {
  it('trusts the configured CA, over WebSocket and HTTP', async () => {
    const { port } = await tlsServer();
    const ws = dialerTo({ url: `wss://127.0.0.1:${port}`, tls: { ca } });
    await ws.recorder.up();
    const sse = dialerTo({ url: `https://127.0.0.1:${port}`, tls: { ca: [ca] }, transport: 'sse' });
    await sse.recorder.up();
    sse.link.send(outgoing('{"type":"response.create"}'), undefined);
    expect((await sse.recorder.frame()).type).toBe('response.completed');
  });

  it('measures life signs below the encryption', async () => {
    const server = await tlsServer();
    const limits = { pingIntervalMs: 10, pongTimeoutMs: 1_000 };
    const { recorder } = dialerTo({ url: `wss://127.0.0.1:${server.port}`, tls: { ca }, limits });
    await recorder.up();
    const socket = await server.socket();
    for (let pings = 0; pings < 5; pings += 1) await once(socket, 'ping');
    expect(recorder.downs).toEqual([]);
  });

  it('refuses a certificate of an unknown CA or for another name, for good', async () => {
    const { port } = await tlsServer();
    const cases: [Partial<UpstreamOptions>, RegExp][] = [
      [{}, /UNABLE_TO_VERIFY|SELF_SIGNED/],
      [{ tls: { ca, servername: 'elsewhere.test' } }, /ERR_TLS_CERT_ALTNAME_INVALID/],
    ];
    for (const [changes, cause] of cases) {
      const down = await dialerTo({ url: `wss://127.0.0.1:${port}`, ...changes }).recorder.down();
      expect(down.permanent).toBe(true);
      expect(down.error.metadata['cause']).toMatch(cause);
    }
    const named = dialerTo({ url: `wss://127.0.0.1:${port}`, tls: { ca, servername: 'upstream.test' } });
    await named.recorder.up();
  });

  it('speaks nothing below TLS 1.2', async () => {
    const old = await tlsServer('TLSv1.1');
    const down = await dialerTo({ url: `wss://127.0.0.1:${old.port}`, tls: { ca } }).recorder.down();
    expect(down.error.reason).toBe('UPSTREAM_UNAVAILABLE');
    const middle = await tlsServer('TLSv1.2');
    await dialerTo({ url: `wss://127.0.0.1:${middle.port}`, tls: { ca } }).recorder.up();
    const strict = dialerTo({ url: `wss://127.0.0.1:${middle.port}`, tls: { ca, minVersion: 'TLSv1.3' } });
    expect((await strict.recorder.down()).error.reason).toBe('UPSTREAM_UNAVAILABLE');
  });
});

/** A forward proxy that takes every host for 127.0.0.1. */
async function startProxy(refuse?: number) {
  const connects: { readonly target: string; readonly authorization: string | undefined }[] = [];
  const tunnels = new Set<Socket>();
  const server = createHttpServer();
  server.on('connect', (request, client: Socket) => {
    connects.push({ target: request.url ?? '', authorization: request.headers['proxy-authorization'] });
    client.on('error', () => {});
    tunnels.add(client);
    if (refuse !== undefined) return client.end(`HTTP/1.1 ${refuse} No\r\nContent-Length: 0\r\n\r\n`);
    const target = connect(Number(request.url?.split(':').at(-1)), '127.0.0.1', () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n');
      client.pipe(target).pipe(client);
    });
    target.on('error', () => client.destroy());
    tunnels.add(target);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  cleanup.add({
    close: () => {
      for (const socket of tunnels) socket.destroy();
      return new Promise((resolve) => server.close(resolve));
    },
  });
  return { connects, url: `http://user:pass%20word@127.0.0.1:${port}` };
}

describe('a proxy on the way', () => {
  it('carries WebSocket and HTTP, encrypted end to end', async () => {
    const server = await tlsServer();
    const proxy = await startProxy();
    const shared = { tls: { ca }, proxies: { httpsProxy: proxy.url } };
    const ws = dialerTo({ url: `wss://upstream.test:${server.port}`, ...shared });
    await ws.recorder.up();
    ws.link.send(outgoing('{"type":"response.create"}'), undefined);
    const socket = await server.socket();
    socket.send('{"type":"response.completed"}');
    await ws.recorder.frame();
    const sse = dialerTo({ url: `https://upstream.test:${server.port}`, ...shared, transport: 'sse' });
    await sse.recorder.up();
    sse.link.send(outgoing('{"type":"response.create"}'), undefined);
    expect((await sse.recorder.frame()).type).toBe('response.completed');
    expect(proxy.connects).toEqual(
      [1, 2].map(() => ({
        target: `upstream.test:${server.port}`,
        authorization: `Basic ${Buffer.from('user:pass word').toString('base64')}`,
      })),
    );
  });

  it('carries plain upstreams too', async () => {
    const server = cleanup.add(await startServer());
    const proxy = await startProxy();
    const { recorder } = dialerTo({
      url: `ws://upstream.test:${server.port}`,
      provider: 'compatible',
      proxies: { httpProxy: proxy.url },
    });
    await recorder.up();
    expect(proxy.connects.length).toBe(1);
  });

  it('may refuse: that is no word of the upstream', async () => {
    for (const status of [403, 404, 407, 502]) {
      const server = await tlsServer();
      const proxy = await startProxy(status);
      const credential = createCredential('sk-canary');
      const url = `wss://upstream.test:${server.port}`;
      const { recorder } = dialerTo({ url, tls: { ca }, credential, proxies: { httpsProxy: proxy.url } });
      const down = await recorder.down();
      expect(down.error.reason, String(status)).toBe('UPSTREAM_UNAVAILABLE');
      expect(down.error.metadata['cause']).toBe('PROXY_REFUSED');
      expect(server.requests).toEqual([]);
    }
  });

  it('is chosen by scheme and exemption', () => {
    const proxies = {
      httpsProxy: 'http://secure-proxy:1',
      httpProxy: 'http://plain-proxy:2',
      noProxy: 'localhost, .inside.test,exact.test:8443 ,10.0.0.7',
    };
    const chosen = (secure: boolean, host: string, port = 443) =>
      proxyFor({ secure, host, port } as Parameters<typeof proxyFor>[0], proxies)?.host;
    expect(chosen(true, 'api.test')).toBe('secure-proxy:1');
    expect(chosen(false, 'api.test')).toBe('plain-proxy:2');
    expect(chosen(true, 'inside.test')).toBeUndefined();
    expect(chosen(true, 'a.INSIDE.test')).toBeUndefined();
    expect(chosen(true, 'notinside.test')).toBe('secure-proxy:1');
    expect(chosen(true, 'exact.test', 8443)).toBeUndefined();
    expect(chosen(true, 'exact.test', 443)).toBe('secure-proxy:1');
    expect(chosen(false, '10.0.0.7')).toBeUndefined();
    expect(chosen(true, '127.0.0.1')).toBeUndefined();
    expect(proxiesFromEnvironment({ HTTPS_PROXY: 'a', https_proxy: 'b', NO_PROXY: '*' })).toEqual({
      httpsProxy: 'b',
      httpProxy: undefined,
      noProxy: '*',
    });
  });
});

describe('compaction', () => {
  const abort = new AbortController();

  it('posts the body and gives the answer’s bytes', async () => {
    const bodies: string[] = [];
    const server = cleanup.add(
      await startServer({
        onRequest: async (request, response) => {
          bodies.push(String(await bodyOf(request)));
          response
            .writeHead(200, { 'content-type': 'application/json' })
            .end('{"object":"response.compaction"}');
        },
      }),
    );
    const { dialer } = dialerTo({ url: server.url, credential: createCredential('sk-2') });
    const answer = await dialer.call(dialRequest(), compact('{"model":"m"}'), abort.signal);
    expect(Buffer.from(answer).toString('utf8')).toBe('{"object":"response.compaction"}');
    expect(bodies).toEqual(['{"model":"m"}']);
    const post = server.requests.find(({ method }) => method === 'POST');
    expect(post?.url).toBe('/v1/responses/compact');
    expect(post?.headers).toMatchObject({ authorization: 'Bearer sk-2', accept: 'application/json' });
  });

  it('rejects with a reason', async () => {
    const cases = [
      [400, '{"error":{"message":"bad input","param":"input"}}', 'UPSTREAM_INVALID_REQUEST'],
      [401, '{"error":{"message":"sk-canary"}}', 'UPSTREAM_AUTH'],
      [404, '', 'UPSTREAM_NOT_FOUND'],
      [429, '{"error":{"code":"rate_limit_exceeded"}}', 'UPSTREAM_RATE_LIMITED'],
      [503, '', 'UPSTREAM_UNAVAILABLE'],
      [302, '', 'UPSTREAM_PROTOCOL'],
    ] as const;
    for (const [status, body, reason] of cases) {
      const server = cleanup.add(
        await startServer({
          onRequest: (_request, response) => response.writeHead(status, { 'retry-after': '3' }).end(body),
        }),
      );
      const { dialer } = dialerTo({ url: server.url });
      const error = await dialer
        .call(dialRequest(), compact('{}'), abort.signal)
        .catch((cause: unknown) => cause);
      expect(error).toBeInstanceOf(GatewayError);
      expect((error as GatewayError).reason).toBe(reason);
      expect((error as GatewayError).retryAfterMs).toBe(3_000);
      expect(JSON.stringify((error as GatewayError).upstream)).not.toContain('canary');
    }
  });

  it('ends with its signal, a lost connection, an endless answer', async () => {
    const server = cleanup.add(
      await startServer({
        onRequest: (request, response) => {
          response.on('error', () => {});
          if (request.headers['x-mode'] === 'cut') response.destroy();
          if (request.headers['x-mode'] === 'flood') response.writeHead(200).end('x'.repeat(100_000));
        },
      }),
    );
    const attempt = (mode: string, signal: AbortSignal) => {
      const { dialer } = dialerTo({
        url: server.url,
        headers: { 'x-mode': mode },
        limits: { maxInboundBytes: 10_000 },
      });
      return dialer.call(dialRequest(), compact('{}'), signal).catch((cause: GatewayError) => cause.reason);
    };
    expect(await attempt('hang', AbortSignal.timeout(20))).toBe('TURN_CANCELLED');
    expect(await attempt('hang', AbortSignal.abort())).toBe('TURN_CANCELLED');
    expect(await attempt('cut', abort.signal)).toBe('UPSTREAM_LINK_LOST');
    expect(await attempt('flood', abort.signal)).toBe('UPSTREAM_PROTOCOL');
  });
});

function compact(body: string) {
  return { method: 'POST', path: ['responses', 'compact'], body } as const;
}
