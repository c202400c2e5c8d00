import { bytesOfText, type LongTexts } from './long-texts.ts';

/** What a text of a list costs besides its letters: its header, and its place in the list. */
const OVERHEAD_BYTES = 32;

/**
 * Bytes of memory, at most: V8 keeps a letter in one byte as long as none of its text needs two, so that one "漢" doubles
 * a text of any length.
 */
export function memoryOfText(text: string, long?: LongTexts): number {
  return OVERHEAD_BYTES + (bytesOfText(text, long) === text.length ? text.length : 2 * text.length);
}

export function memoryOfTexts(texts: Iterable<string>, long?: LongTexts): number {
  let bytes = 0;
  for (const text of texts) bytes += memoryOfText(text, long);
  return bytes;
}
