import { describe, expect, it } from 'vitest';
import { EMPTY_STATE } from '../../src/core/journal.ts';
import { type JournalReport, JournalWriter } from '../../src/session/journal-writer.ts';
import type { Appended, EntryId, JournalStore, StoredEntry } from '../../src/store/types.ts';

/** A store that answers when and how the test says. */
class FakeStore implements JournalStore {
  ready = true;
  epoch = 1;
  entries: StoredEntry[] | undefined = [];
  /** Undefined: answers as a server does. */
  next: ((entry: StoredEntry) => Promise<Appended>) | undefined;
  trimmed: EntryId | undefined;

  async append(_session: string, entry: StoredEntry, { create }: { create: boolean }): Promise<Appended> {
    const { next } = this;
    this.next = undefined;
    return next === undefined ? this.write(entry, create) : next(entry);
  }

  write(entry: StoredEntry, create = false): Appended {
    if (this.entries === undefined && !create) return 'missing';
    const last = this.entries?.at(-1)?.id;
    const { fence, n } = entry.id;
    if (last !== undefined && (fence < last.fence || (fence === last.fence && n <= last.n))) return 'stale';
    this.entries = [...(this.entries ?? []), entry];
    return 'written';
  }

  last = async () => this.entries?.at(-1)?.id;
  async *load() {}
  trim = async (_session: string, first: EntryId) => {
    this.trimmed = first;
  };
  touch = async () => this.entries !== undefined;
  remove = async () => {};
  onEpoch = () => () => {};
}

function setUp() {
  const store = new FakeStore();
  const reports: JournalReport[] = [];
  const writer = new JournalWriter({
    store,
    sessionId: 's',
    fence: 1,
    nextN: 0,
    ttlMs: 1_000,
    sealer: undefined,
    renewSealer: async () => undefined,
    rest: () => ({
      opening: {
        tenantId: 't',
        subject: 's',
        method: '',
        model: undefined,
        upstream: undefined,
        recovery: true,
        labels: [],
        clientName: undefined,
        clientVersion: undefined,
      },
      owner: { process: 'p', address: '' },
      tokens: [],
    }),
    report: (report) => {
      reports.push(report);
      if (report.kind === 'journalBack') writer.write(100, { kind: 'snap', state: EMPTY_STATE });
    },
    onBug: (error) => {
      throw error;
    },
  });
  const begin = (n: number) =>
    writer.write(n, { kind: 'begin', turnId: `t${n}`, laneId: '', fingerprint: '' });
  const ids = () => store.entries?.map(({ id, kind }) => `${id.fence}-${id.n} ${kind}`);
  return { store, writer, reports, begin, ids };
}

const reported = (reports: readonly JournalReport[], wanted: JournalReport) =>
  expect.poll(() => reports).toContainEqual(wanted);

describe('JournalWriter', () => {
  it('writes in order and reports how far', async () => {
    const { begin, reports, ids } = setUp();
    begin(1);
    begin(2);
    await reported(reports, { kind: 'journaled', n: 2 });
    expect(ids()).toEqual(['1-0 begin', '1-1 begin']);
  });

  it('counts an entry as written whose answer was lost', async () => {
    const { store, begin, reports, ids } = setUp();
    store.next = async (entry) => {
      store.write(entry);
      throw new Error('timed out');
    };
    begin(1);
    await reported(reports, { kind: 'journaled', n: 1 });
    expect(ids()).toEqual(['1-0 begin']);
  });

  it('sends an entry again that never arrived, and those behind it after it', async () => {
    const { store, begin, reports, ids } = setUp();
    store.next = async () => {
      throw new Error('connection lost');
    };
    begin(1);
    await Promise.resolve();
    begin(2);
    await reported(reports, { kind: 'journaled', n: 2 });
    expect(ids()?.at(-1)).toBe('1-1 begin');
    expect(reports.map(({ kind }) => kind)).not.toContain('fenced');
  });

  it('says so when another process has the session, and writes nothing more', async () => {
    const { store, begin, reports, ids } = setUp();
    store.write({ id: { fence: 5, n: 0 }, kind: 'take', payload: Buffer.alloc(0) });
    begin(1);
    await reported(reports, { kind: 'fenced' });
    begin(2);
    expect(ids()).toEqual(['5-0 take']);
  });

  it.each([
    ['is gone', undefined],
    ['has forgotten what it acknowledged', []],
  ])('writes everything anew when the journal %s', async (_how, left) => {
    const { store, begin, reports, ids, writer } = setUp();
    begin(1);
    await reported(reports, { kind: 'journaled', n: 1 });
    store.entries = left;
    store.epoch += 1;
    writer.poke();
    await reported(reports, { kind: 'journalLost' });
    await reported(reports, { kind: 'journaled', n: 100 });
    expect(ids()?.map((id) => id.split(' ')[1])).toEqual(['snap']);
    expect(writer.settled).toBe(true);
  });

  it('keeps a bound on what waits for a store that is away', async () => {
    const { store, begin, reports } = setUp();
    store.ready = false;
    store.next = async () => {
      throw new Error('connection lost');
    };
    for (let n = 1; n <= 200; n += 1) {
      begin(n);
      await Promise.resolve();
    }
    await reported(reports, { kind: 'journalLost' });
    store.ready = true;
    await expect.poll(() => reports, { timeout: 5_000 }).toContainEqual({ kind: 'journaled', n: 100 });
    expect(store.trimmed).toBeDefined();
  });
});
