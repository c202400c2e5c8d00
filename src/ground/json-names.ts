import { memberSteps, membersOf } from './json-members.ts';

/**
 * A member's name as the least careful reader of JSON takes it: Go's `encoding/json` ignores case by Unicode's simple
 * folding, in which "ſ" is an "s" and the Kelvin sign a "k". Names that such a reader takes for the same fold to the same.
 */
export function foldName(name: string): string {
  return PLAIN.test(name) ? name : name.toUpperCase().toLowerCase();
}

const PLAIN = /^[a-z0-9_]*$/;

/**
 * What stands in an object under a name, however that is spelled, as raw JSON: of several members each reader takes
 * another one. Empty for what is no object.
 */
export function valuesNamed(json: string, name: string): readonly string[] {
  if (!startsWith(json, '{')) return [];
  return membersOf(json)
    .filter((member) => foldName(member.name) === name)
    .map(({ valueStart, end }) => json.slice(valueStart, end));
}

/** The same for several names at once, with a pause offered wherever a long text takes long. */
export function* valuesNamedSteps<Name extends string>(
  json: string,
  names: readonly Name[],
): Generator<undefined, Readonly<Record<Name, readonly string[]>>> {
  const values = Object.fromEntries(names.map((name) => [name, [] as string[]])) as Record<Name, string[]>;
  if (!startsWith(json, '{')) return values;
  for (const member of yield* memberSteps(json)) {
    const name = foldName(member.name) as Name;
    if (names.includes(name)) values[name].push(json.slice(member.valueStart, member.end));
  }
  return values;
}

/** Whether the first character that is no space is this one. */
export function startsWith(json: string, character: string): boolean {
  return json[json.search(NO_SPACE)] === character;
}

const NO_SPACE = /\S/;
