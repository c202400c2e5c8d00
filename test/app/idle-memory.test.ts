import { afterEach, describe, expect, it, vi } from 'vitest';
import { giveBackWhenIdle } from '../../src/app/idle-memory.ts';
import { trimHeap } from '../../src/ground/garbage.ts';

const MIB = 1024 * 1024;

describe('memory of a process with little to do', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it('goes back after a burst of turns', async () => {
    const { process, samples, trims } = start();
    await samples(10);
    expect(trims()).toBe(0);
    process.rss = 130 * MIB;
    process.busy = 0.5;
    await samples(10);
    expect(trims()).toBe(0);
    process.busy = 0.01;
    // Soon the next burst may come.
    await samples(59);
    expect(trims()).toBe(0);
    await samples(1);
    expect(trims()).toBe(1);
    await samples(20);
    expect(trims()).toBe(1);
  });

  it('goes back when sessions with long conversations have closed', async () => {
    const { process, samples, trims } = start();
    process.held = 60 * MIB;
    process.rss = 170 * MIB;
    await samples(6);
    expect(trims()).toBe(0);
    process.held = 0;
    await samples(6);
    expect(trims()).toBe(1);
  });

  it('is left alone where there is little of it, or its last collection was just now', async () => {
    const { process, samples, trims } = start();
    await samples(6);
    process.rss += 15 * MIB;
    process.held = 15 * MIB;
    await samples(60);
    process.held = 0;
    await samples(10);
    expect(trims()).toBe(0);
    process.rss += 20 * MIB;
    await samples(1);
    process.rss += 20 * MIB;
    await samples(1);
    expect(trims()).toBe(1);
    await samples(3);
    expect(trims()).toBe(2);
  });

  it('is not looked at any more after closing', async () => {
    const { process, samples, trims, close } = start();
    close();
    process.rss = 500 * MIB;
    await samples(20);
    expect(trims()).toBe(0);
  });

  it('is collected by V8', async () => {
    const garbage = new WeakRef({ text: 'x' });
    // What was made in this turn of the event loop stays for it.
    while (garbage.deref() !== undefined) {
      await new Promise((resolve) => setImmediate(resolve));
      await trimHeap();
    }
  });
});

function start() {
  vi.useFakeTimers();
  const process = { rss: 100 * MIB, held: 0, busy: 0 };
  let trims = 0;
  const { close } = giveBackWhenIdle({
    rssBytes: () => process.rss,
    heldBytes: () => process.held,
    busyShare: () => process.busy,
    sampleIntervalMs: 1_000,
    trim: async () => {
      trims += 1;
    },
  });
  return {
    process,
    close,
    trims: () => trims,
    samples: (count: number) => vi.advanceTimersByTimeAsync(count * 1_000),
  };
}
