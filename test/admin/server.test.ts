import { type OutgoingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, expect, test } from 'vitest';
import { type AdminOptions, type AdminServer, startAdmin } from '../../src/admin/server.ts';

const servers: AdminServer[] = [];
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()));
});

interface Answer {
  readonly status: number | undefined;
  readonly body: string;
  readonly headers: NodeJS.Dict<string | string[]>;
}

interface Call {
  readonly method?: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string;
}

async function admin(changes: Partial<AdminOptions> = {}) {
  let level = 'info';
  let reasons: readonly string[] = [];
  const server = await startAdmin({
    listen: { host: '127.0.0.1', port: 0 },
    allowedHosts: ['gateway.internal'],
    token: () => undefined,
    sources: {
      notReady: async () => reasons,
      metrics: async () => ({ contentType: 'text/plain; version=0.0.4', body: 'up 1\n' }),
      sessions: async () => [{ id: 'ses_1', lanes: 2 }],
      logLevel: {
        levels: ['debug', 'info'],
        get: () => level,
        set: (next) => {
          if (!['debug', 'info'].includes(next)) return false;
          level = next;
          return true;
        },
      },
    },
    ...changes,
  });
  servers.push(server);
  return {
    port: server.port,
    level: () => level,
    notReadyBecause: (...because: string[]) => {
      reasons = because;
    },
    call: (path: string, { method = 'GET', headers = {}, body }: Call = {}) =>
      new Promise<Answer>((resolve, reject) => {
        const call = request(
          { host: '127.0.0.1', port: server.port, path, method, headers, agent: false },
          (answer) => {
            let received = '';
            answer.setEncoding('utf8');
            answer.on('data', (chunk: string) => {
              received += chunk;
            });
            answer.on('end', () =>
              resolve({ status: answer.statusCode, body: received, headers: answer.headers }),
            );
          },
        );
        call.on('error', reject);
        call.end(body);
      }),
  };
}

test('liveness and readiness are separate, and readiness says why not', async () => {
  const { call, notReadyBecause } = await admin();
  expect(await call('/healthz')).toMatchObject({ status: 200, body: 'ok\n' });
  expect(await call('/readyz')).toMatchObject({ status: 200, body: 'ready\n' });
  notReadyBecause('draining', 'memory above the high mark');
  expect(await call('/readyz')).toMatchObject({
    status: 503,
    body: 'not ready: draining; memory above the high mark\n',
  });
  expect((await call('/healthz')).status).toBe(200);
});

test('metrics and sessions come from their sources, with security headers', async () => {
  const { call } = await admin();
  const metrics = await call('/metrics');
  expect(metrics).toMatchObject({ status: 200, body: 'up 1\n' });
  expect(metrics.headers).toMatchObject({
    'content-type': 'text/plain; version=0.0.4',
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'cache-control': 'no-store',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  });
  expect(JSON.parse((await call('/sessions')).body)).toEqual({ sessions: [{ id: 'ses_1', lanes: 2 }] });
  const head = await call('/metrics', { method: 'HEAD' });
  expect(head).toMatchObject({ status: 200, body: '' });
  expect(head.headers['content-length']).toBe('5');
});

test.each([
  ['plain', 'debug', 200, 'debug'],
  ['JSON', '{"level":"debug"}', 200, 'debug'],
  ['an unknown level', 'loud', 400, 'info'],
  ['a level of the wrong type', '{"level":7}', 400, 'info'],
  ['broken JSON', '{"level":', 400, 'info'],
  ['nothing', '', 400, 'info'],
  ['more than a level', 'd'.repeat(2000), 400, 'info'],
])('PUT /loglevel with %s', async (_what, body, status, after) => {
  const { call, level } = await admin();
  expect((await call('/loglevel', { method: 'PUT', body })).status).toBe(status);
  expect(level()).toBe(after);
  expect(JSON.parse((await call('/loglevel')).body)).toEqual({ level: after });
});

test.each([
  ['127.0.0.1:9464', 200],
  ['localhost', 200],
  ['[::1]:9464', 200],
  ['10.1.2.3:9464', 200],
  ['gateway.internal:9464', 200],
  ['evil.example', 421],
  ['127.0.0.1.evil.example', 421],
])('Host %s', async (host, status) => {
  const { call } = await admin();
  expect((await call('/healthz', { headers: { host } })).status).toBe(status);
});

test.each([
  ['GET /healthz HTTP/1.0', '200 OK'],
  ['GET /readyz HTTP/1.0', '200 OK'],
  ['GET /readyz HTTP/1.1', '200 OK'],
  ['HEAD /metrics HTTP/1.1', '200 OK'],
  ['GET /sessions HTTP/1.0', '421 Misdirected Request'],
  ['PUT /loglevel HTTP/1.1', '421 Misdirected Request'],
  ['GET /nothing HTTP/1.1', '421 Misdirected Request'],
])('without a Host header, %s', async (line, status) => {
  const { port } = await admin();
  const socket = connect(port, '127.0.0.1');
  socket.end(`${line}\r\nConnection: close\r\n\r\n`);
  expect((await text(socket)).split('\r\n')[0]).toBe(`HTTP/1.1 ${status}`);
});

test('a token guards what tells about callers, and nothing else', async () => {
  const { call } = await admin({ token: () => 's3cret' });
  for (const path of ['/healthz', '/readyz', '/metrics']) expect((await call(path)).status).toBe(200);
  for (const path of ['/sessions', '/loglevel']) {
    expect((await call(path)).status).toBe(401);
    expect((await call(path, { headers: { authorization: 'Bearer wrong' } })).status).toBe(401);
    expect((await call(path, { headers: { authorization: 'Bearer s3cret' } })).status).toBe(200);
  }
});

test('without a token, other machines see health and metrics only', async () => {
  const { call } = await admin({ listen: { host: '0.0.0.0', port: 0 } });
  expect((await call('/metrics')).status).toBe(200);
  expect((await call('/sessions')).status).toBe(403);
  expect((await call('/loglevel', { method: 'PUT', body: 'debug' })).status).toBe(403);
});

test('unknown paths and methods are named', async () => {
  const { call } = await admin();
  expect((await call('/nothing')).status).toBe(404);
  const wrong = await call('/loglevel', { method: 'DELETE' });
  expect(wrong.status).toBe(405);
  expect(wrong.headers.allow).toBe('GET, PUT');
  expect((await call('/healthz', { method: 'constructor' })).status).toBe(400);
});

test.each(['//', '//[', 'http://['])('%s is no path', async (path) => {
  const { call } = await admin();
  expect((await call(path)).status).toBe(404);
});

test('an address that is taken is an error of the start', async () => {
  const { call } = await admin();
  await call('/healthz');
  const port = servers[0]?.port ?? 0;
  await expect(admin({ listen: { host: '127.0.0.1', port } })).rejects.toMatchObject({ code: 'EADDRINUSE' });
});
