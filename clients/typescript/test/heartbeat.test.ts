import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Heartbeat } from '../src/heartbeat.ts';

beforeEach(() => vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] }));
afterEach(() => vi.useRealTimers());

function beating() {
  const seen = { paused: false, sent: 0, silentAtMs: Number.NaN };
  const startedAtMs = performance.now();
  const heartbeat = new Heartbeat({
    intervalMs: 1_000,
    isPaused: () => seen.paused,
    send: () => {
      seen.sent += 1;
    },
    onSilent: () => {
      seen.silentAtMs = performance.now() - startedAtMs;
    },
  });
  return { heartbeat, seen };
}

test('three intervals without a message are silence', () => {
  const { heartbeat, seen } = beating();
  vi.advanceTimersByTime(1_500);
  heartbeat.heard();
  vi.advanceTimersByTime(60_000);
  expect(seen).toMatchObject({ silentAtMs: 4_500, sent: 4 });
});

test('what is not read cannot be heard', () => {
  const { seen } = beating();
  seen.paused = true;
  vi.advanceTimersByTime(50_000);
  expect(seen).toMatchObject({ silentAtMs: Number.NaN, sent: 50 });
  seen.paused = false;
  vi.advanceTimersByTime(50_000);
  expect(seen.silentAtMs).toBe(53_000);
});
