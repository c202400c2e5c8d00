import { readFileSync } from 'node:fs';
import { expect, onTestFinished, test, vi } from 'vitest';
import { createApiKey } from '../../src/access/auth/api-keys.ts';
import { startGateway } from '../../src/app/gateway.ts';
import { TestClient, userMessage } from '../harness/client.ts';
import { configOf } from '../harness/config.ts';
import { freePort } from '../harness/store-server.ts';
import { startHostileUpstream } from '../hostile/upstream.ts';
import { Page } from '../telemetry/prometheus.ts';

type Line = Readonly<Record<string, unknown>>;

test('every refusal of sessions and turns is counted, by reason, limit and tenant, and told once in a while', async () => {
  const key = createApiKey();
  const { gateway, client, lines, page } = await open({
    auth: [{ kind: 'api_keys', keys: [{ id: key.id, hash: key.hash, tenant: 'blue' }] }],
    tenants: [{ id: 'blue', models: ['gpt-6*'], limits: { sessions: 1, turns_per_minute: 1 } }],
    telemetry: { metrics: { max_tenants: 5 } },
  });
  const blue = client(key.key);
  const stream = blue.connect();
  await stream.opened();
  stream.startTurn({ turn_id: 'a', create: { model: 'o3' } }, 'x');
  await stream.turn('a');
  stream.startTurn({ turn_id: 'b' }, 'x');
  expect((await stream.turn('b')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  for (const turnId of ['c', 'd']) {
    stream.startTurn({ turn_id: turnId }, 'x');
    await stream.turn(turnId);
  }
  stream.send({ cancel_turn: { turn_id: 'never' } });
  await stream.event('gateway.request.rejected');
  expect((await blue.connect().ended()).reason).toBe('LIMIT_EXCEEDED');
  expect(
    (
      await client(`rgk_${key.id}_${createApiKey().key.slice(-43)}`)
        .connect()
        .ended()
    ).code,
  ).toBe(16);
  expect((await client(createApiKey().key).connect().ended()).code).toBe(16);
  expect((await client(undefined).createResponse({ create: {} }).result).ended.code).toBe(16);
  expect((await client('eyJhbGciOiJub25lIn0.e30.').connect().ended()).code).toBe(16);

  const p = await page();
  const count = (labels: Readonly<Record<string, string>>) =>
    p.sum('responses_gateway_refusals_total', labels);
  expect(count({ request: 'turn', reason: 'MODEL_NOT_ALLOWED', tenant: 'blue' })).toBe(1);
  expect(
    count({ request: 'turn', reason: 'LIMIT_EXCEEDED', limit: 'turns_per_minute', tenant: 'blue' }),
  ).toBe(2);
  expect(count({ request: 'other', reason: 'UNKNOWN_TURN' })).toBe(1);
  expect(count({ request: 'session', reason: 'LIMIT_EXCEEDED', limit: 'sessions', tenant: 'blue' })).toBe(1);
  expect(count({ request: 'session', reason: 'UNAUTHENTICATED', tenant: '_OTHER' })).toBe(3);
  expect(count({ request: 'call', reason: 'UNAUTHENTICATED' })).toBe(1);
  expect(p.sum('responses_gateway_processes_ready')).toBe(1);
  expect(p.sum('responses_gateway_memory_share_ratio')).toBeGreaterThan(0);
  expect(p.sum('responses_gateway_memory_share_ratio')).toBeLessThan(1);

  const told = lines('a call was refused');
  const connect = 'responses.gateway.v1.ResponsesService/Connect';
  expect(told).toContainEqual(
    expect.objectContaining({
      level: 'warn',
      method: connect,
      reason: 'LIMIT_EXCEEDED',
      limit: 'sessions',
      tenant: 'blue',
    }),
  );
  expect(
    told
      .filter(({ reason }) => reason === 'UNAUTHENTICATED')
      .map(({ auth, key_id, why }) => [auth, key_id, why]),
  ).toEqual([
    ['api_keys', key.id, 'wrong_secret'],
    ['api_keys', expect.stringMatching(/^[a-z2-7]{16}$/), 'unknown_key'],
    ['any', undefined, 'no_credential'],
    ['any', undefined, 'no_method_fits'],
  ]);
  expect(lines('a request was refused').map(({ reason, limit, tenant }) => [reason, limit, tenant])).toEqual([
    ['MODEL_NOT_ALLOWED', undefined, 'blue'],
    ['LIMIT_EXCEEDED', 'turns_per_minute', 'blue'],
  ]);
  expect(JSON.stringify(lines())).not.toContain(key.key.slice(-43));
  const keysOf = (code: string) =>
    new Set(lines().flatMap((line) => (line['code'] === code ? Object.keys(line) : [])));
  expect(toldFields('call_refused').filter((name) => !keysOf('call_refused').has(name))).toEqual([]);
  await gateway.close();
});

test('while it drains, what is refused is counted, and the gauge says that it is not ready', async () => {
  const { gateway, client, page } = await open({ drain: { timeout: '5s' } });
  const stream = client(undefined).connect();
  await stream.opened();
  stream.startTurn({ turn_id: 'long' }, '#hang');
  await stream.event('response.created', 'long');
  const drained = gateway.drain();
  await stream.until(() => stream.goAways.length > 0);
  stream.startTurn({ turn_id: 'late', lane_id: 'b' }, 'x');
  expect((await stream.turn('late')).at(-1)?.turn_failed?.reason).toBe('DRAINING');
  const p = await page();
  expect(p.sum('responses_gateway_refusals_total', { request: 'turn', reason: 'DRAINING' })).toBe(1);
  expect(p.sum('responses_gateway_processes_ready')).toBe(0);
  stream.send({ cancel_turn: { turn_id: 'long' } });
  await stream.turn('long');
  stream.halfClose();
  await drained;
});

test('a broken upstream is a warning with its name, its host and what was wrong', async () => {
  const port = await freePort();
  const refusing = await startHostileUpstream({
    onHandshake: () => 'HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n',
  });
  const overHttp = await startHostileUpstream({
    onRequest: (request, response) => void request.resume().once('end', () => response.writeHead(401).end()),
  });
  const killing = await startHostileUpstream({ onCreate: (socket) => socket.terminate() });
  const upstream = (name: string, url: string, transport = 'websocket') => ({
    name,
    url,
    transport,
    api_key_env: null,
    fallback: [],
  });
  const { client, lines } = await open({
    upstreams: [
      upstream('gone', `ws://127.0.0.1:${port}/v1`),
      upstream('refusing', refusing.url),
      upstream('http', overHttp.url, 'sse'),
      upstream('killing', killing.url),
    ],
    session: { max_dial_attempts: 1 },
  });
  onTestFinished(async () => {
    for (const each of [refusing, overHttp, killing]) await each.close();
  });
  for (const name of ['gone', 'refusing', 'http', 'killing', 'gone']) {
    const { ended } = await client(undefined).createResponse({
      upstream: name,
      create: { model: 'm', input: [userMessage('x')] },
    }).result;
    expect([name, ended.code]).not.toEqual([name, 0]);
  }
  const told = lines().filter(({ code }) => code === 'upstream_broken');
  const of = (name: string) => told.filter((line) => line['upstream'] === name);
  expect(of('gone')).toMatchObject([
    { level: 'warn', host: `127.0.0.1:${port}`, reason: 'UPSTREAM_UNAVAILABLE', errno: 'ECONNREFUSED' },
  ]);
  expect(of('refusing')).toMatchObject([
    { host: `127.0.0.1:${refusing.port}`, reason: 'UPSTREAM_AUTH', http_status: 401 },
  ]);
  expect(of('http')).toMatchObject([
    { host: `127.0.0.1:${overHttp.port}`, reason: 'UPSTREAM_AUTH', http_status: 401 },
  ]);
  expect(of('killing')).toMatchObject([{ reason: 'UPSTREAM_LINK_LOST' }]);
  const keys = new Set(told.flatMap((line) => Object.keys(line)));
  expect(toldFields('upstream_broken').filter((name) => !keys.has(name))).toEqual([]);
});

test('a session ends in the log with the status that its call had', async () => {
  const { client, lines } = await open({ session: { resume_grace: '50ms' } });
  const create = { model: 'gpt-6', input: [userMessage('#fail')] };
  const { ended } = await client(undefined).createResponse({ create }).result;
  expect(ended.code).toBe(2);
  const left = client(undefined).connect();
  await left.opened();
  left.cancel();
  const good = client(undefined).connect();
  await good.opened();
  good.halfClose();
  await good.ended();
  await vi.waitFor(() => expect(lines('session ended')).toHaveLength(3), 10_000);
  expect(
    lines('session ended')
      .map(({ status }) => status)
      .sort(),
  ).toEqual(['CANCELLED', 'OK', 'UNKNOWN']);
});

/** A gateway as the program runs it, on the simulator if nothing else is said. */
/** Names of fields that docs/operations.md gives to lines of this code. */
function toldFields(code: string): string[] {
  const text = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8');
  const logs = (/## Logs\n([\s\S]*?)\n## /.exec(`${text}\n## `)?.[1] ?? '').replaceAll('\n', ' ');
  const clause = new RegExp(`${code}[^.)]*`).exec(logs)?.[0] ?? '';
  const names = [...clause.matchAll(/`([a-z_]+)`/g)].map(([, name = '']) => name);
  expect(names.length).toBeGreaterThan(3);
  return names;
}

async function open(settings: Readonly<Record<string, unknown>>) {
  const written: string[] = [];
  const config = configOf(settings);
  const gateway = await startGateway(config, {
    environment: {},
    version: 'test',
    logDestination: { write: (line) => void written.push(line) },
  });
  const clients: TestClient[] = [];
  onTestFinished(async () => {
    for (const each of clients) each.close();
    await gateway.close();
  });
  return {
    gateway,
    client(bearer: string | undefined) {
      const metadata = bearer === undefined ? {} : { authorization: `Bearer ${bearer}` };
      const client = new TestClient(`127.0.0.1:${gateway.grpcPort}`, { metadata });
      clients.push(client);
      return client;
    },
    lines: (message?: string): Line[] =>
      written
        .map((line): Line => JSON.parse(line))
        .filter(({ msg }) => message === undefined || msg === message),
    page: async () => new Page(await gateway.telemetry.metricsText()),
  };
}
