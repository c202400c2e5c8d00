/**
 * Events repeat each other but for a few values. A shape is what repeats, taken from frames that were read in full; a frame
 * that fits it is proved to be JSON by comparing the rest and looking at the values alone. Of a delta every value may
 * differ; of the others, which are longer and nested, those that have differed before (document.ts).
 */
import { isAscii, isUtf8 } from 'node:buffer';
import type { Document } from './document.ts';
import { BACKSLASH, isDigit, isJson, MAX_DEPTH, OPEN_BRACE, OPEN_BRACKET, QUOTE } from './scan.ts';
import { hexDigit, lookAt, memory, PLAIN } from './text.ts';

/** A value that differs from frame to frame: a string without its quotes, or a whole number. */
export interface Hole {
  readonly key: string;
  readonly kind: 'string' | 'number';
}

export interface Literal {
  readonly bytes: Uint8Array;
  /** The same, four bytes at a time; what is over is in `lastWord`. */
  readonly words: Int32Array;
  /** The last four bytes, some of which may be in `words` as well. */
  readonly lastWord: number;
}

export interface Shape {
  readonly type: string;
  /** What stands before each hole, and behind the last one: always one more than there are holes. */
  readonly literals: readonly Literal[];
  readonly holes: readonly Hole[];
  /** Index of the hole that is the lane, or -1. */
  readonly laneHole: number;
  /** A frame of the shape, as it was read. */
  readonly sample: Buffer;
  /** Undefined: of a delta. */
  readonly document: Document | undefined;
}

/** How many shapes are remembered: all delta types, each with and without lanes. */
export const MAX_SHAPES = 32;
/** Above this a frame is no delta, and its values cost more than the rest. */
const MAX_SHAPE_BYTES = 64 * 1024;
/** Nothing is learned from larger ones than those above, but what was learned may fit them. */
const MAX_FITTING_BYTES = 4 * 1024 * 1024;
/** Of the shapes that a large frame begins like; all texts of one that does not fit were looked at in vain. */
const MAX_LARGE_TRIES = 2;
const MAX_HOLES = 16;
/** The same for documents. */
export const MAX_DOCUMENT_HOLES = 64;
export const MAX_DOCUMENTS = 24;
/** What repeats is keys; a long literal would only make an upstream's odd frames cost a long comparison each. */
const MAX_LITERAL_BYTES = 1024;
/** Frames that fit nothing and are not learnt from after one that was: bounds what an odd upstream can cost. */
const LEARN_EVERY = 16;
const WORD_BYTES = 4;
/** What is shorter is found again as quickly as remembered. */
const SHORT_TEXT_BYTES = 32;
/** The longest number of digits that no double changes. */
const SAFE_DIGITS = 15;

/** Shorter literals are compared as quickly by a loop. */
const MIN_NATIVE_BYTES = 128;

const known: Shape[] = [];
/** Of the other events, those used last at the end. */
const documents: Shape[] = [];
let lastDocument = 0;
let last = 0;
let oldest = 0;
let untilLearning = 0;

/** Where the value of `stream_id` lies in the frame that fitted last, quotes included; equal when there is none. */
export const lane = { start: 0, end: 0 };

/**
 * Where the longest text of the frame that fitted last lies, without its quotes; both 0 if it has only short ones. The end
 * is negative (`~end`) if the text holds escapes.
 */
export const text: { start: number; end: number; value: string | undefined } = {
  start: 0,
  end: 0,
  /** Without its escapes, where it was read for that. */
  value: undefined,
};

/** Where the values of the frame that fitted last lie: begin and end of each, the end negative (`~end`) with escapes. */
export const values = new Int32Array(2 * MAX_DOCUMENT_HOLES);

/** The shape that src[start, end) fits; undefined if it has to be read in full. */
export function findShape(src: Buffer, start: number, end: number): Shape | undefined {
  parses = MAX_VAIN_PARSES;
  if (end - start > MAX_SHAPE_BYTES) return findLarge(src, start, end);
  const guess = known[last];
  if (guess !== undefined && fits(guess, src, start, end)) return guess;
  for (let i = 0; i < known.length; i++) {
    const shape = known[i] as Shape;
    if (shape === guess || !fits(shape, src, start, end)) continue;
    last = i;
    return shape;
  }
  // They come in the same order in every turn.
  const { length } = documents;
  for (let i = 1; i <= length; i++) {
    const at = (lastDocument + i) % length;
    const shape = documents[at] as Shape;
    if (!fits(shape, src, start, end)) continue;
    lastDocument = at;
    (shape.document as Document).uses += 1;
    return shape;
  }
  return undefined;
}

function findLarge(src: Buffer, start: number, end: number): Shape | undefined {
  if (end - start > MAX_FITTING_BYTES) return undefined;
  let tries = MAX_LARGE_TRIES;
  for (let i = 0; i < known.length && tries > 0; i++) {
    const shape = known[(last + i) % known.length] as Shape;
    lookAt(src);
    if (!startsWith(shape.literals[0] as Literal, src, start, end)) continue;
    tries--;
    if (fits(shape, src, start, end)) return shape;
  }
  return undefined;
}

