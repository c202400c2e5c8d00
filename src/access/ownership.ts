/** Beside its characters: two map slots, a string header and what V8 rounds up. */
const ENTRY_OVERHEAD_BYTES = 120;

/** Longer ids are nobody's: the upstream's have some 50 characters. */
const MAX_ID_CHARS = 256;

/**
 * The response ids that one tenant was given, least recently used first out. Each tenant has its own, so that a
 * foreign id and an unknown one are the same miss, and nobody's ids are pushed out by another tenant's.
 */
export class OwnedIds {
  readonly #maxBytes: number;
  readonly #ids = new Set<string>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  add(id: string): void {
    if (id === '' || id.length > MAX_ID_CHARS) return;
    if (this.#ids.delete(id)) {
      this.#ids.add(id);
      return;
    }
    this.#ids.add(id);
    this.#bytes += bytesOf(id);
    while (this.#bytes > this.#maxBytes) this.#dropOldest();
  }

  /** Knowing counts as use. */
  knows(id: string): boolean {
    if (!this.#ids.delete(id)) return false;
    this.#ids.add(id);
    return true;
  }

  /** As `knows`, without counting as use. */
  has(id: string): boolean {
    return this.#ids.has(id);
  }

  #dropOldest(): void {
    for (const id of this.#ids) {
      this.#ids.delete(id);
      this.#bytes -= bytesOf(id);
      return;
    }
  }
}

function bytesOf(id: string): number {
  // Ids are ASCII, one byte a character in V8.
  return id.length + ENTRY_OVERHEAD_BYTES;
}
