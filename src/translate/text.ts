/** Strings of JSON at the level of bytes, several at a time: most of an event is text, and most of text is plain. */
import type { Output } from './output.ts';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const REPLACEMENT = 0xfffd;

/** 1 for the bytes that may stand in a string and mean themselves. */
export const PLAIN = new Uint8Array(256).map((_, c) => (c < 0x20 || c === QUOTE || c === BACKSLASH ? 0 : 1));

/** The memory looked at last. Asking a buffer for it costs as much as comparing fifty bytes. */
export const memory: Memory = {
  src: undefined,
  buffer: undefined,
  shift: 0,
  words: new Int32Array(0),
  view: new DataView(new ArrayBuffer(0)),
};

interface Memory {
  src: Uint8Array | undefined;
  /** Asking the views for it takes longer than making them. */
  buffer: ArrayBufferLike | undefined;
  /** Of `src` in its memory. */
  shift: number;
  words: Int32Array;
  view: DataView;
}

export function lookAt(src: Uint8Array): void {
  if (src === memory.src) return;
  const { buffer, byteOffset } = src;
  memory.src = src;
  memory.shift = byteOffset;
  if (buffer === memory.buffer) return;
  memory.buffer = buffer;
  memory.words = new Int32Array(buffer, 0, buffer.byteLength >> 2);
  memory.view = new DataView(buffer);
}

/** Behind the plain bytes at `at`, but not always behind all of them: what is there is to be looked at. */
export function skipPlain(src: Uint8Array, at: number, end: number): number {
  lookAt(src);
  const { shift, words } = memory;
  let pos = at;
  while (pos < end && ((pos + shift) & 3) !== 0) {
    if (PLAIN[src[pos] as number] !== 1) return pos;
    pos++;
  }
  if (pos >= end) return end;
  let word = (pos + shift) >> 2;
  const last = (end + shift) >> 2;
  for (; word < last; word++) {
    const w = words[word] as number;
    const quote = w ^ 0x22222222;
    const backslash = w ^ 0x5c5c5c5c;
    // The high bit of a byte of each: below 0x20, a quote, a backslash. A byte above such a one may be taken for one.
    const special =
      ((w - 0x20202020) & ~w) | ((quote - 0x01010101) & ~quote) | ((backslash - 0x01010101) & ~backslash);
    if ((special & 0x80808080) !== 0) break;
  }
  return Math.min((word << 2) - shift, end);
}

/** Appends the string in src[start, end), which is valid; false if it holds half a character, which no protobuf can. */
export function putUnescaped(src: Uint8Array, start: number, end: number, out: Output): boolean {
  // Nothing is longer than its escape.
  out.reserve(end - start);
  const { bytes } = out;
  let to = out.at;
  let whole = true;
  for (let pos = start; pos < end; ) {
    const c = src[pos++] as number;
    if (c !== BACKSLASH) {
      bytes[to++] = c;
      continue;
    }
    const escaped = src[pos++] as number;
    if (escaped !== 0x75) {
      bytes[to++] = ESCAPES[escaped] as number;
      continue;
    }
    let code = hex4(src, pos);
    pos += 4;
    if (code >= 0xd800 && code < 0xdc00 && src[pos] === BACKSLASH && src[pos + 1] === 0x75) {
      const low = hex4(src, pos + 2);
      if (low >= 0xdc00 && low < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        pos += 6;
      }
    }
    if (code >= 0xd800 && code < 0xe000) {
      whole = false;
      code = REPLACEMENT;
    }
    to = putCodePoint(bytes, to, code);
  }
  out.at = to;
  return whole;
}

/** What the letter behind a backslash stands for; all others for themselves. */
const ESCAPES = new Uint8Array(256).map((_, c) => c);
for (const [letter, c] of Object.entries({ b: 8, f: 12, n: 10, r: 13, t: 9 })) {
  ESCAPES[letter.charCodeAt(0)] = c;
}

/** Behind what was written. */
function putCodePoint(bytes: Uint8Array, at: number, code: number): number {
  let to = at;
  if (code < 0x80) bytes[to++] = code;
  else if (code < 0x800) {
    bytes[to++] = 0xc0 | (code >> 6);
    bytes[to++] = 0x80 | (code & 0x3f);
  } else {
    if (code < 0x10000) bytes[to++] = 0xe0 | (code >> 12);
    else {
      bytes[to++] = 0xf0 | (code >> 18);
      bytes[to++] = 0x80 | ((code >> 12) & 0x3f);
    }
    bytes[to++] = 0x80 | ((code >> 6) & 0x3f);
    bytes[to++] = 0x80 | (code & 0x3f);
  }
  return to;
}

function hex4(src: Uint8Array, at: number): number {
  let code = 0;
  for (let i = at; i < at + 4; i++) code = (code << 4) | hexDigit(src[i]);
  return code;
}

/** 0–15, or -1. */
export function hexDigit(c: number | undefined): number {
  if (c === undefined) return -1;
  if (c >= 0x30 && c <= 0x39) return c - 0x30;
  const lower = c | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}