export function documentLike(skeleton: string): Shape | undefined {
  return documents.find(({ document }) => document?.skeleton === skeleton);
}

/** In place of what was known of it. The one that was of no use for the longest time goes. */
export function rememberDocument(shape: Shape, before: Shape | undefined): void {
  const at = before === undefined ? -1 : documents.indexOf(before);
  if (at >= 0) documents[at] = shape;
  else if (documents.length < MAX_DOCUMENTS) documents.push(shape);
  else {
    let least = 0;
    for (const [place, { document }] of documents.entries()) {
      if ((document?.uses ?? 0) < (documents[least]?.document?.uses ?? 0)) least = place;
    }
    documents[least] = shape;
    // What was used long ago does not count for ever.
    for (const { document } of documents) if (document !== undefined) document.uses >>= 1;
  }
}

/** Remembers the shape of a delta event that is known to be valid. */
export function learnShape(bytes: Buffer, type: string): void {
  if (untilLearning > 0) {
    untilLearning--;
    return;
  }
  if (!type.endsWith('.delta') || bytes.length > MAX_SHAPE_BYTES) return;
  untilLearning = LEARN_EVERY;
  const shape = shapeOf(bytes, type);
  if (shape === undefined) return;
  if (known.length < MAX_SHAPES) known.push(shape);
  else {
    known[oldest] = shape;
    oldest = (oldest + 1) % MAX_SHAPES;
  }
}

/** Undefined if more than strings and numbers may change, or a key may be read in two ways. */
function shapeOf(bytes: Buffer, type: string): Shape | undefined {
  const literals: Literal[] = [];
  const holes: Hole[] = [];
  const keys = new Set<string>();
  let members = 0;
  let plain = true;
  let from = 0;
  isJson(bytes, MAX_DEPTH, (keyStart, keyEnd, valueStart, valueEnd) => {
    const key = bytes.toString('latin1', keyStart, keyEnd);
    keys.add(key);
    members++;
    const first = bytes[valueStart] as number;
    if (key.includes('\\')) plain = false;
    // What is in a container changes freely; an empty one is likely to stay so.
    if ((first === OPEN_BRACE || first === OPEN_BRACKET) && valueEnd - valueStart > 2) plain = false;
    const kind = first === QUOTE ? 'string' : isDigit(first) ? 'number' : undefined;
    if (kind === undefined || key === 'type') return;
    const quote = kind === 'string' ? 1 : 0;
    literals.push(literalOf(bytes.subarray(from, valueStart + quote)));
    holes.push({ key, kind });
    from = valueEnd - quote;
  });
  literals.push(literalOf(bytes.subarray(from)));
  const literalBytes = literals.reduce((sum, literal) => sum + literal.bytes.length, 0);
  if (!plain || keys.size !== members) return undefined;
  if (holes.length > MAX_HOLES || literalBytes > MAX_LITERAL_BYTES) return undefined;
  const laneHole = holes.findIndex(({ key, kind }) => key === 'stream_id' && kind === 'string');
  return { type: interned(type), literals, holes, laneHole, sample: Buffer.from(bytes), document: undefined };
}

/** The very string that a literal in the code or a property's name is: maps find it without looking at characters. */
export function interned(name: string): string {
  return Object.keys({ [name]: undefined })[0] as string;
}

export function literalOf(part: Buffer): Literal {
  const bytes = Uint8Array.from(part);
  const words = new Int32Array(bytes.buffer, 0, bytes.length >> 2);
  const lastWord = part.length < WORD_BYTES ? 0 : part.readInt32LE(part.length - WORD_BYTES);
  return { bytes, words, lastWord };
}

function fits(shape: Shape, src: Buffer, start: number, end: number): boolean {
  const { literals, holes } = shape;
  let pos = start;
  lane.start = lane.end = 0;
  text.start = text.end = 0;
  text.value = undefined;
  foreign = false;
  let longest = SHORT_TEXT_BYTES;
  lookAt(src);
  for (let i = 0; i < holes.length; i++) {
    const literal = literals[i] as Literal;
    if (!startsWith(literal, src, pos, end)) return false;
    pos += literal.bytes.length;
    const from = pos;
    escaped = false;
    unescaped = undefined;
    pos =
      (holes[i] as Hole).kind === 'string'
        ? endOfText(src, pos, end, literals[i + 1])
        : endOfWhole(src, pos, end);
    if (pos < 0) return false;
    values[2 * i] = from;
    values[2 * i + 1] = escaped ? ~pos : pos;
    // The ids that come behind are texts as well.
    if (pos - from > longest) {
      longest = pos - from;
      text.start = from;
      text.end = escaped ? ~pos : pos;
      text.value = unescaped;
    }
    if (i === shape.laneHole) {
      lane.start = from - 1;
      lane.end = pos + 1;
    }
  }
  const literal = literals[holes.length] as Literal;
  if (pos + literal.bytes.length !== end || !startsWith(literal, src, pos, end)) return false;
  return !foreign || isUtf8(src.subarray(start, end));
}

