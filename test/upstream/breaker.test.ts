import { fc, test } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';
import { backoffMs } from '../../src/ground/backoff.ts';
import { Breaker } from '../../src/upstream/breaker.ts';

function breakerAt(failures = 3) {
  const clock = { nowMs: 0 };
  const states: string[] = [];
  const breaker = new Breaker({
    failures,
    openMinMs: 1_000,
    openMaxMs: 10_000,
    now: () => clock.nowMs,
    random: () => 0,
    onState: (key, state) => states.push(`${key} ${state}`),
  });
  return { breaker, clock, states };
}

describe('a circuit', () => {
  it('opens with the last of the failures in a row', () => {
    const { breaker, states } = breakerAt();
    breaker.failed('a');
    breaker.failed('a');
    breaker.succeeded('a');
    breaker.failed('a');
    breaker.failed('a');
    expect(breaker.admit('a')).toBeUndefined();
    breaker.failed('a');
    expect(breaker.admit('a')?.retryAfterMs).toBe(1_000);
    expect(breaker.admit('b')).toBeUndefined();
    expect(states).toEqual(['a open']);
  });

  it('is told as closed when another breaker takes over, and no more of it is told', () => {
    const { breaker, states } = breakerAt();
    for (let dial = 0; dial < 3; dial++) breaker.failed('a');
    breaker.retire();
    breaker.succeeded('a');
    for (let dial = 0; dial < 3; dial++) breaker.failed('a');
    expect(states).toEqual(['a open', 'a closed']);
  });

  it('stays the key’s where the key was refused, and says nothing of the upstream', () => {
    const { breaker, clock, states } = breakerAt();
    const refuse = () => breaker.failed('a', { reason: 'UPSTREAM_AUTH' });
    for (let dial = 0; dial < 3; dial++) refuse();
    expect(breaker.admit('a')).toMatchObject({
      reason: 'UPSTREAM_AUTH',
      fault: 'gateway',
      retryAfterMs: 1_000,
    });
    clock.nowMs += 1_000;
    expect(breaker.admit('a')).toBeUndefined();
    refuse();
    expect(breaker.admit('a')).toMatchObject({ reason: 'UPSTREAM_AUTH', retryAfterMs: 2_000 });
    expect(states).toEqual([]);
    clock.nowMs += 2_000;
    breaker.admit('a');
    breaker.failed('a');
    expect(breaker.admit('a')?.reason).toBe('UPSTREAM_CIRCUIT_OPEN');
    clock.nowMs += 10_000;
    breaker.admit('a');
    refuse();
    expect(states).toEqual(['a open', 'a halfOpen', 'a closed']);
  });

  it('counts what one caller fails in a moment once, and again after a while', () => {
    const { breaker, clock, states } = breakerAt();
    const [one, two] = [{}, {}];
    for (let dial = 0; dial < 5; dial++) breaker.failed('a', { by: one });
    breaker.failed('a', { by: two });
    expect(breaker.admit('a')).toBeUndefined();
    clock.nowMs = 9_999;
    breaker.failed('a', { by: one });
    expect(states).toEqual([]);
    clock.nowMs = 10_000;
    breaker.failed('a', { by: one });
    expect(states).toEqual(['a open']);
    // A probe has failed, whoever made it.
    clock.nowMs = 11_000;
    breaker.admit('a');
    breaker.failed('a', { by: one });
    expect(states).toEqual(['a open', 'a halfOpen', 'a open']);
  });

  it('counts no dial that began before the last one that succeeded', () => {
    const { breaker, clock } = breakerAt(1);
    const beganAtMs = clock.nowMs;
    clock.nowMs = 5_000;
    breaker.succeeded('a');
    clock.nowMs = 10_000;
    for (let dial = 0; dial < 5; dial++) breaker.failed('a', { beganAtMs });
    expect(breaker.admit('a')).toBeUndefined();
    breaker.failed('a', { beganAtMs: 5_001 });
    expect(breaker.admit('a')?.reason).toBe('UPSTREAM_CIRCUIT_OPEN');
  });

  it('stays open twice as long after every failed probe, up to the limit', () => {
    const { breaker, clock } = breakerAt(1);
    breaker.failed('a');
    for (const openMs of [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]) {
      clock.nowMs += openMs - 1;
      expect(breaker.admit('a')?.retryAfterMs).toBe(1);
      clock.nowMs += 1;
      expect(breaker.admit('a')).toBeUndefined();
      expect(breaker.admit('a')?.reason).toBe('UPSTREAM_CIRCUIT_OPEN');
      breaker.failed('a');
    }
  });

  it('waits as long as the upstream asks, within its limit', () => {
    const { breaker } = breakerAt(1);
    breaker.failed('a', { retryAfterMs: 5_000 });
    expect(breaker.admit('a')?.retryAfterMs).toBe(5_000);
    breaker.failed('b', { retryAfterMs: 3_600_000 });
    expect(breaker.admit('b')?.retryAfterMs).toBe(10_000);
  });

  it('gives a probe that was given up to the next who asks', () => {
    const { breaker, clock, states } = breakerAt(1);
    breaker.failed('a');
    clock.nowMs = 1_000;
    expect(breaker.admit('a')).toBeUndefined();
    breaker.abandoned('a');
    expect(breaker.admit('a')).toBeUndefined();
    breaker.succeeded('a');
    expect(breaker.admit('a')).toBeUndefined();
    expect(states).toEqual(['a open', 'a halfOpen', 'a halfOpen', 'a closed']);
  });

  it('lets another probe go when one is never decided', () => {
    const { breaker, clock } = breakerAt(1);
    breaker.failed('a');
    clock.nowMs = 1_000;
    expect(breaker.admit('a')).toBeUndefined();
    clock.nowMs = 10_999;
    expect(breaker.admit('a')?.retryAfterMs).toBe(1_000);
    clock.nowMs = 11_000;
    expect(breaker.admit('a')).toBeUndefined();
  });

  it('is not moved by dials that began before it opened', () => {
    const { breaker, clock } = breakerAt(1);
    breaker.failed('a');
    clock.nowMs = 900;
    breaker.failed('a');
    expect(breaker.admit('a')?.retryAfterMs).toBe(100);
  });

  it('forgets the oldest of very many keys', () => {
    const { breaker } = breakerAt(1);
    for (let key = 0; key < 5_000; key += 1) breaker.failed(String(key));
    expect(breaker.admit('0')).toBeUndefined();
    expect(breaker.admit('4999')?.reason).toBe('UPSTREAM_CIRCUIT_OPEN');
  });
});

test.prop([
  fc.nat(2_000),
  fc.integer({ min: 1, max: 10_000 }),
  fc.nat(100_000),
  fc.double({ min: 0, max: 0.999, noNaN: true }),
])('a backoff lies between half and all of its bounds', (attempt, minMs, extraMs, random) => {
  const maxMs = minMs + extraMs;
  const waitMs = backoffMs(attempt, { minMs, maxMs, random: () => random });
  expect(waitMs).toBeGreaterThanOrEqual(Math.floor(minMs / 2));
  expect(waitMs).toBeLessThanOrEqual(maxMs);
  expect(backoffMs(attempt + 1, { minMs, maxMs, random: () => random })).toBeGreaterThanOrEqual(waitMs);
});
