/**
 * Runs the conformance suite with the oldest and the newest versions of what the clients build on:
 * `node clients/conformance/versions.ts [oldest|newest] [NAME …] [-- FILTER …]`. The oldest are those of the table in
 * clients/README.md, the newest those that the registries have. Copies and libraries go into .cache/versions. Exits with 1
 * if a case failed, or a version is not to be had.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { floors } from './floors.ts';
import { isRunnerName, RUNNER_NAMES, type RunnerName } from './runners.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const AGES = ['oldest', 'newest'] as const;
type Age = (typeof AGES)[number];

/** What the suite is run with: the environment of the runner, and what it stands for. */
interface Prepared {
  readonly versions: string;
  readonly env: Readonly<Record<string, string>>;
}

const PREPARE: Readonly<Record<RunnerName, (age: Age, folder: string) => Prepared>> = {
  go: prepareGo,
  python: preparePython,
  java: prepareJava,
  typescript: prepareTypeScript,
};

process.exitCode = main(process.argv.slice(2));

function main(args: readonly string[]): number {
  const end = args.includes('--') ? args.indexOf('--') : args.length;
  const [words, filters] = [args.slice(0, end), args.slice(end + 1)];
  const unknown = words.filter((word) => !isRunnerName(word) && !AGES.includes(word as Age));
  if (unknown.length > 0) {
    console.error(`found ${unknown.join(', ')}; allowed: ${[...AGES, ...RUNNER_NAMES].join(', ')}`);
    return 2;
  }
  const ages = AGES.filter((age) => words.includes(age) || !AGES.some((each) => words.includes(each)));
  const names = RUNNER_NAMES.filter((name) => words.includes(name) || !words.some(isRunnerName));
  const lines: string[] = [];
  let failed = 0;
  for (const name of names) {
    for (const age of ages) {
      const { line, ok } = run(name, age, filters);
      lines.push(line);
      if (!ok) failed += 1;
    }
  }
  console.log(`\n${lines.join('\n')}`);
  return failed > 0 ? 1 : 0;
}

function run(name: RunnerName, age: Age, filters: readonly string[]): { line: string; ok: boolean } {
  const folder = join(ROOT, '.cache/versions', `${name}-${age}`);
  let prepared: Prepared;
  try {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    prepared = PREPARE[name](age, folder);
  } catch (error) {
    return { line: `FAILED  ${name} ${age}: ${error instanceof Error ? error.message : error}`, ok: false };
  }
  console.log(`\n== ${name} ${age}: ${prepared.versions}`);
  const suite = spawnSync(process.execPath, [join(ROOT, 'clients/conformance/run.ts'), name, ...filters], {
    stdio: 'inherit',
    env: { ...process.env, ...prepared.env },
  });
  const ok = suite.status === 0;
  return { line: `${ok ? 'ok     ' : 'FAILED '} ${name} ${age}: ${prepared.versions}`, ok };
}

/** The oldest are what go.mod names, as minimal version selection takes it. */
function prepareGo(age: Age, folder: string): Prepared {
  const cwd = join(ROOT, 'clients/go');
  if (age === 'oldest') {
    const GOTOOLCHAIN = `go${floors('Go')['Go']}`;
    return { versions: goVersions(cwd, { GOTOOLCHAIN }), env: { GOTOOLCHAIN } };
  }
  const modfile = join(folder, 'go.mod');
  for (const file of ['go.mod', 'go.sum']) cpSync(join(cwd, file), join(folder, file));
  for (const args of [
    ['get', `-modfile=${modfile}`, '-u', './...'],
    ['mod', 'tidy', `-modfile=${modfile}`],
  ])
    execFileSync('go', args, { cwd, stdio: ['ignore', 'ignore', 'inherit'] });
  const env = { GOFLAGS: `-modfile=${modfile}` };
  return { versions: goVersions(cwd, env), env };
}

