import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { loadConfig } from '../../src/config/load.ts';

const DEPLOY = new URL('../../deploy/', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, DEPLOY), 'utf8');
/** docs/metrics.md is generated from the table of all metrics. */
const METRICS = new Set(
  [...readFileSync(new URL('../docs/metrics.md', DEPLOY), 'utf8').matchAll(/Prometheus: `(\w+)`/g)].map(
    ([, name]) => name,
  ),
);

/** Names of metrics in a PromQL expression, without what histograms append. */
function metricsIn(expression: string): string[] {
  const names =
    expression.match(/\b(?:responses_gateway|gen_ai|rpc|nodejs|process|v8js)_\w+(?=[{[)\s]|$)/g) ?? [];
  const labels = new Set(
    [...expression.matchAll(/(?:by|on|without) \(([^)]*)\)/g)].flatMap(([, list = '']) => list.split(/,\s*/)),
  );
  return names.filter((name) => !labels.has(name)).map((name) => name.replace(/_(?:bucket|count|sum)$/, ''));
}

describe('the dashboard and the alerts', () => {
  const dashboard = JSON.parse(read('grafana/dashboards/responses-gateway.json')) as {
    panels: { type: string; title: string; targets?: { expr: string }[] }[];
  };
  const panels = dashboard.panels.filter(({ type }) => type !== 'row');
  const alerts = parse(read('alerts.yaml')) as { groups: { rules: { alert: string; expr: string }[] }[] };

  test.each([
    ...panels.map(({ title, targets = [] }) => [title, targets.map(({ expr }) => expr).join(' ')]),
    ...alerts.groups.flatMap(({ rules }) => rules.map(({ alert, expr }) => [alert, expr])),
  ])('%s asks for metrics that exist', (_title, expressions = '') => {
    const asked = metricsIn(expressions);
    expect(asked.length).toBeGreaterThan(0);
    expect(asked.filter((name) => !METRICS.has(name))).toEqual([]);
  });
});

describe('the compose file', () => {
  const compose = parse(read('compose.yaml')) as {
    services: Record<string, { environment?: Record<string, string>; volumes?: string[] }>;
  };

  test('mounts files that are there', () => {
    const mounts = Object.values(compose.services).flatMap(({ volumes = [] }) => volumes);
    expect(mounts.length).toBeGreaterThan(4);
    for (const mount of mounts)
      expect(existsSync(new URL(mount.split(':')[0] ?? '', DEPLOY)), mount).toBe(true);
  });

  test('gives the gateway settings that it takes', () => {
    const environment = compose.services['gateway']?.environment ?? {};
    const image = [...read('../Dockerfile').matchAll(/^ENV (\w+)=(.*)$/gm)].map(
      ([, name = '', value = '']) => [name, value],
    );
    const { config } = loadConfig({
      file: undefined,
      environment: { ...Object.fromEntries(image), ...environment },
      flags: [],
    });
    expect(config.listen).toEqual({ host: '0.0.0.0', port: 50051 });
    expect(config.auth).toMatchObject([{ kind: 'none', force: true }]);
  });
});

test('every template of the chart is for one kind of thing', () => {
  const templates = readdirSync(new URL('helm/responses-gateway/templates/', DEPLOY)).filter((name) =>
    name.endsWith('.yaml'),
  );
  const kinds = templates.map(
    (name) => /^kind: (\w+)$/m.exec(read(`helm/responses-gateway/templates/${name}`))?.[1],
  );
  expect(kinds.sort()).toEqual([
    'ConfigMap',
    'Deployment',
    'HorizontalPodAutoscaler',
    'NetworkPolicy',
    'PodDisruptionBudget',
    'Service',
    'ServiceAccount',
    'ServiceMonitor',
  ]);
});
