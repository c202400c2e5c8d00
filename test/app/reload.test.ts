import { createHash, randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, expect, it, onTestFinished } from 'vitest';
import { type RunningGateway, startGateway } from '../../src/app/gateway.ts';
import { configSchema } from '../../src/config/schema.ts';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { TestClient, userMessage } from '../harness/client.ts';

let gateway: RunningGateway;
let simulator: Simulator;

beforeAll(async () => {
  simulator = await startSimulator({});
});

afterAll(() => simulator.close());

afterEach(() => gateway.close());

function newKey(id: string) {
  const text = `rgk_${id}_${randomBytes(32).toString('base64url')}`;
  return { text, id, hash: `sha256:${createHash('sha256').update(text).digest('hex')}` };
}

const [old, fresh] = [newKey('aaaaaaaaaaaaaaaa'), newKey('bbbbbbbbbbbbbbbb')];

type Tenant = Readonly<Record<string, unknown>> & { readonly id: string };

const configOf = (keys: readonly (typeof old)[], tenant: Tenant, more: object = {}) =>
  configSchema.parse({
    listen: '127.0.0.1:0',
    admin: { listen: '127.0.0.1:0' },
    auth: [
      { kind: 'api_keys', keys: keys.map(({ id, hash }) => ({ id, hash, tenant: tenant.id, subject: 'a' })) },
    ],
    tenants: [tenant],
    upstream: { url: simulator.url, allow_plaintext: true },
    ...more,
  });

const silent = { environment: {}, version: 'test', logDestination: { write: () => {} } };

async function call(key: string, model = 'gpt-6') {
  const client = new TestClient(`127.0.0.1:${gateway.grpcPort}`, {
    metadata: { authorization: `Bearer ${key}` },
  });
  const { ended } = await client.createResponse({ create: { model, input: [userMessage('#say=fine')] } })
    .result;
  client.close();
  return ended;
}

