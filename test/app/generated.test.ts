import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const cwd = fileURLToPath(new URL('../..', import.meta.url));
const generate = (...args: readonly string[]) =>
  spawnSync(process.execPath, ['scripts/generate.ts', ...args], { cwd, encoding: 'utf8' });

// Descriptors and stubs need other tools; `npm run check` has them.
test.each(['mapping', 'api', 'config', 'metrics', 'reasons', 'design', 'migration'])(
  'what npm run generate writes of %s is committed',
  (name) => {
    const { status, stderr } = generate(name, '--check');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  },
);

test('a generator that does not exist is named, with those that do', () => {
  const { status, stderr } = generate('metric');
  expect(status).toBe(2);
  expect(stderr).toMatch(/found metric; allowed: --check, .*metrics/);
});
