import { createHash, hash } from 'node:crypto';

/**
 * UTF-16 units from which on a text is long: going through 13 million of them takes 5 to 100 ms, whatever is done, so that
 * each such step is one of its own, and others have their turn between two of them.
 */
export const LONG_TEXT = 256 * 1024;

/** What is asked of a long text more than once. */
export interface LongText {
  /** Of UTF-8. */
  readonly bytes: number;
  /** SHA-256 in base64url. */
  readonly digest: string;
}

export type LongTexts = ReadonlyMap<string, LongText>;

export function bytesOfText(text: string, long?: LongTexts): number {
  return long?.get(text)?.bytes ?? Buffer.byteLength(text);
}

export function digestOfText(text: string, long?: LongTexts): string {
  return long?.get(text)?.digest ?? hash('sha256', text, 'base64url');
}

/** A text that was put together is still in its parts, and whoever looks at it first puts them in a row: let it be now. */
export function inARow(text: string): string {
  text.charCodeAt(text.length - 1);
  return text;
}

/** Of a text that is not long. */
export function measureText(text: string): LongText {
  return { bytes: Buffer.byteLength(text), digest: hash('sha256', text, 'base64url') };
}

/** Offers a pause after each step. */
export function* measureSteps(text: string): Generator<undefined, LongText> {
  inARow(text);
  yield;
  const digest = createHash('sha256');
  let bytes = 0;
  for (let at = 0; at < text.length; ) {
    const end = sliceEnd(text, at);
    const slice = text.slice(at, end);
    digest.update(slice);
    bytes += Buffer.byteLength(slice);
    at = end;
    yield;
  }
  return { bytes, digest: digest.digest('base64url') };
}

/** The text as JSON, like JSON.stringify. Offers a pause after each step. */
export function* quoteSteps(text: string): Generator<undefined, string> {
  const parts = ['"'];
  for (let at = 0; at < text.length; ) {
    const end = sliceEnd(text, at);
    parts.push(JSON.stringify(text.slice(at, end)).slice(1, -1));
    at = end;
    yield;
  }
  parts.push('"');
  const json = parts.join('');
  yield;
  return json;
}

/** Where a slice that begins at `at` ends; it is a unit longer than asked where that would cut a character. */
export function sliceEnd(text: string, at: number, units = LONG_TEXT): number {
  const end = Math.min(at + units, text.length);
  const last = text.charCodeAt(end - 1);
  return end < text.length && last >= 0xd800 && last < 0xdc00 ? end + 1 : end;
}

/** Texts in a row. To join them copies each; long ones are put together where they are looked at first. */
export function joinTexts(texts: readonly string[], separator: string): string {
  if (!texts.some(({ length }) => length >= LONG_TEXT)) return texts.join(separator);
  let joined = texts[0] ?? '';
  for (let at = 1; at < texts.length; at++) joined += separator + (texts[at] as string);
  return joined;
}
