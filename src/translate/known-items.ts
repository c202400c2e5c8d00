import { hash } from 'node:crypto';

interface KnownItem {
  /** Of the item as it came; the digest is asked for only where the length is the same. */
  readonly length: number;
  readonly digest: string;
  /** The item for the upstream. */
  readonly json: string;
}

/** Of a session; the lane that was used longest ago is forgotten. */
const MAX_LANES = 32;
/** Of the JSON of all lanes. The transcript holds most of it as well, and not more than this by default. */
const MAX_CHARS = 16 * 1024 * 1024;
/** What an item costs besides its JSON. */
const ITEM_CHARS = 128;

/**
 * The full histories that the lanes of a session sent last. The next one begins the same but for its end, and hashing an
 * item takes a tenth of the time that decoding, checking and writing it takes. Only what was read without an error is known.
 */
export class KnownHistories {
  /** The one used last is the last. */
  readonly #lanes = new Map<string, KnownItems>();

  of(laneId: string): KnownItems {
    const known = this.#lanes.get(laneId) ?? new KnownItems();
    this.#lanes.delete(laneId);
    this.#lanes.set(laneId, known);
    let chars = 0;
    for (const each of this.#lanes.values()) chars += each.chars;
    for (const [oldest, each] of this.#lanes) {
      if (each === known || (this.#lanes.size <= MAX_LANES && chars <= MAX_CHARS)) break;
      chars -= each.chars;
      this.#lanes.delete(oldest);
    }
    return known;
  }

  get size(): number {
    return this.#lanes.size;
  }

  /** Memory is short: what is known is read again. */
  clear(): void {
    this.#lanes.clear();
  }
}

/** The items of one history, read from the first to the last. */
export class KnownItems {
  readonly #items: KnownItem[] = [];
  #at = 0;
  #chars = 0;
  /** Of the item that was asked for last. */
  #digest: string | undefined;

  /** Of what is known, in UTF-16 units. */
  get chars(): number {
    return this.#chars;
  }

  /** A history begins. */
  begin(): void {
    this.#at = 0;
    this.#chars = 0;
  }

  /** The next item, if it is the same as in the history before. */
  next(bytes: Uint8Array): string | undefined {
    this.#digest = undefined;
    const known = this.#items[this.#at];
    if (known === undefined || known.length !== bytes.length) return undefined;
    this.#digest = digestOf(bytes);
    if (known.digest !== this.#digest) return undefined;
    this.#at += 1;
    this.#chars += known.json.length + ITEM_CHARS;
    return known.json;
  }

  /** What the item is that was not known. */
  learn(bytes: Uint8Array, json: string): void {
    this.#chars += json.length + ITEM_CHARS;
    // An item that is not remembered ends what can be known: places count.
    if (this.#chars > MAX_CHARS) return this.end();
    this.#items[this.#at] = { length: bytes.length, digest: this.#digest ?? digestOf(bytes), json };
    this.#at += 1;
  }

  /** Forgets what is behind the last item. */
  end(): void {
    this.#items.length = this.#at;
  }
}

function digestOf(bytes: Uint8Array): string {
  return hash('sha256', bytes, 'base64url');
}
