/** The bones of a JSON document: names, kinds and order of its members, none of its content. */
export type Skeleton = string | readonly Skeleton[] | { readonly [name: string]: Skeleton };

/** Members whose value says what kind of thing it is, and nothing that anybody wrote. */
const NAMES_OF_KINDS: ReadonlySet<string> = new Set([
  'type',
  'object',
  'status',
  'role',
  'phase',
  'reason',
  'code',
  'param',
  'service_tier',
]);
const WORD = /^[a-z][a-z_.]{0,63}$/;
/** Maps whose names are ids or somebody's own words. */
const MAPS: ReadonlySet<string> = new Set(['metadata', 'items', 'headers', 'properties', 'variables']);
/** What a program wrote in JSON Schema or the like stays closed. */
const CLOSED: ReadonlySet<string> = new Set(['parameters', 'schema', 'output_schema']);
/** Whatever a server invents, no list or depth is followed without end. */
const MAX_DEPTH = 16;
const MAX_FORMS = 8;

/** `name`: of the member that the value stands in. */
export function skeletonOf(value: unknown, name = '', depth = 0): Skeleton {
  if (value === null) return 'null';
  if (typeof value === 'string')
    return NAMES_OF_KINDS.has(name) && WORD.test(value) ? `"${value}"` : 'string';
  if (typeof value !== 'object') return typeof value;
  if (depth > MAX_DEPTH || CLOSED.has(name)) return Array.isArray(value) ? 'list' : 'object';
  if (Array.isArray(value)) return formsOf(value.map((each) => skeletonOf(each, '', depth + 1)));
  const members = Object.entries(value);
  if (MAPS.has(name)) {
    const forms = formsOf(members.map(([, each]) => skeletonOf(each, '', depth + 1)));
    return members.length === 0 ? {} : { '*': forms.length === 1 ? (forms[0] ?? 'null') : forms };
  }
  return Object.fromEntries(members.map(([key, each]) => [key, skeletonOf(each, key, depth + 1)]));
}

/** Frames one after the other; a run of the same ones is told once. */
export function skeletonsOf(frames: readonly unknown[]): readonly Skeleton[] {
  const told: { text: string; skeleton: Skeleton }[] = [];
  for (const frame of frames) {
    const skeleton = skeletonOf(frame);
    const text = JSON.stringify(skeleton);
    if (told.at(-1)?.text !== text) told.push({ text, skeleton });
  }
  return told.map(({ skeleton }) => skeleton);
}

/** What one skeleton has and another lacks, by path. Null may stand for anything, and other members may be there. */
export function lacking(wanted: Skeleton, found: Skeleton, path = ''): readonly string[] {
  if (wanted === 'null' || found === 'null') return [];
  const at = (key: string): string => (path === '' ? key : `${path}.${key}`);
  if (typeof wanted === 'string' || typeof found === 'string')
    return wanted === found || kindOf(wanted) === found || wanted === kindOf(found)
      ? []
      : [`${path}: ${text(found)} instead of ${text(wanted)}`];
  if (isList(wanted)) {
    if (!isList(found)) return [`${path}: ${text(found)} instead of a list`];
    if (found.length === 0) return [];
    return wanted.flatMap((form) =>
      found.some((each) => lacking(form, each).length === 0)
        ? []
        : lacking(
            form,
            found.find((each) => typeOf(each) === typeOf(form)) ?? found[0] ?? 'null',
            `${path}[]`,
          ),
    );
  }
  if (isList(found)) return [`${path}: a list instead of an object`];
  return Object.entries(wanted).flatMap(([key, each]) => {
    const other = found[key];
    return other === undefined ? [`${at(key)} is missing`] : lacking(each, other, at(key));
  });
}

function formsOf(skeletons: readonly Skeleton[]): readonly Skeleton[] {
  const forms = new Map(skeletons.map((each) => [JSON.stringify(each), each]));
  return [...forms.values()].slice(0, MAX_FORMS);
}

function isList(skeleton: Skeleton): skeleton is readonly Skeleton[] {
  return Array.isArray(skeleton);
}

/** A named kind is a string all the same. */
function kindOf(skeleton: Skeleton): string {
  if (typeof skeleton === 'string') return skeleton.startsWith('"') ? 'string' : skeleton;
  return isList(skeleton) ? 'list' : 'object';
}

function typeOf(skeleton: Skeleton): Skeleton | undefined {
  return typeof skeleton === 'object' && !isList(skeleton) ? skeleton['type'] : undefined;
}

function text(skeleton: Skeleton): string {
  return JSON.stringify(skeleton).slice(0, 80);
}
