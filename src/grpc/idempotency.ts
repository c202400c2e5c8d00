import { GatewayError } from '../errors.ts';

const DAY_MS = 86_400_000;
/** Of one call's events; of a longer answer only the end is kept. */
const MAX_ANSWER_BYTES = 4 * 1024 * 1024;
/** Of all; then the oldest answers are cut down to their ends. */
const MAX_BYTES = 64 * 1024 * 1024;
/** Then the oldest keys are forgotten. */
const MAX_KEYS = 50_000;

/** Where a call's messages go. */
export interface Listener {
  /** Without it nothing is said; `Listening.more` tells that there is room again. */
  readonly hasRoom: boolean;
  message(bytes: Uint8Array): void;
  end(error: GatewayError | undefined): void;
}

export interface Listening {
  more(): void;
  stop(): void;
}

interface Place {
  readonly listener: Listener;
  /** Of the next message, counted from the first of the run. */
  next: number;
}

/** The one run under a key, and everybody who asked for it. */
export class KeyedRun {
  readonly fingerprint: string;
  readonly beganAtMs: number;
  readonly #places = new Set<Place>();
  #ledger: { bytes: number };
  #messages: Uint8Array[] = [];
  /** Messages before the first one that is kept. */
  #dropped = 0;
  #bytes = 0;
  #ended: { readonly error: GatewayError | undefined } | undefined;

  constructor(fingerprint: string, beganAtMs: number, ledger: { bytes: number }) {
    this.fingerprint = fingerprint;
    this.beganAtMs = beganAtMs;
    this.#ledger = ledger;
  }

  /** It has the outcome when the run is over. */
  get newest(): Uint8Array | undefined {
    return this.#messages.at(-1);
  }

  get isOver(): boolean {
    return this.#ended !== undefined;
  }

  /** What was said until now, and what comes, as the listener takes it: however many there are, it is kept once. */
  listen(listener: Listener): Listening {
    const place: Place = { listener, next: 0 };
    this.#places.add(place);
    this.#tell(place);
    return { more: () => this.#tell(place), stop: () => this.#places.delete(place) };
  }

  message(bytes: Uint8Array): void {
    this.#messages.push(bytes);
    this.#count(bytes.length);
    for (const place of this.#places) this.#tell(place);
    if (this.#bytes > MAX_ANSWER_BYTES) this.shorten();
  }

  end(error: GatewayError | undefined): void {
    this.#ended = { error };
    for (const place of this.#places) this.#tell(place);
  }

  /** Keeps the last message alone: it has the outcome. */
  shorten(): void {
    this.#drop(this.#messages.length - 1);
  }

  forget(): void {
    this.#drop(this.#messages.length);
    // What it still says is counted by nobody: nobody will forget it again.
    this.#ledger = { bytes: 0 };
  }

  #tell(place: Place): void {
    const { listener } = place;
    place.next = Math.max(place.next, this.#dropped);
    while (listener.hasRoom && this.#places.has(place)) {
      const message = this.#messages[place.next - this.#dropped];
      if (message === undefined) break;
      place.next += 1;
      listener.message(message);
    }
    const isAll = place.next === this.#dropped + this.#messages.length;
    if (this.#ended === undefined || !isAll || !this.#places.delete(place)) return;
    listener.end(this.#ended.error);
  }

  #drop(count: number): void {
    const dropped = this.#messages.splice(0, Math.max(0, count));
    this.#dropped += dropped.length;
    this.#count(-dropped.reduce((sum, { length }) => sum + length, 0));
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    this.#ledger.bytes += bytes;
  }
}

/**
 * Calls with an idempotency key, by tenant and key, for a day. What is over the bounds loses its events first and its
 * outcome last. Known to this process alone; `KeyedCalls` of the store are known to all.
 */
export class KeyedRuns {
  readonly #now: () => number;
  readonly #runs = new Map<string, KeyedRun>();
  readonly #ledger = { bytes: 0 };

  constructor(now: () => number) {
    this.#now = now;
  }

  get size(): number {
    return this.#runs.size;
  }

  /** Of the answers that are kept. */
  get bytes(): number {
    return this.#ledger.bytes;
  }

  /** Undefined: the key is new, and `begin` is to follow. Throws TURN_ID_REUSED for another request. */
  find(tenantId: string, key: string, fingerprint: string): KeyedRun | undefined {
    this.#sweep();
    const run = this.#runs.get(nameOf(tenantId, key));
    if (run === undefined || run.fingerprint === fingerprint) return run;
    throw new GatewayError('TURN_ID_REUSED', 'idempotency_key: used within a day for another request', {
      metadata: { field: 'idempotency_key' },
    });
  }

  begin(tenantId: string, key: string, fingerprint: string): KeyedRun {
    const run = new KeyedRun(fingerprint, this.#now(), this.#ledger);
    this.#runs.set(nameOf(tenantId, key), run);
    return run;
  }

  /** Nothing ran: the key is free again, unless another run has it by now. */
  release(tenantId: string, key: string, run: KeyedRun): void {
    const name = nameOf(tenantId, key);
    run.forget();
    if (this.#runs.get(name) === run) this.#runs.delete(name);
  }

  #sweep(): void {
    const oldestMs = this.#now() - DAY_MS;
    for (const [name, run] of this.#runs) {
      if (run.beganAtMs > oldestMs && this.#runs.size <= MAX_KEYS) break;
      run.forget();
      this.#runs.delete(name);
    }
    if (this.#ledger.bytes <= MAX_BYTES) return;
    for (const run of this.#runs.values()) {
      if (run.isOver) run.shorten();
      if (this.#ledger.bytes <= MAX_BYTES / 2) return;
    }
  }
}

function nameOf(tenantId: string, key: string): string {
  return `${tenantId}\n${key}`;
}
