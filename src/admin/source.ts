import type { Sample } from '../history/samples.ts';
import type { UpstreamRow } from '../history/upstream-board.ts';
import type { UsageRow } from '../history/usage-board.ts';
import type { LinkCount } from '../telemetry/types.ts';
import type { SessionDetail, SessionQuery, SessionRow, TurnPage, TurnQuery } from './api.ts';

/** One process at this moment; those of several add up. */
export interface Board {
  readonly sample: Sample | undefined;
  readonly links: readonly LinkCount[];
  readonly usage: readonly UsageRow[];
  readonly upstreams: readonly UpstreamRow[];
  /** Processes that did not answer in time: what they have is missing. */
  readonly silentProcesses: number;
}

/** A session and what it is sorted by. */
export type SessionKey = readonly [key: number | string, id: string];

export interface SessionKeys {
  readonly keys: readonly SessionKey[];
  readonly silentProcesses: number;
}

/** `unknown…`: there is no such session, or turn. `noAnswer`: the process that may have it said nothing in time. */
export type ActResult = 'done' | 'unknownSession' | 'unknownTurn' | 'noAnswer';

/** What a process, or several as one, show of their sessions and do to them. Plain data: it may come from elsewhere. */
export interface SessionSource {
  board(): Promise<Board>;
  /** The last `seconds`, `stepS` of them in one sample. Oldest first. */
  past(stepS: number, seconds: number): Promise<readonly Sample[]>;
  /** Of all sessions that match, in no order. */
  keys(query: SessionQuery): Promise<SessionKeys>;
  /** In the order asked for; sessions that are gone meanwhile are left out. */
  rows(ids: readonly string[]): Promise<readonly SessionRow[]>;
  session(id: string): Promise<SessionDetail | 'noAnswer' | undefined>;
  turns(id: string, query: TurnQuery): Promise<TurnPage | 'noAnswer' | undefined>;
  cancelTurn(id: string, turnId: string): Promise<ActResult>;
  /** Running turns may finish until the configured timeout; the client is told to go elsewhere. */
  drainSession(id: string): Promise<ActResult>;
}
