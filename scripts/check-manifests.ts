/** What the schemas of Kubernetes do not know about the chart's output. Arguments: files of rendered manifests. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse, parseAllDocuments } from 'yaml';
import { startGateway } from '../src/app/gateway.ts';
import { readConfig } from '../src/app/read-config.ts';
import { ConfigError } from '../src/config/problems.ts';
import type { GatewayConfig } from '../src/config/schema.ts';

type Manifest = Readonly<Record<string, unknown>>;

for (const path of process.argv.slice(2)) {
  const manifests = parseAllDocuments(readFileSync(path, 'utf8')).flatMap((document) => {
    const value = document.toJS() as Manifest | null;
    return value === null ? [] : [value];
  });
  const problems = await check(manifests);
  const kinds = manifests.map((manifest) => String(manifest['kind']));
  console.log(`${path}: ${kinds.join(', ')}`);
  for (const problem of problems) console.log(`  ${problem}`);
  if (problems.length > 0) process.exitCode = 1;
}

async function check(manifests: readonly Manifest[]): Promise<string[]> {
  const problems: string[] = [];
  const must = (holds: boolean, problem: string): void => {
    if (!holds) problems.push(problem);
  };
  const every = (kind: string) => manifests.filter((manifest) => manifest['kind'] === kind);
  const one = (kind: string): Manifest => every(kind)[0] ?? {};

  const pod = at(one('Deployment'), 'spec', 'template', 'spec') as Manifest;
  const container = at(pod, 'containers', 0) as Manifest;
  const yaml = every('ConfigMap').flatMap((each) => at(each, 'data', 'gateway.yaml') ?? []);
  const { config, missing } = await read(String(yaml[0]));
  problems.push(...missing);
  if (config !== undefined) {
    const graceMs = Number(pod['terminationGracePeriodSeconds']) * 1_000;
    must(
      graceMs > config.drain.delay + config.drain.timeout + config.drain.last_scrape,
      'the grace period is shorter than the drain',
    );
    const ports = (container['ports'] as { containerPort: number }[]).map(
      ({ containerPort }) => containerPort,
    );
    must(
      ports.includes(config.listen.port) && ports.includes(config.admin.listen.port),
      'ports and config differ',
    );
    const peerPort = config.cluster?.listen.port;
    must(peerPort === undefined || ports.includes(peerPort), 'the port for other replicas is not open');
    problems.push(...checkServices(every('Service'), config), ...(await starts(config)));
    const [route] = every('GRPCRoute');
    const target = at(route, 'spec', 'rules', 0, 'backendRefs', 0) as Manifest | undefined;
    must(route === undefined || isThere(every('Service'), target), 'the route leads to no port of a service');
  }
  const [rule, dashboard] = [
    one('PrometheusRule'),
    at(manifests.find(isDashboard), 'data', 'responses-gateway.json'),
  ];
  if (rule['kind'] !== undefined) {
    const { groups } = parse(readFileSync('deploy/alerts.yaml', 'utf8')) as { readonly groups: unknown };
    must(
      JSON.stringify(at(rule, 'spec', 'groups')) === JSON.stringify(groups),
      'the rules are not deploy/alerts.yaml',
    );
  }
  if (dashboard !== undefined) {
    const shipped = readFileSync('deploy/grafana/dashboards/responses-gateway.json', 'utf8');
    must(sameJson(String(dashboard), shipped), 'the dashboard is another');
  }
  const spread = (pod['topologySpreadConstraints'] ?? []) as readonly Manifest[];
  must(spread.length === 2, 'pods are not spread over nodes and zones');

  const labels = at(one('Deployment'), 'spec', 'template', 'metadata', 'labels') as Manifest;
  for (const manifest of manifests) {
    const selector = (at(manifest, 'spec', 'selector', 'matchLabels') ??
      at(manifest, 'spec', 'podSelector', 'matchLabels') ??
      (manifest['kind'] === 'Service' ? at(manifest, 'spec', 'selector') : {})) as Manifest;
    const selects = Object.entries(selector).every(([key, value]) => labels[key] === value);
    must(selects, `the selector of ${String(manifest['kind'])} does not find the pods`);
  }
  must(pod['enableServiceLinks'] === false, 'service links look like settings');
  must(at(pod, 'securityContext', 'runAsNonRoot') === true, 'runs as root');
  must(
    at(container, 'securityContext', 'readOnlyRootFilesystem') === true,
    'the root file system is writable',
  );
  const asksGrpc = at(container, 'readinessProbe', 'grpc', 'port') === config?.listen.port;
  must(asksGrpc || at(container, 'readinessProbe', 'httpGet', 'path') === '/readyz', 'no readiness probe');
  must(at(container, 'livenessProbe', 'httpGet', 'path') === '/healthz', 'no liveness probe');
  return problems;
}

/** Callers find gRPC, and how it is spoken; the admin port is for the inside. */
function checkServices(services: readonly Manifest[], config: GatewayConfig): string[] {
  return services.flatMap((service) => {
    const ports = at(service, 'spec', 'ports') as readonly Manifest[];
    const outside = at(service, 'spec', 'type') !== 'ClusterIP';
    return ports.flatMap(({ name, appProtocol }): string[] => {
      if (name === 'admin' && outside) return ['the admin port can be reached from outside'];
      if (outside && at(service, 'spec', 'clusterIP') === 'None') return ['it has no address'];
      const right = config.tls === undefined ? 'kubernetes.io/h2c' : 'https';
      return name === 'grpc' && appProtocol !== right
        ? [`appProtocol is ${appProtocol}, and should be ${right}`]
        : [];
    });
  });
}

