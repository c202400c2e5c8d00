import type { StoreClient, StoreReply } from './client.ts';
import { StoreError } from './store-error.ts';
import type { Appended, EntryId, JournalStore, StoredEntry } from './types.ts';

/** Bytes of one answer are those of its entries: a page of the longest journals must not keep others waiting. */
const PAGE_ENTRIES = 32;

/**
 * A stream of the server for each session. XADD takes no id that is not greater than the newest one, so that an id of
 * fence and number makes an append also the check that nobody else has taken the session.
 */
export function createJournalStore(client: StoreClient): JournalStore {
  // The braces keep all keys of a session on one node of a cluster.
  const keyOf = (sessionId: string) => client.key(`{${sessionId}}`);

  return {
    get epoch() {
      return client.epoch;
    },
    get ready() {
      return client.ready;
    },
    onEpoch: (listener) => client.onEpoch(listener),

    async append(sessionId, { id, kind, payload }, { create, ttlMs }): Promise<Appended> {
      const key = keyOf(sessionId);
      try {
        const mode = create ? [] : ['NOMKSTREAM'];
        const adding = client.command(key, ['XADD', key, ...mode, idText(id), kind, payload]);
        // Behind it on the same connection. Should it fail, the next touch gives the journal its expiry.
        if (create) client.command(key, ['PEXPIRE', key, String(ttlMs)]).catch(() => {});
        return (await adding) === null ? 'missing' : 'written';
      } catch (error) {
        if (isStale(error)) return 'stale';
        throw error;
      }
    },

    async last(sessionId) {
      const key = keyOf(sessionId);
      const [newest] = entriesOf(
        await client.command(key, ['XREVRANGE', key, '+', '-', 'COUNT', '1'], { bytes: true }),
      );
      return newest?.id;
    },

    async *load(sessionId, after) {
      const key = keyOf(sessionId);
      let from = after;
      for (;;) {
        const start = from === undefined ? '-' : `(${idText(from)}`;
        const page = entriesOf(
          await client.command(key, ['XRANGE', key, start, '+', 'COUNT', String(PAGE_ENTRIES)], {
            bytes: true,
          }),
        );
        if (page.length > 0) yield page;
        if (page.length < PAGE_ENTRIES) return;
        from = page.at(-1)?.id;
      }
    },

    async trim(sessionId, first) {
      const key = keyOf(sessionId);
      await client.command(key, ['XTRIM', key, 'MINID', idText(first)]);
    },

    async touch(sessionId, ttlMs) {
      const key = keyOf(sessionId);
      return (await client.command(key, ['PEXPIRE', key, String(ttlMs)])) === 1;
    },

    async remove(sessionId) {
      const key = keyOf(sessionId);
      await client.command(key, ['UNLINK', key]);
    },
  };
}

function idText({ fence, n }: EntryId): string {
  return `${fence}-${n}`;
}

function readId(text: string): EntryId {
  const [fence, n] = text.split('-').map(Number);
  if (fence === undefined || n === undefined || !Number.isSafeInteger(fence) || !Number.isSafeInteger(n))
    throw new StoreError('refused', 'an entry of a journal has an id that the gateway never gives');
  return { fence, n };
}

/** The message is the only thing that tells this error from others of its code. */
function isStale(error: unknown): boolean {
  if (!(error instanceof StoreError) || error.failure !== 'refused') return false;
  return error.cause instanceof Error && error.cause.message.includes('equal or smaller');
}

function entriesOf(reply: StoreReply): readonly StoredEntry[] {
  if (!Array.isArray(reply)) return [];
  return (reply as readonly StoreReply[]).map((entry) => {
    const [id, fields] = entry as readonly [Buffer, readonly [Buffer, Buffer]];
    return { id: readId(id.toString()), kind: fields[0].toString(), payload: fields[1] };
  });
}
