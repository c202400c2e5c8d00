/** Milliseconds since the epoch that never go back, whatever happens to the wall clock. */
export function steadyNow(): number {
  return performance.timeOrigin + performance.now();
}
