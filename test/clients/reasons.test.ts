import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

test('the constants of the clients are those of the two tables', () => {
  const run = () => execFileSync(process.execPath, ['scripts/generate/reasons.ts', '--check'], { cwd: ROOT });
  expect(run).not.toThrow();
});
