import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkStore } from '../../src/store/check.ts';
import type { StoreClient } from '../../src/store/client.ts';
import { startHeartbeat } from '../../src/store/heartbeats.ts';
import { createJournalStore } from '../../src/store/journal-store.ts';
import { TenantSalts } from '../../src/store/tenant-salts.ts';
import type { JournalStore, StoredEntry } from '../../src/store/types.ts';
import { AVAILABLE, connectStore, StoreServer } from '../harness/store-server.ts';

const TTL = { create: false, ttlMs: 60_000 };
const CREATE = { create: true, ttlMs: 60_000 };

function entry(fence: number, n: number, payload = `${fence}-${n}`): StoredEntry {
  return { id: { fence, n }, kind: 'b', payload: Buffer.from(payload) };
}

async function all(
  store: JournalStore,
  sessionId: string,
  after?: StoredEntry['id'],
): Promise<StoredEntry[]> {
  const entries: StoredEntry[] = [];
  for await (const page of store.load(sessionId, after)) entries.push(...page);
  return entries;
}

it('has servers to test against', () => {
  if (AVAILABLE.length < 2)
    console.warn(`store: only ${AVAILABLE.join(', ') || 'no'} server; run scripts/store-servers.sh`);
  if (process.env['CI'] !== undefined) expect(AVAILABLE).toEqual(['valkey', 'redis']);
});

