import type { RunnerName } from './runners.ts';

const REPLICAS = [
  'session-moves-when-its-gateway-shuts-down',
  'idle-session-moves-at-once',
  'session-outlives-its-gateway',
] as const;

const ANSWERS = [
  'parsed-answer',
  'parsed-refusal',
  'parsed-incomplete',
  'parsed-answer-that-does-not-fit',
  'plain-options',
  'plain-input',
  'plain-tools',
  'retry-of-what-certainly-did-not-run',
] as const;

/** Cases that a language does not pass yet. Told by name in each run; run only when they are named. */
export const PENDING: Readonly<Partial<Record<RunnerName, readonly string[]>>> = {
  go: [...REPLICAS, ...ANSWERS],
  java: [...REPLICAS, ...ANSWERS],
};
