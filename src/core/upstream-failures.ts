import {
  isConnectionLimit,
  isNotReached,
  isPreviousResponseNotFound,
  isRateLimit,
  isRefused,
  isStreamLimit,
  isStreamLost,
  readErrorFrame,
  toGatewayError,
  type UpstreamError,
} from '../dialect/upstream-error.ts';
import { GatewayError } from '../errors.ts';
import { stopWaiting } from './cancel.ts';
import { type Core, emitFrame, emitNotice, tell } from './core.ts';
import type { Lane } from './lane.ts';
import { isMuted, type LinkSlot, retire, upOf } from './link-slot.ts';
import { warmUpFailed } from './rotation.ts';
import {
  dial,
  enqueue,
  leastLoaded,
  muteLane,
  purposeOf,
  redialDelayMs,
  removeLink,
  settle,
  unqueue,
  unsettle,
} from './scheduler.ts';
import { type NotRunProof, phaseOf, requeueTurn, type Turn, verdictByPhase } from './turn.ts';
import { endUnanswered, failTurn, finishDiscarded, releaseHold, restoreSteers } from './turn-end.ts';
import type { LinkDown, UpstreamFrame } from './types.ts';
import { evict } from './upstream-events.ts';

/** An `error` frame: about the connection, about a turn, or about nothing we know (protocol.md 7). */
export function handleErrorFrame(
  core: Core,
  link: LinkSlot,
  frame: UpstreamFrame,
  routed: Turn | undefined,
): void {
  const error = readErrorFrame(frame, core.nowMs);
  if (isConnectionLimit(error)) return connectionLimit(core, link);
  if (routed === undefined && isMuted(link, frame.streamId)) return;
  const turn = routed ?? (frame.streamId === undefined ? onlyUnanswered(link) : undefined);
  if (turn === undefined) {
    emitFrame(core, '', '', frame);
    return;
  }
  if (turn.warming !== undefined) {
    evict(link, turn);
    return warmUpFailed(core, turn);
  }
  if (turn.state.t === 'discarding') {
    evict(link, turn);
    return finishDiscarded(core, turn);
  }
  if (isUnanswered(turn) && sendAgain(core, link, turn, error)) return;
  evict(link, turn);
  failTurn(core, turn, toGatewayError(error), verdictOf(turn, error), frame);
}

/** A link was lost, or never came up. */
export function handleLinkDown(core: Core, link: LinkSlot, down: LinkDown): void {
  tell(core, {
    kind: 'linkDown',
    linkId: link.id,
    reason: down.error.reason,
    closeCode: down.closeCode,
    atMs: core.nowMs,
  });
  const up = upOf(link);
  if (up === undefined) return dialFailed(core, link, down);

  const settled = [...link.lanes].flatMap((id) => core.lanes.get(id) ?? []);
  removeLink(core, link, 'link_lost');
  const guilty = down.bystanderError === undefined ? undefined : largestUnanswered(link);
  for (const turn of [...link.inFlight.values()]) {
    lose(core, turn, turn === guilty ? down.error : (down.bystanderError ?? down.error));
  }
  link.inFlight.clear();
  const wanted = settled.some((lane) => lane.queue.length > 0 || lane.headId !== undefined);
  const replaced = link.state.t === 'retiring' || link.state.t === 'rotating' || core.links.size > 0;
  if (!wanted || replaced || core.life.t === 'closed') return;
  dial(core, 'recovery', 0, down.retryAfterMs ?? redialDelayMs(core, 0) * core.random(), {
    reason: 'link_lost',
    sinceMs: core.nowMs,
  });
}

/** The connection is at its age limit: its caches and queued creates are gone, its running turns may yet finish. */
function connectionLimit(core: Core, link: LinkSlot): void {
  const up = upOf(link);
  if (up === undefined || (link.state.t === 'retiring' && link.state.reason === 'connection_limit')) return;
  retire(link, up, 'connection_limit');
  for (const turn of [...link.inFlight.values()]) {
    if (turn.warming !== undefined) warmUpFailed(core, turn);
    else if (turn.state.t === 'discarding') {
      finishDiscarded(core, turn);
      muteLane(core, core.lanes.get(turn.laneId) as Lane, link.id, 'connection_limit');
    } else if (isUnanswered(turn)) resend(core, link, turn, 'connection_limit_reached', 'first');
  }
  if (![...core.links.values()].some(({ state }) => state.t !== 'retiring')) {
    dial(core, 'recovery', 0, 0, { reason: 'connection_limit', sinceMs: core.nowMs });
  }
}

