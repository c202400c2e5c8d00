import { createCipheriv, randomBytes } from 'node:crypto';
import { LONG_TEXT, type LongText, type LongTexts, measureSteps, measureText } from '../ground/long-texts.ts';

/** Items in a row, as they came and as they go upstream. */
interface Segment {
  /** The first item's; the lengths of the others stand between them. */
  readonly firstBytes: number;
  /** From the first item's first byte to the last one's last. */
  readonly bytes: number;
  readonly tag: Buffer;
  readonly json: readonly string[];
  /** Memory of the JSON, in UTF-16 units. */
  readonly chars: number;
}

/** Of a session; the lane that was used longest ago is forgotten. */
const MAX_LANES = 32;
/** Of the JSON of all lanes. The transcript holds most of it as well, and not more than this by default. */
const MAX_CHARS = 16 * 1024 * 1024;
/** What an item costs besides its JSON. */
const ITEM_CHARS = 128;
/** What one changed item costs: its whole segment is read anew. */
const SEGMENT_BYTES = 256 * 1024;
/** A smaller one grows by the next request's items: each tag costs some microseconds, however short the segment. */
const SMALL_SEGMENT_BYTES = 128 * 1024;

/**
 * The full histories that the lanes of a session sent last. The next one begins the same but for its end, and comparing it
 * costs a hundredth of decoding, checking and writing it. Only what was read without an error is known.
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

/** Under it a text is measured as quickly as its measures are found. */
const MIN_MEASURED_CHARS = 128;

/** The items of one history. */
export class KnownItems {
  /** What was found out about the texts of the last history. */
  #measures = new Map<string, LongText>();
  #segments: readonly Segment[] = [];
  /** How many of them the history that is being read begins with. */
  #same = 0;

  /** Of what is known, in UTF-16 units. */
  get chars(): number {
    return this.#segments.reduce((sum, { chars }) => sum + chars, 0);
  }

  /**
   * What is asked of the texts later on, of the short ones as well: most are those of the last history, and going through
   * megabytes once more takes milliseconds. Offers a pause where it may take long.
   */
  *measure(texts: readonly string[]): Generator<undefined, LongTexts> {
    const before = this.#measures;
    const measures = new Map<string, LongText>();
    let unpaused = 0;
    for (const text of texts) {
      if (text.length < MIN_MEASURED_CHARS || measures.has(text)) continue;
      const known = before.get(text);
      if (known !== undefined) {
        measures.set(text, known);
        continue;
      }
      if (text.length >= LONG_TEXT) {
        measures.set(text, yield* measureSteps(text));
        continue;
      }
      measures.set(text, measureText(text));
      unpaused += text.length;
      if (unpaused < LONG_TEXT) continue;
      unpaused = 0;
      yield;
    }
    this.#measures = measures;
    return measures;
  }

  forgetMeasures(): void {
    this.#measures = new Map();
  }

  /** A history begins. The JSON of its longest beginning that is known. */
  beginningOf(items: readonly Uint8Array[]): string[] {
    const json: string[] = [];
    this.#same = 0;
    for (const segment of this.#segments) {
      if (!isSame(segment, items, json.length)) break;
      this.#same += 1;
      for (const each of segment.json) json.push(each);
    }
    return json;
  }

  /** The history was read to its end. Where it says what the last one said there, it gets the strings of that one. */
  learn(items: readonly Uint8Array[], read: string[]): void {
    const segments = this.#segments.slice(0, this.#same);
    if ((segments.at(-1)?.bytes ?? 0) < SMALL_SEGMENT_BYTES) segments.pop();
    let at = segments.reduce((sum, { json }) => sum + json.length, 0);
    let chars = segments.reduce((sum, each) => sum + each.chars, 0);
    const before = this.#segments.slice(segments.length).flatMap(({ json }) => json);
    before.forEach((json, index) => {
      if (read[at + index] === json) read[at + index] = json;
    });
    while (at < items.length) {
      const segment = segmentAt(items, read, at);
      at += segment.json.length;
      chars += segment.chars;
      // Places count: what is behind one that is not kept is not known either.
      if (chars > MAX_CHARS) break;
      segments.push(segment);
    }
    this.#segments = segments;
  }
}

function isSame(
  { firstBytes, bytes, tag, json }: Segment,
  items: readonly Uint8Array[],
  at: number,
): boolean {
  const region = regionOf(items, at, at + json.length);
  return items[at]?.length === firstBytes && region?.length === bytes && tagOf(region).equals(tag);
}

function segmentAt(items: readonly Uint8Array[], json: readonly string[], at: number): Segment {
  let end = at;
  for (let bytes = 0; end < items.length && bytes < SEGMENT_BYTES; end += 1) bytes += items[end]?.length ?? 0;
  const region = regionOf(items, at, end) ?? new Uint8Array(0);
  const own = json.slice(at, end);
  return {
    firstBytes: items[at]?.length ?? 0,
    bytes: region.length,
    tag: tagOf(region),
    json: own,
    chars: own.reduce((sum, { length }) => sum + length + ITEM_CHARS, 0),
  };
}

/** The message from the first of the items to the last: what stands between them is their tags and lengths. */
function regionOf(items: readonly Uint8Array[], from: number, end: number): Uint8Array | undefined {
  const [first, last] = [items[from], items[end - 1]];
  // Nothing at all has a buffer of its own.
  if (first === undefined || last === undefined || first.buffer !== last.buffer) return undefined;
  return new Uint8Array(first.buffer, first.byteOffset, last.byteOffset + last.length - first.byteOffset);
}

const KEY = randomBytes(16);
const NONCE = Buffer.alloc(12);

/**
 * AES-GCM over data that is not encrypted: fifteen times as fast as SHA-256. Nobody sees a tag and nobody knows the key, so
 * nobody can make two histories with the same one, and a nonce that repeats gives nothing away.
 */
function tagOf(bytes: Uint8Array): Buffer {
  const mac = createCipheriv('aes-128-gcm', KEY, NONCE);
  mac.setAAD(bytes);
  mac.final();
  return mac.getAuthTag();
}
