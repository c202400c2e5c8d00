/** JSON Schemas of Standard Schemas (https://standardschema.dev), for instance zod's. */

/** A schema that checks values and has a JSON Schema: zod 4.2, and others of the Standard JSON Schema. */
export interface Schema<Output = unknown> {
  readonly '~standard': {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => Checked<Output> | Promise<Checked<Output>>;
    readonly types?: { readonly input: unknown; readonly output: Output } | undefined;
    readonly jsonSchema: {
      readonly input: (options: { readonly target: 'draft-2020-12' }) => Readonly<Record<string, unknown>>;
    };
  };
}

/** What `validate` of a Standard Schema says. */
export type Checked<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | {
      readonly issues: readonly {
        readonly message: string;
        readonly path?: readonly unknown[] | undefined;
      }[];
    };

export function isSchema(value: object): value is Schema {
  return '~standard' in value;
}

/** The JSON Schema of an object, closed, and whether it fits the upstream's strict mode. */
export function jsonSchemaOf(schema: Schema): {
  readonly json: Record<string, unknown>;
  readonly strict: boolean;
} {
  const standard = schema['~standard'];
  if (!standard.jsonSchema)
    throw new TypeError(`the schemas of ${standard.vendor} have no JSON Schema; use a newer version`);
  const { $schema: _, ...given } = standard.jsonSchema.input({ target: 'draft-2020-12' });
  // A copy: what the library gave may be its own.
  const json = structuredClone(given) as Record<string, unknown>;
  return { json, strict: closeObjects(json) };
}

/**
 * The JSON in `text`, checked.
 * @throws an Error that says what does not fit, in words for the model.
 */
export async function parseWith<Output>(schema: Schema<Output>, text: string): Promise<Output> {
  const checked = await schema['~standard'].validate(parseJson(text));
  if (!checked.issues) return checked.value;
  const said = checked.issues.map(({ message, path }) =>
    path?.length ? `${path.map(keyOf).join('.')}: ${message}` : message,
  );
  throw new Error(`the arguments do not fit the schema: ${said.join('; ')}`);
}

function keyOf(segment: unknown): string {
  return typeof segment === 'object' && segment !== null && 'key' in segment
    ? String(segment.key)
    : String(segment);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`the arguments are no JSON: ${(error as Error).message}`);
  }
}

/**
 * Closes objects that only list properties, as zod drops others anyway, and says whether the schema can be strict:
 * every object closed, every property required.
 */
function closeObjects(schema: unknown): boolean {
  if (Array.isArray(schema)) return schema.map(closeObjects).every(Boolean);
  if (typeof schema !== 'object' || schema === null) return true;
  const node = schema as Record<string, unknown>;
  let strict = true;
  if (node['type'] === 'object') {
    const properties = Object.keys((node['properties'] as object | undefined) ?? {});
    if (node['properties']) node['additionalProperties'] ??= false;
    const required = (node['required'] as string[] | undefined) ?? [];
    strict = node['additionalProperties'] === false && properties.every((name) => required.includes(name));
  }
  for (const key of ['items', 'prefixItems', 'anyOf', 'allOf', 'oneOf']) {
    if (key in node) strict = closeObjects(node[key]) && strict;
  }
  for (const key of ['properties', '$defs']) {
    const children = Object.values((node[key] as object | undefined) ?? {});
    for (const child of children) strict = closeObjects(child) && strict;
  }
  return strict;
}