it('a key that is added counts at once, one that is removed does not, and running sessions go on', async () => {
  gateway = await startGateway(configOf([old], { id: 'team' }), silent);
  const client = new TestClient(`127.0.0.1:${gateway.grpcPort}`, {
    metadata: { authorization: `Bearer ${old.text}` },
  });
  const stream = client.connect();
  await stream.opened();
  expect(await call(fresh.text)).toMatchObject({ reason: 'UNAUTHENTICATED' });
  const { changed, needsRestart } = await gateway.reload(configOf([fresh], { id: 'team' }));
  expect(changed).toEqual(['auth[0].keys[0].id', 'auth[0].keys[0].hash']);
  expect(needsRestart).toEqual([]);
  expect(await call(fresh.text)).toMatchObject({ code: 0 });
  expect(await call(old.text)).toMatchObject({ reason: 'UNAUTHENTICATED' });
  stream.startTurn({ turn_id: 't1' }, '#say=fine');
  expect((await stream.turn('t1')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  client.close();
});

it("a tenant's models and limits count from now on, and what it has used stays used", async () => {
  gateway = await startGateway(configOf([old], { id: 'team', limits: { turns_per_minute: 3 } }), silent);
  expect(await call(old.text)).toMatchObject({ code: 0 });
  expect(await call(old.text)).toMatchObject({ code: 0 });
  await gateway.reload(configOf([old], { id: 'team', models: ['gpt-6'], limits: { turns_per_minute: 2 } }));
  expect(await call(old.text)).toMatchObject({ reason: 'LIMIT_EXCEEDED' });
  expect(await call(old.text, 'other')).toMatchObject({ reason: 'MODEL_NOT_ALLOWED' });
  await gateway.reload(configOf([old], { id: 'team', limits: { turns_per_minute: 100 } }));
  expect(await call(old.text, 'other')).toMatchObject({ code: 0 });
});

it('what cannot change is named, and a configuration that is wrong changes nothing', async () => {
  gateway = await startGateway(configOf([old], { id: 'team' }), silent);
  const next = configOf([old], { id: 'team' }, { session: { max_lanes: 7 }, listen: '127.0.0.1:1' });
  const { needsRestart } = await gateway.reload(next);
  expect(needsRestart).toEqual(expect.arrayContaining(['listen.port', 'session.max_lanes']));
  const wrong = configOf([fresh], { id: 'team', upstreams: ['nowhere'] });
  await expect(gateway.reload(wrong)).rejects.toThrow('fit no configured upstream');
  expect(await call(old.text)).toMatchObject({ code: 0 });
  expect(await call(fresh.text)).toMatchObject({ reason: 'UNAUTHENTICATED' });
});

it('what needs a restart is told against the start, as often as it differs', async () => {
  gateway = await startGateway(configOf([old], { id: 'team' }), silent);
  const lanes = configOf([old], { id: 'team' }, { session: { max_lanes: 7 } });
  expect((await gateway.reload(lanes)).needsRestart).toEqual(['session.max_lanes']);
  const more = configOf([fresh], { id: 'team' }, { session: { max_lanes: 7 } });
  expect(await gateway.reload(more)).toEqual({
    changed: ['auth[0].keys[0].id', 'auth[0].keys[0].hash'],
    needsRestart: ['session.max_lanes'],
  });
  expect(await gateway.reload(configOf([fresh], { id: 'team' }))).toEqual({
    changed: ['session.max_lanes'],
    needsRestart: [],
  });
});

it('sessions that begin after a change go to the new upstream, and those that run stay with theirs', async () => {
  const other = await startSimulator({});
  onTestFinished(() => other.close());
  const before = simulator.journal.entries.length;
  gateway = await startGateway(configOf([old], { id: 'team' }), silent);
  const client = new TestClient(`127.0.0.1:${gateway.grpcPort}`, {
    metadata: { authorization: `Bearer ${old.text}` },
  });
  const running = client.connect();
  running.startTurn({ turn_id: 't1' }, '#say=fine');
  await running.turn('t1');
  const at = (url: string) => configOf([old], { id: 'team' }, { upstream: { url, allow_plaintext: true } });
  expect(await gateway.reload(at(other.url))).toEqual({ changed: ['upstream.url'], needsRestart: [] });

  running.startTurn({ turn_id: 't2' }, '#say=fine');
  expect((await running.turn('t2')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  expect(other.journal.entries).toHaveLength(0);
  expect(await call(old.text)).toMatchObject({ code: 0 });
  expect(other.journal.entries).toHaveLength(1);
  expect(simulator.journal.entries).toHaveLength(before + 2);

  // Nothing else goes with it: what cannot be used changes nothing.
  const wrong = { upstream: { url: simulator.url, allow_plaintext: true, headers: { Host: 'x' } } };
  await expect(gateway.reload(configOf([old], { id: 'team' }, wrong))).rejects.toThrow('Host');
  expect(await call(old.text)).toMatchObject({ code: 0 });
  expect(other.journal.entries).toHaveLength(2);
  client.close();
});

it('a tenant may use an upstream as soon as there is one of its name', async () => {
  const named = (...names: string[]) => ({
    upstream: undefined,
    upstreams: names.map((name) => ({ name, url: simulator.url, allow_plaintext: true })),
  });
  gateway = await startGateway(configOf([old], { id: 'team' }, named('a')), silent);
  await gateway.reload(configOf([old], { id: 'team', upstreams: ['b'] }, named('a', 'b')));
  expect(await call(old.text)).toMatchObject({ code: 0 });
});

it('without an upstream there is nowhere to go: that needs a restart', async () => {
  gateway = await startGateway(configOf([old], { id: 'team' }), silent);
  const { needsRestart } = await gateway.reload(configOf([old], { id: 'team' }, { upstream: undefined }));
  expect(needsRestart).toEqual(['upstream']);
  expect(await call(old.text)).toMatchObject({ code: 0 });
});
