import { describe, expect, it } from 'vitest';
import { MAX_RETRY_AFTER_MS, retryAfterMs } from '../../src/dialect/retry-after.ts';

const NOW = Date.parse('2026-11-30T12:00:00Z');

describe('the time to wait', () => {
  it.each([
    ['Please try again in 1.2s.', 1_200],
    ['Please try again in 20ms. Visit the dashboard.', 20],
    ['Please try again in 6m0s.', 360_000],
    ['Please try again in 1m12.5s. Visit the dashboard.', 72_500],
    ['Please try again in 1h2m.', 3_720_000],
    ['Please try again in 20 seconds.', 20_000],
    ['Please retry after 26 seconds. To raise your limit', 26_000],
    ['Please retry in 43.5s.', 43_500],
    ['Try again in about 5 minutes', 300_000],
    ['Try again in 1 minute and 5 seconds', 65_000],
    ['Please try again in 1d2h.', MAX_RETRY_AFTER_MS],
    [`Please try again in ${'9'.repeat(400)}s.`, MAX_RETRY_AFTER_MS],
    ['Please try again in 3 messages.', undefined],
    ['Please try again in a moment.', undefined],
    ['Please try again in 5 steps.', undefined],
    ['You must wait 10M tokens.', undefined],
    ['Please try again in 900h.', MAX_RETRY_AFTER_MS],
  ])('is read from the words "%s"', (message, ms) => {
    expect(retryAfterMs({ message }, NOW)).toBe(ms);
  });

  it.each([
    [{ 'retry-after': '2' }, 2_000],
    [{ 'Retry-After': 2 }, 2_000],
    [{ 'retry-after': '0' }, 0],
    [{ 'retry-after': '1.5' }, 1_500],
    [{ 'retry-after-ms': '30', 'retry-after': '2' }, 30],
    [{ 'retry-after': 'Mon, 30 Nov 2026 12:00:05 GMT' }, 5_000],
    [{ 'retry-after': 'Monday, 30-Nov-26 12:00:05 GMT' }, 5_000],
    // Without a zone, and UTC wherever the gateway runs.
    [{ 'retry-after': 'Mon Nov 30 12:00:05 2026' }, 5_000],
    [{ 'retry-after': '2026-11-30T12:00:05Z' }, 5_000],
    [{ 'retry-after': '5s' }, 5_000],
    [{ 'retry-after': ['7', '9'] }, 7_000],
    [{ 'retry-after': '7, 9' }, 7_000],
    [{ 'retry-after': '0x10' }, undefined],
    [{ 'x-ms-retry-after-ms': '350' }, 350],
    [{ 'retry-after': 'Mon, 30 Nov 2026 11:00:00 GMT' }, 0],
    // An epoch time would be 56 years.
    [{ 'retry-after': '1764500000' }, MAX_RETRY_AFTER_MS],
    [{ 'retry-after': 'Fri, 31 Dec 9999 23:59:59 GMT' }, MAX_RETRY_AFTER_MS],
    [{ 'retry-after': '1e400' }, undefined],
    [{ 'retry-after': '-5' }, undefined],
    [{ 'retry-after': 'soon' }, undefined],
    [{ 'retry-after': '' }, undefined],
    [{ 'retry-after': null }, undefined],
  ])('is taken from the headers %j', (headers, ms) => {
    expect(retryAfterMs({ headers }, NOW)).toBe(ms);
  });

  it('is taken from the most exact place that says something sane', () => {
    const message = 'Please try again in 9s.';
    expect(retryAfterMs({ headers: { 'retry-after': '1764500000' }, message }, NOW)).toBe(9_000);
    expect(retryAfterMs({ error: { resets_in_seconds: 4 }, message }, NOW)).toBe(4_000);
    expect(retryAfterMs({ error: { retry_after: '3' }, message }, NOW)).toBe(3_000);
    expect(retryAfterMs({ error: { resets_at: NOW / 1_000 + 30 }, message }, NOW)).toBe(30_000);
    expect(retryAfterMs({ error: { details: [{}, { retryDelay: '7.5s' }] }, message }, NOW)).toBe(7_500);
  });

  it('is not read from a prototype', () => {
    const headers = JSON.parse('{"__proto__":{"retry-after":"5"}}') as Record<string, unknown>;
    expect(retryAfterMs({ headers }, NOW)).toBeUndefined();
  });
});
