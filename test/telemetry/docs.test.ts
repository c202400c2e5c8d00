import { readFileSync } from 'node:fs';
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

const LABELS = new Set(['gen_ai_token_type', 'gen_ai_provider_name', 'gen_ai_request_model']);
