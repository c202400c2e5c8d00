import { type Core, emitNotice, pauseLink, tell } from './core.ts';
import { unsettle } from './home.ts';
import { type LinkSlot, moveLink } from './link-slot.ts';
import { scheduleRotation } from './rotation.ts';
import { closeLink, dial } from './scheduler.ts';
import type { LinkCapabilities, LinkRoute } from './types.ts';

/** A link that was asked for is there. */
export function handleLinkUp(
  core: Core,
  linkId: number,
  capabilities: LinkCapabilities,
  route: LinkRoute,
): void {
  const link = core.links.get(linkId);
  if (link === undefined || link.state.t !== 'dialing') {
    core.outputs.push({ kind: 'closeLink', linkId, code: 1000, reason: 'not needed' });
    return;
  }
  moveLink(link, { t: 'open', capabilities, route, upAtMs: core.nowMs });
  core.roomVersion += 1;
  core.lastCapabilities = capabilities;
  tell(core, { kind: 'linkUp', linkId, route, atMs: core.nowMs });
  if (core.paused) pauseLink(core, link);
  scheduleRotation(core, link, { capabilities, route, upAtMs: core.nowMs });
  trimLanes(core, link, capabilities);
  if (link.replaces !== undefined) noteRecovery(core, link, link.replaces);
  core.unrecovered = undefined;
  if (core.lastUpstream !== undefined && core.lastUpstream !== route.upstream) {
    emitNotice(core, '', '', { kind: 'upstream_changed', reason: 'failover' });
  }
  core.lastUpstream = route.upstream;
}

/** Before the first turn: the session goes where that turn's model is. */
export function reroute(core: Core): void {
  if (core.life.t !== 'open' || core.lanes.size > 0) return;
  for (const link of [...core.links.values()]) {
    closeLink(core, link, 'rerouted', 'not needed');
  }
  core.lastUpstream = undefined;
  core.unrecovered = undefined;
  core.lastCapabilities = undefined;
  dial(core, 'session', 0, 0, undefined);
}

/** While it was dialled the link was taken for OpenAI's; lanes beyond what it can do look further. */
function trimLanes(core: Core, link: LinkSlot, capabilities: LinkCapabilities): void {
  const room = capabilities.multiplexed ? capabilities.maxNamedLanes : 1;
  let named = 0;
  for (const laneId of [...link.lanes]) {
    if (laneId === '' && capabilities.multiplexed) continue;
    named += 1;
    const lane = core.lanes.get(laneId);
    if (named > room && lane !== undefined) unsettle(core, lane, lane.lostReason ?? 'not_cached');
  }
}

function noteRecovery(
  core: Core,
  link: LinkSlot,
  replaces: { readonly reason: string; readonly sinceMs: number },
): void {
  const elapsedMs = core.nowMs - replaces.sinceMs;
  emitNotice(core, '', '', { kind: 'recovered', reason: replaces.reason, elapsedMs });
  tell(core, {
    kind: 'recovered',
    linkId: link.id,
    turnId: undefined,
    reason: replaces.reason,
    bytes: 0,
    startedAtMs: replaces.sinceMs,
    endedAtMs: core.nowMs,
  });
}
