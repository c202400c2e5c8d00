import { readFileSync } from 'node:fs';

type Schema = Record<string, unknown>;

type Definitions = Readonly<Record<string, Schema>>;

const OPENAI = definitionsOf('../translate/fixtures/responses.schema.json');
const OPEN_RESPONSES = definitionsOf('fixtures/open-responses.schema.json');

/**
 * Checks a value against one definition of OpenAI's published schema and returns the first problem. `oneOf` counts as
 * `anyOf`: its branches overlap for the most ordinary messages.
 */
export function schemaProblem(value: unknown, definition: string): string | null {
  return new Check(OPENAI).value(value, OPENAI[definition] ?? {}, definition);
}

/** The same against the models of the Open Responses specification. */
export function openResponsesProblem(value: unknown, definition: string): string | null {
  const schema = OPEN_RESPONSES[definition];
  if (schema === undefined) return `${definition} is not of the specification`;
  return new Check(OPEN_RESPONSES).value(value, schema, definition);
}

/** The model of an event of the specification; undefined: it has none. */
export function openResponsesEvent(type: string): string | undefined {
  return Object.keys(OPEN_RESPONSES).find((name) => {
    if (!name.endsWith('StreamingEvent')) return false;
    const { properties } = OPEN_RESPONSES[name] as { properties: { type: Schema } };
    return followed(properties.type, OPEN_RESPONSES).enum?.toString() === type;
  });
}

function definitionsOf(file: string): Definitions {
  const text = readFileSync(new URL(file, import.meta.url), 'utf8');
  return (JSON.parse(text) as { $defs: Definitions }).$defs;
}

function followed(schema: Schema, all: Definitions): Schema {
  return typeof schema.$ref === 'string' ? (all[schema.$ref.replace('#/$defs/', '')] ?? {}) : schema;
}

class Check {
  readonly #all: Definitions;

  constructor(all: Definitions) {
    this.#all = all;
  }

  value(value: unknown, schema: Schema, at: string): string | null {
    if (typeof schema.$ref === 'string') return this.value(value, followed(schema, this.#all), at);
    for (const part of list(schema.allOf)) {
      const problem = this.value(value, part, at);
      if (problem !== null) return problem;
    }
    const branches = [...list(schema.anyOf), ...list(schema.oneOf)];
    if (branches.length > 0) {
      const problems = branches
        .filter((branch) => this.#mayBe(value, branch))
        .map((branch) => this.value(value, branch, at));
      if (!problems.includes(null)) return `${at}: no branch fits (${problems.join(' | ')})`;
    }
    if (schema.const !== undefined && schema.const !== value)
      return `${at}: ${JSON.stringify(value)} is not ${JSON.stringify(schema.const)}`;
    if (Array.isArray(schema.enum) && !schema.enum.includes(value))
      return `${at}: ${JSON.stringify(value)} not in enum`;
    if (schema.type !== undefined && !hasType(value, schema.type))
      return `${at}: not ${JSON.stringify(schema.type)}`;
    if (Array.isArray(value) && schema.items !== undefined) {
      for (const [index, item] of value.entries()) {
        const problem = this.value(item, schema.items as Schema, `${at}[${index}]`);
        if (problem !== null) return problem;
      }
    }
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? this.#object(value, schema, at)
      : null;
  }

  /** Branches for another `type` would only clutter the report. */
  #mayBe(value: unknown, branch: Schema): boolean {
    const schema = followed(branch, this.#all);
    const type = (schema.properties as Record<string, Schema> | undefined)?.type;
    const of = type === undefined ? undefined : followed(type, this.#all);
    const types = of?.enum ?? (of?.const === undefined ? undefined : [of.const]);
    return !Array.isArray(types) || types.includes((value as { type?: unknown } | null)?.type);
  }

  #object(value: object, schema: Schema, at: string): string | null {
    for (const key of (schema.required as string[] | undefined) ?? []) {
      if (!(key in value)) return `${at}: no ${key}`;
    }
    const properties = (schema.properties ?? {}) as Record<string, Schema>;
    for (const [key, item] of Object.entries(value)) {
      const property = properties[key];
      const problem = property === undefined ? null : this.value(item, property, `${at}.${key}`);
      if (problem !== null) return problem;
    }
    return null;
  }
}

function list(value: unknown): Schema[] {
  return Array.isArray(value) ? (value as Schema[]) : [];
}

function hasType(value: unknown, type: unknown): boolean {
  if (Array.isArray(type)) return type.some((one) => hasType(value, one));
  if (type === 'null') return value === null;
  if (type === 'array') return Array.isArray(value);
  if (type === 'integer') return Number.isInteger(value);
  if (type === 'object') return typeof value === 'object' && value !== null && !Array.isArray(value);
  return typeof value === type;
}
