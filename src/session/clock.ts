/** Longest delay that Node's timers take: 31 bits, some 24 days. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/** Milliseconds since the epoch that never go back, whatever happens to the wall clock. */
export function steadyNow(): number {
  return performance.timeOrigin + performance.now();
}
