/** Frames that repeat what their request said: a response's instructions and tools are most of it, and nobody here asks. */
import type { KnownPlace } from './echo.ts';
import { COMMA, closingQuote, OPEN_BRACE, QUOTE, skipSpace, skipValue } from './scan.ts';

/** Under it a frame is parsed as quickly as looked through. */
const MIN_BYTES = 2 * 1024;
/** A value that is shorter may stay. */
const MIN_VALUE_BYTES = 256;

const RESPONSE = Buffer.from('response');
const ECHOED = [Buffer.from('instructions'), Buffer.from('tools')];

/** The text of a valid frame with null in place of `response.instructions` and `response.tools`, where they are long. */
export function withoutEcho(
  src: Buffer,
  start: number,
  end: number,
  places: readonly KnownPlace[] = [],
): string {
  const text = (from: number, to: number) => src.toString('utf8', from, to);
  if (end - start < MIN_BYTES) return text(start, end);
  const parts: string[] = [];
  let from = start;
  eachMember(src, skipSpace(src, start), (keyStart, keyEnd, valueStart) => {
    if (!isKey(RESPONSE, src, keyStart, keyEnd) || src[valueStart] !== OPEN_BRACE) return undefined;
    return eachMember(src, valueStart, (innerStart, innerEnd, at) => {
      if (!ECHOED.some((key) => isKey(key, src, innerStart, innerEnd))) return undefined;
      const known = places.find((place) => start + place.start === at);
      const behind = known === undefined ? skipValue(src, at) : start + known.end;
      if (behind - at < MIN_VALUE_BYTES) return behind;
      parts.push(text(from, at), 'null');
      from = behind;
      return behind;
    });
  });
  parts.push(text(from, end));
  return parts.join('');
}

/** Returns what lies behind the object at `at`. `visit` may return what lies behind the value, if it has looked. */
function eachMember(
  src: Buffer,
  at: number,
  visit: (keyStart: number, keyEnd: number, valueStart: number) => number | undefined,
): number {
  let pos = skipSpace(src, at + 1);
  while (src[pos] === QUOTE) {
    const found = closingQuote(src, pos + 1);
    const quote = found < 0 ? ~found : found;
    const value = skipSpace(src, skipSpace(src, quote + 1) + 1);
    pos = skipSpace(src, visit(pos + 1, quote, value) ?? skipValue(src, value));
    if (src[pos] === COMMA) pos = skipSpace(src, pos + 1);
  }
  return pos + 1;
}

function isKey(key: Uint8Array, src: Uint8Array, start: number, end: number): boolean {
  if (key.length !== end - start) return false;
  for (let i = 0; i < key.length; i++) if (key[i] !== src[start + i]) return false;
  return true;
}
