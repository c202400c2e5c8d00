import { elementSteps } from '../ground/json-members.ts';
import { foldName, startsWith, valuesNamedSteps } from '../ground/json-names.ts';
import { LONG_TEXT } from '../ground/long-texts.ts';
import type { NamedModel, Steps } from './types.ts';

export type { NamedModel };

/**
 * Every model that the upstream may be made to run by the members of a request, but for `model` itself: by tools, by
 * moderation, by fields that the gateway does not know. `prompt` stands for whatever a stored prompt names. Any spelling
 * counts that some reader takes for the name. A pause is offered where a long one takes long.
 */
export function* namedModelSteps(fields: ReadonlyMap<string, string>, into: NamedModel[]): Steps<void> {
  for (const [field, json] of fields) {
    const name = foldName(field);
    if (name === 'tools') yield* toolSteps(json, 'tools', into);
    else if (name === 'moderation') yield* objectSteps(json, 'moderation', isGiven(json), into);
    else if (name === 'prompt' && isGiven(json)) into.push({ path: 'prompt', name: null });
    else if (name !== 'model' && FOREIGN_FIELD.test(name) && isGiven(json))
      into.push({ path: field, name: null });
  }
}

/** The same for an input item, which may bring tools or settings. */
export function* namedModelStepsOfItem(item: string, path: string, into: NamedModel[]): Steps<void> {
  // Looking at all letters of a long one takes as long as its members, and cannot be paused.
  if (item.length < LONG_TEXT && !MAY_NAME_MODELS.test(item)) return;
  const { model, tools } = yield* valuesNamedSteps(item, ['model', 'tools']);
  addModels(model, path, false, into);
  for (const each of tools) yield* toolSteps(each, `${path}.tools`, into);
}

/** Fields of other upstreams by which a request may go to another model than `model`: "models", "fallbacks". */
const FOREIGN_FIELD = /model|fallback|^engines?$|^deployment/;

/** Items that bring tools or settings; a look at the letters spares the others. */
const MAY_NAME_MODELS = /"(?:model|tools|svg)"\s*:|\\u00/iu;

function* toolSteps(json: string, path: string, into: NamedModel[]): Steps<void> {
  if (!startsWith(json, '[')) return;
  let chars = 0;
  for (const [at, tool] of (yield* elementSteps(json)).entries()) {
    const here = `${path}[${at}]`;
    const { type, model, svg, tools } = yield* valuesNamedSteps(tool, ['type', 'model', 'svg', 'tools']);
    const makesImages = type.some((each) => JSON.parse(each) === 'image_generation');
    addModels(model, here, makesImages, into);
    for (const each of svg) yield* objectSteps(each, `${here}.svg`, isGiven(each), into);
    for (const each of tools) yield* toolSteps(each, `${here}.tools`, into);
    chars += tool.length;
    if (chars < PAUSE_CHARS) continue;
    chars = 0;
    yield;
  }
}

/** Each tool is read member by member. */
const PAUSE_CHARS = 64 * 1024;

/** `runsOne`: it runs a model also when it names none. */
function* objectSteps(json: string, path: string, runsOne: boolean, into: NamedModel[]): Steps<void> {
  const { model } = yield* valuesNamedSteps(json, ['model']);
  addModels(model, path, runsOne, into);
}

function addModels(values: readonly string[], path: string, runsOne: boolean, into: NamedModel[]): void {
  const names = values.map((value): string | null | undefined => {
    const name: unknown = JSON.parse(value);
    return name === null ? undefined : typeof name === 'string' && name !== '' ? name : null;
  });
  const given = names.filter((name) => name !== undefined);
  if (given.length === 0 && runsOne) into.push({ path: `${path}.model`, name: undefined });
  for (const name of given) into.push({ path: `${path}.model`, name });
}

function isGiven(json: string): boolean {
  return json !== 'null';
}
