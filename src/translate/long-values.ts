import { isUtf8 } from 'node:buffer';
import { LONG_TEXT, type LongText, type LongTexts, measureSteps, quoteSteps } from '../ground/long-texts.ts';
import { type Message, type Written, type WrittenJson, writtenJson } from './writer.ts';

/** Work that can be paused where it yields. */
type Steps<T> = Generator<undefined, T>;

/** The message's long texts and its long raw documents, for a Writer; undefined: it has none. */
export function* writtenLong(message: Message): Steps<Omit<Written, 'lists'> | undefined> {
  const values: (string | Uint8Array)[] = [];
  findLong(message, values);
  if (values.length === 0) return undefined;
  yield;
  const texts = new Map<string, string>();
  const documents = new Map<Uint8Array, WrittenJson>();
  for (const value of values) {
    if (typeof value === 'string') {
      if (!texts.has(value)) texts.set(value, yield* quoteSteps(value));
      continue;
    }
    // What is no UTF-8 the writer refuses.
    if (!isUtf8(value)) continue;
    yield;
    documents.set(value, yield* writtenJson(Buffer.from(value.buffer, value.byteOffset, value.byteLength)));
  }
  return { texts, documents };
}

/** What is asked of the long ones among the texts; undefined: none is long. */
export function* measuredTexts(texts: readonly string[]): Steps<LongTexts | undefined> {
  let long: Map<string, LongText> | undefined;
  for (const text of texts) {
    if (text.length < LONG_TEXT) continue;
    long ??= new Map();
    if (!long.has(text)) long.set(text, yield* measureSteps(text));
  }
  return long;
}

function findLong(value: unknown, into: (string | Uint8Array)[]): void {
  if (typeof value === 'string') {
    if (value.length >= LONG_TEXT) into.push(value);
  } else if (value instanceof Uint8Array) {
    if (value.length >= LONG_TEXT) into.push(value);
  } else if (typeof value === 'object' && value !== null) {
    for (const each of Object.values(value)) findLong(each, into);
  }
}
