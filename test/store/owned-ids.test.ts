import { expect, test } from 'vitest';
import { OwnedIdBuckets } from '../../src/store/owned-ids.ts';
import { ANY_SERVER, connectStore, StoreServer } from '../harness/store-server.ts';

const MIDNIGHT = Date.UTC(2027, 0, 2);
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

test.runIf(ANY_SERVER !== undefined)(
  'ids are known to processes whose clocks differ around midnight, and for as many days as they are kept',
  async () => {
    await using server = await StoreServer.start({ kind: ANY_SERVER ?? 'valkey' });
    const client = await connectStore(server.url);
    let slowMs = MIDNIGHT - MINUTE_MS;
    const fast = new OwnedIdBuckets(client, 2, () => MIDNIGHT + MINUTE_MS);
    const slow = new OwnedIdBuckets(client, 2, () => slowMs);
    fast.add('acme', 'resp_fast');
    slow.add('acme', 'resp_slow');
    await Promise.all([fast.flush(), slow.flush()]);
    for (const ids of [fast, slow])
      for (const id of ['resp_fast', 'resp_slow']) expect(await ids.has('acme', id)).toBe(true);
    expect(await slow.has('acme', 'resp_never')).toBe(false);
    expect(await slow.has('other', 'resp_fast')).toBe(false);
    slowMs += 2 * DAY_MS;
    expect(await slow.has('acme', 'resp_slow')).toBe(true);
    slowMs += 2 * DAY_MS;
    expect(await slow.has('acme', 'resp_slow')).toBe(false);
    slowMs = MIDNIGHT - MINUTE_MS;
    await slow.forget('acme');
    for (const id of ['resp_fast', 'resp_slow']) expect(await fast.has('acme', id)).toBe(false);
    await client.close();
  },
);
