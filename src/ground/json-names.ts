import { elementsOf, membersOf } from './json-members.ts';

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
  if (!json.trimStart().startsWith('{')) return [];
  return membersOf(json)
    .filter((member) => foldName(member.name) === name)
    .map(({ valueStart, end }) => json.slice(valueStart, end));
}

/** The entries of a list as raw JSON. Empty for what is no list. */
export function entriesOf(json: string): readonly string[] {
  return json.trimStart().startsWith('[') ? elementsOf(json) : [];
}
