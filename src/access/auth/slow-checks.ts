import { GatewayError } from '../../errors.ts';

/** scrypt costs some 50 ms of CPU and 16 MiB a try: two at once leave the event loop's host room to work. */
const MAX_CONCURRENT = 2;
/** Of these, what keys that nobody has may take: whoever is known finds a place within one check's time. */
const MAX_CONCURRENT_STRANGERS = 1;
/** Tries that wait for one key. Calls with the same text share one, so that an honest caller never needs more. */
const MAX_WAITING_PER_KEY = 8;
const MAX_WAITING_STRANGERS = 32;
/** By the time that this many have had their turn, a caller has given up. */
const MAX_WAITING = 256;
/** What a caller is told to wait when its key could not be checked. */
const OVERLOAD_RETRY_MS = 1_000;

type Check = () => Promise<boolean>;

/**
 * Runs slow checks of keys, a few at a time. Keys that are configured take turns, each with a queue of its own, and go
 * before keys that are not: guesses against one key, or against none, do not keep the callers of another one out.
 */
export class SlowChecks {
  /** By key id, the longest waiting first; undefined: strangers. */
  readonly #waiting = new Map<string | undefined, (() => void)[]>();
  readonly #shared = new Map<string, Promise<boolean>>();
  #running = 0;
  #strangers = 0;
  #waits = 0;

  /**
   * Whether the presented key is good. `text` tells equal tries; `keyId` is undefined for a key that is not configured,
   * of which those that are too many are bad without a look. Rejects with OVERLOADED when a known one is not looked at.
   */
  run(keyId: string | undefined, text: string, check: Check): Promise<boolean> {
    const shared = this.#shared.get(text);
    if (shared !== undefined) return shared;
    const result = this.#turn(keyId).then((place) => (place ? this.#inPlace(keyId, check) : false));
    this.#shared.set(text, result);
    const forget = () => this.#shared.delete(text);
    result.then(forget, forget);
    return result;
  }

  /** Resolves when a place was taken; false: a stranger who does not get one. */
  async #turn(keyId: string | undefined): Promise<boolean> {
    if (this.#hasRoom(keyId)) {
      this.#take(keyId);
      return true;
    }
    const queue = this.#waiting.get(keyId) ?? [];
    const full = queue.length >= (keyId === undefined ? MAX_WAITING_STRANGERS : MAX_WAITING_PER_KEY);
    if (full || (keyId !== undefined && this.#waits >= MAX_WAITING)) {
      if (keyId === undefined) return false;
      throw new GatewayError('OVERLOADED', 'too many callers wait for their keys to be checked', {
        retryAfterMs: OVERLOAD_RETRY_MS,
      });
    }
    this.#waiting.set(keyId, queue);
    this.#waits += 1;
    await new Promise<void>((resolve) => queue.push(resolve));
    return true;
  }

  async #inPlace(keyId: string | undefined, check: Check): Promise<boolean> {
    try {
      return await check();
    } finally {
      this.#running -= 1;
      if (keyId === undefined) this.#strangers -= 1;
      this.#callNext();
    }
  }

  #callNext(): void {
    for (const keyId of this.#nextKeys()) {
      if (!this.#hasRoom(keyId)) continue;
      const queue = this.#waiting.get(keyId) ?? [];
      const wake = queue.shift();
      // A key that had its turn goes to the end of the line.
      this.#waiting.delete(keyId);
      if (queue.length > 0) this.#waiting.set(keyId, queue);
      if (wake === undefined) continue;
      this.#waits -= 1;
      this.#take(keyId);
      wake();
      return;
    }
  }

  #nextKeys(): readonly (string | undefined)[] {
    return [...this.#waiting.keys()].sort((a, b) => Number(a === undefined) - Number(b === undefined));
  }

  #hasRoom(keyId: string | undefined): boolean {
    if (this.#running >= MAX_CONCURRENT) return false;
    return keyId !== undefined || this.#strangers < MAX_CONCURRENT_STRANGERS;
  }

  #take(keyId: string | undefined): void {
    this.#running += 1;
    if (keyId === undefined) this.#strangers += 1;
  }
}
