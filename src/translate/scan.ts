/**
 * JSON at the level of bytes. Reading without building values is what keeps number spelling, key order and
 * duplicate keys visible, and pass-through documents byte for byte.
 */
import { hexDigit, PLAIN, skipPlain } from './text.ts';

export const QUOTE = 0x22;
export const COMMA = 0x2c;
export const COLON = 0x3a;
export const OPEN_BRACKET = 0x5b;
export const BACKSLASH = 0x5c;
export const CLOSE_BRACKET = 0x5d;
export const OPEN_BRACE = 0x7b;
export const CLOSE_BRACE = 0x7d;

/** A member of the outermost object, as offsets of its raw text. The key is without its quotes. */
export type OnMember = (keyStart: number, keyEnd: number, valueStart: number, valueEnd: number) => void;

/** Far above any real document; keeps a hostile one from costing memory out of proportion. */
export const MAX_DEPTH = 100_000;

/** What is open around the byte at hand. One for all: nothing else runs during a scan. */
const CONTAINERS = new Uint8Array(MAX_DEPTH);

/** So many bytes without escape or end, and looking at several at a time is worth the call. */
const SHORT_STRING_BYTES = 24;

export function skipSpace(src: Uint8Array, at: number): number {
  const end = src.length;
  let pos = at;
  // Never reads behind the end: one such read makes every later one slower.
  while (pos < end) {
    const c = src[pos] as number;
    if (c > 0x20 || (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09)) return pos;
    pos++;
  }
  return pos;
}

/**
 * Whether the bytes are exactly one JSON value by RFC 8259 (the encoding aside), nested at most `maxDepth`
 * deep, and MAX_DEPTH at most, and of at most `maxValues` values, itself included. Iterative: depth costs no stack. Tells
 * the members of the outermost object as it passes them.
 */
export function isJson(
  src: Uint8Array,
  maxDepth: number,
  onMember?: OnMember,
  maxValues = Number.POSITIVE_INFINITY,
): boolean {
  return scan(src, maxDepth, onMember, maxValues, Number.POSITIVE_INFINITY, NOWHERE, CONTAINERS) === true;
}

/** The same, with a pause offered after so many bytes. */
export function* isJsonSteps(
  src: Uint8Array,
  maxDepth: number,
  onMember: OnMember,
  maxValues: number,
  bytesAStep: number,
): Generator<undefined, boolean> {
  const containers = new Uint8Array(maxDepth);
  let place = NOWHERE;
  for (;;) {
    const found = scan(src, maxDepth, onMember, maxValues, place.pos + bytesAStep, place, containers);
    if (typeof found === 'boolean') return found;
    place = found;
    yield;
  }
}

/** How far a scan has come. */
interface Place {
  readonly pos: number;
  readonly depth: number;
  readonly values: number;
  /** Of the string that `pos` is in; -1: it is in none. */
  readonly stringStart: number;
  readonly keyStart: number;
  readonly keyEnd: number;
  readonly valueStart: number;
  readonly expectsKey: boolean;
}

const NOWHERE: Place = Object.freeze({
  pos: 0,
  depth: 0,
  values: 0,
  stringStart: -1,
  keyStart: 0,
  keyEnd: 0,
  valueStart: 0,
  expectsKey: false,
});

/** Goes on from `place`; ends, or stops near `stopAt`. */
function scan(
  src: Uint8Array,
  maxDepth: number,
  onMember: OnMember | undefined,
  maxValues: number,
  stopAt: number,
  place: Place,
  containers: Uint8Array,
): boolean | Place {
  const end = src.length;
  let { depth, values, stringStart, keyStart, keyEnd, expectsKey } = place;
  let pos = place === NOWHERE ? skipSpace(src, 0) : place.pos;
  let valueStart = place === NOWHERE ? pos : place.valueStart;
  while (pos < end) {
    if (pos >= stopAt) return { pos, depth, values, stringStart, keyStart, keyEnd, valueStart, expectsKey };
    const c = src[pos] as number;
    if (expectsKey) {
      if (stringStart < 0) {
        if (c !== QUOTE) return false;
        pos++;
        stringStart = pos;
      }
      pos = endOfString(src, pos, stopAt);
      if (pos < 0) {
        if (pos === -1) return false;
        pos = ~pos;
        continue;
      }
      if (depth === 1) {
        keyStart = stringStart;
        keyEnd = pos;
      }
      stringStart = -1;
      pos = skipSpace(src, pos + 1);
      if (pos >= end || src[pos] !== COLON) return false;
      pos = skipSpace(src, pos + 1);
      if (depth === 1) valueStart = pos;
      expectsKey = false;
      continue;
    }
    if (stringStart >= 0 || c === QUOTE) {
      if (stringStart < 0) {
        values++;
        if (values > maxValues) return false;
        pos++;
        stringStart = pos;
      }
      pos = endOfString(src, pos, stopAt);
      if (pos < 0) {
        if (pos === -1) return false;
        pos = ~pos;
        continue;
      }
      stringStart = -1;
      pos++;
    } else if (++values > maxValues) {
      return false;
    } else if (c >= 0x30 && c <= 0x39) {
      pos = endOfNumber(src, pos);
      if (pos < 0) return false;
    } else if (c === OPEN_BRACE || c === OPEN_BRACKET) {
      if (depth >= maxDepth) return false;
      pos = skipSpace(src, pos + 1);
      if (pos >= end) return false;
      if (src[pos] !== c + 2) {
        containers[depth++] = c;
        expectsKey = c === OPEN_BRACE;
        continue;
      }
      pos++;
    } else {
      pos = endOfScalar(src, pos);
      if (pos < 0) return false;
    }
    // Behind a value: close what ends here, then go on to the next one.
    for (;;) {
      if (depth === 0) return skipSpace(src, pos) === end;
      const container = containers[depth - 1] as number;
      if (depth === 1 && container === OPEN_BRACE) onMember?.(keyStart, keyEnd, valueStart, pos);
      if (pos < end && src[pos] !== COMMA) pos = skipSpace(src, pos);
      if (pos >= end) return false;
      if (src[pos] === COMMA) {
        pos = skipSpace(src, pos + 1);
        expectsKey = container === OPEN_BRACE;
        break;
      }
      if (src[pos] !== container + 2) return false;
      depth--;
      pos++;
    }
  }
  return false;
}

