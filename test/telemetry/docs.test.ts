import { existsSync, globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { renderMetricsDoc } from '../../src/telemetry/metrics-doc.ts';
import { METRICS, type MetricFacts, typeOf } from '../../src/telemetry/metrics-table.ts';
import { prometheusName } from '../../src/telemetry/prometheus-names.ts';

const read = (name: string): string => readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8');

describe('docs/metrics.md', () => {
  it('is what the table says (npm run generate)', () => {
    expect(read('metrics.md')).toBe(renderMetricsDoc());
  });

  it('has every metric, and no other', () => {
    const headings = [...read('metrics.md').matchAll(/^### `(.+)`$/gm)].map((match) => match[1]);
    expect(headings.toSorted()).toEqual(Object.keys(METRICS).toSorted());
  });
});

describe('docs/operations.md', () => {
  it('says what to do about each alert, and about no other', () => {
    const alerts = readFileSync(new URL('../../deploy/alerts.yaml', import.meta.url), 'utf8');
    const shipped = [...alerts.matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
    const told = [...read('operations.md').matchAll(/^\| `([A-Z][A-Za-z]+)` \| .+ \|$/gm)].map(
      ([, name]) => name,
    );
    expect(told.toSorted()).toEqual(shipped.toSorted());
  });

  it('names only metrics that exist', () => {
    const known = new Set(
      Object.entries<MetricFacts>(METRICS).map(([name, { kind, unit }]) =>
        prometheusName(name, typeOf(kind), unit),
      ),
    );
    const named = read('operations.md').matchAll(
      /\b((?:responses_gateway|gen_ai|nodejs|v8js|process)_[a-z0-9_]+)/g,
    );
    const unknown = [...named]
      .map((match) => match[1] ?? '')
      .filter((name) => !known.has(name.replace(/_(?:bucket|sum|count)$/, '')) && !known.has(name));
    expect(unknown.filter((name) => !LABELS.has(name))).toEqual([]);
  });
});

describe('the names in docs/operations.md', () => {
  const text = read('operations.md');
  const named = [...text.matchAll(/`([^`\n]+)`/g)].map(([, name = '']) => name);
  const settings = new Set(
    [...read('configuration.md').matchAll(/`([a-z_]+(?:\.[a-z_[\]]+)*)`/g)].map(([, name]) => name),
  );
  const source = globSync('../../src/**/*.ts', { cwd: import.meta.dirname })
    .map((file) => readFileSync(join(import.meta.dirname, file), 'utf8'))
    .join('\n');
  const knows = (word: string): boolean => new RegExp(`\\b${word}\\b`).test(source);

  it('of settings are settings', () => {
    const roots = new Set([...settings].map((name) => name?.split('.')[0]));
    const dotted = named
      .map((name) => name.replace(/: .*$/, '').replace(/\.\*$/, '').replace('tenants[]', 'tenants'))
      .filter((name) => /^[a-z_]+(?:\.[a-z_]+)+$/.test(name) && roots.has(name.split('.')[0]));
    expect(dotted.length).toBeGreaterThan(30);
    const keys = new Set(
      [...settings].flatMap((name) => [
        name,
        name?.replace('[]', ''),
        name?.split('.').slice(0, -1).join('.'),
      ]),
    );
    const unknown = dotted.filter(
      (name) => !keys.has(name) && !source.includes(`'${name}'`) && name !== 'grpc.health.v1',
    );
    expect(unknown).toEqual([]);
  });

  it('of lines, fields, codes and reasons are words of the program', () => {
    const words = named.filter((name) => /^(?:[a-z]+(?:_[a-z]+)+|[A-Z]+(?:_[A-Z]+)+)$/.test(name));
    const ours = words.filter(
      (name) =>
        !/^(?:responses_gateway|nodejs|OTEL|NODE)_/.test(name) &&
        name !== 'NOT_SERVING' &&
        name !== 'execute_tool',
    );
    expect(ours.length).toBeGreaterThan(25);
    expect(ours.filter((word) => !knows(word))).toEqual([]);
  });

  it('of environment variables are read', () => {
    const variables = named
      .filter((name) => /^OTEL_[A-Z_]+\*?$/.test(name))
      .map((name) => name.replace(/_?\*$/, ''));
    // The signal's name stands in between, or the SDK's exporters read it themselves.
    const parts = variables.map((name) =>
      name.replace('OTEL_', '').replace(/^(?:TRACES|METRICS|LOGS)_EXPORTER$/, 'EXPORTER'),
    );
    const unread = parts.filter((part) => !source.includes(part));
    expect(unread.filter((part) => part !== 'RESOURCE_ATTRIBUTES')).toEqual([]);
  });

  it('of files are files', () => {
    const files = named.filter((name) => /^(?:findings|deploy|docs|scripts)\/[\w./-]+$/.test(name));
    for (const file of [
      ...files,
      ...[...text.matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, path]) => `docs/${path}`),
    ])
      expect(existsSync(new URL(`../../${file}`, import.meta.url)), file).toBe(true);
  });
});

const LABELS = new Set(['gen_ai_token_type', 'gen_ai_provider_name', 'gen_ai_request_model']);
