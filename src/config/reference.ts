import { configOutline, type JsonSchema } from './outline.ts';
import { environmentName } from './sources.ts';

/** The JSON Schema that editors use for the YAML file. */
export function renderJsonSchema(): string {
  const { $schema, ...schema } = configOutline();
  const titled = { $schema, title: 'Configuration of responses-gateway', ...schema };
  return `${JSON.stringify(titled, null, 2)}\n`;
}

/** docs/configuration.md, from the same schema. */
export function renderReference(): string {
  const sections = Object.entries(configOutline().properties ?? {});
  const plain = sections.filter(([, schema]) => !hasFields(schema));
  const structured = sections.filter(([, schema]) => hasFields(schema));
  return `${[
    HEAD,
    '## Top level',
    '',
    ...TABLE_HEAD,
    ...plain.map(([name, schema]) => row([name], schema)),
    ...structured.flatMap(([name, schema]) => ['', `## ${name}`, '', ...section(schema, [name])]),
  ].join('\n')}\n`;
}

const HEAD = `# Configuration

This page is generated from the schema by \`npm run generate\`.

A setting can stand in a YAML file (\`--config FILE\` or \`RESPONSES_GATEWAY_CONFIG\`), in the environment and on the
command line. Flag > environment > file > default. Nothing has to be set: without an upstream and without
\`OPENAI_API_KEY\` the gateway runs on its built-in simulator.

- In the environment, a field is called \`RESPONSES_GATEWAY_\` and its path in capitals with underscores. Lists and
  mappings are written there as in YAML: \`RESPONSES_GATEWAY_AUTH='[{ kind: none, force: true }]'\`.
- On the command line, \`--set PATH=VALUE\` reaches every field outside of lists, which are set whole; the most
  used have flags of their own (\`--help\`).
- Durations and sizes carry their unit: \`250ms\`, \`30s\`, \`1h30m\`; \`512KiB\`, \`8MiB\`, \`1GB\`. Bare numbers are refused.
- Unknown keys are errors. All problems are reported at once, with their line, and nothing starts (exit code 2).
- The configuration holds no secrets, only the names of environment variables and files that do.
- The standard \`OTEL_*\` variables are honoured and win over \`telemetry\`.
- \`responses-gateway check-config\` prints every value in force and where it comes from.
- Editors: \`# yaml-language-server: $schema=./node_modules/responses-gateway/config.schema.json\`
`;

const TABLE_HEAD = ['| field | type | default | meaning |', '|---|---|---|---|'];

function hasFields(schema: JsonSchema): boolean {
  return schema.properties !== undefined || entries(schema).length > 0;
}

function entries(schema: JsonSchema): readonly JsonSchema[] {
  if (schema.items === undefined) return [];
  return (schema.items.oneOf ?? [schema.items]).filter((variant) => variant.properties !== undefined);
}

function section(schema: JsonSchema, path: readonly string[]): string[] {
  const lines = schema.description === undefined ? [] : [schema.description, ''];
  if (schema.properties !== undefined) return [...lines, ...TABLE_HEAD, ...fieldRows(schema, path)];
  lines.push(`A list; in the environment \`${environmentName(path)}\`.`, '');
  for (const variant of entries(schema)) {
    const kind = variant.properties?.['kind']?.const;
    if (kind !== undefined) lines.push(`### kind: ${String(kind)}`, '');
    lines.push(...TABLE_HEAD, ...fieldRows(variant, [`${path.join('.')}[]`]), '');
  }
  return lines.slice(0, -1);
}

function fieldRows(schema: JsonSchema, path: readonly string[]): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const fieldPath = [...path, name];
    if (field.properties !== undefined) return fieldRows(field, fieldPath);
    const inner = entries(field).flatMap((variant) => fieldRows(variant, [...path, `${name}[]`]));
    return [row(fieldPath, field, schema.required?.includes(name)), ...inner];
  });
}

function row(path: readonly string[], schema: JsonSchema, required = false): string {
  const fallback = required
    ? '(required)'
    : schema.default === undefined
      ? ''
      : `\`${yamlLike(schema.default)}\``;
  const cells = [`\`${path.join('.')}\``, typeOf(schema), fallback, schema.description ?? ''];
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
}

function yamlLike(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function typeOf(schema: JsonSchema): string {
  if (schema.const !== undefined) return `\`${String(schema.const)}\``;
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${String(value)}\``).join(' ');
  const alternatives = schema.anyOf ?? schema.oneOf;
  if (alternatives !== undefined) return alternatives.map(typeOf).join(' or ');
  if (schema.pattern?.includes('KiB')) return 'size';
  if (schema.pattern?.includes('ms|')) return 'duration';
  switch (schema.type) {
    case 'string':
      return 'text';
    case 'integer':
      return `whole number${range(schema)}`;
    case 'number':
      return `number${range(schema)}`;
    case 'boolean':
      return '`true` `false`';
    case 'array':
      return `list of ${schema.items === undefined ? 'anything' : typeOf(schema.items)}`;
    case 'object':
      return schema.properties === undefined ? 'mapping' : 'entries';
    default:
      return schema.type ?? 'anything';
  }
}

function range({ minimum, maximum }: JsonSchema): string {
  const high = maximum === undefined || maximum >= Number.MAX_SAFE_INTEGER ? undefined : maximum;
  if (minimum !== undefined && high !== undefined) return `, ${minimum}–${high}`;
  return minimum === undefined ? '' : `, ≥ ${minimum}`;
}
