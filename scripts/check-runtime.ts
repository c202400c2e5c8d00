/**
 * Holds every place that names a Node to the floors in src/ground/node-floors.ts: the Node that runs this, `engines`,
 * the pins of tools/node-runtime with their entries in the lockfile, and the Dockerfile. Exit 1 names what is below.
 */
import { readFileSync } from 'node:fs';
import { enginesRange, floorAbove } from '../src/ground/node-floors.ts';

const read = (path: string) => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');
const problems: string[] = [];

function check(place: string, version: string | undefined): void {
  const floor = version === undefined ? undefined : floorAbove(version);
  if (version === undefined) problems.push(`${place}: no Node version found`);
  else if (floor !== undefined) problems.push(`${place}: ${version} is below the floor ${floor}`);
}

check('the Node that runs this', process.versions.node);

const { engines } = JSON.parse(read('package.json')) as { engines: { node: string } };
if (engines.node !== enginesRange()) {
  problems.push(`package.json: engines.node is "${engines.node}", the floors say "${enginesRange()}"`);
}

const { optionalDependencies: pins } = JSON.parse(read('tools/node-runtime/package.json')) as {
  optionalDependencies: Record<string, string>;
};
const lock = JSON.parse(read('package-lock.json')) as {
  packages: Record<string, { version?: string; integrity?: string }>;
};
for (const [name, version] of Object.entries(pins)) {
  check(`tools/node-runtime: ${name}`, version);
  const locked = lock.packages[`node_modules/${name}`];
  if (locked?.version !== version || locked.integrity === undefined) {
    problems.push(`package-lock.json: ${name} is not locked at ${version} with its hash`);
  }
}

const dockerfile = read('Dockerfile');
const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map(([, base = '']) => base);
const stages = new Set([...dockerfile.matchAll(/^FROM \S+ AS (\S+)/gm)].map(([, name = '']) => name));
for (const base of bases.filter((each) => !stages.has(each))) {
  if (base.startsWith('node:')) check(`Dockerfile: ${base}`, /^node:(\d+\.\d+\.\d+)-/.exec(base)?.[1]);
  // What only builds, and whose output is looked at, goes by its exact version.
  else if (/^golang:\d+\.\d+\.\d+-/.test(base)) continue;
  else if (!/@sha256:[0-9a-f]{64}$/.test(base)) problems.push(`Dockerfile: ${base} is not pinned by digest`);
}

for (const problem of problems) console.error(problem);
if (problems.length === 0) console.log(`Node ${process.versions.node}; floors ${enginesRange()}`);
process.exit(problems.length === 0 ? 0 : 1);
