import { type Item, isSameItem, readItem } from './same-item.ts';
import type { Step, Transcript } from './transcript.ts';

export type Delta =
  | { readonly ok: true; readonly delta: readonly string[] }
  | {
      readonly ok: false;
      readonly reason: 'history_shorter_than_known' | 'history_differs' | 'history_not_kept';
    };

/**
 * What `full` adds to the conversation up to `parentId`. Some clients tell a conversation from its last compaction item on,
 * as the upstream reads it, some from an earlier one, and some tell all of it.
 */
export function proveHistory(
  transcript: Transcript,
  parentId: string,
  laneId: string,
  full: readonly string[],
): Delta {
  const known = transcript.pathSince(parentId, () => false, { laneId });
  if (known === undefined) return { ok: false, reason: 'history_not_kept' };
  const proof = proveExtension(known.steps, full);
  if (proof.ok || !known.isCompacted) return proof;
  const whole = transcript.pathSince(parentId, () => false, { laneId, canRead: () => false });
  for (const steps of whole === undefined ? [] : longerTellings(whole.steps)) {
    const longer = proveExtension(steps, full);
    if (longer.ok) return longer;
  }
  return proof;
}

/** All of a conversation, and what follows each of its compaction items. */
function* longerTellings(steps: readonly Step[]): Iterable<readonly Step[]> {
  yield steps;
  for (const [at, { node, output }] of steps.entries()) {
    const index = node.items?.compactionIndex;
    if (index === undefined) continue;
    yield [{ node, input: [], output: output.slice(index) }, ...steps.slice(at + 1)];
  }
}

/**
 * Proves that `full` starts with what the upstream has (`steps`) and gives what follows. Items are the same when the
 * model would read the same (same-item.ts). What a client sent comes back in its order. What a response said, frameworks
 * put into an order of their own, calls before or after the text; its reasoning may be left out.
 *
 * Equal texts are the same item, whatever they say: nothing is parsed before two of them differ.
 */
export function proveExtension(steps: readonly Step[], full: readonly string[]): Delta {
  if (isTooShort(steps, full.length)) return { ok: false, reason: 'history_shorter_than_known' };
  const history = new History(full);
  for (const { input, output } of steps) {
    if (!(history.takeAsBefore(input) || history.takeInOrder(input))) return history.failure();
    if (!(history.takeAsBefore(output) || history.takeSaid(output))) return history.failure();
  }
  return { ok: true, delta: full.slice(history.at) };
}

/** How each list was last told: most clients say it the same way every time, and with the very same strings. */
const TOLD = new WeakMap<readonly string[], readonly string[]>();

/** The client's history, read from its beginning. */
class History {
  readonly #full: readonly string[];
  at = 0;

  constructor(full: readonly string[]) {
    this.#full = full;
  }

  takeAsBefore(known: readonly string[]): boolean {
    const told = TOLD.get(known);
    if (told === undefined || !told.every((text, index) => text === this.#full[this.at + index]))
      return false;
    const next = this.#full[this.at + told.length];
    // What was left out before may be told now.
    if (told.length < known.length && next !== undefined && MAY_BE_REASONING.test(next)) return false;
    this.at += told.length;
    return true;
  }

  takeInOrder(known: readonly string[]): boolean {
    const from = this.at;
    let differs = false;
    for (const item of known) {
      const next = this.#full[this.at];
      if (next === undefined || (next !== item && !isSameItem(readItem(item), readItem(next)))) return false;
      differs ||= next !== item;
      this.at += 1;
    }
    if (differs) this.#remember(known, from);
    return true;
  }

  /** One response's items. Calls keep their order among themselves, and so do texts. */
  takeSaid(known: readonly string[]): boolean {
    const from = this.at;
    let same = 0;
    while (same < known.length && known[same] === this.#full[this.at + same]) same += 1;
    this.at += same;
    if (same === known.length) return true;
    const said = new SaidItems(known.slice(same));
    while (!said.isEmpty) {
      const next = this.#full[this.at];
      if (next === undefined || !said.take(readItem(next))) break;
      this.at += 1;
    }
    if (!said.mayBeLeftOut) return false;
    this.#remember(known, from);
    return true;
  }

  #remember(known: readonly string[], from: number): void {
    TOLD.set(known, this.#full.slice(from, this.at));
  }

  failure(): Delta {
    const reason = this.at >= this.#full.length ? 'history_shorter_than_known' : 'history_differs';
    return { ok: false, reason };
  }
}

function isTooShort(steps: readonly Step[], length: number): boolean {
  const known = steps.reduce((sum, { input, output }) => sum + input.length + output.length, 0);
  if (length >= known) return false;
  const leftOut = steps.flatMap(({ output }) => output.filter((text) => MAY_BE_REASONING.test(text)));
  return length < known - leftOut.length;
}

const MAY_BE_REASONING = /"type"\s*:\s*"reasoning"/;

/** What of a response the client has not told yet. Each kind is a queue: only its first may come next. */
class SaidItems {
  readonly #queues = new Map<string, Item[]>();
  readonly #byId = new Map<string, Item>();
  #left = 0;

  constructor(texts: readonly string[]) {
    // The first is the last of its queue: taking it moves nothing.
    for (const text of texts.toReversed()) {
      const item = readItem(text);
      const queue = this.#queues.get(item.kind);
      if (queue === undefined) this.#queues.set(item.kind, [item]);
      else queue.push(item);
      if (item.id !== undefined) this.#byId.set(item.id, item);
      this.#left += 1;
    }
  }

  get isEmpty(): boolean {
    return this.#left === 0;
  }

  /** Nothing is left, or only what no client has to tell. */
  get mayBeLeftOut(): boolean {
    return this.#left === (this.#queues.get(REASONING)?.length ?? 0);
  }

  take(told: Item): boolean {
    const named =
      told.kind === 'item_reference' && told.id !== undefined ? this.#byId.get(told.id) : undefined;
    const kind = named?.kind ?? told.kind;
    const queue = this.#queues.get(kind) ?? [];
    for (let first = queue.at(-1); first !== undefined; first = queue.at(-1)) {
      const isNext = isSameItem(first, told);
      // Reasoning that was left out holds nothing up.
      if (!isNext && kind !== REASONING) return false;
      queue.pop();
      this.#left -= 1;
      if (isNext) return true;
    }
    return false;
  }
}

const REASONING = 'reasoning';

const MAY_BE_REFERENCE = /^\s*\{[^{}[\]]*"id"[^{}[\]]*\}\s*$/;

/** A type and an id, which have some 80 characters together. What is longer is not looked at: there may be megabytes of it. */
const MAX_REFERENCE_CHARS = 512;

/** The id that an item is nothing but a reference to. */
export function referenceIn(text: string): string | undefined {
  if (text.length > MAX_REFERENCE_CHARS || !MAY_BE_REFERENCE.test(text)) return undefined;
  const item: Item = readItem(text);
  return item.kind === 'item_reference' ? item.id : undefined;
}
