import { readFileSync } from 'node:fs';
import * as z from 'zod';
import { type CrossProblem, crossChecks } from './checks.ts';
import { configLeaves, keysAt } from './outline.ts';
import {
  ConfigError,
  type ConfigProblem,
  didYouMean,
  type Origin,
  type PathSegment,
  renderPath,
} from './problems.ts';
import { type ConfigInput, configSchema, configShape, type GatewayConfig } from './schema.ts';
import { apiKeyEnvOf } from './schema-upstream.ts';
import { type ConfigFile, readEnvironment, readYaml, renderFound, type Setting } from './sources.ts';

export interface ConfigSources {
  /** Path of the YAML file; undefined: there is none. */
  readonly file: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** From the command line, already as paths into the configuration. */
  readonly flags: readonly Setting[];
}

export interface LoadedConfig {
  readonly config: GatewayConfig;
  /** The same in the file's own spelling, defaults filled in. */
  effective(): ConfigInput;
  originOf(path: readonly PathSegment[]): Origin;
}

/** What a part of the gateway says of its section. Sections that did not parse are absent. */
export type PartCheck = (
  config: Partial<GatewayConfig>,
  environment: ConfigSources['environment'],
) => readonly CrossProblem[];

/**
 * Flag > environment > file > default. Throws `ConfigError` with everything that is wrong, before anything starts.
 * `checkParts` is asked where this room's own checks found nothing wrong with a field.
 */
export function loadConfig(sources: ConfigSources, checkParts: PartCheck = () => []): LoadedConfig {
  const file = sources.file === undefined ? EMPTY_FILE : openFile(sources.file);
  const environment = readEnvironment(sources.environment, configLeaves);
  const settings = [...environment.settings, ...sources.flags];
  const { raw, problems: strayProblems } = overlay(file.value, settings);
  const origins = new Map(settings.map(({ path, origin }) => [renderPath(path), origin]));

  const originOf = (path: readonly PathSegment[], part: 'key' | 'value' = 'value'): Origin => {
    for (let length = path.length; length > 0; length -= 1) {
      const origin = origins.get(renderPath(path.slice(0, length)));
      if (origin !== undefined) return origin;
    }
    return valueAt(file.value, path) === undefined ? DEFAULT_ORIGIN : file.locate(path, part);
  };
  /** Of a problem; a missing field is reported where its parent stands. */
  const placeOf = (path: readonly PathSegment[], part: 'key' | 'value' = 'value'): Origin => {
    for (let length = path.length; length > 0; length -= 1) {
      const origin = originOf(path.slice(0, length), part);
      if (origin.kind !== 'default') return origin;
    }
    return DEFAULT_ORIGIN;
  };

  const parsed = configSchema.safeParse(raw);
  const schemaProblems = (parsed.error?.issues ?? []).flatMap((issue) => explain(issue, raw, placeOf));
  const place = ({ path, found, expected, help }: CrossProblem): ConfigProblem => ({
    path: renderPath(path),
    found: found ?? renderFound(valueAt(raw, path)),
    expected,
    ...(help === undefined ? {} : { help }),
    origin: placeOf(path),
  });
  // An optional section that nobody wrote is there, as nothing; one that is wrong is not.
  const valid = parsed.data === undefined ? validSections(raw) : { ...ABSENT, ...parsed.data };
  const crossProblems = crossChecks(valid, sources.environment).map(place);
  const known = [...environment.problems, ...strayProblems, ...schemaProblems, ...crossProblems];
  const isNew = ({ path }: ConfigProblem) =>
    !known.some(
      (other) => `${path}.`.startsWith(`${other.path}.`) || `${other.path}.`.startsWith(`${path}.`),
    );
  const partProblems = checkParts(valid, sources.environment).map(place).filter(isNew);
  const problems = [...known, ...partProblems];
  if (problems.length > 0 || parsed.data === undefined) throw new ConfigError(problems, filesIn(raw));
  const config = deepFreeze(withImplied(parsed.data));
  return { config, effective: () => z.encode(configSchema, config), originOf };
}

/** A default that depends on another field. */
function withImplied(config: GatewayConfig): GatewayConfig {
  const named = <U extends NonNullable<GatewayConfig['upstream']>>(upstream: U): U => ({
    ...upstream,
    api_key_env: apiKeyEnvOf(upstream),
  });
  const { upstream } = config;
  return {
    ...config,
    ...(upstream === undefined ? {} : { upstream: named(upstream) }),
    upstreams: config.upstreams.map(named),
  };
}

/** Of a whole configuration, parsed or not: the files that it names. */
export function filesIn(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) =>
    typeof inner === 'string' ? (key.endsWith('_file') ? [inner] : []) : filesIn(inner),
  );
}

