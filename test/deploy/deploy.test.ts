import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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

describe.each(['compose.yaml', 'compose.replicas.yaml'])('%s', (file) => {
  const compose = parse(read(file), { merge: true }) as {
    services: Record<string, { environment?: Record<string, string>; volumes?: string[] }>;
    secrets?: Record<string, { content: string }>;
  };

  test('mounts files that are there', () => {
    const mounts = Object.values(compose.services).flatMap(({ volumes = [] }) => volumes);
    const files = mounts.filter((mount) => mount.startsWith('.'));
    expect(files.length).toBeGreaterThan(0);
    for (const mount of files)
      expect(existsSync(new URL(mount.split(':')[0] ?? '', DEPLOY)), mount).toBe(true);
  });

  test('gives its gateways settings that they take', () => {
    const gateways = Object.entries(compose.services).filter(([name]) => name.startsWith('gateway'));
    expect(gateways.length).toBeGreaterThan(0);
    const image = [...read('../Dockerfile').matchAll(/^ENV (\w+)=(.*)$/gm)].map(
      ([, name = '', value = '']) => [name, value],
    );
    const folder = mkdtempSync(join(tmpdir(), 'gateway-compose-'));
    for (const [name, { content }] of Object.entries(compose.secrets ?? {})) {
      writeFileSync(join(folder, name), content.replace(/^\$\{\w+:-(.*)\}$/, '$1'));
    }
    for (const [, { environment = {} }] of gateways) {
      const given = Object.entries(environment).map(([name, value]) => [
        name,
        value.replaceAll('/run/secrets', folder),
      ]);
      const { config } = loadConfig({
        file: undefined,
        environment: { ...Object.fromEntries(image), ...Object.fromEntries(given) },
        flags: [],
      });
      expect(config.listen).toEqual({ host: '0.0.0.0', port: 50051 });
      expect(config.auth).toMatchObject([{ kind: 'none', force: true }]);
      expect(config.cluster?.store?.keys.length).toBe(file === 'compose.yaml' ? undefined : 1);
    }
    rmSync(folder, { recursive: true });
  });
});

test('the balancer of the replicas asks for what the gateway answers', () => {
  const config = read('proxies/haproxy.cfg');
  const { services } = parse(read('compose.replicas.yaml'), { merge: true }) as { services: object };
  const servers = [...config.matchAll(/^ {2}server (\S+) (\S+):50051 check proto h2 check-proto h1$/gm)].map(
    ([, , host]) => host,
  );
  expect(servers.sort()).toEqual(
    Object.keys(services)
      .filter((name) => name.startsWith('gateway'))
      .sort(),
  );
  expect(config).toContain('balance hdr(x-responses-session)');
  expect(config).toContain('option httpchk GET /readyz');
});

test('the chart has a template for each kind of thing', () => {
  const templates = readdirSync(new URL('helm/responses-gateway/templates/', DEPLOY)).filter((name) =>
    name.endsWith('.yaml'),
  );
  const kinds = templates.flatMap((name) => [
    ...new Set(
      [...read(`helm/responses-gateway/templates/${name}`).matchAll(/^kind: (\w+)$/gm)].map(
        ([, kind]) => kind,
      ),
    ),
  ]);
  expect(kinds.sort()).toEqual([
    'ConfigMap',
    'ConfigMap',
    'Deployment',
    'GRPCRoute',
    'HorizontalPodAutoscaler',
    'NetworkPolicy',
    'PodDisruptionBudget',
    'PrometheusRule',
    'ScaledObject',
    'Service',
    'ServiceAccount',
    'ServiceMonitor',
  ]);
});
