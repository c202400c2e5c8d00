import { readFileSync } from 'node:fs';

type Schema = Record<string, unknown>;

const ROOT = JSON.parse(readFileSync(new URL('fixtures/responses.schema.json', import.meta.url), 'utf8')) as {
  $defs: Record<string, Schema>;
};

/**
 * Checks a value against one definition of OpenAI's published schema and returns the first problem. `oneOf` counts as
 * `anyOf`: its branches overlap for the most ordinary messages.
 */
export function schemaProblem(value: unknown, definition: string): string | null {
  return check(value, ROOT.$defs[definition] ?? {}, definition);
}

function check(value: unknown, schema: Schema, at: string): string | null {
  if (typeof schema.$ref === 'string') {
    return check(value, ROOT.$defs[schema.$ref.replace('#/$defs/', '')] ?? {}, at);
  }
  for (const part of list(schema.allOf)) {
    const problem = check(value, part, at);
    if (problem !== null) return problem;
  }
  const branches = [...list(schema.anyOf), ...list(schema.oneOf)];
  if (branches.length > 0) {
    const problems = branches
      .filter((branch) => mayBe(value, branch))
      .map((branch) => check(value, branch, at));
    if (!problems.includes(null)) return `${at}: no branch fits (${problems.join(' | ')})`;
  }
  if (Array.isArray(schema.enum) && !schema.enum.includes(value))
    return `${at}: ${JSON.stringify(value)} not in enum`;
  if (schema.type !== undefined && !hasType(value, schema.type))
    return `${at}: not ${JSON.stringify(schema.type)}`;
  if (Array.isArray(value) && schema.items !== undefined) {
    for (const [index, item] of value.entries()) {
      const problem = check(item, schema.items as Schema, `${at}[${index}]`);
      if (problem !== null) return problem;
    }
  }
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? checkObject(value, schema, at)
    : null;
}

/** Branches for another `type` would only clutter the report. */
function mayBe(value: unknown, branch: Schema): boolean {
  const schema =
    typeof branch.$ref === 'string' ? (ROOT.$defs[branch.$ref.replace('#/$defs/', '')] ?? {}) : branch;
  const types = (schema.properties as Record<string, Schema> | undefined)?.type?.enum;
  return !Array.isArray(types) || types.includes((value as { type?: unknown } | null)?.type);
}

function checkObject(value: object, schema: Schema, at: string): string | null {
  for (const key of (schema.required as string[] | undefined) ?? []) {
    if (!(key in value)) return `${at}: no ${key}`;
  }
  const properties = (schema.properties ?? {}) as Record<string, Schema>;
  for (const [key, item] of Object.entries(value)) {
    const property = properties[key];
    const problem = property === undefined ? null : check(item, property, `${at}.${key}`);
    if (problem !== null) return problem;
  }
  return null;
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
