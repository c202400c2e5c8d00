import type { RunnerName } from './runners.ts';

/** Cases that a language does not pass yet. Told by name in each run; run only when they are named. */
export const PENDING: Readonly<Partial<Record<RunnerName, readonly string[]>>> = {};