/** Whether the error proves that the turn did not run and it may be written once more. */
function sendAgain(core: Core, link: LinkSlot, turn: Turn, error: UpstreamError): boolean {
  const wireId = turn.plan?.wireParentId;
  if (wireId !== undefined && isPreviousResponseNotFound(error)) {
    turn.avoidIds = new Set([...(turn.avoidIds ?? []), wireId]);
    for (const [laneId, entry] of link.cache) if (entry.responseId === wireId) link.cache.delete(laneId);
    core.transcript.forgetStored(wireId);
    const replayable = turn.plan?.parentId !== undefined && core.transcript.isComplete(turn.plan.parentId);
    if (!replayable) return false;
    resend(core, link, turn, 'previous_response_not_found', 'first');
    return true;
  }
  if (isStreamLimit(error)) {
    // The link has fewer names left than we thought; this lane never got one.
    link.namesExhausted = true;
    link.names.delete(turn.laneId);
    resend(core, link, turn, 'stream_limit_reached', 'first');
    unsettle(core, core.lanes.get(turn.laneId) as Lane, 'stream_limit');
    return true;
  }
  if (isNotReached(error)) return turn.sends < core.limits.maxDialAttempts && goElsewhere(core, link, turn);
  return isRateLimit(error) && turn.request.waitOnRateLimit && waitAndResend(core, link, turn, error);
}

/** Nothing new goes over a link that reaches nobody; what runs on it may yet finish. */
function goElsewhere(core: Core, link: LinkSlot, turn: Turn): true {
  resend(core, link, turn, 'not_reached', 'first');
  const up = upOf(link);
  if (link.inFlight.size > 0 && up !== undefined) {
    retire(link, up, 'link_lost');
    return true;
  }
  const error = new GatewayError('UPSTREAM_UNAVAILABLE', 'the upstream could not be reached');
  core.outputs.push({ kind: 'closeLink', linkId: link.id, code: 1000, reason: 'not reached' });
  handleLinkDown(core, link, { during: 'open', error, permanent: false });
  return true;
}

/** Backoff for a rate limit that does not say how long to wait. */
const RATE_LIMIT_MIN_WAIT_MS = 1_000;

function waitAndResend(core: Core, link: LinkSlot, turn: Turn, error: UpstreamError): boolean {
  const guessMs = RATE_LIMIT_MIN_WAIT_MS * 2 ** Math.min(turn.rateLimitWaits, 5) * (1 + core.random() / 4);
  const askedMs = error.retryAfterMs ?? 0;
  // "At once" from an upstream that has just refused would be asked again and again.
  const waitMs = askedMs > 0 ? askedMs : guessMs;
  if (turn.deadlineMs !== undefined && core.nowMs + waitMs >= turn.deadlineMs) return false;
  const lane = core.lanes.get(turn.laneId) as Lane;
  evict(link, turn);
  turn.rateLimitWaits += 1;
  resend(core, link, turn, 'rate_limited', 'first');
  lane.notBeforeMs = core.nowMs + waitMs;
  core.deadlines.set({ kind: 'lane', laneId: lane.id }, lane.notBeforeMs);
  emitNotice(core, lane.id, turn.id, {
    kind: 'rate_limited',
    reason: error.facts.code ?? 'rate_limited',
    elapsedMs: waitMs,
  });
  return true;
}

function resend(core: Core, link: LinkSlot, turn: Turn, proof: NotRunProof, where: 'first' | 'last'): void {
  const lane = core.lanes.get(turn.laneId) as Lane;
  link.inFlight.delete(turn.laneId);
  releaseHold(core, turn);
  if (lane.active === turn) lane.active = undefined;
  restoreSteers(lane, turn, link.id);
  requeueTurn(turn, proof);
  enqueue(core, lane, turn, where);
}

/** An error that names no lane, when just one turn has had no answer yet, can only be its answer. */
function onlyUnanswered(link: LinkSlot): Turn | undefined {
  const unanswered = [...link.inFlight.values()].filter(isUnanswered);
  return unanswered.length === 1 ? unanswered[0] : undefined;
}

/** Some upstreams begin with the output: a turn without `response.created` may have been answered all the same. */
function isUnanswered({ state, outputStarted }: Turn): boolean {
  return state.t === 'sent' && !outputStarted;
}

