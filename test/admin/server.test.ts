import { type OutgoingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, expect, test } from 'vitest';
import type { AuditRecord } from '../../src/admin/acts.ts';
import {
  type AdminOptions,
  type AdminServer,
  type AdminSources,
  startAdmin,
} from '../../src/admin/server.ts';
import type { SessionSource } from '../../src/admin/source.ts';
import { sessionSource } from '../../src/app/session-source.ts';
import { History } from '../../src/history/history.ts';
import { SessionRegistry } from '../../src/session/registry.ts';
import { accepted, start } from '../telemetry/facts.ts';

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

/** One session with one running turn, which is all that the server itself needs. */
function source(acts: string[]): SessionSource {
  const history = new History({ maxEntries: 10, maxTurnsPerSession: 10, maxEndedSessions: 1 });
  const session = history.session(start({ sessionId: 'ses_1' }));
  session.fact(accepted({ turnId: 'turn/1', atMs: 1_000 }));
  const local = sessionSource({
    history,
    registry: new SessionRegistry(),
    telemetry: { linkCounts: () => [] },
    clock: () => 2_000,
    traceUrl: undefined,
    drainTimeoutMs: 1_000,
  });
  return {
    ...local,
    cancelTurn: async (id, turnId) => {
      if (id !== 'ses_1') return 'unknownSession';
      if (turnId !== 'turn/1') return 'unknownTurn';
      acts.push(`cancel ${turnId}`);
      return 'done';
    },
    drainSession: async (id) => {
      if (id !== 'ses_1') return 'unknownSession';
      acts.push(`drain ${id}`);
      return 'done';
    },
  };
}

