import { entriesOf, foldName, valuesNamed } from '../ground/json-names.ts';

/** A model that a request names, or leaves to the upstream, beside its own. */
export interface NamedModel {
  /** Where, e.g. `tools[0].model`. */
  readonly path: string;
  /** Undefined: none, so the upstream's default; null: something that is no name. */
  readonly name: string | null | undefined;
}

/**
 * Every model that the upstream may be made to run by this request, but for `model` itself: by tools, whether they
 * come as settings or as input, by moderation, by fields that the gateway does not know. `prompt` stands for whatever a
 * stored prompt names. Any spelling counts that some reader takes for the name.
 */
export function namedModels(
  fields: ReadonlyMap<string, string>,
  input: readonly string[],
  from = 0,
): readonly NamedModel[] {
  const models: NamedModel[] = [];
  for (const [field, json] of fields) {
    const name = foldName(field);
    if (name === 'tools') models.push(...modelsOfTools(json, 'tools'));
    else if (name === 'moderation') models.push(...modelsOf(json, 'moderation', isGiven(json)));
    else if (name === 'prompt' && isGiven(json)) models.push({ path: 'prompt', name: null });
    else if (name !== 'model' && FOREIGN_FIELD.test(name) && isGiven(json))
      models.push({ path: field, name: null });
  }
  input.forEach((item, at) => {
    if (at < from || !MAY_NAME_MODELS.test(item)) return;
    const path = `input[${at}]`;
    models.push(...modelsOf(item, path, false));
    for (const tools of valuesNamed(item, 'tools')) models.push(...modelsOfTools(tools, `${path}.tools`));
  });
  return models;
}

/** Fields of other upstreams by which a request may go to another model than `model`: "models", "fallbacks". */
const FOREIGN_FIELD = /model|fallback|^engines?$|^deployment/;

/** Items that bring tools or settings; a look at the letters spares the others. */
const MAY_NAME_MODELS = /"(?:model|tools|svg)"\s*:|\\u00/iu;

function modelsOfTools(json: string, path: string): NamedModel[] {
  return entriesOf(json).flatMap((tool, at) => {
    const here = `${path}[${at}]`;
    const makesImages = valuesNamed(tool, 'type').some((type) => JSON.parse(type) === 'image_generation');
    return [
      ...modelsOf(tool, here, makesImages),
      ...valuesNamed(tool, 'svg').flatMap((svg) => modelsOf(svg, `${here}.svg`, isGiven(svg))),
      ...valuesNamed(tool, 'tools').flatMap((inner) => modelsOfTools(inner, `${here}.tools`)),
    ];
  });
}

/** `runsOne`: it runs a model also when it names none. */
function modelsOf(json: string, path: string, runsOne: boolean): NamedModel[] {
  const names = valuesNamed(json, 'model').map((value): string | null | undefined => {
    const name: unknown = JSON.parse(value);
    return name === null ? undefined : typeof name === 'string' && name !== '' ? name : null;
  });
  const given = names.filter((name) => name !== undefined);
  if (given.length === 0) return runsOne ? [{ path: `${path}.model`, name: undefined }] : [];
  return given.map((name) => ({ path: `${path}.model`, name }));
}

function isGiven(json: string): boolean {
  return json !== 'null';
}
