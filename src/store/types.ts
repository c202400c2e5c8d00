/** Where an entry stands in a session's journal. A greater fence is a later owner; `n` counts on from 0 in each. */
export interface EntryId {
  readonly fence: number;
  readonly n: number;
}

export interface StoredEntry {
  readonly id: EntryId;
  /** A short name that is not sealed. */
  readonly kind: string;
  readonly payload: Buffer;
}

/**
 * - `written`: the entry is the journal's newest.
 * - `stale`: an entry with this id or a later one is there: somebody else's, or this one, whose answer was lost.
 * - `missing`: there is no journal to append to.
 */
export type Appended = 'written' | 'stale' | 'missing';

/** The journals of sessions. Everything rejects with StoreError. */
export interface JournalStore {
  /** Begins a journal when `create` is set; otherwise there has to be one. */
  append(
    sessionId: string,
    entry: StoredEntry,
    options: { readonly create: boolean; readonly ttlMs: number },
  ): Promise<Appended>;
  /** Id of the newest entry; undefined: no journal. */
  last(sessionId: string): Promise<EntryId | undefined>;
  /** Entries after `after`, oldest first, a page at a time. */
  load(sessionId: string, after: EntryId | undefined): AsyncIterable<readonly StoredEntry[]>;
  /** Drops the entries before `first`. */
  trim(sessionId: string, first: EntryId): Promise<void>;
  /** Keeps the journal for another `ttlMs`; false: there is none. */
  touch(sessionId: string, ttlMs: number): Promise<boolean>;
  remove(sessionId: string): Promise<void>;
  /** Rises when another server may have begun to answer: what it had acknowledged may be gone. */
  readonly epoch: number;
  /** Whether a command can be sent now. */
  readonly ready: boolean;
  onEpoch(listener: () => void): () => void;
}

/** Makes entries unreadable to everybody without the keys. */
export interface Sealer {
  seal(plain: Uint8Array, where: SealedPlace): Buffer;
  /** Throws SealError when none of the keys opens it, or it is from another place. */
  open(sealed: Uint8Array, where: SealedPlace): Buffer;
}

/** What an entry is bound to: moved elsewhere, it does not open. */
export interface SealedPlace {
  readonly sessionId: string;
  readonly id: EntryId;
  readonly kind: string;
}

/** Which processes are alive, and where they are. */
export interface Heartbeats {
  /** Undefined: it is gone. */
  addressOf(processId: string): Promise<string | undefined>;
}

/** Calls with an idempotency key, known to all processes for a day. What rejects rejects with StoreError. */
export interface KeyedCalls {
  /** This process. */
  readonly processId: string;
  /** Calls while the store is away: known to this process alone, or refused. */
  readonly onFailure: 'local' | 'refuse';
  isAlive(processId: string): Promise<boolean>;
  /** Takes the key for this process; otherwise what is known of the call that has it. `free`: nobody has it any more. */
  claim(tenantId: string, key: string, request: string): Promise<'ours' | 'free' | KeyedCall>;
  look(tenantId: string, key: string): Promise<KeyedCall | undefined>;
  /** The call has ended. Told until the store has heard it, as is `release`. */
  finish(tenantId: string, key: string, request: string, outcome: KeyedOutcome): void;
  /** Nothing ran. */
  release(tenantId: string, key: string): void;
  /** Waits a moment for what is still to be told. */
  close(): Promise<void>;
}

export interface KeyedCall {
  readonly process: string;
  /** Tells one request from another. */
  readonly request: string;
  /** Undefined: it runs. */
  readonly outcome: KeyedOutcome | undefined;
}

export interface KeyedOutcome {
  /** The last message, as it was sent; undefined: it is not kept. */
  readonly message: Uint8Array | undefined;
  /** The call's status, where it failed. */
  readonly failure:
    | {
        readonly reason: string;
        readonly message: string;
        readonly metadata: Readonly<Record<string, string>>;
        readonly retryAfterMs?: number | undefined;
      }
    | undefined;
}
