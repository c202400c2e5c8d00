import { createHash, type Hash, hash } from 'node:crypto';
import type { LongTexts } from '../dialect/types.ts';
import { digestOfText, LONG_TEXT } from '../ground/long-texts.ts';
import type { StartTurn } from './types.ts';

/** Settings are long and the same from turn to turn: comparing them costs a tenth of hashing them. */
const MIN_REMEMBERED_CHARS = 1_024;
/** Instructions and tools of a few lanes, and together so much. */
const MAX_REMEMBERED = 8;
const MAX_REMEMBERED_CHARS = 2 * 1024 * 1024;

/**
 * Tells a repeated StartTurn from another request under the same id. Whatever the model is asked, and where, counts:
 * lane, chain, input mode, every field, every item. How long the client waits and whose trace it is does not: a client
 * that asks again after a reconnect has less time left, and a span of its own.
 */
export class Fingerprints {
  /** The long settings of the last requests, the newest first. */
  #remembered: { readonly json: string; readonly digest: string }[] = [];
  /** The long items of the last full history, each at its place: the next one begins with the same. */
  #history: readonly { readonly json: string; readonly digest: string }[] = [];

  /** Short, because it outlives the turn. */
  of(request: StartTurn): string {
    const { laneId, chain, inputMode, create } = request;
    const digest = new Digest();
    digest.add(laneId);
    digest.add(chain.kind === 'from' ? `from ${chain.responseId}` : chain.kind);
    digest.add(inputMode);
    digest.add(create.previousResponseId ?? '');
    for (const name of sortedNames(create.fields)) {
      digest.add(name);
      digest.add(this.#setting(create.fields.get(name) as string, create.long));
    }
    this.#addInput(digest, request);
    return digest.end();
  }

  #addInput(digest: Digest, { inputMode, create }: StartTurn): void {
    if (inputMode === 'incremental') {
      // Of a long one its digest, which is known by now.
      for (const item of create.input)
        digest.add(item.length < LONG_TEXT ? item : digestOfText(item, create.long));
      return;
    }
    const before = this.#history;
    this.#history = create.input.map((json, at) => {
      const known = before[at];
      // The same string most of the time, not only an equal one.
      return known?.json === json ? known : { json, digest: digestOfText(json, create.long) };
    });
    for (const each of this.#history) digest.add(each.digest);
  }

  #setting(json: string, long: LongTexts | undefined): string {
    if (json.length < MIN_REMEMBERED_CHARS) return json;
    const known = this.#remembered.find((each) => each.json === json);
    if (known !== undefined) return known.digest;
    const digest = digestOfText(json, long);
    let left = MAX_REMEMBERED_CHARS;
    this.#remembered = [{ json, digest }, ...this.#remembered.slice(0, MAX_REMEMBERED - 1)].filter((each) => {
      left -= each.json.length;
      return left >= 0;
    });
    return digest;
  }

  /** Memory is short: what is known is found out again. */
  forget(): void {
    this.#remembered = [];
    this.#history = [];
  }
}

const FEW_NAMES = 32;

/** Names are few: sorting them in place takes less than asking for it. */
function sortedNames(fields: ReadonlyMap<string, string>): readonly string[] {
  if (fields.size > FEW_NAMES) return [...fields.keys()].sort();
  const names: string[] = [];
  for (const name of fields.keys()) {
    let at = names.length;
    for (; at > 0 && (names[at - 1] as string) > name; at -= 1) names[at] = names[at - 1] as string;
    names[at] = name;
  }
  return names;
}

/** Above it what was collected is hashed, so that a large request is not copied into one text. */
const MAX_PENDING_CHARS = 64 * 1024;
/** 128 bits in base64: nobody finds two requests that share them by chance. */
const FINGERPRINT_CHARS = 22;

/** SHA-256 over parts with their lengths, so that no two lists of parts read the same. */
class Digest {
  #hash: Hash | undefined;
  #pending = '';

  add(part: string): void {
    this.#pending += `${part.length}:${part}`;
    if (this.#pending.length < MAX_PENDING_CHARS) return;
    this.#hash = (this.#hash ?? createHash('sha256')).update(this.#pending);
    this.#pending = '';
  }

  end(): string {
    const digest =
      this.#hash === undefined
        ? hash('sha256', this.#pending, 'base64url')
        : this.#hash.update(this.#pending).digest('base64url');
    return digest.slice(0, FINGERPRINT_CHARS);
  }
}
