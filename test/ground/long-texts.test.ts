import { createHash } from 'node:crypto';
import { expect, it } from 'vitest';
import { joinTexts, LONG_TEXT, measureSteps, quoteSteps, sliceEnd } from '../../src/ground/long-texts.ts';
import { memoryOfText } from '../../src/ground/text-memory.ts';

/** Each begins elsewhere in a character of two units. */
const TEXTS = ['a', 'é', '漢', '🦜', '"\\\n\u0001', '\ud800x'].flatMap((piece) =>
  [0, 1].map((shift) => 'x'.repeat(shift) + piece.repeat(Math.ceil((2.5 * LONG_TEXT) / piece.length))),
);

function finish<T>(steps: Generator<undefined, T>): { readonly value: T; readonly pauses: number } {
  for (let pauses = 0; ; pauses++) {
    const step = steps.next();
    if (step.done === true) return { value: step.value, pauses };
  }
}

it.each(TEXTS)('writes and measures a long text in steps as at once', (text) => {
  const json = finish(quoteSteps(text));
  expect(json.value === JSON.stringify(text)).toBe(true);
  expect(json.pauses).toBeGreaterThan(2);
  const measured = finish(measureSteps(json.value));
  expect(measured.value).toEqual({
    bytes: Buffer.byteLength(json.value),
    digest: createHash('sha256').update(json.value).digest('base64url'),
  });
  expect(measured.pauses).toBeGreaterThan(2);
});

it('cuts no character', () => {
  expect(sliceEnd('🦜🦜', 0, 1)).toBe(2);
  expect(sliceEnd('🦜🦜', 0, 2)).toBe(2);
  expect(sliceEnd('🦜🦜', 2, 1)).toBe(4);
  expect(sliceEnd('\ud83e', 0, 1)).toBe(1);
});

it('joins long texts as short ones', () => {
  const long = 'x'.repeat(LONG_TEXT);
  expect(joinTexts(['a', long, 'b'], ',') === `a,${long},b`).toBe(true);
  expect(joinTexts(['a', 'b'], ',')).toBe('a,b');
  expect(joinTexts([long], ',') === long).toBe(true);
  expect(joinTexts([], ',')).toBe('');
});

it('counts two bytes for each letter of a text with one that needs them', () => {
  const ascii = memoryOfText('a'.repeat(1_000));
  expect(ascii).toBeGreaterThanOrEqual(1_000);
  expect(memoryOfText(`${'a'.repeat(999)}漢`)).toBe(ascii + 1_000);
});