/**
 * From a place in the string to its closing quote; -1 if the string is not valid. `~place`, which is below -1, where it is
 * not over by `stopAt`.
 */
function endOfString(src: Uint8Array, start: number, stopAt: number): number {
  const end = src.length;
  let pos = start;
  let limit = Math.min(start + SHORT_STRING_BYTES, end);
  for (;;) {
    if (pos >= limit) {
      if (pos >= stopAt && pos < end) return ~pos;
      pos = skipPlain(src, pos, Math.min(end, stopAt));
      if (pos >= end) return -1;
      if (pos >= stopAt) return ~pos;
      limit = Math.min(pos + SHORT_STRING_BYTES, end);
    }
    const c = src[pos] as number;
    if (PLAIN[c] === 1) {
      pos++;
      continue;
    }
    if (c === QUOTE) return pos;
    if (c !== BACKSLASH) return -1;
    const escaped = pos + 1 < end ? (src[pos + 1] as number) : 0;
    pos += 2;
    if (escaped === 0x75) {
      for (const last = pos + 4; pos < last; pos++) if (hexDigit(src[pos]) < 0) return -1;
    } else if (SINGLE_ESCAPES[escaped] !== 1) return -1;
  }
}

const SINGLE_ESCAPES = new Uint8Array(256);
for (const c of '"\\/bfnrt') SINGLE_ESCAPES[c.charCodeAt(0)] = 1;
const LITERALS = ['true', 'false', 'null'].map((word) => Buffer.from(word));

function endOfScalar(src: Uint8Array, at: number): number {
  const c = src[at];
  if (c === 0x2d || isDigit(c)) return endOfNumber(src, at);
  const word = LITERALS.find((literal) => literal[0] === c);
  if (word === undefined) return -1;
  for (let i = 1; i < word.length; i++) if (src[at + i] !== word[i]) return -1;
  return at + word.length;
}

function endOfNumber(src: Uint8Array, at: number): number {
  const end = src.length;
  let pos = src[at] === 0x2d ? at + 1 : at;
  const first = pos < end ? (src[pos] as number) : 0;
  if (first === 0x30) pos++;
  else {
    pos = skipDigits(src, pos, end);
    if (pos < 0) return -1;
  }
  if (pos < end && src[pos] === 0x2e) {
    pos = skipDigits(src, pos + 1, end);
    if (pos < 0) return -1;
  }
  if (pos < end && ((src[pos] as number) | 0x20) === 0x65) {
    pos++;
    if (pos < end && (src[pos] === 0x2b || src[pos] === 0x2d)) pos++;
    return skipDigits(src, pos, end);
  }
  return pos;
}

/** Behind the digits at `at`; -1 if there are none. */
function skipDigits(src: Uint8Array, at: number, end: number): number {
  let pos = at;
  while (pos < end) {
    const c = src[pos] as number;
    if (c < 0x30 || c > 0x39) break;
    pos++;
  }
  return pos === at ? -1 : pos;
}

export function isDigit(c: number | undefined): boolean {
  return c !== undefined && c >= 0x30 && c <= 0x39;
}

// What follows trusts its input to be valid JSON.

/** From behind the opening quote to the closing one; negative (`~end`) if the string holds an escape. */
export function closingQuote(src: Buffer, start: number): number {
  const end = src.length;
  let pos = start;
  let escaped = false;
  let limit = Math.min(start + SHORT_STRING_BYTES, end);
  for (;;) {
    if (pos >= limit) {
      pos = skipPlain(src, pos, end);
      if (pos >= end) return ~end;
      limit = Math.min(pos + SHORT_STRING_BYTES, end);
    }
    const c = src[pos++] as number;
    if (PLAIN[c] === 1) continue;
    if (c === QUOTE) return escaped ? ~(pos - 1) : pos - 1;
    if (c === BACKSLASH) {
      escaped = true;
      pos++;
    }
  }
}

/** Behind the value that starts at `at`. */
export function skipValue(src: Buffer, at: number): number {
  let pos = at;
  let depth = 0;
  for (;;) {
    const c = src[pos];
    if (c === QUOTE) {
      const end = closingQuote(src, pos + 1);
      pos = (end < 0 ? ~end : end) + 1;
    } else if (c === OPEN_BRACE || c === OPEN_BRACKET) {
      depth++;
      pos++;
      continue;
    } else if (c === CLOSE_BRACE || c === CLOSE_BRACKET) {
      if (depth === 0) return pos;
      depth--;
      pos++;
    } else if (c === undefined) return src.length;
    else if (depth > 0) {
      pos++;
      continue;
    } else {
      while (isScalarByte(src[pos])) pos++;
      return pos;
    }
    if (depth === 0) return pos;
  }
}

function isScalarByte(c: number | undefined): boolean {
  return (
    c !== undefined && c > 0x20 && c !== COMMA && c !== CLOSE_BRACE && c !== CLOSE_BRACKET && c !== COLON
  );
}
