import { isUtf8 } from 'node:buffer';
import { LONG_TEXT, type LongText, type LongTexts, measureSteps, quoteSteps } from '../ground/long-texts.ts';
import type { Message, WrittenTexts } from './writer.ts';

/** Work that can be paused where it yields. */
type Steps<T> = Generator<undefined, T>;

/** The JSON of the message's long texts, and of its long raw documents, for a Writer; undefined: it has none. */
export function* writtenTexts(message: Message): Steps<WrittenTexts | undefined> {
  const values: unknown[] = [];
  findLong(message, values);
  if (values.length === 0) return undefined;
  yield;
  const written = new Map<unknown, string>();
  for (const value of values) {
    if (written.has(value)) continue;
    if (typeof value === 'string') written.set(value, yield* quoteSteps(value));
    else {
      const { buffer, byteOffset, byteLength } = value as Uint8Array;
      const bytes = Buffer.from(buffer, byteOffset, byteLength);
      // What is no UTF-8 the writer refuses.
      if (isUtf8(bytes)) written.set(value, bytes.toString('utf8'));
      yield;
    }
  }
  return written;
}

/** What is asked of the long ones among the texts; undefined: none is long. `before` knows some of them. */
export function* measuredTexts(texts: readonly string[], before?: LongTexts): Steps<LongTexts | undefined> {
  let long: Map<string, LongText> | undefined;
  for (const text of texts) {
    if (text.length < LONG_TEXT) continue;
    long ??= new Map();
    if (!long.has(text)) long.set(text, before?.get(text) ?? (yield* measureSteps(text)));
  }
  return long;
}

function findLong(value: unknown, into: unknown[]): void {
  if (typeof value === 'string') {
    if (value.length >= LONG_TEXT) into.push(value);
  } else if (value instanceof Uint8Array) {
    if (value.length >= LONG_TEXT) into.push(value);
  } else if (typeof value === 'object' && value !== null) {
    for (const each of Object.values(value)) findLong(each, into);
  }
}
