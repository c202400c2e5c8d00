import type { JournalEntry, SavedState } from '../core/journal.ts';
import { backoffMs } from '../ground/backoff.ts';
import type { Appended, EntryId, JournalStore, Sealer } from '../store/types.ts';
import { encodeEntry, type RecordEntry, type SnapRest, snapParts } from './record.ts';

/** What the core hears of its journal. `n` is the core's own number of an entry, of which all before are written too. */
export type JournalReport =
  | { readonly kind: 'journaled'; readonly n: number }
  /** What was not reported written will not be, and nothing more is taken until `journalBack`. */
  | { readonly kind: 'journalLost' }
  /** Entries are taken again; the first has to be a snap. */
  | { readonly kind: 'journalBack' }
  /** Another process has the session. */
  | { readonly kind: 'fenced' };

export interface JournalWriterOptions {
  readonly store: JournalStore;
  readonly sessionId: string;
  readonly fence: number;
  /** Number of the next entry under this fence. */
  readonly nextN: number;
  readonly ttlMs: number;
  /** Undefined: nothing secret is written. */
  readonly sealer: Sealer | undefined;
  /** Asked before a lost journal is begun anew: the store may have lost what the sealer came from, too. */
  readonly renewSealer: () => Promise<Sealer | undefined>;
  /** What a snap holds beside the core's state, at this moment. */
  readonly rest: () => Omit<SnapRest, 'state'>;
  readonly report: (report: JournalReport) => void;
  readonly onBug: (error: unknown) => void;
}

interface Pending {
  readonly id: EntryId;
  readonly kind: RecordEntry['kind'];
  readonly payload: Buffer;
  readonly create: boolean;
  /** The core's number, where it is an entry of the core's. */
  readonly coreN: number | undefined;
  readonly onSettled: ((written: boolean) => void) | undefined;
  written: boolean;
}

type Outgoing =
  | {
      readonly what: 'entry';
      readonly entry: RecordEntry;
      readonly coreN: number | undefined;
      readonly create: boolean;
      readonly onSettled: ((written: boolean) => void) | undefined;
    }
  | {
      readonly what: 'snap';
      readonly parts: Iterator<RecordEntry>;
      readonly coreN: number;
      create: boolean;
      first: EntryId | undefined;
    };

/**
 * steady: entries go out as they come. doubtful: an answer is missing; the store is asked how far the journal reaches
 * before anything else is sent. lost: entries are gone; only a snap helps. over: fenced, or closed.
 */
type WriterState = 'steady' | 'doubtful' | 'lost' | 'over';

/** What may wait for a store that is away before it is given up for a snap. */
const MAX_PENDING_BYTES = 1024 * 1024;
const MAX_PENDING_ENTRIES = 128;
/** Sealed before others have their turn. */
const FLOW_BYTES = 256 * 1024;
const ASK_AGAIN = { minMs: 50, maxMs: 2_000, random: Math.random };

/**
 * Writes one session's journal in order, and finds out what became of entries whose answer did not come. An entry keeps
 * its id and bytes however often it is sent, so that sending it again does nothing when it is there.
 */
export class JournalWriter {
  readonly #options: JournalWriterOptions;
  #sealer: Sealer | undefined;
  #state: WriterState = 'steady';
  #nextN: number;
  /** Newest entry that is known to be written. */
  #writtenN: number;
  #pending: Pending[] = [];
  #pendingBytes = 0;
  #outgoing: Outgoing[] = [];
  /** There is no journal to append to. */
  #missing = false;
  /** A snap has more parts than were sent. */
  #flowing = false;
  #epoch: number;
  #attempt = 0;
  #timer: NodeJS.Timeout | undefined;
  #asking = false;

  constructor(options: JournalWriterOptions) {
    this.#options = options;
    this.#sealer = options.sealer;
    this.#nextN = options.nextN;
    this.#writtenN = options.nextN - 1;
    this.#epoch = options.store.epoch;
  }

  /** Nothing is on its way, and nothing is missing. */
  get settled(): boolean {
    return this.#state === 'steady' && this.#pending.length === 0 && this.#outgoing.length === 0;
  }

  /** Whether anything was appended. */
  get begun(): boolean {
    return this.#nextN > 0;
  }

