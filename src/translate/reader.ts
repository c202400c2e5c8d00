/**
 * Upstream JSON → protobuf bytes, without a tree in between. The input must be valid JSON (`isJson`) in valid
 * UTF-8. What has no typed place is passed over and told by `lossless`; the caller then sends the exact JSON too.
 */
import type { KnownPlace } from './echo.ts';
import type { Output } from './output.ts';
import {
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COMMA,
  closingQuote,
  isDigit,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
  skipSpace,
  skipValue,
} from './scan.ts';
import { type ByteTable, equalsAt, type Field, type Plan, type Slot, startsAt } from './schema.ts';
import { PLAIN, putUnescaped } from './text.ts';

/** protobuf parsers give up at 100 nested messages; Event and ConnectResponse are around ours. */
const MAX_NESTING = 80;

/** Up to here every decimal survives as a double. */
const SAFE_DIGITS = 15;

const NO_PLACES: readonly KnownPlace[] = [];

export class Reader {
  /** False: the JSON says something that the message does not. */
  lossless = true;
  /** A key came twice: which one counts is anyone's guess, so the message must not be used at all. */
  ambiguous = false;
  readonly #out: Output;
  #src: Buffer = Buffer.alloc(0);
  #pos = 0;
  #depth = 0;
  #revision = 0;
  #places: readonly KnownPlace[] = NO_PLACES;
  #placesRead = 0;
  /** Of the next one; -1: there is none. */
  #placeStart = -1;

  constructor(out: Output) {
    this.#out = out;
  }

