import type { RunnerName } from './runners.ts';

const REPLICAS = [
  'session-moves-when-its-gateway-shuts-down',
  'idle-session-moves-at-once',
  'session-outlives-its-gateway',
] as const;

/** Cases that a language does not pass yet. Told by name in each run; run only when they are named. */
export const PENDING: Readonly<Partial<Record<RunnerName, readonly string[]>>> = {
  go: REPLICAS,
  java: REPLICAS,
};
