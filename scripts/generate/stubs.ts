/**
 * Generates the stubs of all clients from proto/: `npm run generate -- stubs`. With `--check` nothing changes
 * and stale stubs are an error. Java generates at build.
 */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { goTools, hasGo, pythonForStubs } from '../client-tools.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PROTO = 'responses/gateway/v1';

interface Target {
  readonly name: string;
  /** Folder of committed stubs, below the root. */
  readonly folder: string;
  /** Why it cannot be generated here; undefined: it can. */
  missing(): string | undefined;
  generate(into: string): void;
}

const TARGETS: readonly Target[] = [
  {
    name: 'go',
    folder: 'clients/go/gen',
    missing: () => (hasGo() ? undefined : 'no go'),
    generate: (into) => bufGenerate('buf.gen.yaml', 'clients/go/gen', into, goTools()),
  },
  {
    name: 'python',
    folder: 'clients/python/src/responses_gateway/gen',
    missing: () => (pythonForStubs() === undefined ? 'no python3 with venv' : undefined),
    generate: generatePython,
  },
  {
    name: 'typescript',
    folder: 'clients/typescript/src/gen',
    missing: () => undefined,
    generate: (into) =>
      bufGenerate(
        'clients/typescript/buf.gen.yaml',
        'clients/typescript/src/gen',
        into,
        `${ROOT}node_modules/.bin`,
      ),
  },
];

process.exitCode = main(process.argv.includes('--check'));

function main(check: boolean): number {
  let stale = 0;
  for (const { name, folder, missing, generate } of TARGETS) {
    const why = missing();
    if (why !== undefined) {
      console.log(`SKIPPED ${name}: ${why}`);
      continue;
    }
    const fresh = mkdtempSync(join(tmpdir(), 'stubs-'));
    try {
      generate(fresh);
      const different = differences(fresh, `${ROOT}${folder}`);
      if (check) {
        for (const file of different) console.log(`stale: ${folder}/${file}`);
        stale += different.length;
      } else if (different.length > 0) {
        replace(fresh, `${ROOT}${folder}`);
      }
      console.log(`${name}: ${different.length} files ${check ? 'are stale' : 'changed'}`);
    } finally {
      rmSync(fresh, { recursive: true });
    }
  }
  if (stale > 0) console.log('run `npm run generate` and commit the result');
  return stale > 0 ? 1 : 0;
}

/** Carries out a template of buf's with another folder to write to. */
function bufGenerate(template: string, folder: string, into: string, tools: string): void {
  const file = join(into, 'buf.gen.yaml');
  writeFileSync(file, readFileSync(`${ROOT}${template}`, 'utf8').replaceAll(folder, into));
  run('buf', ['generate', '--template', file], {
    PATH: `${tools}:${ROOT}node_modules/.bin:${process.env['PATH']}`,
  });
  rmSync(file);
}

/** The generated modules import each other by absolute names; ours live in a package, next to each other. */
function generatePython(into: string): void {
  const interpreter = pythonForStubs() as string;
  const raw = mkdtempSync(join(tmpdir(), 'stubs-raw-'));
  const names = readdirSync(`${ROOT}proto/${PROTO}`).sort();
  const outputs = ['python', 'mypy', 'grpc_python', 'mypy_grpc'].map((kind) => `--${kind}_out=${raw}`);
  const files = names.map((name) => `${ROOT}proto/${PROTO}/${name}`);
  const PATH = `${join(interpreter, '..')}:${process.env['PATH']}`;
  run(
    interpreter,
    ['-m', 'grpc_tools.protoc', '-I', `${ROOT}proto`, ...outputs, ...files],
    { PATH },
    'ignore',
  );
  for (const name of readdirSync(`${raw}/${PROTO}`)) {
    // Only one file has a service; the others' would be empty.
    if (name.includes('_pb2_grpc') && !name.startsWith('service')) continue;
    const text = readFileSync(`${raw}/${PROTO}/${name}`, 'utf8');
    const ours = text.replaceAll('from responses.gateway.v1 import', 'from . import');
    writeFileSync(join(into, name), name === 'service_pb2_grpc.py' ? withoutVersionCheck(ours) : ours);
  }
  writeFileSync(join(into, '__init__.py'), '"""Generated messages of responses.gateway.v1."""\n');
  rmSync(raw, { recursive: true });
}

/** It wants the generator's own version, which the code does not need; pyproject.toml says what is tested. */
function withoutVersionCheck(text: string): string {
  const [from, to] = [text.indexOf('GRPC_GENERATED_VERSION'), text.indexOf('class ResponsesServiceStub')];
  return `${text.slice(0, from).replace('import warnings\n', '').trimEnd()}\n\n\n${text.slice(to)}`;
}

function filesOf(folder: string): readonly string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.includes('__pycache__'))
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

function differences(fresh: string, committed: string): readonly string[] {
  const names = new Set([...filesOf(fresh), ...filesOf(committed)]);
  return [...names].filter((name) => read(join(fresh, name)) !== read(join(committed, name)));
}

function replace(fresh: string, committed: string): void {
  rmSync(committed, { recursive: true, force: true });
  for (const name of filesOf(fresh)) {
    mkdirSync(join(committed, name, '..'), { recursive: true });
    writeFileSync(join(committed, name), readFileSync(join(fresh, name)));
  }
}

function read(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

function run(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  stderr: 'inherit' | 'ignore' = 'inherit',
): void {
  execFileSync(command, args, {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'inherit', stderr],
  });
}