describe.each(AVAILABLE)('journals in %s', (kind) => {
  let server: StoreServer;
  let client: StoreClient;
  let store: JournalStore;
  let sessions = 0;
  const newSession = () => `ses_${++sessions}`;

  beforeAll(async () => {
    server = await StoreServer.start({ kind });
    client = await connectStore(server.url);
    store = createJournalStore(client);
  });
  afterAll(async () => {
    await client.close();
    await server[Symbol.asyncDispose]();
  });

  it('appends in order and loads what was appended', async () => {
    const session = newSession();
    expect(await store.append(session, entry(1, 0), CREATE)).toBe('written');
    for (let n = 1; n <= 70; n += 1) expect(await store.append(session, entry(1, n), TTL)).toBe('written');
    expect(await store.last(session)).toEqual({ fence: 1, n: 70 });
    const loaded = await all(store, session);
    expect(loaded.map(({ id }) => id.n)).toEqual(Array.from({ length: 71 }, (_, n) => n));
    expect(loaded[3]).toEqual(entry(1, 3));
    expect(await all(store, session, { fence: 1, n: 68 })).toEqual([entry(1, 69), entry(1, 70)]);
  });

  it('keeps bytes as they are', async () => {
    const session = newSession();
    const payload = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    await store.append(session, { ...entry(1, 0), payload }, CREATE);
    expect((await all(store, session))[0]?.payload).toEqual(payload);
  });

  it('takes no entry of an owner that another has followed', async () => {
    const session = newSession();
    await store.append(session, entry(1, 0), CREATE);
    await store.append(session, entry(1, 1), TTL);
    expect(await store.append(session, entry(2, 0), TTL)).toBe('written');
    expect(await store.append(session, entry(1, 2), TTL)).toBe('stale');
    expect(await store.append(session, entry(2, 1), TTL)).toBe('written');
  });

  it('lets one of two win a session, and takes nothing twice', async () => {
    const session = newSession();
    await store.append(session, entry(1, 0), CREATE);
    const both = await Promise.all([
      store.append(session, entry(2, 0, 'left'), TTL),
      store.append(session, entry(2, 0, 'right'), TTL),
    ]);
    expect(both.sort()).toEqual(['stale', 'written']);
    expect(await all(store, session)).toHaveLength(2);
  });

  it('appends nothing to a journal that is not there', async () => {
    const session = newSession();
    expect(await store.append(session, entry(1, 1), TTL)).toBe('missing');
    expect(await store.last(session)).toBeUndefined();
    expect(await all(store, session)).toEqual([]);
    expect(await store.touch(session, 1000)).toBe(false);
  });

  it('trims, expires and removes', async () => {
    const session = newSession();
    await store.append(session, entry(1, 0), CREATE);
    for (let n = 1; n <= 9; n += 1) await store.append(session, entry(1, n), TTL);
    await store.trim(session, { fence: 1, n: 7 });
    expect((await all(store, session)).map(({ id }) => id.n)).toEqual([7, 8, 9]);
    const ttl = await client.command('k', ['PTTL', client.key(`{${session}}`)]);
    expect(ttl).toBeGreaterThan(50_000);
    expect(await store.touch(session, 1)).toBe(true);
    await expect.poll(() => store.last(session)).toBeUndefined();
    await store.append(session, entry(3, 0), CREATE);
    await store.remove(session);
    expect(await store.last(session)).toBeUndefined();
  });

  it('says that a full server has written nothing', async () => {
    await using full = await StoreServer.start({
      kind,
      config: ['maxmemory 3mb', 'maxmemory-policy noeviction'],
    });
    const small = await connectStore(full.url);
    const journals = createJournalStore(small);
    await journals.append('ses_full', entry(1, 0), CREATE);
    let n = 0;
    const fill = async () => {
      for (;;) {
        n += 1;
        await journals.append('ses_full', entry(1, n, 'x'.repeat(200_000)), TTL);
      }
    };
    await expect(fill()).rejects.toMatchObject({ failure: 'refused', code: 'OOM' });
    expect(await journals.last('ses_full')).toEqual({ fence: 1, n: n - 1 });
    await small.close();
  });

  it('gives each tenant one salt, also to several processes', async () => {
    let nowMs = 0;
    const [left, right] = [new TenantSalts(client, () => nowMs), new TenantSalts(client, () => nowMs)];
    const [one, two] = await Promise.all([left.of('acme'), right.of('acme')]);
    expect(one).toEqual(two);
    expect(one).toHaveLength(32);
    expect(await left.of('other')).not.toEqual(one);
    await left.forget('acme');
    const next = await left.of('acme');
    expect(next).not.toEqual(one);
    // Who remembers the old one gives it back to nobody, and learns the new one.
    expect(await right.of('acme')).toEqual(one);
    nowMs += 60_000;
    expect(await right.of('acme')).toEqual(next);
    await left.forget('acme');
    expect(await right.refresh('acme')).not.toEqual(next);
    expect(await left.of('acme')).toEqual(await right.of('acme'));
    // A store that has lost it gets it back.
    const salt = await left.of('acme');
    const key = client.key('salt:acme');
    await client.command(key, ['UNLINK', key]);
    expect(await right.refresh('acme')).toEqual(salt);
  });

  it('knows which processes are alive', async () => {
    const other = await connectStore(server.url);
    const timing = { lifetimeMs: 400, intervalMs: 100 };
    const left = startHeartbeat(client, { processId: 'l', address: '10.0.0.1:1', ...timing });
    const right = startHeartbeat(other, { processId: 'r', address: '10.0.0.2:1', ...timing });
    await expect.poll(() => left.addressOf('r')).toBe('10.0.0.2:1');
    await left.stop();
    expect(await right.addressOf('l')).toBeUndefined();
    await other.close();
    // It had no time to say goodbye.
    await expect.poll(() => left.addressOf('r')).toBeUndefined();
    await right.stop();
  });
});

describe.each(AVAILABLE)('the check of %s at start', (kind) => {
  it.each([
    [['appendonly yes'], []],
    [[], [['warning', /keeps no append-only file/]]],
    [
      ['appendonly yes', 'maxmemory 100mb', 'maxmemory-policy volatile-lru'],
      [['error', /maxmemory-policy volatile-lru.*set maxmemory-policy noeviction/]],
    ],
    [['appendonly yes', 'maxmemory 100mb', 'maxmemory-policy noeviction'], []],
    [['appendonly yes', 'maxmemory-policy allkeys-lru'], []],
  ] as const)('with %s', async (config, expected) => {
    await using server = await StoreServer.start({ kind, config });
    const client = await connectStore(server.url);
    const findings = await checkStore(client);
    expect(findings.map(({ severity }) => severity)).toEqual(expected.map(([severity]) => severity));
    for (const [index, [, message]] of expected.entries()) expect(findings[index]?.message).toMatch(message);
    await client.close();
  });
});
