/** Toolchains of the clients. What can be installed by a package manager is installed into .cache/, once. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const CACHE = `${ROOT}.cache`;

/** Protobuf plugins for Go; the versions go with clients/go/go.mod. */
const GO_PLUGINS = [
  'google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12',
  'google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2',
];

export function hasGo(): boolean {
  return works('go', ['version']);
}

/** Folder with the Go plugins. */
export function goTools(): string {
  const folder = `${CACHE}/tools/bin`;
  once(`${folder}/.installed`, GO_PLUGINS.join('\n'), () => {
    for (const plugin of GO_PLUGINS) {
      execFileSync('go', ['install', plugin], { env: { ...process.env, GOBIN: folder }, stdio: 'inherit' });
    }
  });
  return folder;
}

let interpreter: { readonly path: string | undefined } | undefined;

/** A Python with everything of clients/python/requirements-dev.txt; undefined: there is none here. */
export function python(): string | undefined {
  interpreter ??= { path: preparePython('python', 'requirements-dev.txt') };
  return interpreter.path;
}

/** A Python with everything of clients/python/requirements-generate.txt. */
export function pythonForStubs(): string | undefined {
  return preparePython('python-stubs', 'requirements-generate.txt');
}

function preparePython(name: string, list: string): string | undefined {
  const folder = `${CACHE}/${name}`;
  const path = `${folder}/bin/python`;
  if (!existsSync(path)) {
    const base = ['python3', 'python'].find((name) =>
      works(name, ['-c', 'import sys, venv; assert sys.version_info >= (3, 10)']),
    );
    if (base === undefined) return undefined;
    mkdirSync(CACHE, { recursive: true });
    if (spawnSync(base, ['-m', 'venv', folder], { stdio: 'inherit' }).status !== 0) return undefined;
  }
  const requirements = `${ROOT}clients/python/${list}`;
  once(`${folder}/.installed`, readFileSync(requirements, 'utf8'), () => {
    execFileSync(
      path,
      ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', requirements],
      {
        stdio: 'inherit',
      },
    );
  });
  return path;
}

export function hasJava(): boolean {
  return works('javac', ['-version']) && works('mvn', ['--version']);
}

/** Runs `install` unless the mark says that the same was installed before. */
function once(mark: string, what: string, install: () => void): void {
  if (existsSync(mark) && readFileSync(mark, 'utf8') === what) return;
  install();
  writeFileSync(mark, what);
}

function works(command: string, args: readonly string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}
