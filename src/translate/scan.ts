/**
 * JSON at the level of bytes. Reading without building values is what keeps number spelling, key order and
 * duplicate keys visible, and pass-through documents byte for byte.
 */
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

/** So many bytes without escape or end, and a native search is worth its call. */
const SHORT_STRING_BYTES = 64;

export function skipSpace(src: Uint8Array, at: number): number {
  let pos = at;
  for (;;) {
    const c = src[pos];
    if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return pos;
    pos++;
  }
}

/**
 * Whether the bytes are exactly one JSON value by RFC 8259 (the encoding aside), nested at most `maxDepth`.
 * Iterative: depth costs no stack. Tells the members of the outermost object as it passes them.
 */
export function isJson(src: Uint8Array, maxDepth: number, onMember?: OnMember): boolean {
  const containers: number[] = [];
  let pos = skipSpace(src, 0);
  let keyStart = 0;
  let keyEnd = 0;
  let valueStart = pos;
  for (;;) {
    // At the first byte of a value.
    const c = src[pos];
    if (c === OPEN_BRACE || c === OPEN_BRACKET) {
      if (containers.length >= maxDepth) return false;
      containers.push(c);
      pos = skipSpace(src, pos + 1);
      if (c === OPEN_BRACE && src[pos] === QUOTE) {
        const start = pos + 1;
        pos = endOfString(src, start);
        if (pos < 0) return false;
        if (containers.length === 1) {
          keyStart = start;
          keyEnd = pos;
        }
        pos = skipSpace(src, pos + 1);
        if (src[pos] !== COLON) return false;
        pos = skipSpace(src, pos + 1);
        if (containers.length === 1) valueStart = pos;
        continue;
      }
      if (c === OPEN_BRACKET && src[pos] !== CLOSE_BRACKET) continue;
      if (src[pos] !== c + 2) return false;
      containers.pop();
      pos++;
    } else {
      pos = endOfScalar(src, pos);
      if (pos < 0) return false;
    }
    // Behind a value: close what ends here, then go on to the next one.
    for (;;) {
      const container = containers[containers.length - 1];
      if (container === undefined) return skipSpace(src, pos) === src.length;
      if (containers.length === 1 && container === OPEN_BRACE) onMember?.(keyStart, keyEnd, valueStart, pos);
      pos = skipSpace(src, pos);
      if (src[pos] === COMMA) {
        pos = skipSpace(src, pos + 1);
        if (container === OPEN_BRACE) {
          if (src[pos] !== QUOTE) return false;
          const start = pos + 1;
          pos = endOfString(src, start);
          if (pos < 0) return false;
          if (containers.length === 1) {
            keyStart = start;
            keyEnd = pos;
          }
          pos = skipSpace(src, pos + 1);
          if (src[pos] !== COLON) return false;
          pos = skipSpace(src, pos + 1);
          if (containers.length === 1) valueStart = pos;
        }
        break;
      }
      if (src[pos] !== container + 2) return false;
      containers.pop();
      pos++;
    }
  }
}

/** From behind the opening quote to the closing one; -1 if the string is not valid. */
function endOfString(src: Uint8Array, start: number): number {
  let pos = start;
  for (;;) {
    const c = src[pos];
    if (c === undefined || c < 0x20) return -1;
    if (c === QUOTE) return pos;
    pos++;
    if (c !== BACKSLASH) continue;
    const escaped = src[pos++];
    if (escaped === 0x75) {
      for (const end = pos + 4; pos < end; pos++) if (hexDigit(src[pos]) < 0) return -1;
    } else if (escaped === undefined || !SINGLE_ESCAPES.includes(escaped)) return -1;
  }
}

const SINGLE_ESCAPES = [...'"\\/bfnrt'].map((c) => c.charCodeAt(0));
const LITERALS = ['true', 'false', 'null'].map((word) => Buffer.from(word));

function endOfScalar(src: Uint8Array, at: number): number {
  const c = src[at];
  if (c === QUOTE) {
    const end = endOfString(src, at + 1);
    return end < 0 ? -1 : end + 1;
  }
  if (c === 0x2d || isDigit(c)) return endOfNumber(src, at);
  const word = LITERALS.find((literal) => literal[0] === c);
  if (word === undefined) return -1;
  for (let i = 1; i < word.length; i++) if (src[at + i] !== word[i]) return -1;
  return at + word.length;
}

function endOfNumber(src: Uint8Array, at: number): number {
  let pos = src[at] === 0x2d ? at + 1 : at;
  if (src[pos] === 0x30) pos++;
  else if (isDigit(src[pos])) pos = skipDigits(src, pos);
  else return -1;
  if (src[pos] === 0x2e) {
    if (!isDigit(src[pos + 1])) return -1;
    pos = skipDigits(src, pos + 1);
  }
  if (src[pos] === 0x65 || src[pos] === 0x45) {
    pos++;
    if (src[pos] === 0x2b || src[pos] === 0x2d) pos++;
    if (!isDigit(src[pos])) return -1;
    pos = skipDigits(src, pos);
  }
  return pos;
}

function skipDigits(src: Uint8Array, at: number): number {
  let pos = at;
  while (isDigit(src[pos])) pos++;
  return pos;
}

export function isDigit(c: number | undefined): boolean {
  return c !== undefined && c >= 0x30 && c <= 0x39;
}

/** 0–15, or -1. */
export function hexDigit(c: number | undefined): number {
  if (c === undefined) return -1;
  if (c >= 0x30 && c <= 0x39) return c - 0x30;
  const lower = c | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

// What follows trusts its input to be valid JSON.

/** From behind the opening quote to the closing one; negative (`~end`) if the string holds an escape. */
export function closingQuote(src: Buffer, start: number): number {
  let pos = start;
  let escaped = false;
  for (let limit = start + SHORT_STRING_BYTES; pos < limit; pos++) {
    const c = src[pos];
    if (c === QUOTE) return escaped ? ~pos : pos;
    if (c === BACKSLASH) {
      escaped = true;
      pos++;
      limit = pos + SHORT_STRING_BYTES;
    } else if (c === undefined) return ~src.length;
  }
  let backslash = src.indexOf(BACKSLASH, pos);
  for (;;) {
    const quote = src.indexOf(QUOTE, pos);
    if (quote < 0) return ~src.length;
    while (backslash >= 0 && backslash < quote) {
      escaped = true;
      pos = backslash + 2;
      if (pos > quote) break;
      backslash = src.indexOf(BACKSLASH, pos);
    }
    if (pos <= quote) return escaped ? ~quote : quote;
    backslash = src.indexOf(BACKSLASH, pos);
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
