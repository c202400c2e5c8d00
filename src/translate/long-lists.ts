import { LONG_TEXT } from '../ground/long-texts.ts';
import type { Field, Plan } from './schema.ts';
import type { Message, Writer } from './writer.ts';

/** Entries from which on a list is written beforehand: ten thousand of them take longer than others should wait. */
const LONG_LIST = 64;
const PAUSE_CHARS = LONG_TEXT / 4;
/** What an entry takes besides its letters. */
const ENTRY_CHARS = 256;

/**
 * Writes the long lists of a message, the inner ones first, with pauses, into `lists`, where the writer finds them. `except`:
 * fields of the message itself that are read in another way.
 */
export function* writeLongLists(
  plan: Plan,
  message: Message,
  path: string,
  writer: Writer,
  lists: Map<unknown, readonly string[]>,
  except?: ReadonlySet<string>,
): Generator<undefined, void> {
  for (const [name, value] of Object.entries(message)) {
    const field = plan.byField.get(name)?.fields.find((each) => each.name === name);
    if (field === undefined || value === null || value === undefined || except?.has(name)) continue;
    const at = `${path}.${name}`;
    if (field.shape === 'list') yield* writeLongList(field, value as readonly unknown[], at, writer, lists);
    else if (field.shape === 'single' && field.isMessage)
      yield* writeLongLists(field.message(), value as Message, at, writer, lists);
  }
}

function* writeLongList(
  field: Field,
  entries: readonly unknown[],
  path: string,
  writer: Writer,
  lists: Map<unknown, readonly string[]>,
): Generator<undefined, void> {
  const [entry] = field.element().fields;
  if (entry === undefined) return;
  const isLong = entries.length >= LONG_LIST;
  const written: string[] = [];
  let chars = 0;
  for (const [index, value] of entries.entries()) {
    const at = `${path}[${index}]`;
    if (entry.isMessage) yield* writeLongLists(entry.message(), value as Message, at, writer, lists);
    if (!isLong) continue;
    const json = writer.field(entry, value, at);
    written.push(json);
    chars += json.length + ENTRY_CHARS;
    if (chars < PAUSE_CHARS) continue;
    chars = 0;
    yield;
  }
  if (isLong) lists.set(entries, written);
}