  /** An entry of the core's. */
  write(coreN: number, entry: JournalEntry): void {
    // What was made before the core heard that the journal is lost is in the snap that follows.
    if (this.#state === 'over' || (this.#state === 'lost' && entry.kind !== 'snap')) return;
    if (entry.kind === 'snap') this.#enqueue(this.#snap(coreN, entry.state));
    else this.#enqueue({ what: 'entry', entry, coreN, create: false, onSettled: undefined });
  }

  /** An entry of the process that holds the session. Resolves with whether it is written. */
  append(entry: RecordEntry, { create = false } = {}): Promise<boolean> {
    // A snap, which has all of it, follows when the journal is back.
    if (this.#state === 'over' || this.#state === 'lost') return Promise.resolve(false);
    return new Promise((resolve) => {
      this.#enqueue({ what: 'entry', entry, coreN: undefined, create, onSettled: resolve });
    });
  }

  /** Looks whether the journal is still there and reaches as far as was written. Called now and then. */
  async refresh(): Promise<void> {
    if (this.#state !== 'steady') return;
    if (this.#epoch !== this.#options.store.epoch) return this.#doubt();
    try {
      const { store, sessionId, ttlMs } = this.#options;
      const there = await store.touch(sessionId, ttlMs);
      if (!there && (this.#state as WriterState) === 'steady') this.#lose();
    } catch {
      // The next one tells.
    }
  }

  /** The store may answer again. */
  poke(): void {
    if (this.#state === 'doubtful' || this.#state === 'lost') this.#ask();
    else if (this.#state === 'steady' && this.#epoch !== this.#options.store.epoch) this.#doubt();
  }

  /** Begins without a store: a snap follows when it is there. */
  beginLost(): void {
    if (this.#state === 'over') return;
    this.#clear();
    this.#state = 'lost';
    this.#askLater();
  }

  /** Nothing is written any more. */
  stop(): void {
    this.#state = 'over';
    this.#clear();
    clearTimeout(this.#timer);
  }

  #snap(coreN: number, state: SavedState): Outgoing {
    const parts = snapParts(state, this.#options.rest());
    return { what: 'snap', parts, coreN, create: this.#missing, first: undefined };
  }

  #enqueue(outgoing: Outgoing): void {
    this.#outgoing.push(outgoing);
    if (this.#state === 'steady' && this.#epoch !== this.#options.store.epoch) this.#doubt();
    this.#flow();
  }

  /** Numbers and sends what waits. The parts of a snap, and of much else, leave room for others between them. */
  #flow(): void {
    if (this.#flowing || this.#state === 'over') return;
    let bytes = 0;
    for (let next = this.#outgoing[0]; next !== undefined; next = this.#outgoing[0]) {
      if (bytes >= FLOW_BYTES) return this.#flowLater();
      if (next.what === 'entry') {
        this.#outgoing.shift();
        bytes += this.#number(next.entry, next.coreN, next.create, next.onSettled);
        continue;
      }
      const part = next.parts.next().value as RecordEntry & { kind: 'snap' };
      const last = part.rest !== undefined;
      if (last) this.#outgoing.shift();
      const first = next.first ?? { fence: this.#options.fence, n: this.#nextN };
      next.first = first;
      this.#number(
        part,
        last ? next.coreN : undefined,
        next.create,
        last ? (written) => written && this.#snapWritten(first) : undefined,
      );
      next.create = false;
      if (!last) return this.#flowLater();
    }
  }

  #flowLater(): void {
    this.#flowing = true;
    setImmediate(() => {
      this.#flowing = false;
      this.#flow();
    });
  }

  #snapWritten(first: EntryId): void {
    this.#missing = false;
    const { store, sessionId } = this.#options;
    store.trim(sessionId, first).catch(() => {
      // What stays is read and not used; the next snap takes it away.
    });
  }

  #number(
    entry: RecordEntry,
    coreN: number | undefined,
    create: boolean,
    onSettled: Pending['onSettled'],
  ): number {
    const { fence, sessionId } = this.#options;
    const id = { fence, n: this.#nextN };
    this.#nextN += 1;
    const plain = encodeEntry(entry);
    const payload = this.#sealer?.seal(plain, { sessionId, id, kind: entry.kind }) ?? plain;
    const pending: Pending = { id, kind: entry.kind, payload, create, coreN, onSettled, written: false };
    this.#pending.push(pending);
    this.#pendingBytes += payload.length;
    if (this.#state === 'steady') this.#send(pending);
    else if (this.#state === 'doubtful' && this.#isTooMuch()) this.#lose();
    return payload.length;
  }

  #isTooMuch(): boolean {
    return this.#pendingBytes > MAX_PENDING_BYTES || this.#pending.length > MAX_PENDING_ENTRIES;
  }

  #send(pending: Pending): void {
    const { store, sessionId, ttlMs } = this.#options;
    const { id, kind, payload, create } = pending;
    store.append(sessionId, { id, kind, payload }, { create, ttlMs }).then(
      (result) => this.#answered(pending, result),
      () => this.#unanswered(pending),
    );
  }

  #answered(pending: Pending, result: Appended): void {
    if (!this.#pending.includes(pending)) return;
    if (result === 'missing') return this.#lose();
    if (result === 'stale') return this.#doubt();
    pending.written = true;
    this.#confirm();
  }

  #unanswered(pending: Pending): void {
    if (this.#pending.includes(pending)) this.#doubt();
  }

  /** Reports the written entries up to the first that is not. */
  #confirm(): void {
    let coreN: number | undefined;
    const settled: Pending[] = [];
    while (this.#pending[0]?.written === true) {
      const pending = this.#pending.shift() as Pending;
      this.#pendingBytes -= pending.payload.length;
      this.#writtenN = pending.id.n;
      coreN = pending.coreN ?? coreN;
      settled.push(pending);
    }
    for (const { onSettled } of settled) onSettled?.(true);
    if (coreN !== undefined) this.#options.report({ kind: 'journaled', n: coreN });
  }

  #doubt(): void {
    if (this.#state !== 'steady') return;
    this.#state = 'doubtful';
    this.#attempt = 0;
    this.#ask();
  }

  #lose(): void {
    if (this.#state === 'over' || this.#state === 'lost') return;
    this.#state = 'lost';
    this.#clear();
    this.#askLater();
    this.#options.report({ kind: 'journalLost' });
  }

  #clear(): void {
    const dropped = [...this.#pending, ...this.#outgoing.filter(({ what }) => what === 'entry')] as readonly {
      onSettled: Pending['onSettled'];
    }[];
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#outgoing = [];
    for (const { onSettled } of dropped) onSettled?.(false);
  }

  #askLater(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), backoffMs(this.#attempt, ASK_AGAIN));
    this.#timer.unref();
    this.#attempt += 1;
  }

  #ask(): void {
    if (this.#asking) return;
    clearTimeout(this.#timer);
    if (!this.#options.store.ready) return this.#askLater();
    this.#asking = true;
    this.#look()
      .catch(this.#options.onBug)
      .finally(() => {
        this.#asking = false;
      });
  }

  async #look(): Promise<void> {
    const { store, sessionId, fence } = this.#options;
    const epoch = store.epoch;
    let last: EntryId | undefined;
    try {
      last = await store.last(sessionId);
      if (last === undefined) this.#sealer = await this.#options.renewSealer();
    } catch {
      return this.#askLater();
    }
    if (this.#state === 'over' || this.#state === 'steady') return;
    if (last !== undefined && last.fence > fence) return this.#fenced();
    this.#epoch = epoch;
    this.#missing = last === undefined;
    // What was acknowledged is gone: the server fell back to an older state.
    const isWhole = last?.fence === fence && last.n >= this.#writtenN;
    if (this.#state === 'doubtful' && !isWhole) this.#lose();
    if (this.#state === 'lost') return this.#back(last);
    this.#goOn(last?.n ?? 0);
  }

  /** An entry that a late answer still tells of must not be given another content. */
  #back(last: EntryId | undefined): void {
    clearTimeout(this.#timer);
    this.#attempt = 0;
    this.#state = 'steady';
    if (last?.fence === this.#options.fence) this.#nextN = Math.max(this.#nextN, last.n + 1);
    this.#options.report({ kind: 'journalBack' });
  }

  #goOn(lastN: number): void {
    this.#attempt = 0;
    this.#state = 'steady';
    for (const pending of this.#pending) pending.written ||= pending.id.n <= lastN;
    const rest = this.#pending.filter(({ written }) => !written);
    this.#confirm();
    for (const pending of rest) if (this.#pending.includes(pending)) this.#send(pending);
    this.#flow();
  }

  #fenced(): void {
    this.stop();
    this.#options.report({ kind: 'fenced' });
  }
}