/** Whether repeating the turn is harmless, from how far it got and what the upstream said. */
function verdictOf(turn: Turn, error: UpstreamError): 'SAFE' | 'UNSAFE' | 'UNKNOWN' {
  if (phaseOf(turn) !== 'SENT') return 'UNSAFE';
  if (isStreamLost(error)) return 'UNKNOWN';
  // A request that was refused by name never became a response.
  return isRefused(error) || isRateLimit(error) || isNotReached(error) ? 'SAFE' : 'UNKNOWN';
}

/** Whose frame the upstream found too large: it is the last that it read, and nothing of it has begun. */
function largestUnanswered(link: LinkSlot): Turn | undefined {
  let largest: Turn | undefined;
  for (const turn of link.inFlight.values()) {
    if (isUnanswered(turn) && turn.bytesUp > (largest?.bytesUp ?? 0)) largest = turn;
  }
  return largest;
}

function lose(core: Core, turn: Turn, error: GatewayError): void {
  switch (turn.state.t) {
    case 'sent':
    case 'running':
      if (turn.warming !== undefined) return warmUpFailed(core, turn);
      return failTurn(core, turn, error, verdictByPhase(phaseOf(turn)));
    case 'settling':
      return endUnanswered(core, turn, turn.state, 'link_lost');
    case 'discarding':
      return finishDiscarded(core, turn);
    default:
      return;
  }
}

function dialFailed(core: Core, link: LinkSlot, down: LinkDown): void {
  const lanes = [...link.lanes].flatMap((id) => core.lanes.get(id) ?? []);
  removeLink(core, link, 'dial_failed');
  core.unrecovered = link.replaces ?? core.unrecovered;
  const waiting = [...core.waiting].filter((lane) => lanes.includes(lane) || lane.linkId === undefined);
  if (waiting.length === 0) return;
  const delayMs = down.retryAfterMs ?? redialDelayMs(core, link.attempt);
  const givesUp = down.permanent || link.attempt + 1 >= core.limits.maxDialAttempts;
  if (givesUp || isLongWait(core, link, down)) {
    const stranded = waiting.filter((lane) => !joinAnother(core, lane));
    for (const lane of stranded) {
      if (givesUp) failQueued(core, lane, down.error);
      else failImpatient(core, lane, down.error, delayMs);
    }
    if (givesUp) return;
  }
  if (waiting.every(({ queue, linkId }) => queue.length === 0 || linkId !== undefined)) return;
  // What began beside other links has become the only way back.
  const purpose = purposeOf(core) === 'recovery' ? 'recovery' : link.purpose;
  const next = dial(core, purpose, link.attempt + 1, delayMs, link.replaces);
  for (const lane of lanes) if (lane.linkId === undefined) settle(lane, next);
}

/** Waiting behind others is better than failing; false when there is no other link. */
function joinAnother(core: Core, lane: Lane): boolean {
  const link = leastLoaded(core, lane);
  if (link !== undefined) settle(lane, link);
  return link !== undefined;
}

/** As long as a server takes to restart; whether a longer wait is worth it is for the client to say. */
const MAX_UNASKED_WAIT_MS = 10_000;

/** A conversation is worth waiting for a probe; a session without one hears at once that its upstream is failing. */
function isLongWait(core: Core, link: LinkSlot, { error, retryAfterMs = 0 }: LinkDown): boolean {
  const hasNothing = link.purpose !== 'recovery' && core.links.size === 0;
  const failsFast = error.reason === 'UPSTREAM_CIRCUIT_OPEN' && hasNothing;
  return failsFast || retryAfterMs > MAX_UNASKED_WAIT_MS;
}

/** Fails the turns that did not ask to wait, or cannot wait that long. */
function failImpatient(core: Core, lane: Lane, error: GatewayError, waitMs: number): void {
  for (const turn of [...lane.queue]) {
    const inTime = turn.deadlineMs === undefined || core.nowMs + waitMs < turn.deadlineMs;
    if (turn.request.waitOnRateLimit && inTime) continue;
    giveUp(core, lane, turn, error);
  }
}

function failQueued(core: Core, lane: Lane, error: GatewayError): void {
  for (const turn of [...lane.queue]) giveUp(core, lane, turn, error);
}

function giveUp(core: Core, lane: Lane, turn: Turn, error: GatewayError): void {
  unqueue(core, lane, turn);
  stopWaiting(core, lane, turn);
  failTurn(core, turn, error, 'SAFE');
}