function goVersions(cwd: string, env: Readonly<Record<string, string>>): string {
  const options = { cwd, env: { ...process.env, ...env }, encoding: 'utf8' } as const;
  const libraries = execFileSync(
    'go',
    ['list', '-m', 'google.golang.org/grpc', 'google.golang.org/protobuf'],
    options,
  );
  const toolchain = execFileSync('go', ['env', 'GOVERSION'], options).trim();
  return [toolchain, ...libraries.trim().split('\n')].join(', ');
}

function preparePython(age: Age, folder: string): Prepared {
  const { Python: oldest = '', ...libraries } = floors('Python');
  const base = age === 'oldest' ? pythons().find(({ version }) => version === oldest) : pythons().at(-1);
  if (base === undefined) throw new Error(`there is no Python ${oldest}`);
  execFileSync(base.path, ['-m', 'venv', folder]);
  const python = join(folder, 'bin/python');
  const wanted = Object.entries(libraries).map(([name, version]) =>
    age === 'oldest' ? `${name}==${version}` : name,
  );
  execFileSync(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...wanted], {
    stdio: 'inherit',
  });
  const list = execFileSync(python, ['-m', 'pip', 'list', '--format=freeze'], { encoding: 'utf8' });
  const found = list.split('\n').filter((line) => (line.split('==')[0] ?? '') in libraries);
  return { versions: [`Python ${base.version}`, ...found].join(', '), env: { CLIENTS_PYTHON: python } };
}

/** Those that are here, the oldest first. */
function pythons(): readonly { readonly version: string; readonly path: string }[] {
  const pyenv = join(process.env['PYENV_ROOT'] ?? join(homedir(), '.pyenv'), 'versions');
  const paths = [
    ...(process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'python3')),
    ...(existsSync(pyenv) ? readdirSync(pyenv).map((name) => join(pyenv, name, 'bin/python3')) : []),
  ];
  const found = new Map<string, string>();
  for (const path of paths.filter((each) => existsSync(each))) {
    const code = 'import sys, venv; print("%d.%d" % sys.version_info[:2])';
    const asked = spawnSync(path, ['-c', code], { encoding: 'utf8' });
    if (asked.status === 0) found.set(asked.stdout.trim(), path);
  }
  const minor = (version: string): number => Number(version.split('.')[1]);
  return [...found]
    .map(([version, path]) => ({ version, path }))
    .filter(({ version }) => version.startsWith('3.') && minor(version) >= 10)
    .sort((a, b) => minor(a.version) - minor(b.version));
}

/** Stubs and client built with these versions, and run on the oldest or newest JDK that is here. */
function prepareJava(age: Age, folder: string): Prepared {
  const { JDK: oldest = '', ...libraries } = floors('Java');
  const jdk = age === 'oldest' ? jdks().find(({ version }) => version === oldest) : jdks().at(-1);
  if (jdk === undefined) throw new Error(`there is no JDK ${oldest}`);
  cpSync(join(ROOT, 'proto'), join(folder, 'proto'), { recursive: true });
  const client = join(folder, 'clients/java');
  cpSync(join(ROOT, 'clients/java'), client, {
    recursive: true,
    filter: (source) => !source.endsWith('/target'),
  });
  const pom = join(client, 'pom.xml');
  const versions = { ...libraries };
  let text = readFileSync(pom, 'utf8');
  for (const [name, version] of Object.entries(libraries)) {
    const used = age === 'oldest' ? version : newestArtifact(ARTIFACTS[name] ?? '');
    versions[name] = used;
    text = text.replace(new RegExp(`(<${name}.version>)[^<]*`), `$1${used}`);
  }
  // Stubs of an older grpc-java come from its own generator.
  if (age === 'oldest') text = text.replace(/(<grpc-codegen.version>)[^<]*/, `$1${versions['grpc']}`);
  writeFileSync(pom, text);
  const env = { CLIENTS_JAVA: client, JAVA_HOME: jdk.home, PATH: `${jdk.home}/bin:${process.env['PATH']}` };
  const told = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return { versions: [`JDK ${jdk.version}`, ...told].join(', '), env };
}

