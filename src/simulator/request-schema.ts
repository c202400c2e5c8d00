import { type ApiError, invalidRequest, missingParameter } from './errors.ts';
import { describeType, isObject, type JsonObject } from './json.ts';
import document from './request.schema.json' with { type: 'json' };

/** A request, or a message of a WebSocket, that the schema knows. */
export type RequestKind = 'Create' | 'Compact' | 'Count' | 'Steer' | 'Inject';

/** As much of JSON Schema as the document uses. */
interface Schema {
  readonly $ref?: string;
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly oneOf?: readonly Schema[];
  readonly anyOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | Schema;
  readonly propertyNames?: Schema;
  readonly items?: Schema;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly maxProperties?: number;
}

/** What is wrong, and how far inside: of several forms that a value could have, the one that goes furthest is meant. */
interface Finding {
  readonly error: ApiError;
  readonly depth: number;
}

/**
 * The first thing that is wrong with a request by OpenAI's published schema, in the words and with the code of the live
 * API; null if nothing is. Null stands for an optional field that is not given. `request.schema.json` is generated.
 */
export function requestProblem(
  value: JsonObject,
  kind: RequestKind,
  unknownFields: 'ignore' | 'reject' = 'ignore',
): ApiError | null {
  return new Check(unknownFields === 'reject').object(value, definition(kind), '', 0)?.error ?? null;
}

class Check {
  readonly #rejectsUnknown: boolean;

  constructor(rejectsUnknown: boolean) {
    this.#rejectsUnknown = rejectsUnknown;
  }

  value(value: unknown, schema: Schema, param: string, depth: number): Finding | null {
    const forms = formsOf(schema);
    const fitting = forms.filter((form) => hasType(value, form.type));
    if (fitting.length === 0) return { error: invalidType(param, forms, value), depth };
    const [only] = fitting;
    if (isObject(value) && fitting.length > 1) return this.#choice(value, fitting, param, depth);
    if (typeof value === 'string' && fitting.length > 1)
      return this.#string(value, union(fitting), param, depth);
    return only === undefined ? null : this.#form(value, only, param, depth);
  }

  object(value: JsonObject, schema: Schema, param: string, depth: number): Finding | null {
    const at = (key: string): string => (param === '' ? key : `${param}.${key}`);
    const { properties, additionalProperties } = schema;
    const required = schema.required ?? [];
    const missing = required.find((key) => value[key] === undefined);
    if (missing !== undefined) return { error: missingParameter(at(missing)), depth: depth + 1 };
    const keys = Object.keys(value);
    if (schema.maxProperties !== undefined && keys.length > schema.maxProperties)
      return { error: tooManyProperties(param, schema.maxProperties, keys.length), depth };
    for (const key of keys) {
      const inner = value[key];
      const known = properties !== undefined && Object.hasOwn(properties, key) ? properties[key] : undefined;
      const longest = schema.propertyNames?.maxLength;
      if (longest !== undefined && key.length > longest)
        return { error: tooLong(at(key), longest, key.length), depth: depth + 1 };
      const rule = known ?? (typeof additionalProperties === 'object' ? additionalProperties : undefined);
      if (rule === undefined) {
        const isUnknown =
          additionalProperties === false || (this.#rejectsUnknown && properties !== undefined);
        if (isUnknown) return { error: unknownParameter(at(key)), depth: depth + 1 };
      } else if (inner !== undefined && (inner !== null || required.includes(key))) {
        const found = this.value(inner, rule, at(key), depth + 1);
        if (found !== null) return found;
      }
    }
    return null;
  }

  #form(value: unknown, schema: Schema, param: string, depth: number): Finding | null {
    if (isObject(value)) return this.object(value, schema, param, depth);
    if (Array.isArray(value)) return this.#list(value, schema, param, depth);
    if (typeof value === 'number') return this.#number(value, schema, param, depth);
    if (typeof value === 'string') return this.#string(value, schema, param, depth);
    return null;
  }

