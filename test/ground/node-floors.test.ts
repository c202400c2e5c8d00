import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { enginesRange, floorAbove } from '../../src/ground/node-floors.ts';

test.each([
  ['24.22.3', undefined],
  ['24.22.2', '24.22.3'],
  ['v24.9.0', '24.22.3'],
  ['24.23.0', undefined],
  ['22.23.4', '22.23.5'],
  ['22.23.5', undefined],
  ['26.13.0', '26.13.1'],
  ['27.0.0', undefined],
  // Lines that ended before the fixes never get them.
  ['20.20.2', '22.23.5'],
  ['23.11.0', '24.22.3'],
  ['25.9.0', '26.13.1'],
  ['24.22.3-nightly', undefined],
])('Node %s: floor above it %s', (version, floor) => {
  expect(floorAbove(version)).toBe(floor);
});

test('package.json and the pinned Node hold to the floors', () => {
  const { engines } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    engines: { node: string };
  };
  expect(engines.node).toBe(enginesRange());
  expect(floorAbove(process.versions.node)).toBeUndefined();
});
