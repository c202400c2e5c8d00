/** A growing buffer of protobuf bytes. Nested lengths are reserved by guess and shifted into place. */
const FIRST_BYTES = 64 * 1024;

/** A buffer larger than the largest batch of deltas is given away with the event that needed it. */
const KEPT_BYTES = 512 * 1024;

/** Up to so many bytes a loop is faster than a call into native code. */
const LOOP_BYTES = 48;

/** What `short` may write behind its text. */
export const SPARE_BYTES = 4;

export class Output {
  bytes: Buffer = Buffer.allocUnsafe(FIRST_BYTES);
  at = 0;
  #view = viewOf(this.bytes);

  reserve(count: number): void {
    if (this.at + count > this.bytes.length) this.#grow(count);
  }

  #grow(count: number): void {
    const larger = Buffer.allocUnsafe(Math.max(this.bytes.length * 2, this.at + count));
    this.bytes.copy(larger, 0, 0, this.at);
    this.bytes = larger;
    this.#view = viewOf(larger);
  }

  /** A varint of at most 32 bits. Reserve before. */
  varint(value: number): void {
    let rest = value >>> 0;
    while (rest > 0x7f) {
      this.bytes[this.at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.bytes[this.at++] = rest;
  }

  /** A safe integer as a 64-bit varint; negative ones take ten bytes. Reserve before. */
  varint64(value: number): void {
    if (value >= 0 && value <= 0xffffffff) this.varint(value);
    else this.varintBig(BigInt(value));
  }

  varintBig(value: bigint): void {
    let rest = BigInt.asUintN(64, value);
    while (rest > 0x7fn) {
      this.bytes[this.at++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.bytes[this.at++] = Number(rest);
  }

  double(value: number): void {
    this.reserve(8);
    this.bytes.writeDoubleLE(value, this.at);
    this.at += 8;
  }

  /** Copies src[start, end) behind its length. */
  chunk(src: Uint8Array, start: number, end: number): void {
    this.reserve(end - start + 5);
    this.varint(end - start);
    this.raw(src, start, end);
  }

  /**
   * `chunk` of less than 128 bytes, four at a time. Reserve before, with `SPARE_BYTES`; `from` has as many behind them, which
   * are copied and then written over.
   */
  short(from: DataView, start: number, length: number): void {
    const view = this.#view;
    const { at } = this;
    this.bytes[at] = length;
    for (let i = 0; i < length; i += 4) view.setInt32(at + 1 + i, from.getInt32(start + i, true), true);
    this.at = at + 1 + length;
  }

  raw(src: Uint8Array, start: number, end: number): void {
    this.reserve(end - start);
    const { bytes } = this;
    let to = this.at;
    if (end - start > LOOP_BYTES) copy.call(src as Buffer, bytes, to, start, end);
    else for (let i = start; i < end; i++) bytes[to++] = src[i] as number;
    this.at += end - start;
  }

  /** A string of the gateway's own, behind its length. */
  text(value: string): void {
    const length = value.length;
    this.reserve(length * 3 + 5);
    const mark = this.open(length);
    for (let i = 0; i < length; i++) {
      const c = value.charCodeAt(i);
      if (c > 0x7f) {
        this.at = mark + this.bytes.write(value, mark);
        break;
      }
      this.bytes[this.at++] = c;
    }
    this.close(mark, length);
  }

  /** Leaves room for a length of about `guess`; what follows is measured by `close` with the same guess. */
  open(guess: number): number {
    this.reserve(5);
    this.at += sizeOfVarint(guess);
    return this.at;
  }

  close(mark: number, guess: number): void {
    const length = this.at - mark;
    const reserved = sizeOfVarint(guess);
    const needed = sizeOfVarint(length);
    if (needed !== reserved) {
      this.reserve(5);
      this.bytes.copyWithin(mark - reserved + needed, mark, this.at);
    }
    this.at = mark - reserved;
    this.varint(length);
    this.at += length;
  }

  /** What was written since `from`, as bytes of their own; the output is then empty from there on. */
  take(from: number): Uint8Array {
    const end = this.at;
    const { bytes } = this;
    this.at = from;
    if (bytes.length > KEPT_BYTES) {
      this.bytes = Buffer.allocUnsafe(FIRST_BYTES);
      this.#view = viewOf(this.bytes);
      this.at = 0;
      return bytes.subarray(from, end);
    }
    const taken = Buffer.allocUnsafe(end - from);
    bytes.copy(taken, 0, from, end);
    return taken;
  }
}

/** Takes any byte array, and needs no view of the part to copy. */
const { copy } = Buffer.prototype;

function viewOf({ buffer, byteOffset, byteLength }: Buffer): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

export function sizeOfVarint(value: number): number {
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x200000 ? 3 : value < 0x10000000 ? 4 : 5;
}