const ARTIFACTS: Readonly<Record<string, string>> = {
  grpc: 'io.grpc:grpc-api',
  protobuf: 'com.google.protobuf:protobuf-java',
  jackson: 'com.fasterxml.jackson.core:jackson-databind',
  opentelemetry: 'io.opentelemetry:opentelemetry-api',
};

/** What Maven resolves RELEASE to. */
function newestArtifact(name: string): string {
  const plugin = 'org.apache.maven.plugins:maven-dependency-plugin:3.9.0:get';
  const said = execFileSync(
    'mvn',
    ['-B', '-ntp', plugin, `-Dartifact=${name}:RELEASE`, '-Dtransitive=false'],
    {
      encoding: 'utf8',
    },
  );
  const [group = '', artifact = ''] = name.split(':');
  const folder = join(homedir(), '.m2/repository', group.replaceAll('.', '/'), artifact);
  const version = readdirSync(folder)
    .filter((file) => file.startsWith('maven-metadata-') && file.endsWith('.xml'))
    .map((file) => /<release>([^<]+)/.exec(readFileSync(join(folder, file), 'utf8'))?.[1])
    .find((release) => release !== undefined);
  if (version === undefined) throw new Error(`no version of ${name}: ${said.slice(-200)}`);
  return version;
}

function jdks(): readonly { readonly version: string; readonly home: string }[] {
  const homes = [
    process.env['JAVA_HOME'],
    ...(existsSync('/usr/lib/jvm') ? readdirSync('/usr/lib/jvm').map((name) => `/usr/lib/jvm/${name}`) : []),
  ];
  const found = new Map<string, string>();
  for (const home of homes) {
    if (home === undefined || !existsSync(join(home, 'bin/javac'))) continue;
    const asked = spawnSync(join(home, 'bin/javac'), ['-version'], { encoding: 'utf8' });
    const version = /javac (\d+)/.exec(asked.stdout + asked.stderr)?.[1];
    if (version !== undefined) found.set(version, home);
  }
  return [...found]
    .map(([version, home]) => ({ version, home }))
    .sort((a, b) => Number(a.version) - Number(b.version));
}

/** The client's sources beside libraries of their own, run by an older or newer Node. */
function prepareTypeScript(age: Age, folder: string): Prepared {
  const { Node: oldest = '', ...libraries } = floors('TypeScript');
  for (const part of ['src', 'conformance', 'package.json', 'tsconfig.json'])
    cpSync(join(ROOT, 'clients/typescript', part), join(folder, part), { recursive: true });
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    dependencies: Readonly<Record<string, string>>;
  };
  const versionOf = (name: string, version: string) => `${name}@${age === 'oldest' ? version : 'latest'}`;
  const wanted = [
    ...Object.entries(libraries).map(([name, version]) => versionOf(name, version)),
    `zod@${dependencies['zod']}`,
    versionOf('node', oldest),
  ];
  const npm = ['install', '--silent', '--no-audit', '--no-fund', '--omit=dev', '--save-exact', ...wanted];
  execFileSync('npm', npm, { cwd: folder, stdio: 'inherit' });
  const node = join(folder, 'node_modules/node/bin/node');
  const nodeVersion = execFileSync(node, ['--version'], { encoding: 'utf8' }).trim();
  const found = Object.keys(libraries).map((name) => {
    const text = readFileSync(join(folder, 'node_modules', name, 'package.json'), 'utf8');
    return `${name} ${(JSON.parse(text) as { version: string }).version}`;
  });
  return {
    versions: [`Node ${nodeVersion}`, ...found].join(', '),
    env: { CLIENTS_TYPESCRIPT: folder, CLIENTS_NODE: node },
  };
}
