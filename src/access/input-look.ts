import { LONG_TEXT } from '../ground/long-texts.ts';
import { type NamedModel, namedModelSteps, namedModelStepsOfItem } from './named-models.ts';
import { type StoredItem, storedItemSteps } from './stored-items.ts';
import type { InputLook, Steps } from './types.ts';

/**
 * What the input items from the one at `from` on, and the other members, name beside the request's own model and chain.
 * Megabytes of them take longer than others should wait: a pause is offered after so many of their letters.
 */
export function* lookSteps(
  input: readonly string[],
  fields: ReadonlyMap<string, string>,
  from: number,
  looksForModels: boolean,
): Steps<InputLook> {
  const stored = new Map<number, StoredItem>();
  const models: NamedModel[] = [];
  if (looksForModels) yield* namedModelSteps(fields, models);
  let chars = 0;
  for (let at = from; at < input.length; at += 1) {
    const json = input[at] as string;
    const item = yield* storedItemSteps(json);
    if (item !== undefined) stored.set(at, item);
    if (looksForModels) yield* namedModelStepsOfItem(json, `input[${at}]`, models);
    chars += json.length;
    if (chars < LONG_TEXT) continue;
    chars = 0;
    yield;
  }
  return { stored, models };
}

/** To the end without a pause. */
export function finish<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}
