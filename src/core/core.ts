import { GatewayError } from '../errors.ts';
import type { Deadlines } from './deadlines.ts';
import type { Fingerprints } from './fingerprint.ts';
import type { Journal } from './gates.ts';
import type { Homeless } from './homeless.ts';
import type { Lane } from './lane.ts';
import { type LinkSlot, upOf } from './link-slot.ts';
import type { Outbox } from './outbox.ts';
import type { RecentIds } from './recent-ids.ts';
import type { RecentSettings } from './recent-settings.ts';
import type { ReplayForms } from './replay.ts';
import type { Transcript } from './transcript.ts';
import type { Turn } from './turn.ts';
import type {
  ByteBudget,
  Fact,
  LinkCapabilities,
  Notice,
  Output,
  SessionLimits,
  Spent,
  TurnAccount,
  TurnCost,
  TurnFailed,
  TurnOutcome,
  TurnRecord,
  UpstreamFrame,
} from './types.ts';

/** open: takes turns. finishing: the client sends no more. draining: the gateway goes. closed: nothing happens any more. */
export type Life =
  | { readonly t: 'open' }
  | { readonly t: 'finishing' }
  /** `moves`: another process goes on with the session when nothing runs here any more. */
  | { readonly t: 'draining'; readonly deadlineMs: number; readonly moves: boolean }
  | { readonly t: 'closed' };

/** The state that the parts of a session share. Everything in it belongs to exactly one session. */
export interface Core {
  readonly limits: SessionLimits;
  readonly random: () => number;
  readonly outbox: Outbox;
  readonly transcript: Transcript;
  readonly deadlines: Deadlines;
  readonly lanes: Map<string, Lane>;
  readonly links: Map<number, LinkSlot>;
  /** Accepted and not ended, by id; warm-ups of ours are not in it. */
  readonly turns: Map<string, Turn>;
  readonly endedTurns: RecentIds;
  readonly fingerprints: Fingerprints;
  readonly recentSettings: RecentSettings;
  readonly replayForms: ReplayForms;
  readonly homeless: Homeless;
  /** Shared with the other sessions of the process; what lanes carry counts as transcript. */
  readonly budget: ByteBudget;
  carriedBytes: number;
  /** Something happened since the queues were looked at. */
  pumpDue: boolean;
  /** Moves on whenever a homeless lane may find a link where it found none. */
  roomVersion: number;
  /** The version that the homeless lanes have seen. */
  roomSeen: number;
  /** The version in which a lane that any link would do for found none. */
  fullAt: number;
  outputs: Output[];
  nowMs: number;
  life: Life;
  attached: boolean;
  paused: boolean;
  /** Memory of the requests of turns that have not ended, whole, and of steers that are undecided. */
  heldInputBytes: number;
  nextLinkId: number;
  /** What the last link could do; the best guess for one that is still dialled. */
  lastCapabilities: LinkCapabilities | undefined;
  lastUpstream: string | undefined;
  /** As the last turn that ended told it. */
  spent: Spent | undefined;
  /** The process goes then, and the session waits for its store before it says so. */
  drainDeadlineMs: number | undefined;
  /** Undefined: nothing is written down. */
  readonly journal: Journal | undefined;
  readonly account: ((record: TurnRecord) => TurnAccount) | undefined;
  /** A loss whose recovery was given up, because nobody waited for it: the next link is its end. */
  unrecovered: LinkSlot['replaces'];
}

/** What has not begun here is not begun any more. */
export function isMoving({ life }: Core): boolean {
  return life.t === 'draining' && life.moves;
}

export function tell(core: Core, fact: Fact): void {
  core.outputs.push({ kind: 'fact', fact });
}

/** Responses that lanes stand on, or are about to. */
export function* headsOf(core: Core): Iterable<string> {
  for (const { headId, active, queue } of core.lanes.values()) {
    if (headId !== undefined) yield headId;
    if (active?.headId !== undefined) yield active.headId;
    if (active?.plan?.parentId !== undefined) yield active.plan.parentId;
    for (const { request } of queue) if (request.chain.kind === 'from') yield request.chain.responseId;
  }
}