async function admin(changes: Partial<AdminOptions> = {}, sources: Partial<AdminSources> = {}) {
  let level = 'info';
  let reasons: readonly string[] = [];
  const acts: string[] = [];
  const audits: AuditRecord[] = [];
  const server = await startAdmin({
    listen: { host: '127.0.0.1', port: 0 },
    allowedHosts: ['gateway.internal'],
    token: () => undefined,
    sources: {
      notReady: async () => reasons,
      metrics: async () => ({ contentType: 'text/plain; version=0.0.4', body: 'up 1\n' }),
      sessions: source(acts),
      replica: () => ({
        host: 'gateway-0',
        pid: 1,
        version: '0.0.0',
        startedAtMs: 0,
        workers: 1,
        logLevel: level,
      }),
      drain: () => acts.push('drain'),
      audit: (record) => audits.push(record),
      logLevel: {
        levels: ['debug', 'info'],
        get: () => level,
        set: (next) => {
          if (!['debug', 'info'].includes(next)) return false;
          level = next;
          return true;
        },
      },
      ...sources,
    },
    ...changes,
  });
  servers.push(server);
  return {
    port: server.port,
    level: () => level,
    acts,
    audits,
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
  expect(JSON.parse((await call('/sessions')).body)).toMatchObject({ sessions: [{ id: 'ses_1' }], total: 1 });
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

test('a token that cannot be read lets nobody in, and is told as what is wrong', async () => {
  const token = () => {
    throw new Error('ENOENT');
  };
  const { call } = await admin({ token });
  const answer = await call('/sessions', { headers: { authorization: 'Bearer s3cret' } });
  expect(answer.status).toBe(500);
  expect(JSON.parse(answer.body)).toMatchObject({ field: 'admin.token_file' });
  expect((await call('/readyz')).status).toBe(200);
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
  expect(wrong.headers.allow).toBe('GET, PUT, POST');
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

const JSON_TYPE = { 'content-type': 'application/json' };
const TURN_1 = '/sessions/ses_1/turns/turn%2F1/cancel';

test.each([
  [TURN_1, { confirm: 'turn/1' }, 'cancel turn/1', { action: 'cancel_turn', turnId: 'turn/1' }],
  ['/sessions/ses_1/drain', { confirm: 'ses_1' }, 'drain ses_1', { action: 'drain_session' }],
  ['/drain', { confirm: 'drain' }, 'drain', { action: 'drain_process' }],
])('POST %s is done once it is confirmed, and audited', async (path, body, act, record) => {
  const { call, acts, audits } = await admin();
  const post = (value: object, headers: OutgoingHttpHeaders = JSON_TYPE) =>
    call(path, { method: 'POST', headers, body: JSON.stringify(value) });
  expect(await post({})).toMatchObject({ status: 400 });
  expect(await post({ confirm: 'yes' })).toMatchObject({ status: 400 });
  expect(await post(body, {})).toMatchObject({ status: 415 });
  expect(await post(body, { ...JSON_TYPE, origin: 'https://evil.example' })).toMatchObject({ status: 403 });
  expect(await post(body, { ...JSON_TYPE, 'sec-fetch-site': 'cross-site' })).toMatchObject({ status: 403 });
  expect([acts, audits]).toEqual([[], []]);
  expect(await post(body)).toMatchObject({ status: 202 });
  await expect.poll(() => acts).toEqual([act]);
  expect(audits).toMatchObject([{ ...record, result: 'done', remoteAddress: '127.0.0.1' }]);
});

test('a body that is far too large is told as that', async () => {
  const { call, acts } = await admin();
  const body = JSON.stringify({ confirm: 'x'.repeat(5_000_000) });
  const answer = await call('/drain', { method: 'POST', headers: JSON_TYPE, body });
  expect(answer).toMatchObject({ status: 413 });
  expect(JSON.parse(answer.body)).toMatchObject({ field: 'body' });
  expect(acts).toEqual([]);
});

test('POST /loglevel wants the level twice, and each change is audited', async () => {
  const { call, level, audits } = await admin();
  const post = (body: object) =>
    call('/loglevel', { method: 'POST', headers: JSON_TYPE, body: JSON.stringify(body) });
  expect((await post({ level: 'debug' })).status).toBe(400);
  expect((await post({ level: 'debug', confirm: 'info' })).status).toBe(400);
  expect((await post({ level: 'debug', confirm: 'debug' })).status).toBe(200);
  expect(level()).toBe('debug');
  await call('/loglevel', { method: 'PUT', body: 'info' });
  expect(audits.map((record) => record.level)).toEqual(['debug', 'info']);
});

test.each([
  ['GET', '/sessions?limit=501', 400, 'limit'],
  ['GET', '/sessions?limit=-1', 400, 'limit'],
  ['GET', '/sessions?sort=size', 400, 'sort'],
  ['GET', '/sessions?state=dead', 400, 'state'],
  ['GET', '/sessions?colour=red', 400, 'colour'],
  ['GET', '/sessions/ses_2', 404, 'id'],
  ['GET', '/sessions/ses_1?verbose=1', 400, 'verbose'],
  ['GET', '/sessions/ses_2/turns', 404, 'id'],
  ['GET', '/sessions/ses_1/turns?offset=x', 400, 'offset'],
  ['GET', '/overview?step=0', 400, 'step'],
  ['POST', '/sessions/ses_2/turns/none/cancel', 404, 'id'],
  ['POST', '/sessions/ses_1/turns/none/cancel', 404, 'turnId'],
])('%s %s names what is wrong', async (method, path, status, field) => {
  const { call } = await admin();
  const body = method === 'POST' ? '{"confirm":"none"}' : '';
  const answer = await call(path, { method, headers: JSON_TYPE, body });
  expect(answer.status).toBe(status);
  expect(JSON.parse(answer.body)).toEqual({ error: expect.stringMatching(/.{10}/), field });
});

test('the console is served without the token, with a policy of its own, and can be left out', async () => {
  const { call } = await admin({ token: () => 's3cret' });
  const page = await call('/console');
  expect([200, 503]).toContain(page.status);
  expect((await call('/overview')).status).toBe(401);
  expect((await call('/overview/stream')).status).toBe(401);
  const without = await admin({ console: false });
  expect((await without.call('/console')).status).toBe(404);
});

test.each([
  ['/sessions?sort=size', 'sort: found "size"; allowed: started, active,'],
  ['/sessions?limit=501', 'limit: found "501"; allowed: at most 500'],
  ['/sessions?q=', 'q: found ""; allowed: a length of at least 1'],
  ['/sessions?colour=red', 'there is no "colour"; allowed: q, tenant,'],
  ['/overview?step=x', 'step: found "x"; allowed: a whole number'],
  ['/sessions?__proto__=1', 'there is no "__proto__"; allowed: q,'],
])('%s is told what was found and what is allowed', async (path, error) => {
  const { call } = await admin();
  const answer = await call(path);
  expect(answer.status).toBe(400);
  expect(JSON.parse(answer.body).error).toContain(error);
});

test('a worker that does not answer is told as that', async () => {
  const sessions = { ...source([]), drainSession: async () => 'noAnswer' as const };
  const { call, audits } = await admin({}, { sessions });
  const body = '{"confirm":"ses_1"}';
  const answer = await call('/sessions/ses_1/drain', { method: 'POST', headers: JSON_TYPE, body });
  expect(answer.status).toBe(504);
  expect(audits).toMatchObject([{ action: 'drain_session', result: 'noAnswer' }]);
});

test('a board that cannot be made costs a second of the stream, and nothing else', async () => {
  let asked = 0;
  const sessions = {
    ...source([]),
    board: async () => {
      asked += 1;
      if (asked === 1) throw new Error('not now');
      return { sample: undefined, links: [], usage: [], upstreams: [], silentProcesses: 0 };
    },
  };
  const { port } = await admin({}, { sessions });
  const socket = connect(port, '127.0.0.1');
  let told = '';
  socket.setEncoding('utf8').on('data', (part: string) => {
    told += part;
  });
  socket.write('GET /overview/stream HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await expect.poll(() => told, { timeout: 10_000 }).toContain('event: board');
  socket.destroy();
});