  /** The form that an object is meant to have: its `type` says so, and the role of a message. */
  #choice(value: JsonObject, forms: readonly Schema[], param: string, depth: number): Finding | null {
    let candidates = forms;
    for (const key of ['type', 'role']) {
      const given = value[key] ?? undefined;
      if (given === undefined) candidates = candidates.filter((form) => !isRequired(form, key));
      else {
        const told = candidates.filter((form) => literals(form, key) !== undefined);
        const same = told.filter((form) => literals(form, key)?.includes(given));
        if (told.length > 0 && same.length === 0) {
          const supported = told.flatMap((form) => literals(form, key) ?? []);
          return { error: invalidValue(`${param}.${key}`, given, supported), depth: depth + 1 };
        }
        if (told.length > 0) candidates = same;
      }
    }
    // Without a type, whatever it has most of.
    const present = (form: Schema): number => (form.required ?? []).filter((key) => key in value).length;
    const most = Math.max(0, ...candidates.map(present));
    if (value['type'] == null && most === 0)
      return { error: missingParameter(`${param}.type`), depth: depth + 1 };
    if (value['type'] == null) candidates = candidates.filter((form) => present(form) === most);
    let furthest: Finding | null = null;
    for (const form of candidates) {
      const found = this.object(value, form, param, depth);
      if (found === null) return null;
      if (furthest === null || found.depth > furthest.depth) furthest = found;
    }
    return furthest;
  }

  #list(value: readonly unknown[], schema: Schema, param: string, depth: number): Finding | null {
    const { items, minItems = 0, maxItems = Number.POSITIVE_INFINITY } = schema;
    if (value.length < minItems || value.length > maxItems)
      return { error: wrongLength(param, value.length, minItems, maxItems), depth };
    if (items === undefined) return null;
    for (const [index, item] of value.entries()) {
      const found = this.value(item, items, `${param}[${index}]`, depth + 1);
      if (found !== null) return found;
    }
    return null;
  }

  #number(value: number, schema: Schema, param: string, depth: number): Finding | null {
    const { minimum = Number.NEGATIVE_INFINITY, maximum = Number.POSITIVE_INFINITY } = schema;
    const kind = schema.type === 'integer' ? 'integer' : 'decimal';
    if (value < minimum) return { error: outOfRange(param, kind, 'below minimum', minimum, value), depth };
    if (value > maximum) return { error: outOfRange(param, kind, 'above maximum', maximum, value), depth };
    return null;
  }

  #string(value: string, schema: Schema, param: string, depth: number): Finding | null {
    if (schema.enum !== undefined && !schema.enum.includes(value))
      return { error: invalidValue(param, value, schema.enum), depth };
    const { minLength = 0, maxLength = Number.POSITIVE_INFINITY, pattern } = schema;
    if (value.length > maxLength) return { error: tooLong(param, maxLength, value.length), depth };
    if (value.length < minLength) {
      const message = `Invalid '${param}': empty string. Expected a string with minimum length ${minLength}, but got an empty string instead.`;
      return { error: invalidRequest(message, param, 'empty_string'), depth };
    }
    if (pattern !== undefined && !new RegExp(pattern).test(value)) {
      const message = `Invalid '${param}': string does not match pattern. Expected a string that matches the pattern '${pattern}'.`;
      return { error: invalidRequest(message, param, 'invalid_value'), depth };
    }
    return null;
  }
}

const DEFINITIONS = document.$defs as Readonly<Record<string, Schema>>;

function definition(name: string): Schema {
  const found = DEFINITIONS[name];
  if (found === undefined) throw new Error(`request.schema.json has no ${name}`);
  return found.$ref === undefined ? found : definition(found.$ref.slice(REF.length));
}

const REF = '#/$defs/';
const forms = new WeakMap<Schema, readonly Schema[]>();

/** The forms that a value may have: unions flat, references followed. */
function formsOf(schema: Schema): readonly Schema[] {
  const known = forms.get(schema);
  if (known !== undefined) return known;
  const choices = [...(schema.oneOf ?? []), ...(schema.anyOf ?? [])];
  const flat =
    schema.$ref !== undefined
      ? formsOf(definition(schema.$ref.slice(REF.length)))
      : choices.length > 0
        ? choices.flatMap(formsOf)
        : [schema];
  forms.set(schema, flat);
  return flat;
}