function isThere(services: readonly Manifest[], target: Manifest | undefined): boolean {
  const service = services.find((each) => at(each, 'metadata', 'name') === target?.['name']);
  const ports = (at(service, 'spec', 'ports') ?? []) as readonly Manifest[];
  return ports.some(({ port }) => port === target?.['port']);
}

function isDashboard(manifest: Manifest): boolean {
  return at(manifest, 'data', 'responses-gateway.json') !== undefined;
}

function sameJson(one: string, other: string): boolean {
  return JSON.stringify(JSON.parse(one)) === JSON.stringify(JSON.parse(other));
}

/** Really, on other ports. The store of replicas is in the cluster. */
async function starts(config: GatewayConfig): Promise<string[]> {
  if (config.cluster !== undefined) return [];
  const anywhere = { host: '127.0.0.1', port: 0 };
  const local = { ...config, listen: anywhere, admin: { ...config.admin, listen: anywhere } };
  const surroundings = { environment: {}, version: '', logDestination: { write: () => {} } };
  const exporters = { traces: 'off', metrics: 'off', logs: 'off' } as const;
  const telemetry = Object.fromEntries(
    Object.entries(local.telemetry).map(([name, value]) =>
      name in exporters ? [name, { ...(value as object), exporter: 'off' }] : [name, value],
    ),
  ) as GatewayConfig['telemetry'];
  try {
    const gateway = await startGateway({ ...local, telemetry }, surroundings);
    await gateway.close();
    return [];
  } catch (error) {
    return [`it does not start: ${(error as Error).message}`];
  }
}

/** The configuration in the ConfigMap has to be one that the gateway takes; the files it names are in the cluster. */
async function read(yaml: string): Promise<{ config?: GatewayConfig; missing: string[] }> {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-manifests-'));
  const file = join(folder, 'gateway.yaml');
  // Of 32 bytes, as the secrets and keys are.
  const secret = join(folder, 'secret');
  writeFileSync(secret, 's'.repeat(32));
  const certs = fileURLToPath(new URL('../test/harness/certs/', import.meta.url));
  const names = { 'tls.crt': 'server.pem', 'tls.key': 'server.key', 'ca.crt': 'ca.pem' };
  const local = Object.entries(names).reduce(
    (text, [name, cert]) => text.replaceAll(`/tls/${name}`, `${certs}${cert}`),
    yaml.replace(/\/cluster\/[\w-]+/g, secret),
  );
  writeFileSync(file, local);
  try {
    return { config: (await readConfig({ file, environment: {}, flags: [] })).config, missing: [] };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { missing: [error.message] };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function at(value: unknown, ...path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((inner, key) => {
    return typeof inner === 'object' && inner !== null
      ? (inner as Record<string | number, unknown>)[key]
      : undefined;
  }, value);
}
