/** Of all lanes of a session, in UTF-16 units. The transcript holds most of it as well. */
const MAX_CHARS = 16 * 1024 * 1024;
/** What an item costs besides its text. */
const ITEM_CHARS = 16;

interface History {
  readonly items: readonly string[];
  /** Of the items, in UTF-8. */
  readonly bytes: number;
  readonly chars: number;
}

export interface AdmittedPart {
  /** How many of the items, from the first on, were admitted before. */
  readonly items: number;
  /** Of these; 0 where a history did not only grow, and has to be measured anew. */
  readonly bytes: number;
}

export const NOTHING_ADMITTED: AdmittedPart = { items: 0, bytes: 0 };

/** By lane: the full history that was admitted last. Those used longest ago are forgotten, and looked at again. */
export class AdmittedHistories {
  /** The one used last is the last. */
  readonly #lanes = new Map<string, History>();
  #chars = 0;

  get size(): number {
    return this.#lanes.size;
  }

  admitted(laneId: string, items: readonly string[]): AdmittedPart {
    const before = this.#lanes.get(laneId);
    if (before === undefined) return NOTHING_ADMITTED;
    let count = 0;
    while (count < before.items.length && before.items[count] === items[count]) count += 1;
    return { items: count, bytes: count === before.items.length ? before.bytes : 0 };
  }

  add(laneId: string, items: readonly string[], bytes: number): void {
    this.drop(laneId);
    let chars = 0;
    for (const item of items) chars += item.length + ITEM_CHARS;
    if (chars > MAX_CHARS) return;
    this.#lanes.set(laneId, { items, bytes, chars });
    this.#chars += chars;
    for (const oldest of this.#lanes.keys()) {
      if (this.#chars <= MAX_CHARS) return;
      this.drop(oldest);
    }
  }

  drop(laneId: string): void {
    this.#chars -= this.#lanes.get(laneId)?.chars ?? 0;
    this.#lanes.delete(laneId);
  }

  clear(): void {
    this.#lanes.clear();
    this.#chars = 0;
  }
}
