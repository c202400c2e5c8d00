import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { floors } from '../../clients/conformance/floors.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string) => readFileSync(`${ROOT}${file}`, 'utf8');

test('the oldest versions of Go and its libraries are those of go.mod', () => {
  const { Go, ...libraries } = floors('Go');
  const mod = read('clients/go/go.mod');
  expect(/^go (\S+)$/m.exec(mod)?.[1]).toBe(Go);
  for (const [name, version] of Object.entries(libraries)) expect(mod).toContain(`\t${name} v${version}\n`);
});

test('the oldest versions of Python and its libraries are those of pyproject.toml', () => {
  const { Python, ...libraries } = floors('Python');
  const project = read('clients/python/pyproject.toml');
  expect(project).toContain(`requires-python = ">=${Python}"`);
  for (const [name, version] of Object.entries(libraries)) {
    const said = new RegExp(`"${name}>=([0-9.]+)`).exec(project)?.[1];
    expect(`${name} ${version}`).toMatch(new RegExp(`^${name} ${said}(\\.0)?$`));
  }
});

test('the oldest versions of Node and its libraries are those of package.json', () => {
  const { Node, ...libraries } = floors('TypeScript');
  const said = JSON.parse(read('clients/typescript/package.json')) as {
    readonly engines: { readonly node: string };
    readonly dependencies: Readonly<Record<string, string>>;
    readonly peerDependencies: Readonly<Record<string, string>>;
  };
  expect(`${said.engines.node}.0`).toBe(`>=${Node}`);
  expect({ ...said.dependencies, ...said.peerDependencies }).toEqual(
    Object.fromEntries(Object.entries(libraries).map(([name, version]) => [name, `^${version}`])),
  );
});

test('the oldest JDK is the one that Java code is compiled for', () => {
  const pom = read('clients/java/pom.xml');
  expect(/<maven.compiler.release>(\d+)</.exec(pom)?.[1]).toBe(floors('Java')['JDK']);
});