  /** Appends the fields of the message that the object in `src` stands for; false if there is no object. */
  read(plan: Plan, src: Buffer, revision: number, places: readonly KnownPlace[] = NO_PLACES): boolean {
    this.#src = src;
    this.#pos = skipSpace(src, 0);
    this.#depth = 0;
    this.#revision = revision;
    this.#places = places;
    this.#placesRead = 0;
    this.#placeStart = places[0]?.start ?? -1;
    this.lossless = true;
    this.ambiguous = false;
    if (src[this.#pos] !== OPEN_BRACE) return false;
    this.#object(plan);
    return true;
  }

  #object(plan: Plan): void {
    const src = this.#src;
    let seenLow = 0;
    let seenHigh = 0;
    let pos = skipSpace(src, this.#pos + 1);
    let guess = plan.first;
    while (src[pos] === QUOTE) {
      let slot = guess.slot;
      if (slot !== undefined && startsAt(slot.keyBytes, src, pos + 1)) pos += slot.keyBytes.length + 1;
      else {
        const quote = closingQuote(src, pos + 1);
        // A key with an escape in it is never one of ours, which are plain; it is passed over as unknown.
        slot = quote < 0 ? undefined : plan.byKey.get(src, pos + 1, quote);
        pos = (quote < 0 ? ~quote : quote) + 1;
        if (slot !== undefined) guess.slot = slot;
      }
      if (slot !== undefined) guess = slot.next;
      this.#pos = skipSpace(src, skipSpace(src, pos) + 1);
      if (slot === undefined || slot.since > this.#revision) this.#pass();
      else {
        const bit = 1 << (slot.bit & 31);
        if (slot.bit < 32) {
          if ((seenLow & bit) !== 0) this.ambiguous = true;
          seenLow |= bit;
        } else {
          if ((seenHigh & bit) !== 0) this.ambiguous = true;
          seenHigh |= bit;
        }
        if (this.#pos === this.#placeStart) this.#known(slot);
        else this.#value(slot);
      }
      pos = skipSpace(src, this.#pos);
      if (src[pos] === COMMA) pos = skipSpace(src, pos + 1);
    }
    this.#pos = pos + 1;
    const { requiredLow, requiredHigh } = plan;
    if ((seenLow & requiredLow) !== requiredLow || (seenHigh & requiredHigh) !== requiredHigh) {
      this.lossless = false;
    }
  }

  /** A value that was read before is written as it was then. */
  #known(slot: Slot): void {
    const { value, end } = this.#places[this.#placesRead] as KnownPlace;
    this.#placesRead += 1;
    this.#placeStart = this.#places[this.#placesRead]?.start ?? -1;
    const { written } = value;
    if (written?.slot === slot && written.revision === this.#revision) {
      this.#out.raw(written.bytes, 0, written.bytes.length);
      this.lossless &&= written.lossless;
      this.#pos = end;
      return;
    }
    const from = this.#out.at;
    const { lossless, ambiguous } = this;
    this.lossless = true;
    this.ambiguous = false;
    this.#value(slot);
    if (!this.ambiguous && this.#pos === end) {
      const bytes = Buffer.from(this.#out.bytes.subarray(from, this.#out.at));
      value.written = { slot, revision: this.#revision, bytes, lossless: this.lossless };
    }
    this.lossless &&= lossless;
    this.ambiguous ||= ambiguous;
  }

  /** The value at hand, into the field that takes its JSON type. */
  #value(slot: Slot): void {
    const c = this.#src[this.#pos];
    if (c === QUOTE && slot.string !== undefined) this.#string(slot.string);
    else if (c === 0x6e && slot.nullable) this.#pos += 4;
    else if (c === OPEN_BRACKET && slot.list !== undefined) this.#list(slot.list);
    else if (slot.any !== undefined) this.#message(slot.any);
    else if (c === OPEN_BRACE) {
      if (slot.arms !== undefined) this.#union(slot, slot.arms);
      else if (slot.object !== undefined) this.#message(slot.object);
      else if (slot.map !== undefined) this.#map(slot.map);
      else this.#other(slot);
    } else if (c === 0x74 || c === 0x66) {
      if (slot.boolean !== undefined) this.#boolean(slot.boolean, c === 0x74);
      else this.#other(slot);
    } else if (slot.number !== undefined && (c === 0x2d || isDigit(c))) this.#number(slot.number);
    else if (slot.fields.length === 0 && c === QUOTE) this.#carried();
    else this.#other(slot);
  }

  /** A string that the envelope tells; it cannot tell an empty one from none. */
  #carried(): void {
    if (this.#src[this.#pos + 1] === QUOTE) this.lossless = false;
    this.#pos = skipValue(this.#src, this.#pos);
  }

  /** A value of a type that has no field: raw where there is a raw place. */
  #other(slot: Slot): void {
    const start = this.#pos;
    this.#pos = skipValue(this.#src, start);
    const passedThrough = slot.raw !== undefined && slot.discriminator === '';
    if (!passedThrough) this.lossless = false;
    if (slot.raw === undefined) return;
    this.#out.reserve(5);
    this.#out.varint(slot.raw.tag);
    this.#out.chunk(this.#src, start, this.#pos);
  }

  #pass(): void {
    this.#pos = skipValue(this.#src, this.#pos);
    this.lossless = false;
  }

  #message(field: Field): void {
    if (this.#depth >= MAX_NESTING) {
      this.#pass();
      return;
    }
    const guess = (this.#src.length - this.#pos) >> 1;
    const plan = field.message();
    this.#out.reserve(5);
    this.#out.varint(field.tag);
    const mark = this.#out.open(guess);
    this.#depth++;
    if (plan.inline !== undefined) this.#value(plan.inline);
    else if (this.#src[this.#pos] === OPEN_BRACE) this.#object(plan);
    else this.#pass();
    this.#depth--;
    this.#out.close(mark, guess);
  }

  #union(slot: Slot, arms: ByteTable<Field>): void {
    const field = this.#arm(slot.discriminatorBytes, arms);
    if (field === undefined || field.since > this.#revision) this.#other(slot);
    else this.#message(field);
  }

  /** The arm that the object's discriminator names, wherever in the object it stands. */
  #arm(discriminator: Uint8Array, arms: ByteTable<Field>): Field | undefined {
    const src = this.#src;
    let pos = skipSpace(src, this.#pos + 1);
    while (src[pos] === QUOTE) {
      const quote = closingQuote(src, pos + 1);
      const value = skipSpace(src, skipSpace(src, (quote < 0 ? ~quote : quote) + 1) + 1);
      if (quote >= 0 && equalsAt(discriminator, src, pos + 1, quote)) {
        const end = src[value] === QUOTE ? closingQuote(src, value + 1) : -1;
        return end < 0 ? undefined : arms.get(src, value + 1, end);
      }
      pos = skipSpace(src, skipValue(src, value));
      if (src[pos] === COMMA) pos = skipSpace(src, pos + 1);
    }
    return undefined;
  }

  #list(field: Field): void {
    const src = this.#src;
    const element = field.element();
    let pos = skipSpace(src, this.#pos + 1);
    // An empty list is only told apart from none where the upstream always sends the list.
    if (src[pos] === CLOSE_BRACKET && !field.always) this.lossless = false;
    if (field.packed && src[pos] !== CLOSE_BRACKET) {
      this.#out.reserve(5);
      this.#out.varint(field.tag);
    }
    const guess = (src.length - pos) >> 1;
    const mark = field.packed && src[pos] !== CLOSE_BRACKET ? this.#out.open(guess) : 0;
    while (src[pos] !== CLOSE_BRACKET) {
      this.#pos = pos;
      this.#value(element);
      if (this.#pos === pos || pos >= src.length) throw new SyntaxError('not JSON');
      pos = skipSpace(src, this.#pos);
      if (src[pos] === COMMA) pos = skipSpace(src, pos + 1);
    }
    if (mark > 0) this.#out.close(mark, guess);
    this.#pos = pos + 1;
  }

  #map(field: Field): void {
    const src = this.#src;
    const out = this.#out;
    const element = field.element();
    let pos = skipSpace(src, this.#pos + 1);
    if (src[pos] === CLOSE_BRACE && !field.always) this.lossless = false;
    while (src[pos] === QUOTE) {
      const guess = (src.length - pos) >> 1;
      out.reserve(5);
      out.varint(field.tag);
      const mark = out.open(guess);
      this.#pos = pos;
      out.reserve(1);
      out.varint(MAP_KEY_TAG);
      this.#text();
      this.#pos = skipSpace(src, skipSpace(src, this.#pos) + 1);
      this.#value(element);
      out.close(mark, guess);
      pos = skipSpace(src, this.#pos);
      if (src[pos] === COMMA) pos = skipSpace(src, pos + 1);
    }
    this.#pos = pos + 1;
  }

  #boolean(field: Field, value: boolean): void {
    this.#pos += value ? 4 : 5;
    if (!value && !field.presence) return;
    this.#out.reserve(6);
    this.#out.varint(field.tag);
    this.#out.varint(value ? 1 : 0);
  }

  #string(field: Field): void {
    if (!field.presence && this.#src[this.#pos + 1] === QUOTE) {
      this.#pos += 2;
      return;
    }
    this.#out.reserve(5);
    this.#out.varint(field.tag);
    this.#text();
  }

  #number(field: Field): void {
    const src = this.#src;
    const start = this.#pos;
    let pos = src[start] === 0x2d ? start + 1 : start;
    let value = 0;
    for (let c = src[pos]; c !== undefined && c >= 0x30 && c <= 0x39; c = src[++pos]) {
      value = value * 10 + (c - 0x30);
    }
    const plain = !isNumberByte(src[pos]);
    while (isNumberByte(src[pos])) pos++;
    this.#pos = pos;
    const short = plain && pos - start <= SAFE_DIGITS;
    if (src[start] === 0x2d) value = -value;
    if (field.scalar === 'double') this.#double(field, short ? value : undefined, start);
    else if (!plain || Object.is(value, -0)) this.lossless = false;
    else if (field.scalar === 'int32') {
      if ((value | 0) === value) this.#integer(field, value);
      else this.lossless = false;
    } else if (short) this.#integer(field, value);
    else {
      const big = BigInt(src.toString('latin1', start, pos));
      if (BigInt.asIntN(64, big) === big) this.#integer(field, big);
      else this.lossless = false;
    }
  }

  #integer(field: Field, value: number | bigint): void {
    if (value === 0 && !field.presence) return;
    this.#out.reserve(16);
    if (!field.packed) this.#out.varint(field.tag);
    if (typeof value === 'bigint') this.#out.varintBig(value);
    else this.#out.varint64(value);
  }

  #double(field: Field, known: number | undefined, start: number): void {
    let value = known ?? shortDecimal(this.#src, start, this.#pos);
    if (value === undefined || Object.is(value, -0)) {
      const text = this.#src.toString('latin1', start, this.#pos);
      value = Number(text);
      if (!survives(text, value)) this.lossless = false;
      if (!Number.isFinite(value)) return;
    }
    if (value === 0 && !field.presence) return;
    this.#out.reserve(5);
    this.#out.varint(field.tag);
    this.#out.double(value);
  }

  /** The string at hand, behind its length in UTF-8. */
  #text(): void {
    const start = this.#pos + 1;
    if (this.#shortText(start)) return;
    const quote = closingQuote(this.#src, start);
    if (quote >= 0) {
      this.#out.chunk(this.#src, start, quote);
      this.#pos = quote + 1;
      return;
    }
    const mark = this.#out.open(~quote - start);
    if (!putUnescaped(this.#src, start, ~quote, this.#out)) this.lossless = false;
    this.#out.close(mark, ~quote - start);
    this.#pos = ~quote + 1;
  }

  /** Copies while it looks for the end, as long as the length fits one byte; false if it was in vain. */
  #shortText(start: number): boolean {
    const src = this.#src;
    const out = this.#out;
    out.reserve(MAX_SHORT_TEXT + 1);
    const { bytes, at } = out;
    const end = Math.min(start + MAX_SHORT_TEXT, src.length);
    let to = at + 1;
    for (let pos = start; pos < end; pos++) {
      const c = src[pos] as number;
      if (PLAIN[c] === 1) bytes[to++] = c;
      else if (c !== QUOTE) return false;
      else {
        bytes[at] = to - at - 1;
        out.at = to;
        this.#pos = pos + 1;
        return true;
      }
    }
    return false;
  }
}

/** What a length of one byte can say. */
const MAX_SHORT_TEXT = 127;

const MAP_KEY_TAG = (1 << 3) | 2;
function isNumberByte(c: number | undefined): boolean {
  return c !== undefined && (isDigit(c) || c === 0x2e || c === 0x2d || c === 0x2b || (c | 0x20) === 0x65);
}

/** A number like -0.0123, whose double is exact to the last bit by one division of two exact ones; undefined for others. */
function shortDecimal(src: Uint8Array, start: number, end: number): number | undefined {
  if (end - start > SAFE_DIGITS) return undefined;
  const negative = src[start] === 0x2d;
  let digits = 0;
  let power = -1;
  for (let pos = negative ? start + 1 : start; pos < end; pos++) {
    const c = src[pos] as number;
    if (c >= 0x30 && c <= 0x39) {
      digits = digits * 10 + (c - 0x30);
      if (power >= 0) power++;
    } else if (c === 0x2e) power = 0;
    else return undefined;
  }
  const value = digits / (POWERS_OF_TEN[power] ?? 1);
  return negative ? -value : value;
}

const POWERS_OF_TEN = Array.from({ length: SAFE_DIGITS }, (_, power) => 10 ** power);

/** Whether the double, written out again, is the same number. Its spelling may differ: 1.0 is 1. */
function survives(text: string, value: number): boolean {
  const size = Math.abs(value);
  if (text.length <= SAFE_DIGITS && size > 1e-300 && size < 1e300) return true;
  return Number.isFinite(value) && normal(text) === normal(String(value));
}

/** Digits without zeros around them, and the power of ten of the last one. */
function normal(text: string): string {
  const [mantissa = '', exponent = '0'] = text.toLowerCase().split('e');
  const [whole = '', fraction = ''] = mantissa.split('.');
  const digits = (whole + fraction).replace(/^(-?)0+/, '$1');
  const kept = digits.replace(/0+$/, '');
  const power = Number(exponent) - fraction.length + (digits.length - kept.length);
  return kept === '' || kept === '-' ? kept : `${kept}e${power}`;
}
