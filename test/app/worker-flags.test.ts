import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { workerFlags } from '../../src/app/worker-flags.ts';

it('divides a share of the memory among workers, and nothing else', () => {
  const flags = ['--max-semi-space-size=16', '--max-old-space-size-percentage=60', '--disable-proto=delete'];
  expect(workerFlags(flags, 4)).toEqual([
    '--max-semi-space-size=16',
    '--max-old-space-size-percentage=15',
    '--disable-proto=delete',
  ]);
  expect(workerFlags(['--max-old-space-size=512'], 4)).toEqual(['--max-old-space-size=512']);
  expect(workerFlags([], 4)).toEqual([]);
});

it('gives Node a share that it understands', () => {
  const limitOf = (flags: readonly string[]) =>
    Number(
      spawnSync(process.execPath, [
        ...flags,
        '-p',
        "require('node:v8').getHeapStatistics().heap_size_limit / 1048576",
      ]).stdout.toString(),
    );
  const flags = ['--max-semi-space-size=1', '--max-old-space-size-percentage=10'];
  const whole = limitOf(flags);
  // Both limits hold a young generation of the same size.
  expect(limitOf(workerFlags(flags, 3))).toBeLessThan(whole / 2);
  expect(limitOf(workerFlags(flags, 3))).toBeGreaterThan(whole / 4);
});
