import { sliceEnd } from '../ground/long-texts.ts';

/** UTF-16 units that are encoded at a time, unless a fragment is longer. */
const ENCODED_UNITS = 64 * 1024;

/** A message that is encoded as it is sent: a long one takes tens of milliseconds, and twice its memory. */
export class OutgoingText {
  readonly #parts: readonly string[];
  readonly #fragmentBytes: number;
  readonly #units: number;
  /** Of the part that is next, and of its units those that were encoded. */
  #part = 0;
  #at = 0;
  /** What is encoded, and how much of it was taken. */
  #encoded: Buffer = Buffer.alloc(0);
  #taken = 0;

  constructor(parts: readonly string[], fragmentBytes: number) {
    this.#parts = parts.filter((part) => part !== '');
    this.#fragmentBytes = fragmentBytes;
    this.#units = Math.max(ENCODED_UNITS, fragmentBytes);
  }

  get isDone(): boolean {
    return this.#taken === this.#encoded.length && this.#part === this.#parts.length;
  }

  /** The next fragment. */
  next(): Buffer {
    if (this.#taken === this.#encoded.length) {
      this.#encoded = Buffer.from(this.#nextText(), 'utf8');
      this.#taken = 0;
    }
    const end = Math.min(this.#taken + this.#fragmentBytes, this.#encoded.length);
    const fragment = this.#encoded.subarray(this.#taken, end);
    this.#taken = end;
    return fragment;
  }

  #nextText(): string {
    let text = '';
    while (text.length < this.#units && this.#part < this.#parts.length) {
      const part = this.#parts[this.#part] as string;
      const end = sliceEnd(part, this.#at, this.#units - text.length);
      text += this.#at === 0 && end === part.length ? part : part.slice(this.#at, end);
      this.#at = end;
      if (end < part.length) break;
      this.#part += 1;
      this.#at = 0;
    }
    return text;
  }
}
