import { Buffer } from 'node:buffer';
import type { Attributes, HrTime } from '@opentelemetry/api';

type AttributeValue = Attributes[string];

/** Wire types of protobuf. */
export const VARINT = 0;
export const FIXED64 = 1;
export const BYTES = 2;
export const FIXED32 = 5;

/** What begins a field. */
export function tag(field: number, wireType: number): number {
  return (field << 3) | wireType;
}

/** An attribute's name with its tags, and the last value that it had twice running with everything around it. */
interface KnownAttribute {
  readonly head: Buffer;
  last: AttributeValue;
  whole: Buffer | undefined;
}

// Clients choose the names of their labels; the gateway itself has about eighty.
const MAX_KNOWN_ATTRIBUTES = 256;
// Longer ones are content, or one of a kind.
const MAX_KNOWN_CHARACTERS = 128;
const ANY_STRING = tag(1, BYTES);
const ANY_BOOL = tag(2, VARINT);
const ANY_INT = tag(3, VARINT);
const ANY_DOUBLE = tag(4, FIXED64);
const ANY_ARRAY = tag(5, BYTES);
const TWO_32 = 2 ** 32;
const TWO_16 = 2 ** 16;

const known = new Map<string, KnownAttribute>();

/** Protobuf with OTLP's own types: ids in hex, times in seconds and nanoseconds, attributes. */
export class OtlpWriter {
  #buffer: Buffer;
  #at = 0;

  constructor(expectedBytes: number) {
    this.#buffer = Buffer.allocUnsafe(expectedBytes);
  }

  bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#at);
  }

  /** Begins a message; `close` takes what this returns. */
  open(key: number): number {
    this.#key(key);
    return this.#at++;
  }

  /** Most messages are shorter than 128 bytes; the others move to make room for their length. */
  close(start: number): void {
    const length = this.#at - start - 1;
    if (length < 0x80) {
      this.#buffer[start] = length;
      return;
    }
    const more = length < 0x4000 ? 1 : length < 0x20_0000 ? 2 : length < 0x1000_0000 ? 3 : 4;
    this.#reserve(more);
    this.#buffer.copyWithin(start + 1 + more, start + 1, this.#at);
    this.#at = start;
    this.#varint(length);
    this.#at += length;
  }

  varint(key: number, value: number): void {
    // Zero is what a reader takes for absent.
    if (value === 0) return;
    this.#key(key);
    this.#varint(value);
  }

  fixed32(key: number, value: number): void {
    this.#key(key);
    this.#at = this.#buffer.writeUInt32LE(value, this.#at);
  }

  /** In nanoseconds since 1970, which are more than a number can hold exactly. */
  time(key: number, [seconds, nanos]: HrTime): void {
    this.#key(key);
    const upper = Math.floor(seconds / TWO_16) * 1e9;
    const lower = (upper % TWO_16) * TWO_16 + (seconds % TWO_16) * 1e9 + nanos;
    this.#at = this.#buffer.writeUInt32LE(lower % TWO_32, this.#at);
    this.#at = this.#buffer.writeUInt32LE(Math.floor(upper / TWO_16) + Math.floor(lower / TWO_32), this.#at);
  }

  hex(key: number, digits: string): void {
    this.#key(key);
    this.#buffer[this.#at++] = digits.length / 2;
    this.#at += this.#buffer.write(digits, this.#at, 'hex');
  }

  string(key: number, text: string): void {
    // No character takes more than three bytes.
    this.#reserve(text.length * 3 + MARGIN);
    const start = this.open(key);
    this.#at += this.#buffer.write(text, this.#at, 'utf8');
    this.close(start);
  }

  attributes(key: number, attributes: Attributes): void {
    for (const name in attributes) {
      const value = attributes[name];
      if (value !== undefined) this.#attribute(key, name, value);
    }
  }

  #attribute(key: number, name: string, value: AttributeValue): void {
    const attribute = known.get(name) ?? learn(name);
    if (value === attribute.last && attribute.whole !== undefined) {
      this.#reserve(attribute.whole.length + MARGIN);
      this.#key(key);
      this.#copy(attribute.whole);
      return;
    }
    this.#reserve(attribute.head.length + MARGIN);
    const start = this.open(key);
    this.#copy(attribute.head);
    const any = this.#at++;
    this.#any(value);
    this.close(any);
    this.close(start);
    if (typeof value !== 'string' || value.length > MAX_KNOWN_CHARACTERS) return;
    attribute.whole =
      value === attribute.last ? Buffer.from(this.#buffer.subarray(start, this.#at)) : undefined;
    attribute.last = value;
  }

  #any(value: AttributeValue): void {
    if (typeof value === 'string') return this.string(ANY_STRING, value);
    if (typeof value === 'number') {
      if (Number.isSafeInteger(value)) {
        this.#key(ANY_INT);
        this.#varint(value);
      } else {
        this.#key(ANY_DOUBLE);
        this.#at = this.#buffer.writeDoubleLE(value, this.#at);
      }
    } else if (typeof value === 'boolean') {
      this.#key(ANY_BOOL);
      this.#buffer[this.#at++] = value ? 1 : 0;
    } else if (Array.isArray(value)) {
      const list = this.open(ANY_ARRAY);
      for (const entry of value) {
        const any = this.open(tag(1, BYTES));
        this.#any(entry ?? undefined);
        this.close(any);
      }
      this.close(list);
    }
  }

  #key(key: number): void {
    // Room for the key, a length and whatever fixed fields follow before the next check.
    this.#reserve(MARGIN);
    if (key < 0x80) this.#buffer[this.#at++] = key;
    else this.#varint(key);
  }

  /** Negative ones as two's complement of 64 bits. */
  #varint(value: number): void {
    let low = value >= 0 ? value % TWO_32 : (value % TWO_32) + TWO_32;
    let high = Math.floor(value / TWO_32) >>> 0;
    if (low >= TWO_32) low -= TWO_32;
    while (high > 0 || low > 0x7f) {
      this.#buffer[this.#at++] = (low & 0x7f) | 0x80;
      low = ((low >>> 7) | (high << 25)) >>> 0;
      high >>>= 7;
    }
    this.#buffer[this.#at++] = low;
  }

  #copy(bytes: Buffer): void {
    this.#buffer.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#at + bytes));
    this.#buffer.copy(larger, 0, 0, this.#at);
    this.#buffer = larger;
  }
}

/** More than a key of two bytes with the longest field that is written without a check of its own: 16 bytes of an id. */
const MARGIN = 32;

function learn(name: string): KnownAttribute {
  const head = new OtlpWriter(name.length + MARGIN);
  head.string(tag(1, BYTES), name);
  head.open(tag(2, BYTES));
  // Without the length of the value, which comes with the value.
  const attribute = { head: Buffer.from(head.bytes().subarray(0, -1)), last: undefined, whole: undefined };
  if (known.size < MAX_KNOWN_ATTRIBUTES) known.set(name, attribute);
  return attribute;
}
