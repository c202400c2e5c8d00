import type { Seat } from './homeless.ts';
import type { Turn } from './turn.ts';

/** What the next create from one response must bring besides its own input. */
export interface Carried {
  /** Accepted steers that the next explicit create commits (upstream.md#life-of-a-steer, WAITING). */
  readonly steers: readonly WaitingSteer[];
  /** Outputs of tools that a turn brought which its client then gave up; the conversation needs them. */
  readonly outputs: readonly string[];
}

export interface WaitingSteer {
  readonly id: string | undefined;
  /** Empty where it was not kept: only the upstream that holds it can still add it. */
  readonly input: readonly string[];
  /** The link whose upstream holds it and adds it by itself; undefined: it has to be sent. */
  readonly heldBy: number | undefined;
}

export const NOTHING_CARRIED: Carried = Object.freeze({ steers: [], outputs: [] });

/** One conversation line. Turns run one after the other, in the order they were accepted. */
export interface Lane {
  readonly id: string;
  readonly queue: Turn[];
  /** Written and not ended. */
  active: Turn | undefined;
  /** The lane's last usable response. */
  headId: string | undefined;
  /** Where the lane lives; undefined until it is needed, and after its link is lost. */
  linkId: number | undefined;
  /** While it is one of `core.homeless`. */
  seat: Seat | undefined;
  /** It has lived on a link, which may know its name. */
  wasSettled: boolean;
  /** The link in whose `load` the lane counts. */
  countedOn: number | undefined;
  /** Forks from this lane's head that are not yet running: it must stay in the upstream's cache (upstream.md#forks). */
  waitingForks: number;
  notBeforeMs: number | undefined;
  /** By the response that the create must continue. */
  readonly carried: Map<string, Carried>;
  lastUsedAtMs: number;
  /** Why the next turn will need a replay, for its Notice. */
  lostReason: string | undefined;
  droppedTold: boolean;
}

export function newLane(id: string, nowMs: number): Lane {
  return {
    id,
    queue: [],
    active: undefined,
    headId: undefined,
    linkId: undefined,
    seat: undefined,
    wasSettled: false,
    countedOn: undefined,
    waitingForks: 0,
    notBeforeMs: undefined,
    carried: new Map(),
    lastUsedAtMs: nowMs,
    lostReason: undefined,
    droppedTold: false,
  };
}

/** The upstream's own rule for `stream_id`; the empty name is the default lane. */
export function isLaneId(id: string): boolean {
  return id === '' || /^[A-Za-z0-9_.-]{1,256}$/.test(id);
}

export function isIdle(lane: Lane): boolean {
  return lane.active === undefined && lane.queue.length === 0;
}

/** Nothing of the lane's own keeps its next turn from being written. */
export function isReady(lane: Lane, nowMs: number): boolean {
  return (
    lane.queue.length > 0 &&
    lane.active === undefined &&
    lane.waitingForks === 0 &&
    (lane.notBeforeMs === undefined || lane.notBeforeMs <= nowMs)
  );
}
