import { createRequire } from 'node:module';
import type { Document } from 'yaml';
import { maskUrl } from './mask.ts';
import { type ConfigProblem, didYouMean, type Origin, type PathSegment } from './problems.ts';

export const ENVIRONMENT_PREFIX = 'RESPONSES_GATEWAY_';

/** Names with our prefix that are not configuration: the file's own name, and what the clients read. */
const OTHER_ENVIRONMENT_NAMES = new Set([
  'RESPONSES_GATEWAY_CONFIG',
  'RESPONSES_GATEWAY_ADDR',
  'RESPONSES_GATEWAY_TOKEN',
]);

/** Kubernetes adds these to every pod when a Service is called "responses-gateway"; they are addresses, not settings. */
const SERVICE_LINK =
  /^RESPONSES_GATEWAY_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT|PORT_\d+_(?:TCP|UDP)(?:_\w+)?)$/;

/** A value from one of the sources, before the schema has seen it. */
export interface Setting {
  readonly path: readonly PathSegment[];
  readonly value: unknown;
  readonly origin: Origin;
}

/** A field that has a name of its own in the environment: everything but what stands inside lists. */
export interface Leaf {
  readonly path: readonly string[];
  readonly type: 'string' | 'other';
}

/** The parsed file and the way back from a field to its line. */
export interface ConfigFile {
  readonly value: Readonly<Record<string, unknown>>;
  /** Where the field stands, or its nearest parent that does. `key`: where its name begins instead of its value. */
  locate(path: readonly PathSegment[], part: 'key' | 'value'): Origin;
}

let loaded: typeof import('yaml') | undefined;

/** Loaded when there is something to parse: without a file there is seldom anything, and it takes 14 MB. */
export function yaml(): typeof import('yaml') {
  loaded ??= createRequire(import.meta.url)('yaml') as typeof import('yaml');
  return loaded;
}

/** Reads the YAML text. Syntax errors and a top level that is no mapping come back as problems. */
export function readYaml(file: string, text: string): ConfigFile | readonly ConfigProblem[] {
  const lines = new (yaml().LineCounter)();
  const document = yaml().parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const position = (offset: number): Origin => {
    const { line, col } = lines.linePos(offset);
    return { kind: 'file', file, line, column: col };
  };
  if (document.errors.length > 0) {
    return document.errors.map((error) => ({
      path: '',
      found: undefined,
      expected: `well-formed YAML: ${error.message}`,
      origin: position(error.pos[0]),
    }));
  }
  let value: unknown;
  try {
    value = document.toJS() ?? {};
  } catch (error) {
    // Aliases are resolved only here: one without its anchor, or so many that they would fill the memory.
    const why = error instanceof Error ? error.message : String(error);
    return [{ path: '', found: undefined, expected: `well-formed YAML: ${why}`, origin: position(0) }];
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    const expected = 'a mapping of settings, such as "listen: 127.0.0.1:50051"';
    return [{ path: '', found: renderFound(value), expected, origin: position(0) }];
  }
  return {
    value: value as Record<string, unknown>,
    locate: (path, part) => position(offsetOf(document, path, part)),
  };
}

export function environmentName(path: readonly PathSegment[]): string {
  return ENVIRONMENT_PREFIX + path.join('_').toUpperCase();
}

/** Settings from the environment; names with our prefix that mean nothing come back as problems. */
export function readEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
  allLeaves: () => readonly Leaf[],
): { readonly settings: readonly Setting[]; readonly problems: readonly ConfigProblem[] } {
  const ours = Object.entries(environment).filter(([name, text]) => isSetting(name) && text);
  if (ours.length === 0) return { settings: [], problems: [] };
  const byName = new Map(allLeaves().map((leaf) => [environmentName(leaf.path), leaf]));
  const settings: Setting[] = [];
  const problems: ConfigProblem[] = [];
  for (const [name, text = ''] of ours) {
    const origin: Origin = { kind: 'environment', name };
    const leaf = byName.get(name);
    if (leaf === undefined) {
      const near = didYouMean(name, byName.keys());
      const help = near === undefined ? {} : { help: `did you mean ${near}?` };
      problems.push({
        path: name,
        found: 'unknown name',
        expected: 'the name of a setting',
        ...help,
        origin,
      });
    } else {
      settings.push({ path: leaf.path, value: leaf.type === 'string' ? text : parseText(text), origin });
    }
  }
  return { settings, problems };
}

function isSetting(name: string): boolean {
  if (!name.startsWith(ENVIRONMENT_PREFIX)) return false;
  return !OTHER_ENVIRONMENT_NAMES.has(name) && !SERVICE_LINK.test(name);
}

/** Numbers, booleans and lists are written in the environment as in the file. */
export function parseText(text: string): unknown {
  try {
    return yaml().parse(text);
  } catch {
    return text;
  }
}

/** A short, safe rendering for error messages. */
export function renderFound(value: unknown): string {
  if (value === undefined) return 'nothing';
  const shown = typeof value === 'string' ? maskUrl(value) : value;
  const text = JSON.stringify(shown) ?? String(shown);
  return text.length <= MAX_FOUND_LENGTH ? text : `${text.slice(0, MAX_FOUND_LENGTH)}…`;
}

const MAX_FOUND_LENGTH = 80;

function offsetOf(document: Document, path: readonly PathSegment[], part: 'key' | 'value'): number {
  for (let length = path.length; length > 0; length -= 1) {
    const parent: unknown =
      length === 1 ? document.contents : document.getIn(path.slice(0, length - 1), true);
    const last = path[length - 1];
    const { isMap, isScalar, isSeq } = yaml();
    if (isMap(parent)) {
      const pair = parent.items.find(({ key }) => isScalar(key) && String(key.value) === last);
      const wanted = part === 'value' && length === path.length ? startOf(pair?.value) : undefined;
      const start = wanted ?? startOf(pair?.key);
      if (start !== undefined) return start;
    } else if (isSeq(parent) && typeof last === 'number') {
      const start = startOf(parent.items[last]);
      if (start !== undefined) return start;
    }
  }
  return startOf(document.contents) ?? 0;
}

function startOf(node: unknown): number | undefined {
  return yaml().isNode(node) ? node.range?.[0] : undefined;
}