/** Several kinds of strings: any of their values, or any string. */
function union(strings: readonly Schema[]): Schema {
  const open = strings.find((form) => form.enum === undefined);
  return open ?? { type: 'string', enum: strings.flatMap((form) => form.enum ?? []) };
}

function isRequired(form: Schema, key: string): boolean {
  return form.required?.includes(key) ?? false;
}

/** The values that tell a form from its siblings. */
function literals(form: Schema, key: string): readonly unknown[] | undefined {
  const of = form.properties?.[key];
  if (of === undefined) return undefined;
  const values = formsOf(of).flatMap((each) => each.enum ?? []);
  return values.length > 0 ? values : undefined;
}

function hasType(value: unknown, type: string | undefined): boolean {
  switch (type) {
    case undefined:
      return true;
    case 'null':
      return value === null;
    case 'array':
      return Array.isArray(value);
    case 'object':
      return isObject(value);
    case 'integer':
      return Number.isInteger(value);
    default:
      return typeof value === type;
  }
}

const NAMES: Readonly<Record<string, string>> = {
  string: 'string',
  boolean: 'boolean',
  integer: 'integer',
  number: 'decimal number',
  object: 'object',
};

function invalidType(param: string, allowed: readonly Schema[], got: unknown): ApiError {
  const names = [...new Set(allowed.map(nameOf).filter((name) => name !== undefined))];
  const [first = 'value'] = names;
  const article = /^[aeiou]/.test(first) ? 'an' : 'a';
  const expected = names.length > 1 ? `one of ${article} ${names.join(' or ')}` : `${article} ${first}`;
  return invalidRequest(
    `Invalid type for '${param}': expected ${expected}, but got ${describeType(got)} instead.`,
    param,
    'invalid_type',
  );
}

function nameOf({ type, items }: Schema): string | undefined {
  if (type !== 'array') return NAMES[type ?? ''];
  const [of] = items === undefined ? [] : formsOf(items);
  return of?.type === undefined ? 'array' : `array of ${NAMES[of.type] ?? 'value'}s`;
}

function invalidValue(param: string, got: unknown, supported: readonly unknown[]): ApiError {
  const known = [...new Set(supported)].map((value) => `'${String(value)}'`);
  const list = known.length > 1 ? `${known.slice(0, -1).join(', ')}, and ${known.at(-1)}` : known.join('');
  const found = typeof got === 'string' ? `'${got.slice(0, 64)}'` : describeType(got);
  return invalidRequest(`Invalid value: ${found}. Supported values are: ${list}.`, param, 'invalid_value');
}

function outOfRange(
  param: string,
  kind: 'integer' | 'decimal',
  how: string,
  bound: number,
  got: number,
): ApiError {
  const isLow = how.startsWith('below');
  return invalidRequest(
    `Invalid '${param}': ${kind} ${how} value. Expected a value ${isLow ? '>=' : '<='} ${bound}, but got ${got} instead.`,
    param,
    `${kind}_${isLow ? 'below_min' : 'above_max'}_value`,
  );
}

function tooLong(param: string, longest: number, length: number): ApiError {
  return invalidRequest(
    `Invalid '${param}': string too long. Expected a string with maximum length ${longest}, but got a string with length ${length} instead.`,
    param,
    'string_above_max_length',
  );
}

function wrongLength(param: string, length: number, least: number, most: number): ApiError {
  const isShort = length < least;
  const expected = isShort ? `minimum length ${least}` : `maximum length ${most}`;
  return invalidRequest(
    `Invalid '${param}': array too ${isShort ? 'short' : 'long'}. Expected an array with ${expected}, but got an array with length ${length} instead.`,
    param,
    isShort ? 'array_below_min_length' : 'array_above_max_length',
  );
}

function tooManyProperties(param: string, most: number, count: number): ApiError {
  return invalidRequest(
    `Invalid '${param}': too many properties. Expected an object with at most ${most} properties, but got an object with ${count} properties instead.`,
    param,
    'object_above_max_properties',
  );
}

export function unknownParameter(param: string): ApiError {
  return invalidRequest(`Unknown parameter: '${param}'.`, param, 'unknown_parameter');
}
