import type { Load } from '../grpc/load-reports.ts';
import type { CountName, Sample } from '../history/samples.ts';

/** What one process is measured with (docs/performance.md); `limits.sessions` says otherwise. */
const NOMINAL_SESSIONS = 10_000;

export interface LoadFacts {
  /** The last few seconds, a sample each; empty in the first of them. */
  readonly recent: readonly Sample[];
  readonly memoryShare: number;
  readonly connectionShare: number;
  readonly maxSessions: number | undefined;
  readonly ready: boolean;
}

/** For balancers that place new sessions: idle sessions fill a process too, so the fullest of its limits counts. */
export function loadOf({ recent, memoryShare, connectionShare, maxSessions, ready }: LoadFacts): Load {
  const { eventLoopShare = 0, sessions = 0, turnsRunning = 0 } = recent.at(-1)?.gauges ?? {};
  const perSecond = (name: CountName): number =>
    recent.reduce((total, { counts }) => total + counts[name], 0) / Math.max(1, recent.length);
  const failuresPerSecond = perSecond('failed') + perSecond('deadlineExceeded');
  const sessionShare = sessions / (maxSessions ?? NOMINAL_SESSIONS);
  return {
    eventLoopShare,
    memoryShare,
    applicationShare: ready
      ? Math.min(1, Math.max(eventLoopShare, memoryShare, connectionShare, sessionShare))
      : 1,
    turnsPerSecond: perSecond('completed') + perSecond('incomplete') + failuresPerSecond,
    failuresPerSecond,
    sessions,
    turnsRunning,
  };
}
