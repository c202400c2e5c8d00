import { type Core, emitNotice, tell } from './core.ts';
import { muteLane, settle, unsettle } from './home.ts';
import type { Lane } from './lane.ts';
import {
  capacityOf,
  hasRoomFor,
  isBusy,
  type LinkSlot,
  moveLink,
  moveStream,
  retire,
  type Up,
  upOf,
} from './link-slot.ts';
import { closeLink, dial, sendWarmUp } from './scheduler.ts';
import type { Stream } from './stream.ts';
import { releaseStream } from './turn-end.ts';

/** A lane that was idle for longer is rebuilt when it is next used; warming it could be for nothing. */
const LIVE_LANE_MS = 10 * 60_000;
/** How long before the upstream's own limit a link stops taking turns. */
const RETIRE_MARGIN_MS = 30_000;
/** Between two tries to dial a successor. */
const ROTATION_RETRY_MS = 30_000;
/** A warm-up generates nothing; one that takes longer than this is stuck. */
const WARM_UP_TIMEOUT_MS = 30_000;
/** Share of the rotation age by which links of a fleet differ. */
const ROTATION_JITTER = 0.1;

/** Sets the two times at which a link that just came up will be replaced. */
export function scheduleRotation(core: Core, link: LinkSlot, up: Up): void {
  const { rotateAfterMs, maxAgeMs } = up.capabilities;
  if (rotateAfterMs === undefined) return;
  const leftMs = Math.max(0, maxAgeMs - rotateAfterMs);
  const retireAfterMs = rotateAfterMs + leftMs - Math.min(RETIRE_MARGIN_MS, leftMs / 2);
  // However short the upstream's limit is, there is time between the two to dial and to warm.
  const jitterMs =
    Math.min(rotateAfterMs * ROTATION_JITTER, (retireAfterMs - rotateAfterMs) / 2) * core.random();
  core.deadlines.set({ kind: 'rotate', linkId: link.id }, core.nowMs + rotateAfterMs + jitterMs);
  core.deadlines.set({ kind: 'retire', linkId: link.id }, core.nowMs + retireAfterMs);
}

/** Make before break: the successor is dialled while the old link goes on serving. */
export function startRotation(core: Core, link: LinkSlot): void {
  if (link.state.t !== 'open') return;
  const { capabilities, route, upAtMs } = link.state;
  const successor = dial(core, 'rotation', 0, 0, undefined);
  moveLink(link, { t: 'rotating', successorId: successor.id, capabilities, route, upAtMs });
}

/** The upstream's limit is near: whatever could not be moved gently moves when it is next used. */
export function retireLink(link: LinkSlot): void {
  const up = upOf(link);
  if (up !== undefined) retire(link, up, 'max_age');
}

/** Moves every rotation one step on; called after anything that may have made a step possible. */
export function advanceRotations(core: Core): void {
  for (const link of core.links.values()) {
    const { state } = link;
    const successor = state.t === 'rotating' ? core.links.get(state.successorId) : undefined;
    if (state.t === 'rotating' && successor === undefined) serveOn(core, link, state);
    const successorUp = successor === undefined ? undefined : upOf(successor);
    if (successor !== undefined && successorUp !== undefined) moveLanes(core, link, successor, successorUp);
    if (state.t === 'retiring') leaveIdleLanes(core, link, state.reason);
    const replaceable = state.t === 'retiring' || successorUp !== undefined;
    if (replaceable && link.lanes.size === 0 && link.inFlight === 0) closeOld(core, link);
  }
}

/** The successor is gone before it took over, whatever ended it: the old link tries again later. */
function serveOn(core: Core, link: LinkSlot, { capabilities, route, upAtMs }: Up): void {
  moveLink(link, { t: 'open', capabilities, route, upAtMs });
  core.deadlines.set({ kind: 'rotate', linkId: link.id }, core.nowMs + ROTATION_RETRY_MS);
}

/** Without warm-up the lane still moves; its next turn carries the replay itself. */
export function warmUpFailed(core: Core, link: LinkSlot, stream: Stream): void {
  releaseStream(core, link, stream);
  const lane = core.lanes.get(stream.laneId);
  if (lane !== undefined && lane.active === undefined) unsettle(core, lane, 'rotated');
}

/**
 * The successor does not answer for this lane, which must not wait for it: it goes to another link. What the upstream may
 * still do for the warm-up takes a place on the link until it is done.
 */
