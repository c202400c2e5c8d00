import type { Load } from '../grpc/load-reports.ts';
import type { Sample } from '../history/samples.ts';

/** What one process is measured with (docs/performance.md); `limits.sessions` says otherwise. */
const NOMINAL_SESSIONS = 10_000;

export interface LoadFacts {
  /** The last few seconds as one sample; undefined in the first of them. */
  readonly recent: Sample | undefined;
  readonly memoryShare: number;
  readonly connectionShare: number;
  readonly maxSessions: number | undefined;
  readonly ready: boolean;
}

/** For balancers that place new sessions: idle sessions fill a process too, so the fullest of its limits counts. */
export function loadOf({ recent, memoryShare, connectionShare, maxSessions, ready }: LoadFacts): Load {
  const { eventLoopShare = 0, sessions = 0, turnsRunning = 0 } = recent?.gauges ?? {};
  const { completed = 0, incomplete = 0, failed = 0, deadlineExceeded = 0 } = recent?.counts ?? {};
  const spanS = Math.max(1, recent?.spanS ?? 1);
  const sessionShare = sessions / (maxSessions ?? NOMINAL_SESSIONS);
  return {
    eventLoopShare,
    memoryShare,
    applicationShare: ready
      ? Math.min(1, Math.max(eventLoopShare, memoryShare, connectionShare, sessionShare))
      : 1,
    turnsPerSecond: (completed + incomplete + failed + deadlineExceeded) / spanS,
    failuresPerSecond: (failed + deadlineExceeded) / spanS,
    sessions,
    turnsRunning,
  };
}
