/**
 * Tests the clients of all languages: `node scripts/test-clients.ts [go] [python] [java] [typescript]`. Each runs its
 * linters, its own tests and the conformance suite. A language whose toolchain is missing is reported as skipped; with
 * CLIENTS_REQUIRED=1 that is a failure.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { hasGo, hasJava, python } from './client-tools.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

interface Step {
  readonly what: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
}

interface Suite {
  readonly name: string;
  missing(): string | undefined;
  steps(): readonly Step[];
}

const SUITES: readonly Suite[] = [
  {
    name: 'go',
    missing: () => (hasGo() ? undefined : 'no go'),
    steps: () => [
      step('vet', 'go', ['vet', './...'], 'clients/go'),
      step('tests', 'go', ['test', '-race', '.', './gatewaytest'], 'clients/go'),
      // The floor of go.mod, with the oldest dependencies it allows.
      step('tests on the oldest Go', 'env', ['GOTOOLCHAIN=go1.23.0', 'go', 'test', '.'], 'clients/go'),
      inEmptyProject('go'),
      step('OpenTelemetry', 'go', ['test', './...'], 'clients/go/otel'),
      step('examples', 'go', ['vet', './...'], 'clients/go/examples'),
      step('load of the benchmarks', 'go', ['vet', './...'], 'bench/load'),
    ],
  },
  {
    name: 'python',
    missing: () => (python() === undefined ? 'no python3 >= 3.10 with venv' : undefined),
    steps: () => [
      step('ruff', python() as string, ['-m', 'ruff', 'check', '.'], 'clients/python'),
      step('mypy', python() as string, ['-m', 'mypy'], 'clients/python'),
      step('tests', python() as string, ['-B', '-m', 'pytest'], 'clients/python'),
      inEmptyProject('python'),
    ],
  },
  {
    name: 'java',
    missing: () => absent('java') ?? (hasJava() ? undefined : 'no javac or no mvn'),
    steps: () => [step('tests', 'mvn', ['-B', '-ntp', '-q', 'verify'], 'clients/java')],
  },
  {
    name: 'typescript',
    missing: () => absent('typescript'),
    steps: () => [
      step('types', 'npm', ['run', '--silent', 'typecheck'], 'clients/typescript'),
      step('tests', 'npm', ['test', '--silent'], 'clients/typescript'),
      inEmptyProject('typescript'),
    ],
  },
];

process.exitCode = main(process.argv.slice(2));

function main(names: readonly string[]): number {
  const unknown = names.filter((name) => !SUITES.some((suite) => suite.name === name));
  if (unknown.length > 0) {
    console.error(`no such client: ${unknown.join(', ')}`);
    return 2;
  }
  const lines: string[] = [];
  let [passed, failed, skipped] = [0, 0, 0];
  for (const suite of SUITES.filter(({ name }) => names.length === 0 || names.includes(name))) {
    const why = suite.missing();
    if (why !== undefined) {
      lines.push(`SKIPPED  ${suite.name}: ${why}; NOTHING of this client was tested`);
      skipped += 1;
      continue;
    }
    const driver = `${ROOT}clients/conformance/run.ts`;
    const conformance = step('conformance', process.execPath, [driver, suite.name], '.');
    const traces = step(
      'traces',
      process.execPath,
      [`${ROOT}clients/conformance/traces.ts`, suite.name],
      '.',
    );
    for (const each of [...suite.steps(), conformance, traces]) {
      console.log(`\n== ${suite.name}: ${each.what}`);
      const began = performance.now();
      const ok = spawnSync(each.command, each.args, { cwd: each.cwd, stdio: 'inherit' }).status === 0;
      const seconds = ((performance.now() - began) / 1000).toFixed(1);
      lines.push(`${ok ? 'ok     ' : 'FAILED '}  ${suite.name}: ${each.what} (${seconds} s)`);
      if (ok) passed += 1;
      else failed += 1;
    }
  }
  console.log(`\n${lines.join('\n')}\n\n${passed} passed, ${failed} failed, ${skipped} skipped`);
  return failed > 0 || (skipped > 0 && process.env['CLIENTS_REQUIRED'] === '1') ? 1 : 0;
}

function step(what: string, command: string, args: readonly string[], folder: string): Step {
  return { what, command, args, cwd: `${ROOT}${folder}` };
}

function inEmptyProject(language: string): Step {
  const script = ['scripts/test-client-packages.sh', '--short', language];
  return step('in an empty project', 'bash', script, '.');
}

function absent(name: string): string | undefined {
  return existsSync(`${ROOT}clients/${name}`) ? undefined : `clients/${name} is not there`;
}