export function warmUpExpired(core: Core, laneId: string, linkId: number): void {
  const link = core.links.get(linkId);
  const stream = link?.streams.get(laneId);
  const lane = core.lanes.get(laneId);
  if (link === undefined || stream?.state.t !== 'warmUp' || lane === undefined) return;
  const { plan, responseId } = stream.state;
  moveStream(link, stream, {
    t: 'abandoned',
    turnId: '',
    plan: { cachedIn: plan.cachedIn, wireParentId: plan.wireParentId },
    phase: responseId === undefined ? 'awaiting' : 'open',
    responseId,
    formerId: undefined,
    steers: [],
    sinceMs: core.nowMs,
  });
  if (lane.active === undefined) unsettle(core, lane, 'rotated');
  muteLane(core, lane, linkId, 'rotated');
}

function moveLanes(core: Core, old: LinkSlot, successor: LinkSlot, up: Up): void {
  for (const laneId of [...old.lanes]) {
    const lane = core.lanes.get(laneId);
    if (lane !== undefined) moveLane(core, lane, old, successor, up);
  }
}

function moveLane(core: Core, lane: Lane, old: LinkSlot, successor: LinkSlot, up: Up): void {
  const busy = lane.active !== undefined;
  const ready = lane.headId === undefined || successor.cache.get(lane.id)?.nodeId === lane.headId;
  if (isBusy(successor, lane.id)) return;
  // Names are few: whoever the successor has none for goes where there is room.
  const fits = hasRoomFor(successor, lane.id, up.capabilities);
  if (ready) {
    if (!busy) move(core, lane, fits ? successor : undefined);
    return;
  }
  const live = busy || core.nowMs - lane.lastUsedAtMs < LIVE_LANE_MS;
  if (!live) return unsettle(core, lane, 'rotated');
  // A running turn will move the head; warming is worth it only between turns.
  if (busy || old.state.t !== 'rotating') return;
  if (!fits) return unsettle(core, lane, 'rotated');
  // A warm-up of a named lane is a probe too.
  if (successor.inFlight >= capacityOf(successor, up.capabilities, lane.id)) return;
  if (!canRebuild(core, lane, up)) return;
  const fields = core.recentSettings.get(lane.id);
  if (!up.capabilities.warmUp || fields === undefined || !warm(core, lane, successor, up, fields))
    unsettle(core, lane, 'rotated');
}

function warm(
  core: Core,
  lane: Lane,
  successor: LinkSlot,
  up: Up,
  fields: ReadonlyMap<string, string>,
): boolean {
  if (!sendWarmUp(core, lane, successor, up, lane.headId as string, fields)) return false;
  core.deadlines.set(
    { kind: 'warmUp', laneId: lane.id, linkId: successor.id },
    core.nowMs + WARM_UP_TIMEOUT_MS,
  );
  return true;
}

/** A lane whose conversation lives in the old link's cache alone stays there until the end. */
function canRebuild(core: Core, lane: Lane, up: Up): boolean {
  const head = lane.headId === undefined ? undefined : core.transcript.get(lane.headId, lane.id);
  if (head === undefined) return false;
  return (head.stored && up.capabilities.storesResponses) || core.transcript.isComplete(head.id, lane.id);
}

function move(core: Core, lane: Lane, successor: LinkSlot | undefined): void {
  unsettle(core, lane, 'rotated');
  if (successor !== undefined) settle(core, lane, successor);
}

function leaveIdleLanes(core: Core, link: LinkSlot, reason: string): void {
  for (const laneId of [...link.lanes]) {
    const lane = core.lanes.get(laneId);
    if (lane !== undefined && lane.active === undefined) unsettle(core, lane, reason);
  }
}

function closeOld(core: Core, link: LinkSlot): void {
  const up = upOf(link) as Up;
  const reason = link.state.t === 'retiring' ? link.state.reason : 'max_age';
  closeLink(core, link, reason, 'rotated');
  tell(core, {
    kind: 'rotated',
    linkId: link.id,
    turnId: undefined,
    reason,
    bytes: 0,
    startedAtMs: up.upAtMs,
    endedAtMs: core.nowMs,
  });
  emitNotice(core, '', '', { kind: 'rotated', reason, elapsedMs: core.nowMs - up.upAtMs });
}
