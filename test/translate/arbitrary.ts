/** fast-check arbitraries for a JSON Schema, as far as the upstream's uses the language. `oneOf` is `anyOf`. */
import fc from 'fast-check';

export interface Schema {
  readonly $ref?: string;
  readonly $defs?: Readonly<Record<string, Schema>>;
  readonly type?: string | readonly string[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly oneOf?: readonly Schema[];
  readonly anyOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | Schema;
  readonly minItems?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly pattern?: string;
}

type Tie = (name: string) => fc.Arbitrary<unknown>;

/** Keeps documents small: deeper than this, choices take their first arm and lists stay empty. */
const DEPTH = { depthSize: 'small', maxDepth: 6, withCrossShrink: true } as const;

export function arbitraries(root: Schema): Readonly<Record<string, fc.Arbitrary<unknown>>> {
  const { $defs = {} } = root;
  return fc.letrec<Record<string, unknown>>((tie) =>
    Object.fromEntries(
      Object.entries($defs).map(([name, schema]) => [name, of(flat(schema, $defs), tie as Tie)]),
    ),
  );
}

function of(schema: Schema, tie: Tie): fc.Arbitrary<unknown> {
  if (schema.$ref !== undefined) return tie(schema.$ref.replace('#/$defs/', ''));
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices !== undefined) return fc.oneof(DEPTH, ...choices.map((choice) => of(choice, tie)));
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  if (schema.properties !== undefined) return objectOf(schema.properties, schema.required ?? [], tie);
  if (schema.items !== undefined) {
    return fc.array(of(schema.items, tie), {
      minLength: schema.minItems ?? 0,
      maxLength: 3,
      depthIdentifier: 'list',
    });
  }
  return scalarOf(schema, tie);
}

/** `allOf` of objects as one object, because what one part requires another may define. */
function flat(schema: Schema, $defs: Readonly<Record<string, Schema>>): Schema {
  const target = $defs[schema.$ref?.replace('#/$defs/', '') ?? ''];
  if (target !== undefined && target.oneOf === undefined && target.anyOf === undefined)
    return flat(target, $defs);
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices !== undefined) {
    return { anyOf: choices.map((choice) => (choice.allOf === undefined ? choice : flat(choice, $defs))) };
  }
  if (schema.allOf === undefined) return schema;
  const parts = schema.allOf.map((part) => flat(part, $defs));
  return {
    properties: Object.assign({}, ...parts.map((part) => part.properties)) as Readonly<
      Record<string, Schema>
    >,
    required: parts.flatMap((part) => part.required ?? []),
  };
}

function objectOf(properties: Readonly<Record<string, Schema>>, required: readonly string[], tie: Tie) {
  const members = Object.entries(properties).map(([key, schema]) => [key, of(schema, tie)] as const);
  // A part of an `allOf` may require what only its siblings define.
  return fc.record(Object.fromEntries(members), {
    requiredKeys: required.filter((key) => key in properties),
  });
}

function scalarOf(schema: Schema, tie: Tie): fc.Arbitrary<unknown> {
  const [type] = [schema.type ?? 'any'].flat();
  const { minimum, maximum } = schema;
  switch (type) {
    case 'string':
      return stringOf(schema);
    case 'boolean':
      return fc.boolean();
    case 'null':
      return fc.constant(null);
    case 'integer': {
      const whole = { min: minimum ?? Number.MIN_SAFE_INTEGER, max: maximum ?? Number.MAX_SAFE_INTEGER };
      const small = { min: Math.max(whole.min, 0), max: Math.min(whole.max, 5_000) };
      return fc.oneof(
        { weight: 9, arbitrary: fc.integer(small) },
        { weight: 1, arbitrary: fc.integer(whole) },
      );
    }
    case 'number': {
      const range = { min: minimum ?? -Number.MAX_VALUE, max: maximum ?? Number.MAX_VALUE };
      return fc.oneof(fc.constant(Math.max(range.min, 1)), fc.double({ ...range, noNaN: true }));
    }
    case 'object': {
      const values = schema.additionalProperties;
      const value = typeof values === 'object' ? of(values, tie) : fc.jsonValue({ maxDepth: 2 });
      return fc.dictionary(fc.string({ maxLength: 8 }), value, { maxKeys: 3 });
    }
    default:
      return fc.jsonValue({ maxDepth: 2 });
  }
}

function stringOf({ pattern, minLength = 0, maxLength = 12 }: Schema): fc.Arbitrary<string> {
  if (pattern !== undefined) return fc.stringMatching(new RegExp(pattern)).map((text) => text.slice(0, 64));
  const length = { minLength, maxLength: Math.min(maxLength, minLength + 12) };
  // Graphemes bring escapes, multi-byte and astral characters; whole code points never halves of them.
  return fc.oneof(fc.string(length), fc.string({ ...length, unit: 'grapheme' }));
}
