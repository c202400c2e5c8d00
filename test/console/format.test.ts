import { expect, test } from 'vitest';
import { bytes, duration, percent, short } from '../../console/src/format.ts';

test.each([
  [0, '0'],
  [0.25, '0.25'],
  [1.5, '1.5'],
  [10, '10'],
  [9_999, '9,999'],
  [10_000, '10k'],
  [12_340, '12.3k'],
  [100_000, '100k'],
  [220_000, '220k'],
  [1_000_000, '1M'],
  [120_000_000, '120M'],
  [5_000_000_000, '5G'],
])('%d is short as %s', (value, text) => {
  expect(short(value)).toBe(text);
});

test.each([
  [200_000, '200 kB'],
  [1_050_000, '1.1 MB'],
  [300_000_000, '300 MB'],
])('%d bytes are %s', (value, text) => {
  expect(bytes(value)).toBe(text);
});

test('durations and shares lose no zeros of whole numbers', () => {
  expect([duration(20_000), duration(1_250), duration(500)]).toEqual(['20 s', '1.25 s', '500 ms']);
  expect([percent(0.1), percent(1), percent(0.015), percent(0.005)]).toEqual([
    '10 %',
    '100 %',
    '1.5 %',
    '0.5 %',
  ]);
});
