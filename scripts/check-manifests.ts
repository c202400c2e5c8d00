/** What the schemas of Kubernetes do not know about the chart's output. Arguments: files of rendered manifests. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { loadConfig } from '../src/config/load.ts';
import { ConfigError } from '../src/config/problems.ts';

type Manifest = Readonly<Record<string, unknown>>;

for (const path of process.argv.slice(2)) {
  const manifests = parseAllDocuments(readFileSync(path, 'utf8')).flatMap((document) => {
    const value = document.toJS() as Manifest | null;
    return value === null ? [] : [value];
  });
  const problems = check(manifests);
  const kinds = manifests.map((manifest) => String(manifest['kind']));
  console.log(`${path}: ${kinds.join(', ')}`);
  for (const problem of problems) console.log(`  ${problem}`);
  if (problems.length > 0) process.exitCode = 1;
}

function check(manifests: readonly Manifest[]): string[] {
  const problems: string[] = [];
  const must = (holds: boolean, problem: string): void => {
    if (!holds) problems.push(problem);
  };
  const one = (kind: string): Manifest => manifests.find((manifest) => manifest['kind'] === kind) ?? {};

  const pod = at(one('Deployment'), 'spec', 'template', 'spec') as Manifest;
  const container = at(pod, 'containers', 0) as Manifest;
  const yaml = String(at(one('ConfigMap'), 'data', 'gateway.yaml'));
  const { config, missing } = read(yaml);
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
  }

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
  must(at(container, 'readinessProbe', 'httpGet', 'path') === '/readyz', 'no readiness probe');
  must(at(container, 'livenessProbe', 'httpGet', 'path') === '/healthz', 'no liveness probe');
  return problems;
}

/** The configuration in the ConfigMap has to be one that the gateway takes; the files it names are in the cluster. */
function read(yaml: string): { config?: ReturnType<typeof loadConfig>['config']; missing: string[] } {
  const file = join(tmpdir(), `gateway-${process.pid}.yaml`);
  // Of 32 bytes, as the secrets and keys are.
  const secret = join(tmpdir(), `gateway-${process.pid}.secret`);
  writeFileSync(secret, 's'.repeat(32));
  const withoutTls = yaml.replace(/^tls:\n(?: {2}.*\n?)+/m, '');
  writeFileSync(file, withoutTls.replace(/\/cluster\/[\w-]+/g, secret));
  try {
    return { config: loadConfig({ file, environment: {}, flags: [] }).config, missing: [] };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { missing: [error.message] };
  } finally {
    rmSync(file);
    rmSync(secret);
  }
}

function at(value: unknown, ...path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((inner, key) => {
    return typeof inner === 'object' && inner !== null
      ? (inner as Record<string | number, unknown>)[key]
      : undefined;
  }, value);
}
