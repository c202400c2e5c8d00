/** Writes docs/api.md, the reference of the API, from the comments of the .proto files. */
import { fileURLToPath } from 'node:url';
// Brings descriptor.proto, which protobufjs has but does not find by itself.
import '@grpc/proto-loader';
import protobuf from 'protobufjs';
import { write } from './write.ts';

const PROTO = fileURLToPath(new URL('../../proto/', import.meta.url));
const PACKAGE = 'responses.gateway.v1';
/** In the order in which a reader wants them; others follow by name. */
const FIRST = ['service', 'session', 'event', 'unary', 'create', 'items', 'content', 'tools', 'settings'];
/** How fields map to JSON, for the translator alone. */
const HIDDEN = new Set(['options']);

const namespace = load();
write({ 'docs/api.md': reference() });

function load(): protobuf.Namespace {
  const root = new protobuf.Root();
  const resolve = root.resolvePath.bind(root);
  root.resolvePath = (origin, target) =>
    target.startsWith('responses/') ? `${PROTO}${target}` : (resolve(origin, target) ?? target);
  root.loadSync(['responses/gateway/v1/service.proto'], { keepCase: true, alternateCommentMode: true });
  root.resolveAll();
  const found = root.lookup(PACKAGE);
  if (!(found instanceof protobuf.Namespace)) throw new Error(`no package ${PACKAGE}`);
  return found;
}

function reference(): string {
  const byFile = Map.groupBy(namespace.nestedArray, fileOf);
  const files = [...byFile.keys()].filter((file) => !HIDDEN.has(file)).sort(byReading);
  return [
    '# API reference',
    '',
    'Written by `npm run generate` from the comments of `proto/responses/gateway/v1`; do not edit. The package is',
    `\`${PACKAGE}\`. What the fields are called in the upstream's JSON is in [mapping.md](mapping.md), errors are in`,
    '[errors.md](errors.md).',
    '',
    ...files.flatMap((file) => [
      `## ${file}.proto`,
      '',
      ...(byFile.get(file) ?? []).filter((object) => !object.name.startsWith('(')).flatMap(section),
    ]),
  ].join('\n');
}

function section(object: protobuf.ReflectionObject): readonly string[] {
  const title = [`### ${object.name}`, '', ...paragraphs(object.comment)];
  if (object instanceof protobuf.Service)
    return [...title, ...table(['call', 'request', 'answer', ''], object.methodsArray.map(methodRow))];
  if (object instanceof protobuf.Enum)
    return [...title, ...table(['value', 'number', ''], Object.entries(object.values).map(valueRow(object)))];
  if (object instanceof protobuf.Type)
    return [
      ...title,
      ...table(['field', 'type', 'number', ''], object.fieldsArray.map(fieldRow)),
      ...object.nestedArray.flatMap(section),
    ];
  return [];
}

function methodRow(method: protobuf.Method): readonly string[] {
  const type = (name: string, stream: boolean | undefined) =>
    `${stream === true ? 'stream of ' : ''}${link(name)}`;
  return [
    `\`${method.name}\``,
    type(method.requestType, method.requestStream),
    type(method.responseType, method.responseStream),
    cell(method.comment),
  ];
}

function valueRow(type: protobuf.Enum): (entry: [string, number]) => readonly string[] {
  return ([name, number]) => [`\`${name}\``, String(number), cell(type.comments[name] ?? null)];
}

function fieldRow(field: protobuf.Field): readonly string[] {
  const union = field.partOf;
  const one = union !== null && !union.name.startsWith('_') ? `One of \`${union.name}\`. ` : '';
  return [`\`${field.name}\``, typeOf(field), String(field.id), one + cell(field.comment)];
}

function typeOf(field: protobuf.Field): string {
  if (field instanceof protobuf.MapField) return `map of ${link(field.keyType)} to ${link(field.type)}`;
  if (field.repeated) return `list of ${link(field.type)}`;
  const optional = field.getOption('proto3_optional') === true ? ', optional' : '';
  return `${link(field.type)}${optional}`;
}

function link(type: string): string {
  const name = type.replace(`.${PACKAGE}.`, '');
  const object = namespace.get(name);
  return object === null || HIDDEN.has(fileOf(object))
    ? `\`${name}\``
    : `[\`${name}\`](#${name.toLowerCase()})`;
}

/** Markdown already: blank lines and numbered lists are kept. */
function paragraphs(comment: string | null): readonly string[] {
  if (comment === null) return [];
  const lines = comment.split('\n');
  return [...lines.map(escaped), ''];
}

function cell(comment: string | null): string {
  return escaped((comment ?? '').replaceAll(/\s*\n\s*/g, ' ')).replaceAll('|', '\\|');
}

function escaped(text: string): string {
  return text.replaceAll('<', '&lt;');
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  if (rows.length === 0) return [];
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), `|${'---|'.repeat(head.length)}`, ...rows.map(line), ''];
}

function fileOf(object: protobuf.ReflectionObject): string {
  return (object.filename ?? '').split('/').at(-1)?.replace('.proto', '') ?? '';
}

function byReading(a: string, b: string): number {
  const place = (name: string) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  return place(a) - place(b) || a.localeCompare(b);
}
