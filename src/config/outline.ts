import * as z from 'zod';
import type { PathSegment } from './problems.ts';
import { configSchema } from './schema.ts';
import type { Leaf } from './sources.ts';

/** The part of JSON Schema that zod writes for our schema. */
export interface JsonSchema {
  readonly $schema?: string;
  readonly $id?: string;
  readonly title?: string;
  readonly description?: string;
  readonly type?: string;
  readonly default?: unknown;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly pattern?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly oneOf?: readonly JsonSchema[];
  readonly anyOf?: readonly JsonSchema[];
  readonly additionalProperties?: boolean | JsonSchema;
}

let cached: JsonSchema | undefined;

/** JSON Schema of the configuration file, derived from the zod schema. */
export function configOutline(): JsonSchema {
  cached ??= z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' }) as JsonSchema;
  return cached;
}

/** Every field that can be set by its own name; lists and free mappings count as one field. */
export function configLeaves(): readonly (Leaf & { readonly schema: JsonSchema })[] {
  return leavesOf(configOutline(), []);
}

/** The keys that may stand at a path, over all variants of a union. */
export function keysAt(path: readonly PathSegment[]): readonly string[] {
  let level: readonly JsonSchema[] = [configOutline()];
  for (const segment of path) {
    level = level.flatMap((schema) => {
      const next = typeof segment === 'number' ? schema.items : schema.properties?.[segment];
      return next === undefined ? [] : variants(next);
    });
  }
  return [...new Set(level.flatMap((schema) => Object.keys(schema.properties ?? {})))];
}

function leavesOf(schema: JsonSchema, path: readonly string[]): (Leaf & { readonly schema: JsonSchema })[] {
  if (schema.properties === undefined) {
    return [{ path, type: schema.type === 'string' ? 'string' : 'other', schema }];
  }
  return Object.entries(schema.properties).flatMap(([key, child]) => leavesOf(child, [...path, key]));
}

function variants(schema: JsonSchema): readonly JsonSchema[] {
  return schema.oneOf ?? schema.anyOf ?? [schema];
}
