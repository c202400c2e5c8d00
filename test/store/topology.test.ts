import { describe, expect, it } from 'vitest';
import { createJournalStore } from '../../src/store/journal-store.ts';
import { StoreRelay } from '../harness/store-relay.ts';
import {
  AVAILABLE,
  connectStore,
  freePort,
  type ServerKind,
  StoreServer,
  startSentinel,
} from '../harness/store-server.ts';

/** A server behind a relay, in one of the ways in which it can be reached. Clients get at it through the relay only. */
async function behindRelay(kind: ServerKind, topology: 'plain' | 'sentinel' | 'cluster') {
  const stack = new AsyncDisposableStack();
  const relay = stack.use(await StoreRelay.start(0));
  const config =
    topology === 'cluster'
      ? [
          'cluster-enabled yes',
          `cluster-port ${await freePort()}`,
          'cluster-announce-ip 127.0.0.1',
          `cluster-announce-port ${relay.port}`,
        ]
      : [];
  const server = stack.use(await StoreServer.start({ kind, config }));
  relay.target = server.port;
  const dispose = () => stack.disposeAsync();
  if (topology === 'plain') return { relay, url: relay.url, [Symbol.asyncDispose]: dispose };
  if (topology === 'cluster') {
    const direct = await connectStore(server.url);
    await direct.command('c', ['CLUSTER', 'ADDSLOTSRANGE', '0', '16383']);
    await expect
      .poll(async () => String(await direct.command('c', ['CLUSTER', 'INFO'])), { timeout: 20_000 })
      .toContain('cluster_state:ok');
    await direct.close();
    return { relay, url: `valkey+cluster://127.0.0.1:${relay.port}`, [Symbol.asyncDispose]: dispose };
  }
  const sentinel = stack.use(await startSentinel(kind, relay.port));
  return { relay, url: `valkey+sentinel://127.0.0.1:${sentinel.port}/main`, [Symbol.asyncDispose]: dispose };
}

describe.each(AVAILABLE)('%s', (kind) => {
  // The library's own default for Sentinel sends such a command again.
  it.each(['plain', 'sentinel', 'cluster'] as const)(
    'carries a command out once when its answer is lost: %s',
    { timeout: 60_000 },
    async (topology) => {
      await using all = await behindRelay(kind, topology);
      const client = await connectStore(all.url, { keyPrefix: '' });
      await client.command('n', ['SET', 'n', '0']);
      const lost = all.relay.loseAnswerOf('INCR');
      await expect(client.command('n', ['INCR', 'n'])).rejects.toMatchObject({ failure: 'unknown' });
      await lost;
      await expect.poll(() => client.command('n', ['GET', 'n']).catch(String), { timeout: 20_000 }).toBe('1');
      // Nor later.
      expect(await client.command('n', ['GET', 'n'])).toBe('1');
      await client.close();
    },
  );

  it('goes on with another primary after a failover', { timeout: 90_000 }, async () => {
    await using primary = await StoreServer.start({ kind });
    await using replica = await StoreServer.start({ kind, config: [`replicaof 127.0.0.1 ${primary.port}`] });
    await using sentinel = await startSentinel(kind, primary.port);
    const watch = await connectStore(sentinel.url);
    await expect
      .poll(async () => String(await watch.command('s', ['SENTINEL', 'MASTER', 'main'])), { timeout: 30_000 })
      .toContain('num-slaves,1');
    const client = await connectStore(`valkey+sentinel://127.0.0.1:${sentinel.port}/main`);
    const store = createJournalStore(client);
    const append = (n: number) =>
      store.append(
        'ses',
        { id: { fence: 1, n }, kind: 'b', payload: Buffer.from(String(n)) },
        { create: n === 0, ttlMs: 600_000 },
      );
    expect(await append(0)).toBe('written');
    // A replica that is still being filled acknowledges nothing.
    await expect
      .poll(() => client.command('k', ['WAIT', '1', '1000'], { timeoutMs: 6_000 }), { timeout: 30_000 })
      .toBe(1);
    const epoch = client.epoch;
    await primary.kill();
    await expect.poll(() => append(1).catch(() => 'away'), { timeout: 60_000 }).toBe('written');
    expect(client.epoch).toBeGreaterThan(epoch);
    expect(await store.last('ses')).toEqual({ fence: 1, n: 1 });
    const direct = await connectStore(replica.url);
    expect(String(await direct.command('k', ['ROLE']))).toContain('master');
    for (const each of [watch, client, direct]) await each.close();
  });
});
