/**
 * Makes everything that is generated and committed: `npm run generate`, or some of it: `npm run generate -- config stubs`.
 * With `--check` nothing changes, stale files are named, and the exit code is 1.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const GENERATORS = {
  /** proto/descriptors.binpb and proto/api.json, from the .proto files. */
  descriptors: ['scripts/generate/descriptors.sh'],
  /** docs/mapping.md, and names for the drift test, from proto/api.json. */
  mapping: [process.execPath, 'scripts/generate/mapping.ts'],
  /** docs/api.md, from the comments of the .proto files. */
  api: [process.execPath, 'scripts/generate/api-reference.ts'],
  /** config.schema.json and docs/configuration.md, from src/config/schema*.ts. */
  config: [process.execPath, 'scripts/generate/config.ts'],
  /** docs/metrics.md, from src/telemetry/metrics-table.ts. */
  metrics: [process.execPath, 'scripts/generate/metrics.ts'],
  /** docs/admin-api.json, from src/admin/api.ts. */
  'admin-api': [process.execPath, 'scripts/generate/admin-api.ts'],
  /** docs/errors.md and the clients' constants, from src/errors.ts. */
  reasons: [process.execPath, 'scripts/generate/reasons.ts'],
  /** docs/what-happens-when.md, from the tables of src/core and src/dialect. */
  design: [process.execPath, 'scripts/generate/what-happens-when.ts'],
  /** docs/migration, from the programs in clients. */
  migration: [process.execPath, 'scripts/generate/migration.ts'],
  /** src/simulator/request.schema.json, from the published schema that the tests keep. */
  'simulator-schema': [process.execPath, 'scripts/generate/simulator-schema.ts'],
  /** The tables of docs/simulator.md, from src/simulator. */
  'simulator-doc': [process.execPath, 'scripts/generate/simulator-doc.ts'],
  /** The clients' stubs, from the .proto files. Java makes its own at build. */
  stubs: [process.execPath, 'scripts/generate/stubs.ts'],
} as const satisfies Record<string, readonly [string, ...string[]]>;

process.exitCode = main(process.argv.slice(2));

function main(args: readonly string[]): number {
  const options = args.filter((arg) => arg.startsWith('--'));
  const names = args.filter((arg) => !arg.startsWith('--'));
  const unknown = [
    ...options.filter((option) => option !== '--check'),
    ...names.filter((name) => !Object.hasOwn(GENERATORS, name)),
  ];
  if (unknown.length > 0) {
    console.error(
      `generate: found ${unknown.join(', ')}; allowed: --check, ${Object.keys(GENERATORS).join(', ')}`,
    );
    return 2;
  }
  const failed = Object.entries(GENERATORS)
    .filter(([name]) => names.length === 0 || names.includes(name))
    .filter(([, [command, ...rest]]) => run(command, [...rest, ...options]) !== 0);
  return failed.length > 0 ? 1 : 0;
}

function run(command: string, args: readonly string[]): number {
  const root = fileURLToPath(new URL('..', import.meta.url));
  const { status } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  return status ?? 1;
}
