import { describe, expect, it } from 'vitest';
import { readErrorFrame } from '../../src/dialect/upstream-error.ts';
import { frameFromBytes } from '../../src/translate/peek.ts';

const waitOf = (error: object) =>
  readErrorFrame(frameFromBytes(Buffer.from(JSON.stringify({ type: 'error', ...error })))).retryAfterMs;

describe('the time to wait', () => {
  it.each([
    ['Please try again in 1.2s.', 1_200],
    ['Please try again in 20ms. Visit the dashboard.', 20],
    ['Please try again in 6m0s.', 360_000],
    ['Please try again in 1m12.5s. Visit the dashboard.', 72_500],
    ['Please try again in 1h2m.', 3_720_000],
    ['Please try again in a moment.', undefined],
    ['Please try again in 5 steps.', undefined],
  ])('is read from the words "%s"', (message, ms) => {
    expect(waitOf({ error: { code: 'rate_limit_exceeded', message } })).toBe(ms);
  });

  it('is taken from the headers first, wherever they stand', () => {
    const message = 'Please try again in 9s.';
    expect(waitOf({ error: { message, headers: { 'Retry-After': '2' } } })).toBe(2_000);
    expect(waitOf({ message, headers: { 'retry-after-ms': '30' } })).toBe(30);
    expect(waitOf({ error: { message, resets_in_seconds: 4 } })).toBe(4_000);
  });
});
