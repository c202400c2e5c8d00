import type { GatewayError } from '../errors.ts';
import type { Core } from './core.ts';
import { muteLane, wake } from './home.ts';
import type { Lane } from './lane.ts';
import { type LinkSlot, retire, upOf } from './link-slot.ts';
import { canLeave, closeLink, dial, unqueue } from './scheduler.ts';
import { isAwaiting, type Stream, turnOf } from './stream.ts';
import { phaseOf, type Turn } from './turn.ts';
import { abandonTurn, endTurn, releaseStream } from './turn-end.ts';
import { withdraw } from './upstream-failures.ts';

/** Ends a turn for its client now, queued or running, and upstream as far as that can be done. */
export function stopTurn(
  core: Core,
  turn: Turn,
  outcome: 'CANCELLED' | 'DEADLINE_EXCEEDED',
  error: GatewayError,
): void {
  const lane = core.lanes.get(turn.laneId) as Lane;
  withdraw(core, turn);
  if (unqueue(core, lane, turn)) {
    stopWaiting(core, lane, turn);
    return endTurn(core, turn, outcome, { failed: { error, replay: 'SAFE', phase: phaseOf(turn) } });
  }
  const link = abandonTurn(core, turn, outcome, error);
  if (link !== undefined) giveUpUpstream(core, link, lane.id);
}

/** There is no cancel upstream (upstream.md#cancel): an HTTP request is aborted, a socket closed when nobody else needs it. */
function giveUpUpstream(core: Core, link: LinkSlot, laneId: string): void {
  const up = upOf(link);
  const stream = link.streams.get(laneId);
  if (up === undefined || stream === undefined) return;
  if (up.capabilities.transport === 'sse') {
    core.outputs.push({
      kind: 'abort',
      linkId: link.id,
      streamId: laneId === '' || !up.capabilities.multiplexed ? undefined : laneId,
    });
    return releaseStream(core, link, stream);
  }
  if (link.abandoned < link.inFlight || !losesNothing(core, link)) return;
  closeLink(core, link, 'cancelled', 'cancelled');
  // The next turn should find a link, not dial one.
  if (core.links.size === 0 && core.attached && core.life.t === 'open')
    dial(core, 'session', 0, 0, undefined);
}

function losesNothing(core: Core, link: LinkSlot): boolean {
  for (const id of link.lanes) {
    const lane = core.lanes.get(id);
    if (lane !== undefined && !canLeave(core, lane)) return false;
  }
  return true;
}

/**
 * The upstream owes an answer for too long. The turn ends, and the lane leaves the link: what may yet come must not be
 * taken for a later turn's. The link takes nothing more; whoever is answered on it finishes there.
 */
export function endSilent(core: Core, silentSinceMs: number, error: () => GatewayError): void {
  for (const link of [...core.links.values()]) {
    const up = upOf(link);
    if (up === undefined || link.inFlight === 0) continue;
    for (const stream of [...link.streams.values()]) {
      const sinceMs = heardAtMs(stream);
      if (sinceMs === undefined || sinceMs > silentSinceMs) continue;
      const turn = turnOf(stream);
      if (turn !== undefined && abandonTurn(core, turn, 'FAILED', error()) !== undefined)
        giveUpUpstream(core, link, stream.laneId);
      const lane = core.lanes.get(stream.laneId);
      if (!core.links.has(link.id)) break;
      const owesAnswer = isAwaiting(stream);
      releaseStream(core, link, stream);
      stream.owesAnswer = owesAnswer;
      if (lane !== undefined) muteLane(core, lane, link.id, 'silent');
      if (link.state.t !== 'retiring' && up.capabilities.transport !== 'sse') retire(link, up, 'silent');
    }
  }
}

/** When the next of the written turns will have been silent for too long; undefined: none is under way. */
export function nextSilenceMs(core: Core, timeoutMs: number): number | undefined {
  let earliest: number | undefined;
  for (const link of core.links.values()) {
    if (link.inFlight === 0) continue;
    for (const stream of link.streams.values()) {
      const sinceMs = heardAtMs(stream);
      if (sinceMs !== undefined && (earliest === undefined || sinceMs < earliest)) earliest = sinceMs;
    }
  }
  return earliest === undefined ? undefined : earliest + timeoutMs;
}

/** When the upstream last said something of what it was asked for; undefined: nothing whose silence counts. */
function heardAtMs({ state }: Stream): number | undefined {
  if (state.t === 'abandoned') return state.sinceMs;
  if (state.t !== 'turn') return undefined;
  const { lastSignAtMs, lastOutputAtMs = 0 } = state.turn;
  return Math.max(lastSignAtMs, lastOutputAtMs);
}

/** The turn waits no more for its rate limit; who comes after it did not ask to wait. */
export function stopWaiting(core: Core, lane: Lane, turn: Turn): void {
  if (turn.rateLimitWaits === 0) return;
  lane.notBeforeMs = undefined;
  core.deadlines.clear({ kind: 'lane', laneId: lane.id });
  wake(core, lane);
}