/** Of the chunk that is looked at. */
function startsWith({ bytes, words, lastWord }: Literal, src: Buffer, at: number, end: number): boolean {
  const { length } = bytes;
  if (at + length > end) return false;
  if (length < WORD_BYTES) {
    for (let i = 0; i < length; i++) if (bytes[i] !== src[at + i]) return false;
    return true;
  }
  if (length >= MIN_NATIVE_BYTES) return src.compare(bytes, 0, length, at, at + length) === 0;
  const view = memory.view;
  let pos = at + memory.shift;
  const last = pos + length - WORD_BYTES;
  for (let i = 0; i < words.length; i++, pos += WORD_BYTES) {
    if (view.getInt32(pos, true) !== words[i]) return false;
  }
  return view.getInt32(last, true) === lastWord;
}

/** Whether more than ASCII, or an escape, has come by. */
let foreign = false;
let escaped = false;
/** The text that was looked at last, where that took reading it. */
let unescaped: string | undefined;

/** From here on V8's parser, which tells the value as well, is faster than a look at each escape. */
const MIN_PARSED_BYTES = 512;
/** In vain for one frame, whatever shapes it is compared with: each reads to the frame's end. */
const MAX_VAIN_PARSES = 4;
let parses = 0;

/**
 * The closing quote of the string whose first byte is at `at`; -1 if it is not valid. Of the chunk that is looked at.
 * `behind`: what follows the string in a frame of the shape, its quote first.
 */
function endOfText(src: Buffer, at: number, end: number, behind?: Literal): number {
  const { shift } = memory;
  let pos = at;
  while (pos < end) {
    if (!foreign && ((pos + shift) & 3) === 0)
      pos = skipPlainWords((pos + shift) >> 2, (end + shift) >> 2) - shift;
    if (pos >= end) return -1;
    const c = src[pos] as number;
    if (c === QUOTE) return pos;
    if (PLAIN[c] === 1) {
      if (c > 0x7f) foreign = true;
      pos++;
    } else if (c === BACKSLASH) {
      if (parses > 0 && !escaped && behind !== undefined && end - pos >= MIN_PARSED_BYTES) {
        const quote = parsedText(src, at, end, behind);
        if (quote >= 0) return quote;
        parses -= 1;
      }
      escaped = true;
      pos = endOfEscape(src, pos, end);
      if (pos < 0) return -1;
    } else return -1;
  }
  return -1;
}

/** As `endOfText`; -1 also for what may be valid, but ends elsewhere. */
function parsedText(src: Buffer, at: number, end: number, { bytes }: Literal): number {
  const quote = src.lastIndexOf(bytes, end - bytes.length);
  if (quote < at) return -1;
  const inQuotes = src.subarray(at - 1, quote + 1);
  const plain = isAscii(inQuotes);
  try {
    const value: unknown = JSON.parse(inQuotes.toString(plain ? 'latin1' : 'utf8'));
    // Half a character is none in UTF-8.
    if (typeof value !== 'string') return -1;
    unescaped = value.isWellFormed() ? value : undefined;
  } catch {
    return -1;
  }
  if (!plain) foreign = true;
  escaped = true;
  return quote;
}

/** Offset of the first word that holds a quote, a backslash, a control character or a byte beyond ASCII. */
function skipPlainWords(from: number, to: number): number {
  const { words } = memory;
  let at = from;
  for (; at < to; at++) {
    const word = words[at] as number;
    const special =
      (word - 0x20202020) | ((word ^ 0x22222222) - 0x01010101) | ((word ^ 0x5c5c5c5c) - 0x01010101);
    if (((special | word) & 0x80808080) !== 0) break;
  }
  return at << 2;
}

/** The closing quote of a string that is known to be valid; negative (`~end`) if it holds an escape. */
export function endOfValid(src: Buffer, at: number, end: number): number {
  foreign = false;
  escaped = false;
  lookAt(src);
  const to = endOfText(src, at, end);
  return escaped ? ~to : to;
}

function endOfEscape(src: Buffer, at: number, end: number): number {
  if (at + 1 >= end) return -1;
  const letter = src[at + 1] as number;
  if (letter !== 0x75) return SINGLE_ESCAPES[letter] === 1 ? at + 2 : -1;
  if (at + 6 > end) return -1;
  for (let i = at + 2; i < at + 6; i++) if (hexDigit(src[i]) < 0) return -1;
  return at + 6;
}

const SINGLE_ESCAPES = new Uint8Array(256);
for (const c of '"\\/bfnrt') SINGLE_ESCAPES[c.charCodeAt(0)] = 1;

/** Behind a whole number without sign, fraction or exponent, of digits that are safe to count in. */
function endOfWhole(src: Buffer, at: number, end: number): number {
  let pos = at;
  while (pos < end && isDigit(src[pos])) pos++;
  const digits = pos - at;
  if (digits === 0 || digits > SAFE_DIGITS || (digits > 1 && src[at] === 0x30)) return -1;
  return pos;
}
