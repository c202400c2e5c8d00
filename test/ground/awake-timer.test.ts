import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { afterAwakeMs } from '../../src/ground/awake-timer.ts';

it('counts no time in which the process could not run', async () => {
  let timedOut = false;
  const cancel = afterAwakeMs(200, () => {
    timedOut = true;
  });
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 400);
  for (let n = 0; n < 3; n += 1) await nextTurn();
  cancel();
  expect(timedOut).toBe(false);
});

it('ends after its time, unless it was cancelled', async () => {
  let cancelled = true;
  afterAwakeMs(1, () => {
    cancelled = false;
  })();
  await new Promise<void>((resolve) => afterAwakeMs(20, resolve));
  expect(cancelled).toBe(true);
});
