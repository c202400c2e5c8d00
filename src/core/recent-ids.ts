/** Remembers the last ids with a value each, the oldest forgotten first. */
export class RecentIds {
  readonly #max: number;
  readonly #ids = new Map<string, string>();
  /** The same ids in order: the first keys of a map that is emptied from its front are ever slower to find. */
  #order: string[] = [];
  #forgotten = 0;

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

  /** An id that is known keeps its place. */
  add(id: string, value: string): void {
    const size = this.#ids.size;
    this.#ids.set(id, value);
    if (this.#ids.size === size) return;
    this.#order.push(id);
    if (size < this.#max) return;
    this.#ids.delete(this.#order[this.#forgotten] as string);
    this.#forgotten += 1;
    if (this.#forgotten < this.#max) return;
    this.#order = this.#order.slice(this.#forgotten);
    this.#forgotten = 0;
  }
}

/** Stands for a turn that was never taken: no request has this fingerprint, and it is in no record. */
export const REFUSED = 'refused';
