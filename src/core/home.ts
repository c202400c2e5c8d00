import type { Core } from './core.ts';
import { isIdle, isReady, type Lane } from './lane.ts';
import { addLane, type LinkSlot, removeLane, streamFor } from './link-slot.ts';
import type { Turn } from './turn.ts';

/**
 * Where lanes live, and which of them could have a turn written. The counts kept here let a pass of the scheduler look at
 * what changed instead of at every lane: a lane with a turn that could go is in its link's `ready` or in `homeless`.
 */

/** Something that kept the lane's next turn may be gone. */
export function wake(core: Core, lane: Lane): void {
  if (!isReady(lane, core.nowMs)) return;
  const home = lane.linkId === undefined ? undefined : core.links.get(lane.linkId);
  if (home !== undefined) home.ready.add(lane);
  else core.homeless.add(lane);
  core.pumpDue = true;
}

/** The only writer of `lane.active`. */
export function activate(core: Core, lane: Lane, turn: Turn | undefined): void {
  lane.active = turn;
  recount(core, lane);
  if (turn === undefined) wake(core, lane);
}

export function settle(core: Core, lane: Lane, link: LinkSlot): void {
  core.homeless.delete(lane);
  lane.linkId = link.id;
  lane.wasSettled = true;
  addLane(link, lane.id);
  recount(core, lane);
  wake(core, lane);
}

export function unsettle(core: Core, lane: Lane, reason: string): void {
  const link = lane.linkId === undefined ? undefined : core.links.get(lane.linkId);
  if (link !== undefined) {
    removeLane(link, lane.id);
    link.ready.delete(lane);
  }
  lane.linkId = undefined;
  lane.lostReason = reason;
  core.roomVersion += 1;
  recount(core, lane);
  wake(core, lane);
}

/** Takes the lane off a link whose upstream may still send something for it. */
export function muteLane(core: Core, lane: Lane, linkId: number, reason: string): void {
  const link = core.links.get(linkId);
  if (link === undefined) return;
  streamFor(link, lane.id).muted = true;
  link.cache.delete(lane.id);
  if (lane.linkId === linkId) unsettle(core, lane, reason);
}

/** Keeps `link.load` true; to be called after the lane's queue, its active turn or its link changed. */
export function recount(core: Core, lane: Lane): void {
  const now = isIdle(lane) ? undefined : lane.linkId;
  if (now === lane.countedOn) return;
  const before = lane.countedOn === undefined ? undefined : core.links.get(lane.countedOn);
  if (before !== undefined) {
    before.load -= 1;
    core.roomVersion += 1;
  }
  const after = now === undefined ? undefined : core.links.get(now);
  if (after !== undefined) after.load += 1;
  lane.countedOn = now;
}
