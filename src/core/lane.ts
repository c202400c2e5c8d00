import type { Turn } from './turn.ts';

/** One conversation line. Turns run one after the other, in the order they were accepted. */
export interface Lane {
  readonly id: string;
  readonly queue: Turn[];
  /** Written and not ended. */
  active: Turn | undefined;
  /** Cancelled or timed out; its lane upstream is busy until the terminal comes. */
  discarding: Turn | undefined;
  /** The lane's last usable response. */
  headId: string | undefined;
  /** Where the lane lives; undefined until it is needed, and after its link is lost. */
  linkId: number | undefined;
  /** Forks from this lane's head that are not yet running: it must stay in the upstream's cache (protocol.md 4.4). */
  waitingForks: number;
  notBeforeMs: number | undefined;
  /** Accepted steers that the next explicit create commits (protocol.md 6.2, WAITING). */
  waitingSteers:
    | { readonly targetId: string; readonly linkId: number | undefined; readonly input: readonly string[] }
    | undefined;
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
    discarding: undefined,
    headId: undefined,
    linkId: undefined,
    waitingForks: 0,
    notBeforeMs: undefined,
    waitingSteers: undefined,
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
  return lane.active === undefined && lane.discarding === undefined && lane.queue.length === 0;
}
