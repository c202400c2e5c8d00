import { expect, it } from 'vitest';
import { Schedule } from './conversations/schedule.ts';

/** 5,000 in the normal run; `CORE_CONVERSATIONS=1000000` for a night. `CORE_SEED` begins elsewhere; a failure prints its own. */
const COUNT = Number(process.env['CORE_CONVERSATIONS'] ?? 5_000);
/** Prints all that goes in and out. */
const TRACE = process.env['CORE_TRACE'] !== undefined;
const FIRST = Number(process.env['CORE_SEED'] ?? 1);

it(`keeps every conversation, whatever the upstream is like (${COUNT} schedules)`, {
  timeout: 7_200_000,
}, () => {
  for (let seed = FIRST; seed < FIRST + COUNT; seed += 1) {
    try {
      new Schedule(seed, TRACE ? console.log : undefined).play();
    } catch (cause) {
      expect.fail(
        `CORE_SEED=${seed}: ${cause instanceof Error ? (cause.stack ?? cause.message) : String(cause)}`,
      );
    }
  }
});
