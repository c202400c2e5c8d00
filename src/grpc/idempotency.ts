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
  message(bytes: Uint8Array): void;
  end(error: GatewayError | undefined): void;
}

/** The one run under a key, and everybody who asked for it. */
export class KeyedRun {
  readonly fingerprint: string;
  readonly beganAtMs: number;
  readonly #ledger: { bytes: number };
  readonly #listeners = new Set<Listener>();
  #messages: Uint8Array[] = [];
  #bytes = 0;
  #ended: { readonly error: GatewayError | undefined } | undefined;

  constructor(fingerprint: string, beganAtMs: number, ledger: { bytes: number }) {
    this.fingerprint = fingerprint;
    this.beganAtMs = beganAtMs;
    this.#ledger = ledger;
  }

  get isOver(): boolean {
    return this.#ended !== undefined;
  }

  /** What was said until now, and what comes. The returned function stops it. */
  listen(listener: Listener): () => void {
    for (const message of this.#messages) listener.message(message);
    if (this.#ended !== undefined) listener.end(this.#ended.error);
    else this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  message(bytes: Uint8Array): void {
    this.#messages.push(bytes);
    this.#count(bytes.length);
    if (this.#bytes > MAX_ANSWER_BYTES) this.shorten();
    for (const listener of this.#listeners) listener.message(bytes);
  }

  end(error: GatewayError | undefined): void {
    this.#ended = { error };
    for (const listener of this.#listeners) listener.end(error);
    this.#listeners.clear();
  }

  /** Keeps the last message alone: it has the outcome. */
  shorten(): void {
    this.#messages = this.#messages.slice(-1);
    this.#count((this.#messages[0]?.length ?? 0) - this.#bytes);
  }

  forget(): void {
    this.#count(-this.#bytes);
    this.#messages = [];
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    this.#ledger.bytes += bytes;
  }
}

/**
 * Calls with an idempotency key, by tenant and key, for a day. What is over the bounds loses its events first and its
 * outcome last. Known to this process alone.
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

  /** Nothing ran: the key is free again. */
  release(tenantId: string, key: string): void {
    const name = nameOf(tenantId, key);
    this.#runs.get(name)?.forget();
    this.#runs.delete(name);
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
