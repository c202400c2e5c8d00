import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { createMemoryGuard, memoryLimits, oldSpaceLimit } from '../../src/access/memory-guard.ts';
import type { AccessWarning, MemoryUse } from '../../src/access/options.ts';

const MIB = 1024 * 1024;

function setUp() {
  vi.useFakeTimers();
  const warnings: AccessWarning[] = [];
  const pressures: number[] = [];
  let nowMs = 0;
  const state = {
    use: { heapBytes: 10, heapLimitBytes: 100, rssBytes: 10, rssLimitBytes: 1_000 } as MemoryUse,
  };
  const asked = { probes: 0, collections: 0 };
  const guard = createMemoryGuard(
    {
      probe: () => {
        asked.probes += 1;
        return state.use;
      },
      now: () => nowMs,
      sampleIntervalMs: 500,
      onPressure: (bytes) => pressures.push(bytes),
      collectGarbage: () => {
        asked.collections += 1;
      },
    },
    (warning) => warnings.push(warning),
  );
  onTestFinished(() => {
    guard.close();
    vi.useRealTimers();
  });
  const pass = (ms: number) => {
    for (let left = ms; left > 0; left -= 500) {
      nowMs += Math.min(left, 500);
      vi.advanceTimersByTime(Math.min(left, 500));
    }
  };
  const heapAt = (heapBytes: number) => {
    state.use = { ...state.use, heapBytes };
  };
  return { guard, warnings, pressures, asked, state, pass, heapAt };
}

describe('the memory guard', () => {
  test('asks for memory before it refuses work, with a pause for it to take effect', () => {
    const { guard, pressures, pass, heapAt } = setUp();
    heapAt(79);
    pass(500);
    expect(pressures).toEqual([]);
    heapAt(80);
    pass(500);
    // Down to the low mark.
    expect(pressures).toEqual([5]);
    expect(guard.overload()).toBeUndefined();
    pass(4_500);
    expect(pressures).toEqual([5]);
    pass(500);
    expect(pressures).toEqual([5, 5]);
  });

  test('looks again when it is asked, since half a second can be long', () => {
    const { guard, asked, pass, heapAt } = setUp();
    heapAt(90);
    expect(guard.overload()).toBeUndefined();
    pass(49);
    expect(guard.overload()).toBeUndefined();
    expect(asked.probes).toBe(1);
    pass(1);
    expect(guard.overload()?.reason).toBe('OVERLOADED');
    for (let n = 0; n < 100; n++) guard.overload();
    expect(asked.probes).toBe(2);
  });

  test('collects garbage while it refuses, and only then', () => {
    const { guard, asked, pass, heapAt } = setUp();
    heapAt(84);
    pass(10_000);
    expect(asked.collections).toBe(0);
    heapAt(85);
    pass(10_500);
    expect(asked.collections).toBe(3);
    heapAt(74);
    pass(10_000);
    expect(guard.overload()).toBeUndefined();
    expect(asked.collections).toBe(3);
  });

  test('goes by what it knew when nobody can tell it more', () => {
    const { guard, state, pass } = setUp();
    const noFiles = Object.assign(new Error('too many open files'), { code: 'EMFILE' });
    Object.defineProperty(state, 'use', {
      get: () => {
        throw noFiles;
      },
    });
    expect(() => pass(5_000)).not.toThrow();
    expect(guard.share).toBe(0.1);
    expect(guard.overload()).toBeUndefined();
  });
});

describe('the limits', () => {
  test.each([
    ['what the flag leaves', 432, ['--max-semi-space-size=16', '--max-old-space-size-percentage=75'], 384],
    ['in either spelling', 432, ['--max_semi_space_size=16'], 384],
    ["by V8's own rule", 259, [], 256],
    ['never absurd', 64, ['--max-semi-space-size=32'], 32],
  ])('of the old space are %s', (_, heapMib, flags, oldMib) => {
    expect(Math.round(oldSpaceLimit(heapMib * MIB, flags) / MIB)).toBe(oldMib);
  });

  test('of a container are shared by the processes in it', () => {
    expect(memoryLimits(4).rssBytes * 4).toBe(memoryLimits().rssBytes);
    expect(memoryLimits(4).heapBytes).toBe(memoryLimits().heapBytes);
  });
});
