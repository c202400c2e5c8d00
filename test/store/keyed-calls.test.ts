import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { StoreClient } from '../../src/store/client.ts';
import { createKeyedCalls } from '../../src/store/keyed-calls.ts';
import { createSealer } from '../../src/store/sealing.ts';
import { StoreError } from '../../src/store/store-error.ts';
import { ANY_SERVER, connectStore, StoreServer } from '../harness/store-server.ts';

const KEYS = [{ id: 'k', secret: Buffer.alloc(32, 7) }];
const SALT = Buffer.alloc(32, 1);

/** What becomes of a command: `unanswered` ones are carried out, `lost` ones are not. */
type Fate = 'answered' | 'unanswered' | 'lost';

describe.runIf(ANY_SERVER !== undefined).each(['sealed', 'plain'])('a key that is taken, %s', (how) => {
  let server: StoreServer;
  let client: StoreClient;
  beforeAll(async () => {
    server = await StoreServer.start({ kind: ANY_SERVER ?? 'valkey' });
    client = await connectStore(server.url, { commandTimeoutMs: 15_000 });
  });
  afterAll(async () => {
    await client.close();
    await server[Symbol.asyncDispose]();
  });

  const newKey = () => randomUUID();

  function processOf(processId: string) {
    const fates: Fate[] = [];
    const sent: string[] = [];
    let isAway = false;
    const unreliable: StoreClient = Object.assign(Object.create(client), {
      key: (name: string) => client.key(name),
      command: async (...args: Parameters<StoreClient['command']>) => {
        sent.push(String(args[1][0]));
        const fate = isAway ? 'lost' : (fates.shift() ?? 'answered');
        const reply = fate === 'lost' ? undefined : await client.command(...args);
        if (fate !== 'answered') throw new StoreError('unknown', 'no answer in time');
        return reply;
      },
    });
    const calls = createKeyedCalls({
      client: unreliable,
      processId,
      isAlive: async () => true,
      sealerOf: how === 'sealed' ? async (_tenantId, name) => createSealer(KEYS, SALT, name) : undefined,
      onFailure: 'refuse',
    });
    return {
      calls,
      fates,
      sent,
      away: (is: boolean) => {
        isAway = is;
      },
    };
  }

  it('is not given back for a claim that came after the one that was not answered', async () => {
    const [one, two, key] = [processOf('p1'), processOf('p2'), newKey()];
    one.fates.push('lost');
    const refused = one.calls.claim('t', key, 'r');
    // It is told again and again that the key was not wanted, for as long as nobody answers.
    one.away(true);
    await expect(refused).rejects.toMatchObject({ failure: 'unknown' });
    one.away(false);
    one.fates.length = 0;
    expect(await one.calls.claim('t', key, 'r')).toBe('ours');
    const count = one.sent.length;
    await vi.waitFor(() => expect(one.sent.length).toBeGreaterThan(count), { timeout: 10_000 });
    await settled(one.sent);
    expect(await two.calls.claim('t', key, 'r')).toMatchObject({ process: 'p1' });
  }, 30_000);

  it('is not taken from another process by a release that was carried out and not answered', async () => {
    const [one, two, key] = [processOf('p1'), processOf('p2'), newKey()];
    expect(await one.calls.claim('t', key, 'r')).toBe('ours');
    const before = one.sent.length;
    one.fates.push('unanswered');
    one.calls.release('t', key);
    await vi.waitFor(async () => expect(await two.calls.claim('t', key, 'r')).toBe('ours'));
    await vi.waitFor(() => expect(one.sent.length).toBeGreaterThan(before + 1), { timeout: 10_000 });
    await settled(one.sent);
    expect(await one.calls.look('t', key)).toMatchObject({ process: 'p2' });
  }, 30_000);

  it('is not given up by a release of a call whose key this process has taken anew', async () => {
    const [one, key] = [processOf('p1'), newKey()];
    expect(await one.calls.claim('t', key, 'r')).toBe('ours');
    const before = one.sent.length;
    one.fates.push('lost');
    one.calls.release('t', key);
    await vi.waitFor(() => expect(one.sent.length).toBe(before + 1));
    // The entry is there still, and nobody runs its call.
    expect(await one.calls.claim('t', key, 'r')).toBe('ours');
    const after = one.sent.length;
    await vi.waitFor(() => expect(one.sent.length).toBeGreaterThan(after), { timeout: 10_000 });
    await settled(one.sent);
    expect(await one.calls.look('t', key)).toMatchObject({ process: 'p1', outcome: undefined });
    one.calls.release('t', key);
    await vi.waitFor(async () => expect(await one.calls.look('t', key)).toBeUndefined());
  }, 30_000);

  it('is this process’s to run when its own taking of it was carried out and not answered', async () => {
    const [one, two, key] = [processOf('p1'), processOf('p2'), newKey()];
    one.fates.push('unanswered', 'lost', 'answered');
    await expect(one.calls.claim('t', key, 'r')).rejects.toMatchObject({ failure: 'unknown' });
    expect(await one.calls.claim('t', key, 'r')).toBe('ours');
    expect(await two.calls.claim('t', key, 'r')).toMatchObject({ process: 'p1', outcome: undefined });
    // Whoever else of this process asks does not run it a second time.
    expect(await one.calls.claim('t', key, 'r')).toMatchObject({ process: 'p1', outcome: undefined });
    one.calls.finish('t', key, 'r', { message: undefined, failure: undefined });
    await vi.waitFor(async () => expect(await two.calls.look('t', key)).toMatchObject({ outcome: {} }));
  }, 30_000);

  it('is free after a taking that was carried out, not answered, and given back', async () => {
    const [one, two, key] = [processOf('p1'), processOf('p2'), newKey()];
    one.fates.push('unanswered');
    await expect(one.calls.claim('t', key, 'r')).rejects.toMatchObject({ failure: 'unknown' });
    await vi.waitFor(async () => expect(await two.calls.claim('t', key, 'r')).toBe('ours'));
  }, 30_000);
});

/** Nothing was sent for a while. */
async function settled(sent: readonly string[]): Promise<void> {
  for (let count = -1; count !== sent.length; ) {
    count = sent.length;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}
