import type { AccessControl } from '../access/types.ts';
import type { ResumePacing } from '../session/resume-pacing.ts';
import type { RunningWork } from '../session/running-work.ts';
import type { SessionRuntime } from '../session/sessions.ts';
import type { KeyedCalls } from '../store/types.ts';
import type { Wire } from '../translate/index.ts';
import type { Dialer } from '../upstream/types.ts';
import type { KeyedRuns } from './idempotency.ts';
import type { Peers } from './peers.ts';

/** Everything that a call needs, made once for a server. */
export interface Edge extends SessionRuntime {
  /** For what begins from now on: a session keeps the one that it began with. */
  dialer: Dialer;
  readonly access: AccessControl;
  readonly wire: Wire;
  /** The other processes behind the same port. */
  readonly peers: Peers | undefined;
  readonly resumePacing: ResumePacing;
  /** Calls of CreateResponse with an idempotency key. */
  readonly keyedRuns: KeyedRuns;
  /** The same, as all processes know them; undefined: there is no store. */
  readonly keyedCalls: KeyedCalls | undefined;
  /** Calls that belong to no session. */
  readonly calls: RunningWork;
  readonly maxMessageBytes: number;
  readonly maxTurnsInFlight: number;
  readonly openTimeoutMs: number;
  /** Longest pause between a client's heartbeats; undefined: there are none. */
  readonly heartbeatIntervalMs: number | undefined;
  readonly maxStreamAgeMs: number | undefined;
  readonly streamAgeGraceMs: number;
  /** Set while the server goes down: milliseconds of the clock when it will be gone. */
  drainDeadlineMs: number | undefined;
}
