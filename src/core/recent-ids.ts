/** Remembers the last ids with a value each, the oldest forgotten first. */
export class RecentIds {
  readonly #max: number;
  readonly #ids = new Map<string, string>();

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#ids.size;
  }

  /** Oldest first. */
  entries(): Iterable<readonly [id: string, value: string]> {
    return this.#ids.entries();
  }

  get(id: string): string | undefined {
    return this.#ids.get(id);
  }

  add(id: string, value: string): void {
    this.#ids.delete(id);
    this.#ids.set(id, value);
    if (this.#ids.size <= this.#max) return;
    for (const oldest of this.#ids.keys()) {
      this.#ids.delete(oldest);
      return;
    }
  }
}

/** Stands for a turn that was never taken: no request has this fingerprint, and it is in no record. */
export const REFUSED = 'refused';
