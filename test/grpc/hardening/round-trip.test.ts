import { describe, expect, it, vi } from 'vitest';
import { roundTrip } from '../../../src/grpc/hardening/round-trip.ts';

/** A connection whose other side answers when it is told to. */
function connection() {
  const pings: (() => void)[] = [];
  return {
    destroyed: false,
    pings,
    ping(done: (error: Error | null) => void) {
      pings.push(() => done(null));
      return true;
    },
  };
}

async function isSettled(promise: Promise<void>): Promise<boolean> {
  const pending = Symbol();
  // Promises that follow one another settle within one turn of the loop.
  await new Promise(setImmediate);
  return (await Promise.race([promise, Promise.resolve(pending)])) !== pending;
}

describe('a round trip', () => {
  it('is over when the other side has answered', async () => {
    const link = connection();
    const trip = roundTrip(link);
    expect(await isSettled(trip)).toBe(false);
    link.pings[0]?.();
    expect(await isSettled(trip)).toBe(true);
  });

  it('that begins while a ping is under way waits for the next one, and shares it', async () => {
    const link = connection();
    const first = roundTrip(link);
    const later = [roundTrip(link), roundTrip(link)];
    link.pings[0]?.();
    await first;
    expect(await isSettled(later[0] as Promise<void>)).toBe(false);
    expect(link.pings).toHaveLength(2);
    link.pings[1]?.();
    await Promise.all(later);
    const last = roundTrip(link);
    link.pings[2]?.();
    await last;
    expect(link.pings).toHaveLength(3);
  });

  it.each([
    [
      'cannot be asked',
      () => {
        throw new Error('too many pings');
      },
    ],
    ['does not answer', () => true],
  ])('of a connection that %s ends after a while', async (_, ping) => {
    vi.useFakeTimers();
    try {
      const trip = roundTrip({ destroyed: false, ping });
      await vi.advanceTimersByTimeAsync(3_000);
      await trip;
    } finally {
      vi.useRealTimers();
    }
  });

  it('of a connection that is gone is over at once', async () => {
    await roundTrip({ ...connection(), destroyed: true });
  });
});
