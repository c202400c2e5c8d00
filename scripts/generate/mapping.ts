/** Writes docs/mapping.md, and the same names as types for the drift test. */
import protobuf from 'protobufjs';
import { loadApi, PACKAGE } from '../../src/translate/api.ts';
import type { Field } from '../../src/translate/schema.ts';
import { write } from './write.ts';

const api = loadApi();

interface Row {
  readonly kind: string;
  readonly field: string;
  readonly message: string;
  readonly since: number;
}

function rowsOf(union: string): Row[] {
  const fields = api.plan(union).slots.flatMap((slot) => slot.fields);
  return fields.flatMap((field) => field.kinds.map((kind) => rowOf(field, kind))).sort(byKind);
}

function rowOf(field: Field, kind: string): Row {
  return { kind, field: field.name, message: field.message().type.name, since: field.since };
}

function byKind(a: Row, b: Row): number {
  return a.kind < b.kind ? -1 : a.kind > b.kind ? 1 : 0;
}

function table(title: string, union: string, column: string): string {
  const rows = rowsOf(union).map(
    (row) => `| \`${row.kind}\` | \`${row.field}\` | \`${row.message}\` | ${row.since} |`,
  );
  return [
    `## ${title}`,
    '',
    `| ${column} | field of \`${union}\` | message | revision |`,
    '|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

function keysOf(message: string): string[] {
  return api
    .plan(message)
    .slots.flatMap((slot) => slot.fields.map((field) => ({ key: slot.key, since: field.since })))
    .filter(({ key }) => key !== 'extra_json')
    .map(({ key }) => key);
}

function mapping(): string {
  return [
    '# What the upstream says, and where it is in the API',
    '',
    'Written by `npm run generate` from the descriptors; do not edit.',
    '',
    `The schema's revision is **${api.schemaRevision}**. A client tells the revision that it was built with in`,
    '`Open.schema_revision`; what is newer comes as raw JSON in `Event.json`, and a client that sends 0 gets everything',
    'typed. Kinds that are not listed are never dropped: events come with their JSON, items and parts in the `json` arm of',
    'their union, and the event that holds them carries its exact JSON too.',
    '',
    table('Events', 'Event', '`type`'),
    table('Input items', 'InputItem', '`type`'),
    table('Output items', 'OutputItem', '`type`'),
    table('Content parts', 'ContentPart', '`type`'),
    table('Annotations', 'Annotation', '`type`'),
    table('Tools', 'Tool', '`type`'),
    table('Tool choices', 'ToolChoice', '`type`'),
    table('Text formats', 'TextFormat', '`type`'),
    '## What has no typed place',
    '',
    'An event is typed as far as its message goes; where the message cannot say all of it, `Event.json` carries the exact',
    'bytes as well. Null and absent count as the same, and so do spellings of one number (`1.0` and `1`).',
    '',
    '| the JSON has | the typed payload | `json` |',
    '|---|---|---|',
    '| an unknown member, at any depth | the rest | yes |',
    '| an unknown kind of item, part, tool, … | the `json` arm of its union | yes |',
    '| another JSON type than the field | without the field | yes |',
    '| a number that the field cannot hold (`1e400`, 20 digits, `4.0` for an integer, `-0` for one) | without the field | yes |',
    '| half a surrogate pair (`\\ud83d` alone) | U+FFFD in its place | yes |',
    '| a required member left out or null, an optional list that is empty | the rest | yes |',
    '| a typed key twice in one object | none | yes |',
    '| a key twice in a map, `metadata` say | the last one, as JSON.parse has it | no |',
    '| `__proto__` and the like | as any other key | as any other key |',
    '| unknown nesting, up to 100,000 deep | the rest | yes |',
    '| an unknown event type | none | yes |',
    '',
    'Frames that are no JSON object in UTF-8 with a string `type`, or are nested deeper, end the turns of their link.',
    'In what clients send, raw JSON may be nested 256 deep and keys of `extra_json` may not repeat.',
    '',
    '## Fields that came after revision 1',
    '',
    '| message | field | revision |',
    '|---|---|---|',
    ...laterFields(),
    '',
  ].join('\n');
}

function laterFields(): string[] {
  const namespace = api.root.lookup(PACKAGE);
  if (!(namespace instanceof protobuf.Namespace)) throw new Error(`no package ${PACKAGE}`);
  const types = namespace.nestedArray
    .filter((node) => node instanceof protobuf.Type)
    .map((type) => type.name);
  return types.sort().flatMap((name) =>
    api
      .plan(name)
      .slots.flatMap((slot) => slot.fields)
      .filter((field) => field.since > 1)
      .map((field) => `| \`${name}\` | \`${field.name}\` | ${field.since} |`),
  );
}

function names(): string {
  const list = (values: Iterable<string>) => [...new Set(values)].map((value) => `  | '${value}'`).join('\n');
  const kinds = (union: string) => list(rowsOf(union).map((row) => row.kind));
  return [
    '/** What the proto knows, as types. Written by `npm run generate`; do not edit. */',
    `export type EventType =\n${kinds('Event')};`,
    `export type InputItemType =\n${kinds('InputItem')};`,
    `export type OutputItemType =\n${kinds('OutputItem')};`,
    `export type ToolType =\n${kinds('Tool')};`,
    `export type CreateField =\n${list(keysOf('CreateBody'))};`,
    `export type CompactField =\n${list(keysOf('CompactBody'))};`,
    `export type ResponseField =\n${list(keysOf('Response'))};`,
    '',
  ].join('\n');
}

write({ 'docs/mapping.md': mapping(), 'test/translate/fixtures/proto-names.ts': names() });
