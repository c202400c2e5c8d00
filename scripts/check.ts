/**
 * Everything that a change has to pass: `npm run check`, or some of it: `npm run check -- lint types`. Some steps take
 * minutes and run only when named. Runs all steps even if one fails. Ends with the steps that failed and, where tests
 * ran, with their number: "N passed, N failed".
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const node = process.execPath;
const report = mkdtempSync(join(tmpdir(), 'check-'));
const summary = join(report, 'tests');

type Command = readonly [string, ...string[]];

const STEPS = {
  runtime: [node, 'scripts/check-runtime.ts'],
  stores: ['scripts/store-servers.sh'],
  proxies: ['scripts/proxies.sh'],
  browser: ['scripts/debian-package.sh', 'chromium', 'chromium', 'fonts-inter', 'fonts-dejavu-core'],
  lint: ['biome', 'ci', '.'],
  proto: ['buf', 'lint'],
  breaking: ['buf', 'breaking', '--against', 'proto/baseline.binpb'],
  generated: [node, 'scripts/generate.ts', '--check'],
  types: [
    'sh',
    '-c',
    'tsc -p tsconfig.json --incremental --tsBuildInfoFile node_modules/.cache/tsc.tsbuildinfo && tsc -p console/tsconfig.json',
  ],
  tests: ['vitest', 'run', '--reporter=default', '--reporter=./scripts/summary-reporter.ts'],
  build: ['npm', 'run', '--silent', 'build'],
  package: ['scripts/test-package.sh'],
  image: [node, 'scripts/docker-steps.ts'],
  deploy: ['scripts/lint-deploy.sh'],
  demo: ['npm', 'run', '--silent', 'demo'],
  site: [
    'sh',
    '-c',
    'npm ci --prefix site --no-audit --no-fund --ignore-scripts && npm run build --prefix site',
  ],
  licences: [node, 'scripts/licence-check.ts'],
  advisories: ['sh', 'scripts/audit.sh'],
  sbom: ['sh', 'scripts/sbom.sh'],
  release: [node, 'scripts/release.ts', '--dry-run'],
  clients: [node, 'scripts/test-clients.ts'],
  judges: [node, 'scripts/judges.ts'],
  performance: [node, 'bench/check.ts'],
} as const satisfies Record<string, Command>;

/** Only when named: minutes long, by chance. The variables say how long, or how many. */
const LONG_STEPS = {
  fuzz: ['env', variable('FUZZ_SECONDS', 60), 'vitest', 'run', 'test/fuzz'],
  chaos: [
    'env',
    variable('CHAOS_SECONDS', 600),
    variable('CHAOS_SESSIONS', 10_000),
    'vitest',
    'run',
    'test/chaos',
  ],
  contention: ['env', variable('CONTENTION_TURNS', 10_000), 'vitest', 'run', 'test/store/contention.test.ts'],
} as const satisfies Record<string, Command>;

process.exitCode = main(process.argv.slice(2));

function main(names: readonly string[]): number {
  const steps: Readonly<Record<string, Command>> = names.length === 0 ? STEPS : { ...STEPS, ...LONG_STEPS };
  const unknown = names.filter((name) => !Object.hasOwn(steps, name));
  if (unknown.length > 0) {
    console.error(`check: found ${unknown.join(', ')}; allowed: ${Object.keys(steps).join(', ')}`);
    return 2;
  }
  const chosen = Object.entries(steps).filter(([name]) => names.length === 0 || names.includes(name));
  const failed = chosen.filter(([name, command]) => !passes(name, command)).map(([name]) => name);
  console.log('');
  for (const name of failed) console.log(`failed step: ${name}`);
  if (chosen.some(([name]) => name === 'tests')) process.stdout.write(testSummary());
  rmSync(report, { recursive: true });
  return failed.length > 0 ? 1 : 0;
}

function variable(name: string, otherwise: number): string {
  return `${name}=${process.env[name] ?? otherwise}`;
}

function passes(name: string, [command, ...args]: readonly [string, ...string[]]): boolean {
  console.log(`\n=== ${name}`);
  const startedAtMs = performance.now();
  const { status, signal, error } = spawnSync(command, args, {
    cwd: ROOT,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: {
      ...process.env,
      CI: '1',
      NO_COLOR: '1',
      TEST_SUMMARY_FILE: summary,
      // The pinned Node and the tools of this project come first, whoever started this.
      PATH: `${ROOT}node_modules/.bin:${process.env['PATH']}`,
    },
  });
  const seconds = Math.round((performance.now() - startedAtMs) / 1000);
  const end = status === 0 ? 'ok' : `FAILED with ${error?.message ?? signal ?? status}`;
  console.log(`--- ${name}: ${end} (${seconds} s)`);
  return status === 0;
}

function testSummary(): string {
  if (existsSync(summary)) return readFileSync(summary, 'utf8');
  return 'the test runner left no summary\n0 passed, 1 failed\n';
}
