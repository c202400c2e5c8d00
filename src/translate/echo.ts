/**
 * What upstreams repeat in frame after frame, and turn after turn: the instructions and tools of the request, often most
 * of a frame. A value that was read once is known again by comparing it, which costs a hundredth of reading it.
 */

import { skipSpace, skipValue } from './scan.ts';
import type { Slot } from './schema.ts';

/** A value as it came, from its first byte to its last, of a frame that was valid JSON. */
export interface KnownValue {
  readonly bytes: Buffer;
  /** As it was written last. */
  written: WrittenValue | undefined;
}

export interface WrittenValue {
  readonly slot: Slot;
  readonly revision: number;
  readonly bytes: Buffer;
  readonly lossless: boolean;
}

/** Where a known value stands, from the beginning of its frame. */
export interface KnownPlace {
  readonly start: number;
  readonly end: number;
  readonly value: KnownValue;
}

export interface Echo {
  /** In their order; none within another. */
  readonly places: readonly KnownPlace[];
  /** The frame with null in those places. It is valid JSON exactly if the frame is. */
  readonly rest: Buffer;
  /** Where others may begin, to be learned once the frame has proved valid. */
  readonly unknown: readonly number[];
}

/** Shorter frames, and values, are read as quickly. */
export const MIN_FRAME_BYTES = 2 * 1024;
const MIN_VALUE_BYTES = 512;
const MAX_VALUE_BYTES = 256 * 1024;
/** Of the values, and about as much again as they were written: the instructions and tools of some hundred agents. */
const MAX_BYTES = 4 * 1024 * 1024;
/** Of those that begin alike, e.g. one for each user: to compare with all of them takes longer than reading. */
const MAX_ALIKE = 8;

/**
 * Behind such a name there is a value, or the frame is no JSON: within a string its quotes would have to be escaped, and a
 * string that ends with these letters and has a colon behind it is a name as well.
 */
const NAMES = [Buffer.from('"instructions":'), Buffer.from('"tools":')];
/** A list of tools may stand in an item of the output too. */
const MAX_PLACES = 4;
const NULL = Buffer.from('null');

class KnownValues {
  readonly #byMark = new Map<number, KnownValue[]>();
  /** The one used last is the last. */
  readonly #values = new Set<KnownValue>();
  #bytes = 0;

  find(src: Buffer, at: number): KnownValue | undefined {
    for (const value of this.#byMark.get(markOf(src, at)) ?? []) {
      const end = at + value.bytes.length;
      if (end > src.length || src.compare(value.bytes, 0, value.bytes.length, at, end) !== 0) continue;
      this.#values.delete(value);
      this.#values.add(value);
      return value;
    }
    return undefined;
  }

  learn(src: Buffer, at: number, end: number): void {
    if (end - at < MIN_VALUE_BYTES || end - at > MAX_VALUE_BYTES) return;
    const value: KnownValue = { bytes: Buffer.from(src.subarray(at, end)), written: undefined };
    const mark = markOf(src, at);
    const oldestAlike = this.#byMark.get(mark)?.at(MAX_ALIKE - 1);
    if (oldestAlike !== undefined) this.#drop(oldestAlike);
    this.#byMark.set(mark, [value, ...(this.#byMark.get(mark) ?? [])]);
    this.#values.add(value);
    this.#bytes += value.bytes.length;
    for (const oldest of this.#values) {
      if (this.#bytes <= MAX_BYTES) return;
      this.#drop(oldest);
    }
  }

  #drop(value: KnownValue): void {
    this.#values.delete(value);
    this.#bytes -= value.bytes.length;
    const mark = markOf(value.bytes, 0);
    const rest = (this.#byMark.get(mark) ?? []).filter((each) => each !== value);
    if (rest.length === 0) this.#byMark.delete(mark);
    else this.#byMark.set(mark, rest);
  }
}

/** Of the beginning that every kept value has. */
function markOf(src: Buffer, at: number): number {
  let mark = 0;
  for (let i = at; i < at + MIN_VALUE_BYTES; i += 8) mark = (Math.imul(mark, 31) + (src[i] as number)) | 0;
  return mark;
}

const known = new KnownValues();

export function echoIn(frame: Buffer): Echo {
  const places: KnownPlace[] = [];
  const unknown: number[] = [];
  for (const at of valuesIn(frame)) {
    const value = known.find(frame, at);
    if (value === undefined) unknown.push(at);
    else places.push({ start: at, end: at + value.bytes.length, value });
  }
  if (places.length === 0) return { places, rest: frame, unknown };
  places.sort((a, b) => a.start - b.start);
  const parts: Buffer[] = [];
  const outer: KnownPlace[] = [];
  let from = 0;
  for (const place of places) {
    // One within another: a list of instructions may hold items with tools of their own.
    if (place.start < from) continue;
    outer.push(place);
    parts.push(frame.subarray(from, place.start), NULL);
    from = place.end;
  }
  parts.push(frame.subarray(from));
  return { places: outer, rest: Buffer.concat(parts), unknown };
}

/** The frame is valid JSON: what it says is known from now on. */
export function learnEcho(frame: Buffer, { unknown }: Echo): void {
  for (const at of unknown) known.learn(frame, at, skipValue(frame, at));
}

/** Where values of some length may begin. */
function valuesIn(frame: Buffer): readonly number[] {
  const found: number[] = [];
  for (const name of NAMES) {
    for (let from = 0; found.length < MAX_PLACES; ) {
      const at = frame.indexOf(name, from);
      if (at < 0) break;
      const value = skipSpace(frame, at + name.length);
      if (value + MIN_VALUE_BYTES <= frame.length) found.push(value);
      from = value;
    }
  }
  return found;
}
