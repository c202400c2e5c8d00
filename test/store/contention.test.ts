import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createJournalStore } from '../../src/store/journal-store.ts';
import { StoreError } from '../../src/store/store-error.ts';
import type { EntryId, JournalStore } from '../../src/store/types.ts';
import { AVAILABLE, connectStore, StoreServer } from '../harness/store-server.ts';

/** The long form, `npm run check -- contention`, has 10,000. */
const TURNS = Number(process.env['CONTENTION_TURNS'] ?? 500);
const OWNERS = 8;
/** Longer than the longest run: a journal that has ended is missing for ever. */
const TTL_MS = 86_400_000;
const APPEND = { create: false, ttlMs: TTL_MS };

describe.each(AVAILABLE)('owners that fight for one session in %s', (kind) => {
  let server: StoreServer;
  const clients: Awaited<ReturnType<typeof connectStore>>[] = [];

  beforeAll(async () => {
    server = await StoreServer.start({ kind });
    for (let n = 0; n < OWNERS; n += 1) clients.push(await connectStore(server.url));
  });
  afterAll(async () => {
    for (const client of clients) await client.close();
    await server[Symbol.asyncDispose]();
  });

  it(`run none of ${TURNS} turns twice`, { timeout: 60_000 + 600 * TURNS }, async () => {
    const stores = clients.map(createJournalStore);
    await (stores[0] as JournalStore).append(
      'ses',
      { id: { fence: 1, n: 0 }, kind: 'open', payload: Buffer.alloc(0) },
      { create: true, ttlMs: TTL_MS },
    );
    const ran = new Map<number, number>();
    let takeovers = 0;
    let fenced = 0;
    let unknown = 0;

    const own = async (store: JournalStore): Promise<void> => {
      let last: EntryId | undefined;
      let begun = 0;
      const read = async () => {
        for await (const page of store.load('ses', last))
          for (const { id, kind: what, payload } of page) {
            last = id;
            if (what === 'begin') begun = Math.max(begun, Number(payload.toString()));
          }
      };
      const fight = async () => {
        await read();
        const fence = (last?.fence ?? 0) + 1;
        const take = { id: { fence, n: 0 }, kind: 'take', payload: Buffer.alloc(0) };
        if ((await store.append('ses', take, APPEND)) !== 'written') return;
        takeovers += 1;
        await read();
        for (let n = 1; n <= 1 + (begun % 7); n += 1) {
          const turn = begun + 1;
          const entry = { id: { fence, n }, kind: 'begin', payload: Buffer.from(String(turn)) };
          if ((await store.append('ses', entry, APPEND)) !== 'written') {
            fenced += 1;
            return;
          }
          ran.set(turn, (ran.get(turn) ?? 0) + 1);
          begun = turn;
        }
      };
      while (begun < TURNS) {
        try {
          await fight();
        } catch (error) {
          // It may have been written: whose turn that is was never told, and nobody runs it.
          if (!(error instanceof StoreError) || error.failure !== 'unknown') throw error;
          unknown += 1;
        }
      }
    };
    await Promise.all(stores.map(own));
    expect([...ran].filter(([, times]) => times !== 1)).toEqual([]);
    expect(ran.size).toBeGreaterThanOrEqual(TURNS - unknown);
    console.log(`${ran.size} turns, ${takeovers} takeovers, ${fenced} fenced, ${unknown} without an answer`);
    // They did get into each other's way.
    expect(takeovers).toBeGreaterThan(OWNERS);
    expect(fenced).toBeGreaterThan(0);
  });
});
