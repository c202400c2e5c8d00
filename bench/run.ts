/**
 * Runs benchmarks by name: `node bench/run.ts memory`, options behind it: `node bench/run.ts durable --rounds 8`. Without a
 * name those of docs/performance.md that need nothing else, one after the other.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const FOLDER = fileURLToPath(new URL('.', import.meta.url));
const RECORDED = ['workflow', 'overhead', 'throughput', 'memory', 'rotation', 'peers'];
/** Parts of the others. */
const PARTS = new Set(['run', 'floor', 'upstream']);

process.exitCode = main(process.argv.slice(2));

function main([name, ...options]: readonly string[]): number {
  if (name === undefined) return RECORDED.some((each) => run(each, []) !== 0) ? 1 : 0;
  const names = readdirSync(FOLDER)
    .filter((file) => file.endsWith('.ts'))
    .map((file) => file.slice(0, -3))
    .filter((each) => !PARTS.has(each));
  if (names.includes(name)) return run(name, options);
  console.error(`bench: found ${name}; allowed: ${names.join(', ')}`);
  return 2;
}

function run(name: string, options: readonly string[]): number {
  return spawnSync(process.execPath, [`${FOLDER}${name}.ts`, ...options], { stdio: 'inherit' }).status ?? 1;
}
