import { afterEach, describe, expect, test, vi } from 'vitest';
import { startSimulator } from '../../src/simulator/index.ts';
import { checkSeq, TestClient, type TestStream } from '../harness/client.ts';
import { Replicas, TcpBalancer } from '../harness/replicas.ts';
import { RoamingSession } from '../harness/roaming-session.ts';
import { ANY_SERVER, StoreServer } from '../harness/store-server.ts';
import { Page } from '../telemetry/prometheus.ts';
import { killAll, run } from './program.ts';

// Every test starts several processes.
// A replica needs a second to start, and a minute on a machine that is busy.
vi.setConfig({ testTimeout: 600_000 });

const clients: TestClient[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
  killAll();
});

/** A connection of its own; the balancer deals connections out in turn. */
function connect(address: string): TestClient {
  const client = new TestClient(address);
  clients.push(client);
  return client;
}

async function open(address: string): Promise<TestStream> {
  const stream = connect(address).connect();
  await stream.opened();
  return stream;
}

async function page(admin: string): Promise<Page> {
  return new Page(await (await fetch(`http://${admin}/metrics`)).text());
}

/** What all tests need: a store, an upstream, and replicas behind a balancer. */
async function world({ config = '', durable = false }: { config?: string; durable?: boolean } = {}) {
  const stack = new AsyncDisposableStack();
  const store = stack.use(await StoreServer.start({ kind: ANY_SERVER ?? 'valkey' }));
  const simulator = await startSimulator({});
  stack.defer(() => simulator.close());
  const replicas = stack.use(
    new Replicas({ storeUrl: store.url, upstreamUrl: simulator.url, config, durable }),
  );
  const balancer = stack.use(await TcpBalancer.start([]));
  return {
    store,
    simulator,
    replicas,
    balancer,
    address: balancer.address,
    [Symbol.asyncDispose]: () => {
      // Processes first, so that nothing they use goes before them.
      for (const client of clients.splice(0)) client.close();
      killAll();
      return stack.disposeAsync();
    },
  };
}

