import { expect, it } from 'vitest';
import { OutgoingText } from '../../src/upstream/outgoing-text.ts';

const KIB = 1024;

function fragmentsOf(parts: readonly string[], fragmentBytes: number): Buffer[] {
  const text = new OutgoingText(parts, fragmentBytes);
  const fragments: Buffer[] = [];
  do fragments.push(Buffer.from(text.next()));
  while (!text.isDone);
  return fragments;
}

it.each([
  ['short parts', ['{"a":', '1', '', '}']],
  ['a long part between short ones', ['{"a":"', 'x'.repeat(200 * KIB), '"}']],
  ['characters of two units at every place', ['x', '🦜'.repeat(100 * KIB), '漢'.repeat(50 * KIB), '🦜']],
  ['nothing', ['']],
])('sends the same bytes in fragments: %s', (_, parts) => {
  const whole = Buffer.from(parts.join(''));
  const fragments = fragmentsOf(parts, 64 * KIB);
  expect(Buffer.concat(fragments).equals(whole)).toBe(true);
  expect(Math.max(...fragments.map(({ length }) => length))).toBeLessThanOrEqual(64 * KIB);
  // For servers that take no fragments.
  expect(fragmentsOf(parts, Number.POSITIVE_INFINITY)).toEqual([whole]);
});
