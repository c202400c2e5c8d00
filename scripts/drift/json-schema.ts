import { type Lazy, type Member, merge, NOTHING, type ObjectShape, type Shape, union } from './shape.ts';

interface Schema {
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
  readonly additionalProperties?: boolean | Schema;
}

/** Shapes of the definitions of a JSON Schema, by name. */
export function readJsonSchema(text: string): (name: string) => Shape {
  const root = JSON.parse(text) as Schema;
  return (name) => shapeOf({ $ref: `#/$defs/${name}` }, root, name);
}

function shapeOf(schema: Schema, root: Schema, name: string): Shape {
  if (schema.$ref !== undefined) {
    const target = schema.$ref.replace('#/$defs/', '');
    const found = root.$defs?.[target];
    if (found === undefined) throw new Error(`the schema has no ${schema.$ref}`);
    return shapeOf(found, root, target);
  }
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices !== undefined) return union(choices.map((choice) => shapeOf(choice, root, name)));
  if (schema.allOf !== undefined) {
    const objects = schema.allOf.flatMap((part) => shapeOf(part, root, name).objects);
    return { ...NOTHING, objects: [merge(name, objects)] };
  }
  const types = schema.type === undefined ? [] : [schema.type].flat();
  const literals = literalsOf(schema);
  const open = schema.properties === undefined && schema.items === undefined;
  return {
    strings: types.includes('string') || literals.length > 0,
    literals,
    numbers: types.includes('number') || types.includes('integer'),
    booleans: types.includes('boolean'),
    any: types.length === 0 && open && literals.length === 0,
    lists: schema.items === undefined ? [] : [lazy(schema.items, root, name)],
    maps: mapsOf(schema, types, root, name),
    objects: schema.properties === undefined ? [] : [objectOf(schema.properties, root, name)],
  };
}

function objectOf(properties: Readonly<Record<string, Schema>>, root: Schema, name: string): ObjectShape {
  const members = Object.entries(properties).map(([key, schema]): [string, Member] => [
    key,
    { shape: lazy(schema, root, `${name}.${key}`), literals: literalsOf(schema, root) },
  ]);
  return { name, members: new Map(members) };
}

function mapsOf(schema: Schema, types: readonly string[], root: Schema, name: string): Lazy[] {
  if (schema.properties !== undefined || !types.includes('object')) return [];
  const values = schema.additionalProperties;
  return [typeof values === 'object' ? lazy(values, root, name) : () => ({ ...NOTHING, any: true })];
}

function lazy(schema: Schema, root: Schema, name: string): Lazy {
  return () => shapeOf(schema, root, name);
}

function literalsOf(schema: Schema, root?: Schema): string[] {
  if (schema.$ref !== undefined && root !== undefined)
    return literalsOf(root.$defs?.[schema.$ref.replace('#/$defs/', '')] ?? {});
  const all = schema.enum ?? (schema.const === undefined ? [] : [schema.const]);
  return all.filter((value) => typeof value === 'string');
}
