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
  const { stackTraceLimit } = Error;
  // Turns fail by the thousand: a quarter of the time would go into stacks that nobody reads.
  Error.stackTraceLimit = 0;
  try {
    for (let seed = FIRST; seed < FIRST + COUNT; seed += 1) {
      if (failureOf(seed) === undefined) continue;
      Error.stackTraceLimit = stackTraceLimit;
      expect.fail(`CORE_SEED=${seed}: ${failureOf(seed)}`);
    }
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
});

function failureOf(seed: number): string | undefined {
  try {
    new Schedule(seed, TRACE ? console.log : undefined).play();
    return undefined;
  } catch (cause) {
    return cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
  }
}