describe.skipIf(ANY_SERVER === undefined)('replicas behind a balancer', () => {
  test('a session resumes through whichever replica the new connection reaches', async () => {
    await using all = await world();
    const [a, b] = await Promise.all([all.replicas.start(), all.replicas.start('--workers', '2')]);
    all.balancer.targets = [a.grpc, b.grpc];
    let stream = await open(all.address);
    const { session_id: id, resume_token: first } = await stream.opened();
    let token = first;
    let lastSeq = 0;
    for (let round = 1; round <= 6; round += 1) {
      const turnId = `turn-${round}`;
      stream.startTurn({ turn_id: turnId }, `Round ${round} #deltas=100`);
      const events = await stream.turn(turnId);
      checkSeq(stream.events, lastSeq + 1);
      lastSeq = events[20]?.seq ?? 0;
      stream.cancel();
      stream = connect(all.address).connect({ resume: { token, last_seq: lastSeq } });
      const opened = await stream.opened();
      expect([opened.session_id, opened.resume_outcome]).toEqual([id, 'RESUME_OUTCOME_RESUMED']);
      token = opened.resume_token;
      await stream.turn(turnId);
      checkSeq(stream.events, lastSeq + 1);
      lastSeq = stream.events.at(-1)?.seq ?? 0;
      stream.events.length = 0;
    }
    // The owner's own page has none.
    const pages = [await page(a.admin), await page(b.admin)];
    const forwarded = pages.filter(({ types }) => types.has('responses_gateway_forwards_total'));
    const taken = forwarded.map((each) => each.sum('responses_gateway_forwards_total', { result: 'taken' }));
    expect(taken.reduce((sum, count) => sum + count, 0)).toBeGreaterThanOrEqual(2);
    // Said once in a while by each.
    await expect
      .poll(async () => (await page(a.admin)).sum('responses_gateway_processes'), { timeout: 30_000 })
      .toBe(3);
  });

  test('sixty turns a minute are sixty, and places and ids are shared, also after a restart', async () => {
    const tenants = 'tenants: [{ id: default, limits: { turns_per_minute: 60, sessions: 4 } }]';
    await using all = await world({ config: tenants });
    const [a, b] = await Promise.all([all.replicas.start(), all.replicas.start()]);
    const streams = await Promise.all([open(a.grpc), open(b.grpc)]);
    const turns = Array.from({ length: 120 }, async (_, at) => {
      const stream = streams[at % 2] as TestStream;
      stream.startTurn({ turn_id: `t${at}`, lane_id: `l${at % 8}` }, 'Hi #deltas=1');
      return (await stream.turn(`t${at}`)).at(-1);
    });
    const last = await Promise.all(turns);
    const completed = last.filter((event) => event?.outcome === 'TURN_OUTCOME_COMPLETED');
    expect(completed).toHaveLength(60);
    const refused = last.filter((event) => event?.turn_failed !== undefined);
    expect(new Set(refused.map((event) => event?.turn_failed?.reason))).toEqual(new Set(['LIMIT_EXCEEDED']));

    const more = await Promise.all([open(a.grpc), open(b.grpc)]);
    expect(await connect(a.grpc).connect().ended()).toMatchObject({ reason: 'LIMIT_EXCEEDED' });
    expect(await connect(b.grpc).connect().ended()).toMatchObject({ reason: 'LIMIT_EXCEEDED' });
    for (const stream of [...streams, ...more]) stream.halfClose();
    await Promise.all([...streams, ...more].map((stream) => stream.ended()));
    await vi.waitFor(() => open(b.grpc), { timeout: 10_000, interval: 200 });
  });

  test('a response id is known to another replica, and after a restart of all', async () => {
    await using all = await world();
    const a = await all.replicas.start();
    const stream = await open(a.grpc);
    stream.startTurn({ turn_id: 't1', create: { store: true } }, 'Hi');
    await stream.turn('t1');
    const created = (await stream.event('response.created')).response_created as { response: { id: string } };
    const { id } = created.response;
    a.child.kill('SIGTERM');
    expect((await a.ended).code).toBe(0);
    const b = await all.replicas.start();
    const later = await open(b.grpc);
    later.startTurn({ turn_id: 't2', previous_response_id: id }, 'And?');
    expect((await later.turn('t2')).at(-1)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
    later.startTurn({ turn_id: 't3', previous_response_id: 'resp_0' }, 'And?');
    expect((await later.turn('t3')).at(-1)?.turn_failed).toMatchObject({ reason: 'UNKNOWN_RESPONSE' });
  });

  test('a store is looked at, and forgets a tenant', async () => {
    await using all = await world();
    const store = (...args: string[]) => run(['store', ...args], { env: all.replicas.environment });
    expect(await store('check')).toMatchObject({ code: 0, stdout: expect.stringContaining('append-only') });
    const a = await all.replicas.start();
    const stream = await open(a.grpc);
    stream.startTurn({ turn_id: 't1', create: { store: true } }, 'Hi');
    await stream.turn('t1');
    const { response } = (await stream.event('response.created')).response_created as {
      response: { id: string };
    };
    a.child.kill('SIGTERM');
    await a.ended;
    expect(await store('forget-tenant', 'default')).toMatchObject({ code: 0 });
    const b = await all.replicas.start();
    const later = await open(b.grpc);
    later.startTurn({ turn_id: 't2', previous_response_id: response.id }, 'And?');
    expect((await later.turn('t2')).at(-1)?.turn_failed).toMatchObject({ reason: 'UNKNOWN_RESPONSE' });
  });

  test('a server that would lose sessions keeps no gateway with durable ones', async () => {
    await using store = await StoreServer.start({
      kind: ANY_SERVER ?? 'valkey',
      config: ['maxmemory 64mb', 'maxmemory-policy allkeys-lru'],
    });
    using replicas = new Replicas({ storeUrl: store.url, upstreamUrl: 'ws://127.0.0.1:9', durable: true });
    const checked = await run(['store', 'check'], { env: replicas.environment });
    expect(checked).toMatchObject({ code: 1, stdout: expect.stringContaining('allkeys-lru') });
    const started = await run(['serve'], { env: replicas.environment });
    expect(started.code).not.toBe(0);
    expect(started.stderr).toContain('maxmemory-policy noeviction');
  });

  test('a conversation goes on when its replica is killed', async () => {
    await using all = await world({ durable: true });
    const replicas = await Promise.all([all.replicas.start(), all.replicas.start()]);
    all.balancer.targets = replicas.map(({ grpc }) => grpc);
    const session = new RoamingSession(all.address);
    for (let turn = 1; turn <= 3; turn += 1) {
      expect(await session.turn(`t${turn}`, `Turn ${turn}`)).toMatchObject({
        outcome: 'TURN_OUTCOME_COMPLETED',
      });
    }
    const [id] = session.sessionIds;
    const owner = await ownerOf(id ?? '', replicas);
    owner.child.kill('SIGKILL');
    await owner.ended;
    expect(await session.turn('t4', 'Turn 4')).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
    expect(session.resumes).toEqual(['NEW', 'RECOVERED']);
    expect(session.sessionIds.size).toBe(1);
    const [other] = replicas.filter((replica) => replica !== owner);
    const metrics = await page(other?.admin ?? '');
    expect(metrics.sum('responses_gateway_takeovers_total', { result: 'taken' })).toBe(1);
    expect(metrics.sum('responses_gateway_sessions_durable')).toBe(1);
    session.close();
  });

  test('a rollout under load loses no session and fails no turn', async () => {
    await using all = await world({ durable: true });
    let running: readonly Replica[] = await Promise.all([
      all.replicas.start(),
      all.replicas.start(),
      all.replicas.start(),
    ]);
    all.balancer.targets = running.map(({ grpc }) => grpc);
    const sessions = Array.from({ length: 12 }, () => new RoamingSession(all.address));
    let rollingOut = true;
    const load = sessions.map(async (session, at) => {
      const outcomes: string[] = [];
      for (let turn = 1; rollingOut; turn += 1) {
        const last = await session.turn(`t${turn}`, `Turn ${turn} of ${at} #deltas=40 #tps=100`);
        outcomes.push(last.outcome);
      }
      return outcomes;
    });
    for (const old of running) {
      running = [...running, await all.replicas.start()].filter((replica) => replica !== old);
      all.balancer.targets = running.map(({ grpc }) => grpc);
      old.child.kill('SIGTERM');
      expect((await old.ended).code).toBe(0);
    }
    rollingOut = false;
    const outcomes = (await Promise.all(load)).flat();
    expect(outcomes.length).toBeGreaterThan(sessions.length * 3);
    expect(new Set(outcomes)).toEqual(new Set(['TURN_OUTCOME_COMPLETED']));
    for (const session of sessions) {
      expect(session.sessionIds.size).toBe(1);
      expect(session.resumes.filter((outcome) => outcome === 'GONE')).toEqual([]);
      // All three replicas that were there at the beginning are gone.
      expect(session.resumes.length).toBeGreaterThan(1);
      session.close();
    }
  });
});

type Replica = Awaited<ReturnType<Replicas['start']>>;

async function ownerOf(sessionId: string, replicas: readonly Replica[]): Promise<Replica> {
  for (const replica of replicas) {
    const { sessions } = (await (await fetch(`http://${replica.admin}/sessions`)).json()) as {
      sessions: { id: string }[];
    };
    if (sessions.some(({ id }) => id === sessionId)) return replica;
  }
  throw new Error(`nobody has ${sessionId}`);
}
