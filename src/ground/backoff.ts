export interface BackoffOptions {
  readonly minMs: number;
  readonly maxMs: number;
  /** In [0, 1). */
  readonly random: () => number;
}

/**
 * The wait before try number `attempt` (0, 1, 2 …): doubles from `minMs` up to `maxMs`, of which a random half is
 * taken off, so that many waiters of one outage do not come back together and none comes back at once.
 */
export function backoffMs(attempt: number, { minMs, maxMs, random }: BackoffOptions): number {
  const ceilingMs = Math.min(maxMs, minMs * 2 ** Math.min(attempt, MAX_DOUBLINGS));
  return Math.round(ceilingMs * (1 - random() / 2));
}

/** Beyond it 2 ** n only risks losing precision. */
const MAX_DOUBLINGS = 30;
