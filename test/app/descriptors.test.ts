import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { countDescriptors, defaultMaxConnections, descriptorLimit } from '../../src/app/descriptors.ts';

const limits = (soft: string) =>
  `Limit                     Soft Limit           Hard Limit           Units\nMax open files            ${soft}                20000                files     \n`;

describe('file descriptors', () => {
  it.each([
    [limits('20000'), 20_000],
    [limits('1048576'), 1_048_576],
    ['', 8_192],
    [limits('unlimited'), 8_192],
  ])('the limit is what the kernel says', (text, limit) => {
    expect(descriptorLimit(text)).toBe(limit);
  });

  it.each([
    [1_024, 384],
    [20_000, 9_872],
    [64, 16],
  ])('of %i, clients get %i', (limit, connections) => {
    expect(defaultMaxConnections(limit)).toBe(connections);
  });
});

it('counts the open descriptors', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'descriptors-'));
  for (const name of ['0', '1', '2', '3']) writeFileSync(join(folder, name), '');
  const descriptors = countDescriptors(folder);
  // All but the one that counts.
  await expect.poll(() => descriptors.open).toBe(3);
  descriptors.close();
  rmSync(folder, { recursive: true });
  const nowhere = countDescriptors(folder);
  expect(nowhere.open).toBe(0);
  nowhere.close();
});
