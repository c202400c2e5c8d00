import { fc, test } from '@fast-check/vitest';
import { expect } from 'vitest';
import { compileGlob, compilePathGlob } from '../../src/ground/glob.ts';
import { cpuMsOf } from '../harness/cpu.ts';

test.each([
  ['gpt-*', 'gpt-6', true],
  ['gpt-*', 'gpt', false],
  ['*', '', true],
  ['a*b*c', 'a-b-b-c', true],
  ['a*a', 'a', false],
  ['a*ab', 'aab', true],
  ['*-mini', 'gpt-6-mini', true],
  ['gpt.6', 'gpt-6', false],
  ['', 'x', false],
  ['**', 'x', true],
])('%s fits %s: %s', (pattern, value, fits) => {
  expect(compileGlob(pattern)(value)).toBe(fits);
});

test.each([
  ['spiffe://x/*', 'spiffe://x/a', true],
  ['spiffe://x/*', 'spiffe://x/a/b', false],
  ['spiffe://x/ns/*/sa/*', 'spiffe://x/ns/a/sa/b', true],
  ['spiffe://x/*', 'spiffe://y/a', false],
])('path %s fits %s: %s', (pattern, value, fits) => {
  expect(compilePathGlob(pattern)(value)).toBe(fits);
});

const letters = fc.string({ unit: fc.constantFrom('a', 'b', '*'), maxLength: 8 });

test.prop([letters, fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 12 })])(
  'agrees with the regular expression it stands for',
  (pattern, value) => {
    const expected = new RegExp(`^${pattern.replaceAll('*', '.*')}$`).test(value);
    expect(compileGlob(pattern)(value)).toBe(expected);
  },
);

test('a pattern full of stars costs no more than the value is long', () => {
  const fits = compileGlob(`${'a*'.repeat(50)}b`);
  expect(cpuMsOf(() => expect(fits('a'.repeat(100_000))).toBe(false))).toBeLessThan(100);
});
