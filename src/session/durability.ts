import { randomInt } from 'node:crypto';
import type { Principal } from '../access/types.ts';
import { GatewayError, type Reason } from '../errors.ts';
import type { EntryId, Heartbeats, JournalStore, Sealer } from '../store/types.ts';
import { type JournalReport, JournalWriter } from './journal-writer.ts';
import {
  decodeEntry,
  encodeEntry,
  type JournalOwner,
  type RecordEntry,
  RecordFold,
  type SessionOpening,
  type SessionRecord,
} from './record.ts';
import { type IssuedToken, readToken, tokenDigest } from './registry.ts';

export interface DurabilityOptions {
  readonly store: JournalStore;
  readonly heartbeats: Heartbeats;
  /** This process. */
  readonly owner: JournalOwner;
  /** Seals a session's entries; undefined: there are no keys, and only ids are written. Rejects with StoreError. */
  readonly sealerOf: ((tenantId: string, sessionId: string, renew: boolean) => Promise<Sealer>) | undefined;
  /** New sessions while the store is away: of this process alone, or refused. */
  readonly onFailure: 'local' | 'refuse';
  /** How long a session waits for its client. */
  readonly resumeGraceMs: number;
  readonly observe?: DurabilityObserver;
  /** How long a turn boundary, and Opened, wait for the store. Default 250 ms. */
  readonly gateTimeoutMs?: number;
  readonly onBug: (error: unknown) => void;
}

export interface DurabilityObserver {
  /** A resume of a session that no process here or elsewhere answered for. */
  takeover(result: 'taken' | 'gone' | 'lost_data', durationMs: number): void;
  fenced(): void;
  /** A session was let go for another process to take. */
  handedOver(): void;
}

/** What became of the session that a token names. */
export type Recovery<T> =
  /** It is this process's now. */
  | { readonly kind: 'taken'; readonly adopted: T }
  /** This process has it already: another stream came before. */
  | { readonly kind: 'here' }
  /** That process has it. */
  | { readonly kind: 'elsewhere'; readonly process: string }
  | { readonly kind: 'gone'; readonly reason: Extract<Reason, 'SESSION_EXPIRED' | 'ENGINE_LOST_DATA'> };

export interface RecoveryRequest {
  readonly token: string;
  readonly principal: Principal;
  readonly lastCommit: number | undefined;
  /** The next token, written down with the takeover. */
  readonly next: IssuedToken;
  /** Processes that do not have the session. */
  readonly gone: ReadonlySet<string>;
}

/** A session of another process that this one has taken. */
export interface Taken {
  readonly record: SessionRecord;
  readonly journal: TakenJournal;
}

/** Where a journal that was taken over goes on. */
export interface TakenJournal {
  readonly fence: number;
  readonly nextN: number;
  readonly sealer: Sealer | undefined;
}

export interface JournalSession {
  readonly id: string;
  readonly opening: SessionOpening;
  readonly tokens: () => readonly IssuedToken[];
  readonly report: (report: JournalReport) => void;
}

/** Of a turn boundary, and of Opened for what it promises. */
const GATE_TIMEOUT_MS = 250;
const REFRESH_INTERVAL_MS = 60_000;
/** A journal outlives its process by the grace time, with room for refreshes that did not come. */
const TTL_MARGIN_MS = 2 * REFRESH_INTERVAL_MS;
/** Journals looked at in one turn of the event loop. */
const REFRESH_SLICE = 50;
const CLOSE_TIMEOUT_MS = 2_000;
/** Others may take the session at the same time; each time one of them succeeds. */
const MAX_TAKE_ATTEMPTS = 5;
/**
 * Sessions that are taken over at the same time. When a process dies, all of its clients come at once: with all of them
 * begun, every answer of the store would come too late.
 */
const MAX_RECOVERIES = 16;
/** Bytes that are opened and read before others have their turn. */
const READ_SLICE_BYTES = 512 * 1024;

/** The journals of the sessions of this process, and those that it takes over from processes that are gone. */
export class Durability {
  readonly #options: DurabilityOptions;
  readonly #writers = new Map<string, JournalWriter>();
  readonly #closing = new Set<Promise<void>>();
  readonly #taking = new Map<string, Promise<unknown>>();
  #recovering = 0;
  readonly #waiting: (() => void)[] = [];
  readonly #unlisten: () => void;
  readonly #timer: NodeJS.Timeout;
  #stopped = false;

