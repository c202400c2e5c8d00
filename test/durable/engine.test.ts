import { describe, expect, it } from 'vitest';
import { createDurability } from '../../src/app/durability.ts';
import type { StoreClient } from '../../src/store/client.ts';
import { createJournalStore } from '../../src/store/journal-store.ts';
import { createSealer } from '../../src/store/sealing.ts';
import { TenantSalts } from '../../src/store/tenant-salts.ts';
import { startGateway, type TestGateway } from '../harness/gateway.ts';
import { StoreRelay } from '../harness/store-relay.ts';
import { ANY_SERVER, AVAILABLE, connectStore, StoreServer, startSentinel } from '../harness/store-server.ts';
import { ClientSession } from './client-session.ts';

const KEY = { id: 'k', secret: Buffer.alloc(32, 7) };
const NEW_KEY = { id: 'k2', secret: Buffer.alloc(32, 8) };
const COMPLETED = { outcome: 'TURN_OUTCOME_COMPLETED' };

/** Gateways of one process with one store and one upstream; nobody answers for another. */
async function world(options: { readonly kind: 'redis' | 'valkey'; readonly config?: readonly string[] }) {
  const stack = new AsyncDisposableStack();
  const server = stack.use(await StoreServer.start(options));
  const first = stack.use(await startGateway());
  let processes = 0;
  const start = async ({
    url = server.url,
    keys = true,
    sealing = [KEY],
    readsAfter = Promise.resolve(),
    resumeGraceMs = 60_000,
  } = {}) => {
    const client = await connectStore(url, { commandTimeoutMs: 500 });
    stack.defer(() => client.close());
    processes += 1;
    const durability = createDurability({
      client: readingAfter(readsAfter, client),
      heartbeats: { addressOf: async () => undefined },
      owner: { process: `p${processes}`, address: '' },
      keys: keys ? sealing : [],
      onFailure: 'local',
      resumeGraceMs,
      onBug: (error) => {
        throw error;
      },
    });
    stack.defer(() => durability.close());
    const gateway = stack.use(
      await startGateway({
        upstreamUrl: first.simulator.url,
        limits: { resumeGraceMs },
        server: { durability },
      }),
    );
    return { gateway, client };
  };
  return { server, simulator: first.simulator, start, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** The same client, but journals are read only after that. */
function readingAfter(after: Promise<void>, client: StoreClient): StoreClient {
  return new Proxy(client, {
    get: (target, name) => {
      if (name === 'command')
        return async (...args: Parameters<StoreClient['command']>) => {
          if (args[1][0] === 'XRANGE') await after;
          return target.command(...args);
        };
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

const turn = async (session: ClientSession, id: string, text: string, store = false) => {
  session.stream.startTurn({ turn_id: id, create: { store } }, text);
  return (await session.stream.turn(id)).at(-1);
};

const notice = (session: ClientSession, kind: string) =>
  session.stream.until(() => session.stream.events.some((event) => event.notice?.kind === kind));

async function entriesOf(client: StoreClient, { sessionId }: ClientSession): Promise<number> {
  const key = client.key(`{${sessionId}}`);
  return Number(await client.command(key, ['XLEN', key]));
}

/** A busy machine may be slow, and then well again, more often than a test asks for. */
const caughtUp = ({ server }: TestGateway, { sessionId }: ClientSession) =>
  expect.poll(() => server.registry.get(sessionId)?.core.durable, { timeout: 15_000 }).toBe(true);

const resumed = (session: ClientSession, gateway: TestGateway) => session.resume(gateway);

it.runIf(ANY_SERVER !== undefined)(
  'a session that is taken over for a client that has left by then waits no longer than any other',
  async () => {
    await using all = await world({ kind: ANY_SERVER ?? 'valkey' });
    const { gateway } = await all.start();
    const session = await ClientSession.open(gateway);
    const held = Promise.withResolvers<void>();
    const { gateway: other } = await all.start({ readsAfter: held.promise, resumeGraceMs: 500 });
    const stream = other.client().connect({ resume: { token: session.token, last_seq: 0, last_commit: 0 } });
    await expect.poll(() => other.access.callers.length).toBe(1);
    stream.cancel();
    await expect.poll(() => other.telemetry.rpcs.map(({ status }) => status)).toEqual(['CANCELLED']);
    held.resolve();
    await expect.poll(() => other.telemetry.sessions.length, { timeout: 10_000 }).toBe(1);
    await expect.poll(() => other.server.registry.size, { timeout: 10_000 }).toBe(0);
    expect(other.access.openSessions).toBe(0);
  },
);

describe.each(AVAILABLE)('durable sessions while %s', (kind) => {
  it('stalls: no turn fails, the client is told, and told again when the record has caught up', async () => {
    await using all = await world({ kind });
    const { gateway } = await all.start();
    const session = await ClientSession.open(gateway);
    await turn(session, 't1', 'My name is Ada.');
    all.server.stall();
    expect(await turn(session, 't2', 'Go on.')).toMatchObject(COMPLETED);
    await notice(session, 'durability_lost');
    expect(await turn(session, 't3', 'Further.')).toMatchObject(COMPLETED);
    all.server.goOn();
    await notice(session, 'durability_restored');
    await caughtUp(gateway, session);
    const { gateway: other } = await all.start();
    expect(await resumed(session, other)).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RECOVERED' });
    expect(String((await turn(session, 't4', 'And?'))?.json)).toContain('sees 7 items');
    session.checkSeq();
  });

  it('is away when its client has heard more: the session is gone, never shorter', async () => {
    await using all = await world({ kind });
    await using relay = await StoreRelay.start(all.server.port);
    const { gateway } = await all.start({ url: relay.url });
    const session = await ClientSession.open(gateway);
    await turn(session, 't1', 'My name is Ada.');
    await relay[Symbol.asyncDispose]();
    expect(await turn(session, 't2', 'Remember this.')).toMatchObject(COMPLETED);
    const { gateway: other } = await all.start();
    expect(await resumed(session, other)).toMatchObject({
      resume_outcome: 'RESUME_OUTCOME_GONE',
      gone_reason: 'ENGINE_LOST_DATA',
    });
  });

  it('restarts with nothing left: the record is written anew', async () => {
    await using all = await world({ kind });
    const { gateway, client } = await all.start();
    const session = await ClientSession.open(gateway);
    await turn(session, 't1', 'My name is Ada.');
    await all.server.kill();
    await all.server.run();
    await expect
      .poll(() => entriesOf(client, session).catch(() => 0), { timeout: 15_000 })
      .toBeGreaterThan(0);
    await caughtUp(gateway, session);
    expect(await turn(session, 't2', 'Go on.')).toMatchObject(COMPLETED);
    const { gateway: other } = await all.start();
    expect(await resumed(session, other)).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RECOVERED' });
    expect(String((await turn(session, 't3', 'And?'))?.json)).toContain('sees 5 items');
    session.checkSeq();
  });

  it('is full: sessions go on, are not durable, and are again when there is room', async () => {
    await using all = await world({ kind, config: ['maxmemory-policy noeviction'] });
    const { gateway, client } = await all.start();
    const session = await ClientSession.open(gateway);
    await client.command('c', ['CONFIG', 'SET', 'maxmemory', '1']);
    expect(await turn(session, 't1', 'My name is Ada.')).toMatchObject(COMPLETED);
    await notice(session, 'durability_lost');
    await client.command('c', ['CONFIG', 'SET', 'maxmemory', '0']);
    await notice(session, 'durability_restored');
    await caughtUp(gateway, session);
    const { gateway: other } = await all.start();
    expect(await resumed(session, other)).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RECOVERED' });
    expect(String((await turn(session, 't2', 'And?'))?.json)).toContain('sees 3 items');
  });

  it.each(['begin', 'commit'])('loses the answer of a %s: nothing runs twice', async (word) => {
    await using all = await world({ kind });
    await using relay = await StoreRelay.start(all.server.port);
    const { gateway, client } = await all.start({ url: relay.url });
    const session = await ClientSession.open(gateway);
    const lost = relay.loseAnswerOf(word);
    expect(await turn(session, 't1', 'asked once')).toMatchObject(COMPLETED);
    await lost;
    const asked = all.simulator.journal.entries.filter(({ request }) =>
      JSON.stringify(request).includes('asked once'),
    );
    expect(asked).toHaveLength(1);
    await caughtUp(gateway, session);
    // open, token, begin, commit, and a mark where the answer took its time.
    await expect.poll(() => entriesOf(client, session)).toBeLessThanOrEqual(5);
    const { gateway: other } = await all.start();
    expect(await resumed(session, other)).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RECOVERED' });
    expect(String((await turn(session, 't2', 'And?'))?.json)).toContain('sees 3 items');
    session.checkSeq();
  });

  it('fails over in the middle of a turn: the turn ends, and its session is durable at the new primary', {
    timeout: 120_000,
  }, async () => {
    await using all = await world({ kind });
    const replicaof = `replicaof 127.0.0.1 ${all.server.port}`;
    await using replica = await StoreServer.start({ kind, config: [replicaof] });
    await using sentinel = await startSentinel(kind, all.server.port);
    const watch = await connectStore(sentinel.url);
    await expect
      .poll(async () => String(await watch.command('s', ['SENTINEL', 'MASTER', 'main'])), { timeout: 30_000 })
      .toContain('num-slaves,1');
    await watch.close();
    const url = `valkey+sentinel://127.0.0.1:${sentinel.port}/main`;
    const { gateway, client } = await all.start({ url });
    const session = await ClientSession.open(gateway);
    await turn(session, 't1', 'My name is Ada.');
    await client.command('w', ['WAIT', '1', '5000'], { timeoutMs: 6_000 });
    session.stream.startTurn({ turn_id: 't2', create: { store: false } }, 'Go on. #deltas=200 #tps=100');
    await session.stream.event('response.output_text.delta', 't2');
    await all.server.kill();
    expect((await session.stream.turn('t2')).at(-1)).toMatchObject(COMPLETED);
    await expect
      .poll(() => gateway.server.registry.get(session.sessionId)?.core.durable, { timeout: 60_000 })
      .toBe(true);
    expect(await turn(session, 't3', 'Further.')).toMatchObject(COMPLETED);
    await expect
      .poll(() => gateway.server.registry.get(session.sessionId)?.core.durable, { timeout: 60_000 })
      .toBe(true);
    const direct = await connectStore(replica.url);
    expect(await entriesOf(direct, session)).toBeGreaterThan(0);
    await direct.close();
    const { gateway: other } = await all.start({ url });
    expect(await resumed(session, other)).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RECOVERED' });
    expect(String((await turn(session, 't4', 'And?'))?.json)).toContain('sees 7 items');
    session.checkSeq();
  });

  it('has another owner: the old one says nothing more and runs nothing more', async () => {
    await using all = await world({ kind });
    const [left, right] = [await all.start(), await all.start()];
    const session = await ClientSession.open(left.gateway);
    await turn(session, 't1', 'My name is Ada.');
    const old = session.stream;
    await resumed(session, right.gateway);
    // Nobody has told it yet: what it is asked for now is not written, and so not run.
    old.startTurn({ turn_id: 'stray', create: { store: false } }, 'stray turn');
    expect(await old.ended()).toMatchObject({ reason: 'SESSION_SUPERSEDED' });
    expect(old.events.filter(({ turn_id }) => turn_id === 'stray')).toEqual([]);
    const asked = all.simulator.journal.entries.filter(({ request }) =>
      JSON.stringify(request).includes('stray turn'),
    );
    expect(asked).toEqual([]);
    expect(left.gateway.server.registry.size).toBe(0);
    expect(String((await turn(session, 't2', 'And?'))?.json)).toContain('sees 3 items');
  });

  it('has no keys: only ids are written, stored conversations move, others are said not to be durable', async () => {
    await using all = await world({ kind });
    const { gateway, client } = await all.start({ keys: false });
    const stored = await ClientSession.open(gateway);
    await turn(stored, 't1', 'My secret is Rosebud.', true);
    const unstored = await ClientSession.open(gateway);
    await turn(unstored, 't1', 'My secret is Rosebud.');
    await notice(unstored, 'durability_lost');
    for (const session of [stored, unstored]) {
      const key = client.key(`{${session.sessionId}}`);
      expect(JSON.stringify(await client.command(key, ['XRANGE', key, '-', '+']))).not.toContain('Rosebud');
    }
    const { gateway: other } = await all.start({ keys: false });
    expect(await resumed(stored, other)).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RECOVERED' });
    expect(String((await turn(stored, 't2', 'And?', true))?.json)).toContain('sees 3 items');
    await resumed(unstored, other);
    expect(await turn(unstored, 't2', 'And?')).toMatchObject({
      outcome: 'TURN_OUTCOME_FAILED',
      turn_failed: { reason: 'CHAIN_LOST', replay: 'REPLAY_VERDICT_SAFE' },
    });
  });
});

describe.runIf(ANY_SERVER !== undefined)('a record that is not as it should be', () => {
  const kind = ANY_SERVER ?? 'valkey';
  const idOf = async (client: StoreClient, { sessionId }: ClientSession) => {
    const key = client.key(`{${sessionId}}`);
    const [newest] = (await client.command(key, ['XREVRANGE', key, '+', '-', 'COUNT', '1'])) as [[string]];
    const [fence, n] = newest[0].split('-').map(Number) as [number, number];
    return { key, next: { fence, n: n + 1 } };
  };
  const refused = async (session: ClientSession, gateway: TestGateway) => {
    const resume = { token: session.token, last_seq: session.lastSeq, last_commit: session.lastCommit };
    const stream = gateway.client().connect({ resume });
    return (await stream.ended()).reason;
  };

  it('is sealed with a key that is not here: the client tries elsewhere, and nothing is lost', async () => {
    await using all = await world({ kind });
    const { gateway } = await all.start({ sealing: [NEW_KEY, KEY] });
    const session = await ClientSession.open(gateway);
    await turn(session, 't1', 'My name is Ada.');
    const { gateway: old } = await all.start();
    expect(await refused(session, old)).toBe('STORE_UNAVAILABLE');
    // The owner was not fenced by the one that could not read.
    expect(await turn(session, 't2', 'Go on.')).toMatchObject(COMPLETED);
    const { gateway: other } = await all.start({ sealing: [KEY, NEW_KEY] });
    expect(await resumed(session, other)).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RECOVERED' });
    // Sealed with both by now.
    expect(String((await turn(session, 't3', 'And?'))?.json)).toContain('sees 5 items');
    const { gateway: third } = await all.start({ sealing: [NEW_KEY, KEY] });
    expect(await resumed(session, third)).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RECOVERED' });
    expect(String((await turn(session, 't4', 'And?'))?.json)).toContain('sees 7 items');
    session.checkSeq();
  });

  it('has lost its tenant: the session is gone, and a turn that runs meanwhile ends', async () => {
    await using all = await world({ kind });
    const { gateway, client } = await all.start();
    const session = await ClientSession.open(gateway);
    await turn(session, 't1', 'My secret is Rosebud.');
    session.stream.startTurn({ turn_id: 't2', create: { store: false } }, 'Go on. #deltas=40 #tps=200');
    await session.stream.event('response.output_text.delta', 't2');
    await new TenantSalts(client).forget('anonymous');
    expect((await session.stream.turn('t2')).at(-1)).toMatchObject(COMPLETED);
    const { gateway: other } = await all.start();
    expect(await resumed(session, other)).toMatchObject({
      resume_outcome: 'RESUME_OUTCOME_GONE',
      gone_reason: 'ENGINE_LOST_DATA',
    });
  });

  it('has entries and fields that this version does not know: what it knows counts, a newer format is left alone', async () => {
    await using all = await world({ kind });
    const { gateway, client } = await all.start();
    const session = await ClientSession.open(gateway);
    await turn(session, 't1', 'My name is Ada.');
    const sealer = createSealer([KEY], await new TenantSalts(client).of('anonymous'), session.sessionId);
    const journal = createJournalStore(client);
    const add = async (kindOfEntry: string, text: string) => {
      const { next: id } = await idOf(client, session);
      const where = { sessionId: session.sessionId, id, kind: kindOfEntry };
      const payload = sealer.seal(Buffer.from(`${text}\n`), where);
      await journal.append(
        session.sessionId,
        { id, kind: kindOfEntry, payload },
        { create: false, ttlMs: 60_000 },
      );
    };
    await add('wish', '{"v":1,"kind":"wish","of":{"a":1}}');
    await add('mark', '{"v":1,"kind":"mark","commit":0,"newer":[1]}');
    const { gateway: other } = await all.start();
    expect(await resumed(session, other)).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RECOVERED' });
    expect(String((await turn(session, 't2', 'And?'))?.json)).toContain('sees 3 items');
    await add('mark', '{"v":2,"kind":"mark","commit":0}');
    const { gateway: third } = await all.start();
    expect(await refused(session, third)).toBe('STORE_UNAVAILABLE');
  });

  it('is wanted by two at once: one goes on, the other hears so, and nothing runs twice', async () => {
    await using all = await world({ kind });
    const { gateway } = await all.start();
    const session = await ClientSession.open(gateway);
    await turn(session, 't1', 'My name is Ada.');
    session.stream.cancel();
    const heirs = [await all.start(), await all.start()];
    const resume = { token: session.token, last_seq: session.lastSeq, last_commit: session.lastCommit };
    const streams = heirs.map((heir) =>
      heir.gateway.client().connect({ payload: 'PAYLOAD_FORMAT_BOTH', resume }),
    );
    for (const stream of streams)
      stream.startTurn({ turn_id: 't2', create: { store: false } }, 'asked twice');
    const ends = await Promise.all(
      streams.map(async (stream) => {
        try {
          return (await stream.turn('t2')).at(-1)?.outcome ?? 'none';
        } catch {
          return stream.endedWith?.reason ?? 'none';
        }
      }),
    );
    // Where it had begun when the other one came, it is reported.
    for (const end of ends)
      expect(['TURN_OUTCOME_COMPLETED', 'TURN_OUTCOME_FAILED', 'SESSION_SUPERSEDED']).toContain(end);
    expect(ends.filter((end) => end === 'SESSION_SUPERSEDED').length).toBeLessThan(2);
    const asked = all.simulator.journal.entries.filter(({ request }) =>
      JSON.stringify(request?.['input']).includes('asked twice'),
    );
    expect(asked.length).toBeLessThan(2);
    // One of them has it, and goes on.
    for (const stream of streams.filter(({ endedWith }) => endedWith === undefined))
      stream.startTurn({ turn_id: 't3', create: { store: false } }, 'And?');
    const last = await Promise.all(streams.map((stream) => stream.turn('t3').catch(() => [])));
    const completed = last.filter((events) => events.at(-1)?.outcome === 'TURN_OUTCOME_COMPLETED');
    expect(completed).toHaveLength(1);
    expect(String(completed[0]?.at(-1)?.json)).toMatch(/sees [35] items/);
  });

  it('is wanted by two streams at one process: it is taken once, and goes on with the later one', async () => {
    await using all = await world({ kind });
    const { gateway, client } = await all.start();
    const session = await ClientSession.open(gateway);
    await turn(session, 't1', 'My name is Ada.');
    session.stream.cancel();
    const { gateway: heir } = await all.start();
    const resume = { token: session.token, last_seq: session.lastSeq, last_commit: session.lastCommit };
    const streams = [heir.client(), heir.client()].map((one) =>
      one.connect({ payload: 'PAYLOAD_FORMAT_BOTH', resume }),
    );
    const opened = await Promise.allSettled(streams.map((stream) => stream.opened()));
    const living = opened.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    for (const one of living) expect(one).toMatchObject({ session_id: session.sessionId });
    await expect
      .poll(() => streams.filter(({ endedWith }) => endedWith?.reason === 'SESSION_SUPERSEDED').length, {
        timeout: 15_000,
      })
      .toBe(1);
    const key = client.key(`{${session.sessionId}}`);
    const entries = (await client.command(key, ['XRANGE', key, '-', '+'])) as [string, string[]][];
    expect(entries.filter(([, [kind]]) => kind === 'take')).toHaveLength(1);
    const stream = streams.find(({ endedWith }) => endedWith === undefined);
    stream?.startTurn({ turn_id: 't2', create: { store: false } }, 'And?');
    expect(String((await stream?.turn('t2'))?.at(-1)?.json)).toContain('sees 3 items');
  });
});