export function valueAt(root: unknown, path: readonly PathSegment[]): unknown {
  let value = root;
  for (const segment of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, segment)) return undefined;
    value = (value as Record<PathSegment, unknown>)[segment];
  }
  return value;
}

const DEFAULT_ORIGIN: Origin = { kind: 'default' };
const EMPTY_FILE: ConfigFile = { value: {}, locate: () => DEFAULT_ORIGIN };

function openFile(path: string): ConfigFile {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? 'unreadable';
    const expected = 'a YAML file that can be read';
    throw new ConfigError([
      { path: '--config', found: `${path} (${why})`, expected, origin: DEFAULT_ORIGIN },
    ]);
  }
  const file = readYaml(path, text);
  if ('locate' in file) return file;
  throw new ConfigError(file);
}

/** Later settings win. One that leads into a list or a scalar of the file comes back as a problem. */
function overlay(
  base: Readonly<Record<string, unknown>>,
  settings: readonly Setting[],
): { readonly raw: Record<string, unknown>; readonly problems: readonly ConfigProblem[] } {
  const raw = structuredClone(base) as Record<string, unknown>;
  return { raw, problems: settings.flatMap((setting) => put(raw, setting)) };
}

function put(root: Record<PathSegment, unknown>, { path, value, origin }: Setting): ConfigProblem[] {
  let section = root;
  for (const [at, segment] of path.slice(0, -1).entries()) {
    section[segment] ??= {};
    const next = section[segment];
    if (!isRecord(next)) {
      const outer = renderPath(path.slice(0, at + 1));
      const expected = Array.isArray(next)
        ? `${outer} as a whole, in the file or as YAML: it is a list`
        : `${outer} itself: it has no fields`;
      return [{ path: renderPath(path), found: `a field inside of ${outer}`, expected, origin }];
    }
    section = next;
  }
  const last = path.at(-1);
  if (last !== undefined) section[last] = value;
  return [];
}

const ABSENT: Partial<GatewayConfig> = Object.fromEntries(
  Object.keys(configShape).map((name) => [name, undefined]),
);

/** When the whole does not parse, what does is still checked against each other. */
function validSections(raw: Readonly<Record<string, unknown>>): Partial<GatewayConfig> {
  const sections = Object.entries(configShape).flatMap(([key, schema]) => {
    const parsed = schema.safeParse(raw[key]);
    return parsed.success ? [[key, parsed.data] as const] : [];
  });
  return Object.fromEntries(sections) as Partial<GatewayConfig>;
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a section with fields',
  record: 'a mapping',
};

type PlaceOf = (path: readonly PathSegment[], part?: 'key' | 'value') => Origin;

function explain(issue: z.core.$ZodIssue, raw: unknown, placeOf: PlaceOf): ConfigProblem[] {
  const path = issue.path as PathSegment[];
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => unknownKey([...path, key], placeOf));
  }
  return [
    {
      path: renderPath(path),
      found: renderFound(valueAt(raw, path)),
      expected: expectation(issue),
      origin: placeOf(path),
    },
  ];
}

function unknownKey(path: readonly PathSegment[], placeOf: PlaceOf): ConfigProblem {
  const key = String(path.at(-1));
  const siblings = keysAt(path.slice(0, -1));
  const near = didYouMean(key, siblings);
  const elsewhere = configLeaves().find((leaf) => leaf.path.at(-1) === key);
  const help =
    near !== undefined
      ? { help: `did you mean "${near}"?` }
      : elsewhere !== undefined
        ? { help: `a field of this name is ${renderPath(elsewhere.path)}` }
        : {};
  const expected = `one of ${siblings.join(', ')}`;
  return { path: renderPath(path), found: 'unknown key', expected, ...help, origin: placeOf(path, 'key') };
}

function expectation(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return issue.message.startsWith('Invalid input')
        ? (TYPE_NAMES[issue.expected] ?? issue.expected)
        : issue.message;
    case 'invalid_value':
      return issue.values.length === 1 ? String(issue.values[0]) : `one of ${issue.values.join(', ')}`;
    case 'invalid_union':
      return 'options' in issue && Array.isArray(issue.options)
        ? `one of ${issue.options.join(', ')}`
        : issue.message;
    case 'too_small':
      return `at least ${issue.minimum}${countUnit(issue.origin)}`;
    case 'too_big':
      return `at most ${issue.maximum}${countUnit(issue.origin)}`;
    default:
      return issue.message;
  }
}

function countUnit(origin: string): string {
  if (origin === 'string') return ' characters';
  return origin === 'array' ? ' entries' : '';
}

function isRecord(value: unknown): value is Record<PathSegment, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const child of Object.values(value)) deepFreeze(child);
  }
  return value;
}