  constructor(options: DurabilityOptions) {
    this.#options = options;
    this.#unlisten = options.store.onEpoch(() => void this.#inSlices((writer) => writer.poke()));
    this.#timer = setInterval(
      () => void this.#inSlices((writer) => void writer.refresh()),
      REFRESH_INTERVAL_MS,
    );
    this.#timer.unref();
  }

  get gateTimeoutMs(): number {
    return this.#options.gateTimeoutMs ?? GATE_TIMEOUT_MS;
  }

  /** Whether what users and models say is written, too. */
  get keepsContent(): boolean {
    return this.#options.sealerOf !== undefined;
  }

  get owner(): JournalOwner {
    return this.#options.owner;
  }

  /** Journals of sessions that this process holds. */
  get size(): number {
    return this.#writers.size;
  }

  /** Throws STORE_UNAVAILABLE where a session may not begin without a store. */
  checkOpen(): void {
    const { onFailure, store } = this.#options;
    if (onFailure === 'refuse' && !store.ready) throw unavailable();
  }

  /** What seals a new session's journal; 'away' when it cannot be had now. */
  async sealerFor(tenantId: string, sessionId: string): Promise<Sealer | undefined | 'away'> {
    const { sealerOf, store } = this.#options;
    if (!store.ready) return 'away';
    if (sealerOf === undefined) return undefined;
    try {
      return await sealerOf(tenantId, sessionId, false);
    } catch {
      return 'away';
    }
  }

  /** Begins the journal of a new session, or goes on with one that was taken over. */
  hold(session: JournalSession, journal: TakenJournal | 'new' | 'away', sealer?: Sealer): JournalWriter {
    const { store, owner, sealerOf, onBug, observe } = this.#options;
    const { id, opening } = session;
    const taken = typeof journal === 'string' ? { fence: 1, nextN: 0, sealer } : journal;
    const writer = new JournalWriter({
      store,
      sessionId: id,
      ...taken,
      ttlMs: this.#ttlMs,
      renewSealer: async () => sealerOf?.(opening.tenantId, id, true),
      rest: () => ({ opening, owner, tokens: session.tokens() }),
      report: (report) => {
        if (report.kind === 'fenced') observe?.fenced();
        session.report(report);
      },
      onBug,
    });
    this.#writers.set(id, writer);
    if (journal === 'away') writer.beginLost();
    return writer;
  }

  /** Writes what the client is about to be told. False: it is not written in time, or will not be. */
  async promise(writing: Promise<boolean>): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => resolve(false), this.gateTimeoutMs);
    writing.then(resolve, () => resolve(false));
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The session is over here. */
  release(id: string, record: 'end' | 'release' | 'leave'): void {
    const writer = this.#writers.get(id);
    if (writer === undefined) return;
    this.#writers.delete(id);
    if (record === 'release') this.#options.observe?.handedOver();
    const closing = this.#close(id, writer, record).catch(this.#options.onBug);
    this.#closing.add(closing);
    void closing.then(() => this.#closing.delete(closing));
  }

  /**
   * Takes the session of a token over, unless another process than those of `gone` has it; `adopt` makes it this
   * process's, at once. Rejects with STORE_UNAVAILABLE while the store cannot tell.
   */
  async recover<T>(request: RecoveryRequest, adopt: (taken: Taken) => T): Promise<Recovery<T>> {
    const { sessionId } = readToken(request.token) ?? {};
    if (sessionId === undefined) return { kind: 'gone', reason: 'SESSION_EXPIRED' };
    const startedAtMs = performance.now();
    const before = this.#taking.get(sessionId);
    const taking = (async (): Promise<Recovery<T>> => {
      await before?.catch(() => {});
      if (this.#writers.has(sessionId)) return { kind: 'here' };
      await this.#beginRecovery();
      try {
        const found = await this.#recoverKnowing(sessionId, request);
        return found.kind === 'taken' ? { kind: 'taken', adopted: adopt(found) } : found;
      } finally {
        this.#endRecovery();
      }
    })();
    this.#taking.set(sessionId, taking);
    try {
      const recovery = await taking;
      const result = resultOf(recovery);
      if (result !== undefined) this.#options.observe?.takeover(result, performance.now() - startedAtMs);
      return recovery;
    } catch (error) {
      const why = error instanceof Error ? UNREADABLE.get(error.name) : undefined;
      if (why === 'gone') {
        this.#options.observe?.takeover('lost_data', performance.now() - startedAtMs);
        return { kind: 'gone', reason: 'ENGINE_LOST_DATA' };
      }
      throw why === undefined ? error : unavailable(why);
    } finally {
      if (this.#taking.get(sessionId) === taking) this.#taking.delete(sessionId);
    }
  }

  /** Waits for what is still to be written. */
  async close(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    clearInterval(this.#timer);
    this.#unlisten();
    for (const id of [...this.#writers.keys()]) this.release(id, 'release');
    await Promise.all(this.#closing);
  }

  get #ttlMs(): number {
    return this.#options.resumeGraceMs + TTL_MARGIN_MS;
  }

  /** In the order in which they came. */
  async #beginRecovery(): Promise<void> {
    if (this.#recovering >= MAX_RECOVERIES) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#recovering += 1;
  }

  /** The place goes to the next one. */
  #endRecovery(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#recovering -= 1;
    else next();
  }

  /** By what is known of the tenant; when that does not open the record, by what the store says. */
  async #recoverKnowing(sessionId: string, request: RecoveryRequest): Promise<Found> {
    const { sealerOf } = this.#options;
    const { tenantId } = request.principal;
    try {
      return await this.#recover(sessionId, request, await sealerOf?.(tenantId, sessionId, false));
    } catch (error) {
      if (sealerOf === undefined || !(error instanceof Error) || error.name !== 'SealError') throw error;
      return this.#recover(sessionId, request, await sealerOf(tenantId, sessionId, true));
    }
  }

  async #recover(sessionId: string, request: RecoveryRequest, sealer: Sealer | undefined): Promise<Found> {
    const { store, owner } = this.#options;
    for (let attempt = 0; attempt < MAX_TAKE_ATTEMPTS; attempt += 1) {
      const fold = new RecordFold();
      await this.#read(sessionId, sealer, fold);
      const refused = this.#refusal(fold, request);
      if (refused !== undefined) return refused;
      const fence = nextFence(fold.lastId);
      const [taken] = await Promise.all([
        this.#take(sessionId, fence, sealer, { kind: 'take', owner, tokens: tokensAfter(fold, request) }),
        // Behind it on the same connection: what the last owner wrote until then counts, and after it nobody else writes.
        this.#read(sessionId, sealer, fold),
      ]);
      if (taken === 'missing') return { kind: 'gone', reason: 'SESSION_EXPIRED' };
      if (taken === 'stale') continue;
      const late = this.#refusal(fold, { ...request, gone: new Set([...request.gone, owner.process]) });
      if (late !== undefined && late.kind !== 'elsewhere') return late;
      const record = fold.record();
      if (record === undefined || fold.lastId?.fence !== fence) continue;
      void store.touch(sessionId, this.#ttlMs).catch(() => {});
      return { kind: 'taken', record, journal: { fence, nextN: fold.lastId.n + 1, sealer } };
    }
    throw unavailable();
  }

  /** Why the session is not taken over. */
  #refusal(
    fold: RecordFold,
    { token, principal, lastCommit, gone }: RecoveryRequest,
  ): Exclude<Found, { kind: 'taken' }> | undefined {
    const record = fold.record();
    // Nobody learns whether a session exists that is another's.
    if (record === undefined || record.ended || !isOpenedBy(record, token, principal))
      return { kind: 'gone', reason: 'SESSION_EXPIRED' };
    const { state, owner, released, damaged } = record;
    // Never a shorter conversation than the client knows.
    if (damaged || state.commit < (lastCommit ?? 0)) return { kind: 'gone', reason: 'ENGINE_LOST_DATA' };
    if (released || gone.has(owner.process) || owner.process === this.#options.owner.process)
      return undefined;
    return { kind: 'elsewhere', process: owner.process };
  }

  async #take(
    sessionId: string,
    fence: number,
    sealer: Sealer | undefined,
    entry: Extract<RecordEntry, { kind: 'take' }>,
  ): Promise<'written' | 'stale' | 'missing'> {
    const id = { fence, n: 0 };
    const plain = encodeEntry(entry);
    const payload = sealer?.seal(plain, { sessionId, id, kind: entry.kind }) ?? plain;
    return this.#options.store.append(
      sessionId,
      { id, kind: entry.kind, payload },
      { create: false, ttlMs: this.#ttlMs },
    );
  }

  /** Everything after what the fold has. */
  async #read(sessionId: string, sealer: Sealer | undefined, fold: RecordFold): Promise<void> {
    let bytes = 0;
    for await (const page of this.#options.store.load(sessionId, fold.lastId)) {
      for (const { id, kind, payload } of page) {
        const plain = sealer?.open(payload, { sessionId, id, kind }) ?? payload;
        fold.apply(id, decodeEntry(plain));
        bytes += payload.length;
        if (bytes < READ_SLICE_BYTES) continue;
        bytes = 0;
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
  }

  async #close(id: string, writer: JournalWriter, record: 'end' | 'release' | 'leave'): Promise<void> {
    if (record === 'leave') return writer.stop();
    const writing = writer.append({ kind: record });
    const timer = new Promise<boolean>((resolve) => setTimeout(resolve, CLOSE_TIMEOUT_MS, false).unref());
    // Without the entry the journal may be another's: it expires by itself.
    const written = await Promise.race([writing, timer]);
    writer.stop();
    if (written && record === 'end') await this.#options.store.remove(id).catch(() => {});
  }

  async #inSlices(work: (writer: JournalWriter) => void): Promise<void> {
    let left = REFRESH_SLICE;
    for (const writer of [...this.#writers.values()]) {
      if (this.#stopped) return;
      work(writer);
      left -= 1;
      if (left > 0) continue;
      left = REFRESH_SLICE;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

/**
 * Greater than any other, and not to be given out twice: a store that falls back to an older state may forget a takeover,
 * and the next one must not write under the same fence as a process that still believes in it.
 */
function nextFence(last: EntryId | undefined): number {
  return (last?.fence ?? 0) + randomInt(1, MAX_FENCE_STEP);
}

/** Fences are also the upper part of commit numbers: of their 33 bits some millions of takeovers use all. */
const MAX_FENCE_STEP = 2 ** 12;

type Found = (Taken & { readonly kind: 'taken' }) | Exclude<Recovery<never>, { kind: 'taken' | 'here' }>;

/** The one that was used stays good until its successor has arrived. */
function tokensAfter(fold: RecordFold, { token, principal, next }: RecoveryRequest): readonly IssuedToken[] {
  const digest = tokenDigest(token, principal);
  return [...(fold.record()?.tokens ?? []).filter((known) => known.digest === digest), next];
}

function isOpenedBy({ opening, tokens }: SessionRecord, token: string, principal: Principal): boolean {
  if (opening.tenantId !== principal.tenantId || opening.subject !== principal.subject) return false;
  const digest = tokenDigest(token, principal);
  return tokens.some((known) => known.digest === digest);
}

function resultOf(recovery: Recovery<unknown>): 'taken' | 'gone' | 'lost_data' | undefined {
  if (recovery.kind === 'taken') return 'taken';
  if (recovery.kind !== 'gone') return undefined;
  return recovery.reason === 'ENGINE_LOST_DATA' ? 'lost_data' : 'gone';
}

/**
 * By name of an error: what its client hears. What another process could read is not gone: during a rollout versions and
 * keys differ.
 */
const UNREADABLE: ReadonlyMap<string, string> = new Map([
  ['StoreError', 'the store of sessions does not answer'],
  ['MissingKeyError', "the session's record is sealed with a key that this process does not have"],
  ['RecordFormatError', "the session's record is of a version that this process does not read"],
  // Changed, or its tenant was forgotten.
  ['SealError', 'gone'],
]);

function unavailable(why = 'the store of sessions does not answer'): GatewayError {
  return new GatewayError('STORE_UNAVAILABLE', why, { retryAfterMs: 1_000 });
}
