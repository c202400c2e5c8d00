import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { watchConfigFile } from '../../src/cli/config-file-watch.ts';

function watched(quietMs: number) {
  const folder = mkdtempSync(join(tmpdir(), 'watch-'));
  const file = join(folder, 'gateway.yaml');
  writeFileSync(file, 'old');
  const seen: string[] = [];
  const stop = watchConfigFile(file, () => seen.push(readFileSync(file, 'utf8')), {
    intervalMs: 10,
    quietMs,
  });
  onTestFinished(() => {
    stop();
    rmSync(folder, { recursive: true });
  });
  return { file, seen };
}

test('a file that is written in steps is read once, when it is whole', async () => {
  const { file, seen } = watched(400);
  for (const part of ['', 'a', 'ab', 'abc', 'abcd']) {
    writeFileSync(file, part);
    await delay(40);
  }
  writeFileSync(file, 'whole');
  await expect.poll(() => seen, { timeout: 10_000 }).toEqual(['whole']);
});

test('a file that another takes the place of is read', async () => {
  const { file, seen } = watched(20);
  writeFileSync(`${file}.new`, 'new');
  renameSync(`${file}.new`, file);
  await expect.poll(() => seen, { timeout: 10_000 }).toEqual(['new']);
});
