import type { GatewayError } from '../errors.ts';
import type { Core } from './core.ts';
import type { Lane } from './lane.ts';
import { type LinkSlot, upOf } from './link-slot.ts';
import { closeLink, dial, unqueue } from './scheduler.ts';
import { phaseOf, type Turn } from './turn.ts';
import { discardTurn, endTurn, finishDiscarded } from './turn-end.ts';

/** Ends a turn for its client now, queued or running, and upstream as far as that can be done. */
export function stopTurn(
  core: Core,
  turn: Turn,
  outcome: 'CANCELLED' | 'DEADLINE_EXCEEDED',
  error: GatewayError,
): void {
  const lane = core.lanes.get(turn.laneId) as Lane;
  if (unqueue(core, lane, turn)) {
    stopWaiting(core, lane, turn);
    return endTurn(core, turn, outcome, { failed: { error, replay: 'SAFE', phase: phaseOf(turn) } });
  }
  const link = 'linkId' in turn.state ? core.links.get(turn.state.linkId) : undefined;
  discardTurn(core, turn, outcome, error);
  if (link !== undefined) giveUpUpstream(core, link, lane);
}

/** There is no cancel upstream (protocol.md 9): an HTTP request is aborted, a socket closed when nobody else needs it. */
function giveUpUpstream(core: Core, link: LinkSlot, lane: Lane): void {
  const up = upOf(link);
  if (up === undefined) return;
  if (up.capabilities.transport === 'sse') {
    core.outputs.push({
      kind: 'abort',
      linkId: link.id,
      streamId: lane.id === '' || !up.capabilities.multiplexed ? undefined : lane.id,
    });
    const turn = link.inFlight.get(lane.id);
    if (turn !== undefined) finishDiscarded(core, turn);
    return;
  }
  const alone = [...link.inFlight.values()].every(({ state }) => state.t === 'discarding');
  const losesNothing = [...link.lanes].every((id) => {
    const head = core.lanes.get(id)?.headId;
    return (
      head === undefined || core.transcript.get(head)?.stored === true || core.transcript.isComplete(head)
    );
  });
  if (!alone || !losesNothing) return;
  for (const turn of [...link.inFlight.values()]) finishDiscarded(core, turn);
  closeLink(core, link, 'cancelled', 'cancelled');
  // The next turn should find a link, not dial one.
  if (core.links.size === 0 && core.attached && core.life.t === 'open')
    dial(core, 'session', 0, 0, undefined);
}

/** A cancelled turn held its link because others ran there; they have ended, and a turn waits for its lane. */
export function freeWaitingLanes(core: Core): void {
  for (const lane of core.waiting) {
    const { discarding } = lane;
    const link = discarding?.state.t === 'discarding' ? core.links.get(discarding.state.linkId) : undefined;
    if (link !== undefined) giveUpUpstream(core, link, lane);
  }
}

/** The turn waits no more for its rate limit; who comes after it did not ask to wait. */
export function stopWaiting(core: Core, lane: Lane, turn: Turn): void {
  if (turn.rateLimitWaits === 0) return;
  lane.notBeforeMs = undefined;
  core.deadlines.clear({ kind: 'lane', laneId: lane.id });
}
