import type { JsonObject } from './json.ts';

export type Transport = 'ws' | 'http';

export type JournalStatus =
  | 'queued'
  | 'running'
  | 'completed'
  | 'incomplete'
  | 'failed'
  | 'cancelled'
  /** Ended by an error frame or HTTP error; nothing was generated if `responseId` is null. */
  | 'error'
  /** The connection went away first. */
  | 'aborted';

/** The simulator's own truth about one accepted request. */
export interface JournalEntry {
  readonly id: number;
  /** 1-based number of the WebSocket connection, or 0 for HTTP. */
  readonly connection: number;
  readonly transport: Transport;
  /** Empty for the default lane. */
  readonly lane: string;
  readonly bytesReceived: number;
  /** The parsed `response.create` or HTTP body; null for an automatic successor. */
  readonly request: JsonObject | null;
  /** The response that this one succeeds automatically after steering. */
  readonly successorOf: string | null;
  status: JournalStatus;
  responseId: string | null;
  previousResponseId: string | null;
  warmUp: boolean;
  /** The effective context that the model saw (input included, output not). */
  contextHash: string | null;
  contextItems: number;
  reasoningItems: number;
  inputTokens: number;
  cachedTokens: number;
  finalText: string;
  errorCode: string | number | null;
  eventsSent: number;
}

export interface Counters {
  connectionsAccepted: number;
  connectionsRefused: number;
  connectionsOpen: number;
  requestsWs: number;
  requestsHttp: number;
  steers: number;
  injects: number;
  framesReceived: number;
  framesSent: number;
  /** Payload received, and bytes sent on the wire (frame headers included). */
  bytesReceived: number;
  bytesSent: number;
  faultsApplied: number;
}

/** A bounded log of requests, oldest first, and counters that never wrap around it. */
export class Journal {
  readonly counters: Counters = {
    connectionsAccepted: 0,
    connectionsRefused: 0,
    connectionsOpen: 0,
    requestsWs: 0,
    requestsHttp: 0,
    steers: 0,
    injects: 0,
    framesReceived: 0,
    framesSent: 0,
    bytesReceived: 0,
    bytesSent: 0,
    faultsApplied: 0,
  };
  readonly #maxEntries: number;
  readonly #maxBytes: number;
  readonly #entries: JournalEntry[] = [];
  readonly #sizes = new WeakMap<JournalEntry, number>();
  #bytes = 0;
  #nextId = 1;
  readonly #waiters = new Set<{ test: (journal: Journal) => boolean; resolve: () => void }>();

  constructor(limits: { maxEntries: number; maxBytes: number }) {
    this.#maxEntries = limits.maxEntries;
    this.#maxBytes = limits.maxBytes;
  }

  get entries(): readonly JournalEntry[] {
    return this.#entries;
  }

  open(
    fields: Pick<
      JournalEntry,
      'connection' | 'transport' | 'lane' | 'bytesReceived' | 'request' | 'successorOf'
    >,
  ): JournalEntry {
    const entry: JournalEntry = {
      ...fields,
      id: this.#nextId++,
      status: 'queued',
      responseId: null,
      previousResponseId: null,
      warmUp: false,
      contextHash: null,
      contextItems: 0,
      reasoningItems: 0,
      inputTokens: 0,
      cachedTokens: 0,
      finalText: '',
      errorCode: null,
      eventsSent: 0,
    };
    if (fields.transport === 'ws') this.counters.requestsWs += 1;
    else this.counters.requestsHttp += 1;
    this.#entries.push(entry);
    this.#measure(entry);
    this.notify();
    return entry;
  }

  /** An entry has reached its final state; its text counts against the limit from now on. */
  settle(entry: JournalEntry): void {
    if (this.#sizes.has(entry)) this.#measure(entry);
    this.notify();
  }

  clear(): void {
    for (const entry of this.#entries) this.#sizes.delete(entry);
    this.#entries.length = 0;
    this.#bytes = 0;
  }

  #measure(entry: JournalEntry): void {
    const size = entry.bytesReceived + entry.finalText.length;
    this.#bytes += size - (this.#sizes.get(entry) ?? 0);
    this.#sizes.set(entry, size);
    while (
      this.#entries.length > 1 &&
      (this.#entries.length > this.#maxEntries || this.#bytes > this.#maxBytes)
    ) {
      const oldest = this.#entries.shift();
      if (oldest === undefined) return;
      this.#bytes -= this.#sizes.get(oldest) ?? 0;
      this.#sizes.delete(oldest);
    }
  }

  /** Resolves when `test` holds; it is looked at after every change of an entry or of a connection. */
  async until(test: (journal: Journal) => boolean): Promise<void> {
    if (test(this)) return;
    await new Promise<void>((resolve) => this.#waiters.add({ test, resolve }));
  }

  /** Called by the simulator after it changed an entry or a connection counter. */
  notify(): void {
    for (const waiter of this.#waiters) {
      if (!waiter.test(this)) continue;
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
  }
}
