/** Frames that repeat what their request said: a response's instructions and tools are most of it, and nobody here asks. */
import type { KnownPlace } from './echo.ts';
import { COMMA, closingQuote, OPEN_BRACE, QUOTE, skipSpace, skipValue } from './scan.ts';

/** Under it a frame is parsed as quickly as looked through. */
const MIN_BYTES = 2 * 1024;
/** A value that is shorter may stay. */
const MIN_VALUE_BYTES = 256;

const RESPONSE = Buffer.from('response');
/** What is left of each: the same type, where clients read it. */
const ECHOED = [
  [Buffer.from('instructions'), 'null'],
  [Buffer.from('tools'), '[]'],
] as const;

/** The text of a valid frame without the content of `response.instructions` and `response.tools`, where they are long. */
export function withoutEcho(
  src: Buffer,
  start: number,
  end: number,
  places: readonly KnownPlace[] = [],
): string {
  if (end - start < MIN_BYTES) return src.toString('utf8', start, end);
  return withoutValues(src, start, end, places, MIN_VALUE_BYTES);
}

/** Events whose response repeats its request. */
const TELLS_REQUEST: ReadonlySet<string> = new Set(
  [
    'created',
    'queued',
    'in_progress',
    'completed',
    'incomplete',
    'failed',
    'cancelled',
    'canceled',
    'done',
  ].map((name) => `response.${name}`),
);

export function tellsRequest(type: string): boolean {
  return TELLS_REQUEST.has(type);
}

/** The same however short they are: for a client that does not want to hear them. */
export function withoutRequest(src: Buffer, start = 0, end = src.length): Buffer {
  return Buffer.from(withoutValues(src, start, end, [], 0));
}

function withoutValues(
  src: Buffer,
  start: number,
  end: number,
  places: readonly KnownPlace[],
  minBytes: number,
): string {
  const text = (from: number, to: number) => src.toString('utf8', from, to);
  const parts: string[] = [];
  let from = start;
  eachMember(src, skipSpace(src, start), (keyStart, keyEnd, valueStart) => {
    if (!isKey(RESPONSE, src, keyStart, keyEnd) || src[valueStart] !== OPEN_BRACE) return undefined;
    return eachMember(src, valueStart, (innerStart, innerEnd, at) => {
      const echoed = ECHOED.find(([key]) => isKey(key, src, innerStart, innerEnd));
      if (echoed === undefined) return undefined;
      const known = places.find((place) => start + place.start === at);
      const behind = known === undefined ? skipValue(src, at) : start + known.end;
      if (behind - at < minBytes) return behind;
      parts.push(text(from, at), echoed[1]);
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