/** The hot path ends here: number the frame, keep it, and look whether the client is too far behind. */
export function emitFrame(
  core: Core,
  laneId: string,
  turnId: string,
  frame: UpstreamFrame,
  outcome?: TurnOutcome,
  turnFailed?: TurnFailed,
  commit?: number,
  cost?: TurnCost,
): void {
  const { outbox } = core;
  outbox.append({
    seq: outbox.nextSeq,
    laneId,
    turnId,
    type: frame.type,
    outcome,
    frame,
    turnFailed,
    notice: undefined,
    commit,
    cost,
    byteLength: frame.byteLength + EVENT_OVERHEAD_BYTES,
  });
  if (!core.paused && outbox.waitingBytes > core.limits.maxBufferedBytes) pauseLinks(core);
}

/** An event of ours. With an outcome it ends its turn. */
export function emitOwn(
  core: Core,
  laneId: string,
  turnId: string,
  what: {
    readonly type: string;
    readonly outcome?: TurnOutcome;
    readonly turnFailed?: TurnFailed;
    readonly notice?: Notice;
    readonly commit?: number | undefined;
    readonly cost?: TurnCost | undefined;
  },
): void {
  const { outbox, limits } = core;
  outbox.append({
    seq: outbox.nextSeq,
    laneId,
    turnId,
    type: what.type,
    outcome: what.outcome,
    frame: undefined,
    turnFailed: what.turnFailed,
    notice: what.notice,
    commit: what.commit,
    cost: what.cost,
    byteLength: OWN_EVENT_BYTES,
  });
  if (outbox.waitingBytes <= limits.maxBufferedBytes) return;
  if (!core.paused) pauseLinks(core);
  // Links can be paused, a client that goes on asking for refusals without reading them cannot.
  if (core.attached && outbox.waitingBytes > 2 * limits.maxBufferedBytes) cutSlowClient(core);
}

/** The stream ends, the session waits for a client that reads. */
export function cutSlowClient(core: Core): void {
  core.outputs.push({
    kind: 'endStream',
    error: new GatewayError('SLOW_CONSUMER', 'the client reads too slowly; resume and read faster', {
      retryAfterMs: 0,
    }),
    resumable: true,
  });
}

export function emitNotice(
  core: Core,
  laneId: string,
  turnId: string,
  {
    commit,
    cost,
    ...notice
  }: Pick<Notice, 'kind' | 'reason'> &
    Partial<Notice> & { readonly commit?: number | undefined; readonly cost?: TurnCost | undefined },
  outcome?: TurnOutcome,
): void {
  emitOwn(core, laneId, turnId, {
    type: 'gateway.notice',
    notice: { replayedBytes: 0, elapsedMs: 0, ...notice },
    commit,
    cost,
    ...(outcome === undefined ? {} : { outcome }),
  });
}

/** A request was refused that belongs to no turn of its own (steer, cancel, a reused turn id). */
export function emitRejected(core: Core, laneId: string, turnId: string, error: GatewayError): void {
  tell(core, { kind: 'refused', request: 'other', error });
  emitOwn(core, laneId, turnId, {
    type: 'gateway.request.rejected',
    turnFailed: { error, replay: 'SAFE', phase: 'NOT_SENT' },
  });
}

export function pauseLinks(core: Core): void {
  core.paused = true;
  for (const link of core.links.values()) pauseLink(core, link);
  tell(core, { kind: 'paused', bufferedBytes: core.outbox.waitingBytes, atMs: core.nowMs });
  if (core.attached) core.deadlines.set({ kind: 'slowClient' }, core.nowMs + core.limits.slowClientTimeoutMs);
}

export function pauseLink(core: Core, link: LinkSlot): void {
  if (link.paused || upOf(link) === undefined) return;
  link.paused = true;
  core.outputs.push({ kind: 'pauseLink', linkId: link.id });
}

export function resumeLinks(core: Core): void {
  core.paused = false;
  core.deadlines.clear({ kind: 'slowClient' });
  for (const link of core.links.values()) {
    if (!link.paused) continue;
    link.paused = false;
    core.outputs.push({ kind: 'resumeLink', linkId: link.id });
  }
  tell(core, { kind: 'unpaused', bufferedBytes: core.outbox.waitingBytes, atMs: core.nowMs });
}

/** Ids, names and the object itself; keeps a flood of tiny events inside the bound. */
const EVENT_OVERHEAD_BYTES = 128;
/** What an event of ours was measured to keep alive, its error included. */
const OWN_EVENT_BYTES = 1_024;
