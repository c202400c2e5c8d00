import { isWarning, refusesLanes } from '../dialect/events.ts';
import { historyRefusal } from '../dialect/history-refusal.ts';
import { MAX_RETRY_AFTER_MS } from '../dialect/retry-after.ts';
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
import { giveBack } from './carry.ts';
import { type Core, emitFrame, emitNotice, tell } from './core.ts';
import { forgetWithheld, isWithheld } from './gates.ts';
import { muteLane, settle, unsettle } from './home.ts';
import type { Lane } from './lane.ts';
import { forgetName, isNamed, type LinkSlot, retire, upOf } from './link-slot.ts';
import { canTellWithoutHalfCall, milderReplay } from './planner.ts';
import { lanesRefuted } from './probe.ts';
import { warmUpFailed } from './rotation.ts';
import { dial, enqueue, leastLoaded, purposeOf, redialDelayMs, removeLink, unqueue } from './scheduler.ts';
import { isAwaiting, rememberEnded, type Stream, turnOf } from './stream.ts';
import { type NotRunProof, phaseOf, requeueTurn, type Turn, verdictByPhase } from './turn.ts';
import { endUnanswered, failTurn, releaseHold, releaseStream } from './turn-end.ts';
import type { LinkDown, UpstreamFrame } from './types.ts';
import { evict, evictFor, noteFailure } from './upstream-events.ts';

/** An `error` frame: about the connection, about a turn, or about nothing we know (upstream.md#errors). */
export function handleErrorFrame(
  core: Core,
  link: LinkSlot,
  routed: Stream | undefined,
  frame: UpstreamFrame,
): void {
  const error = readErrorFrame(frame, core.nowMs);
  if (isConnectionLimit(error)) return connectionLimit(core, link);
  if (isWarning(error.facts.code))
    return emitFrame(core, routed?.laneId ?? '', turnOf(routed)?.id ?? '', frame);
  const hasLanes = upOf(link)?.capabilities.transport !== 'sse';
  // Over HTTP each lane has a request of its own, and the link names it.
  if (hasLanes && !isNamed(link, frame.streamId)) return unattributed(core, link, routed, frame, error);
  if (routed === undefined) return emitFrame(core, '', '', frame);
  refused(core, link, routed, frame, error);
}

/**
 * The error names no lane. It is the unnamed lane's if that runs, and that of the only create without an answer; of
 * several it is known whose when the others have been answered.
 */
function unattributed(
  core: Core,
  link: LinkSlot,
  unnamed: Stream | undefined,
  frame: UpstreamFrame,
  error: UpstreamError,
): void {
  if (unnamed !== undefined && unnamed.state.t === 'idle' && isRetold(unnamed, frame, error))
    return tell(core, { kind: 'strayFrame', linkId: link.id, type: frame.type });
  const awaiting = [...link.streams.values()].filter(isAwaiting);
  const isRunning = unnamed !== undefined && unnamed.state.t !== 'idle' && !isAwaiting(unnamed);
  const [first] = awaiting;
  if (isRunning && (first === undefined || !isRefused(error)))
    return refused(core, link, unnamed, frame, error);
  if (first === undefined) {
    if (unnamed?.answered === true) tell(core, { kind: 'strayFrame', linkId: link.id, type: frame.type });
    else emitFrame(core, '', '', frame);
    return;
  }
  if (awaiting.length === 1) return refused(core, link, first, frame, error);
  for (const stream of awaiting) stream.suspect = true;
  // The client sees it at once, unless it may be about something that the client never asked for.
  const isShown = awaiting.every((stream) => turnOf(stream) !== undefined);
  if (isShown) emitFrame(core, '', '', frame);
  link.refusals.push({ error, frame: isShown ? undefined : frame });
  core.deadlines.set({ kind: 'refusals', linkId: link.id }, core.nowMs + ATTRIBUTION_TIMEOUT_MS);
  attributeRefusals(core, link);
}

/** Creates that have had no answer so long after an error that nobody else can have got. */
const ATTRIBUTION_TIMEOUT_MS = 20_000;

/** As many refusals wait for an owner as creates may have been refused: each has found one. */
export function attributeRefusals(core: Core, link: LinkSlot): void {
  const suspects: Stream[] = [];
  for (const stream of link.streams.values()) {
    if (!stream.suspect) continue;
    if (isAwaiting(stream)) suspects.push(stream);
    else stream.suspect = false;
  }
  // What does not say that it refuses a request may be about nothing that was asked for.
  const certain = link.refusals.filter(({ error }) => isRefused(error) || isRateLimit(error));
  if (suspects.length > certain.length) return;
  link.refusals = link.refusals.filter((refusal) => !certain.includes(refusal));
  if (link.refusals.length === 0) core.deadlines.clear({ kind: 'refusals', linkId: link.id });
  certain.forEach(({ error, frame }, index) => {
    const stream = suspects[index];
    if (stream !== undefined) refused(core, link, stream, frame, error);
    else if (frame !== undefined) emitFrame(core, '', '', frame);
  });
}

/** Nobody else was answered: whoever waits since then is taken to be the one that was meant. */
export function refusalsExpired(core: Core, link: LinkSlot): void {
  const suspects = [...link.streams.values()].filter((stream) => stream.suspect && isAwaiting(stream));
  const last = link.refusals.at(-1);
  link.refusals = [];
  if (last === undefined) return;
  for (const stream of suspects) {
    stream.suspect = false;
    const turn = turnOf(stream);
    if (turn === undefined) continue;
    failTurn(core, turn, toGatewayError(last.error), 'UNKNOWN');
    const lane = core.lanes.get(stream.laneId);
    stream.owesAnswer = true;
    if (lane !== undefined) muteLane(core, lane, link.id, 'no_answer');
  }
}

/** The error ends what runs on the stream. Without a frame the client has seen it already. */
function refused(
  core: Core,
  link: LinkSlot,
  stream: Stream,
  frame: UpstreamFrame | undefined,
  error: UpstreamError,
): void {
  const { state } = stream;
  stream.suspect = false;
  stream.owesAnswer = false;
  if (state.t === 'idle' || (isAwaiting(stream) && isRetold(stream, frame, error)))
    return tell(core, { kind: 'strayFrame', linkId: link.id, type: 'error' });
  if (state.t === 'warmUp') {
    evictFor(link, stream.laneId, state.plan);
    return warmUpFailed(core, link, stream);
  }
  if (state.t === 'abandoned') {
    evictFor(link, stream.laneId, state.plan);
    rememberEnded(stream, state.responseId);
    return releaseStream(core, link, stream);
  }
  const { turn } = state;
  if (isUnanswered(turn) && sendAgain(core, link, stream, turn, error)) return;
  if (turn.state.t === 'settling') {
    if (frame !== undefined) emitFrame(core, turn.laneId, turn.id, frame);
    return;
  }
  evict(link, turn);
  if (turn.state.t === 'running') noteFailure(stream, error.facts.code, frame);
  // An upstream that does not name its responses may go on with this one, and nothing would tell it from the next.
  const isNameless = turn.state.t === 'sent' && turn.outputStarted;
  const lane = core.lanes.get(turn.laneId);
  failTurn(
    core,
    turn,
    toGatewayError(error, turn.plan?.wireParentId !== undefined),
    verdictOf(turn, error),
    frame,
  );
  if (isNameless && lane !== undefined) muteLane(core, lane, link.id, 'nameless_response');
}

/** The failure of the response before, told a second time: it carries that response's count on. */
function isRetold(stream: Stream, frame: UpstreamFrame | undefined, { facts }: UpstreamError): boolean {
  const last = stream.lastFailure;
  const sequence = frame?.json()['sequence_number'];
  if (last === undefined || typeof sequence !== 'number' || sequence === 0 || facts.code !== last.code)
    return false;
  return sequence === last.sequence || Math.abs(sequence - last.sequence) === 1;
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

  for (const stream of link.streams.values()) withdraw(core, turnOf(stream));
  const settled = [...link.lanes].flatMap((id) => core.lanes.get(id) ?? []);
  const oversized = down.bystanderError === undefined ? undefined : largestUnanswered(link);
  removeLink(core, link, 'link_lost');
  for (const stream of link.streams.values()) lose(core, link, stream, down, oversized);
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
  for (const stream of [...link.streams.values()]) {
    const { state } = stream;
    const lane = core.lanes.get(stream.laneId) as Lane;
    if (state.t === 'warmUp') warmUpFailed(core, link, stream);
    else if (state.t === 'abandoned') {
      releaseStream(core, link, stream);
      muteLane(core, lane, link.id, 'connection_limit');
    } else if (state.t === 'turn' && isUnanswered(state.turn))
      resend(core, link, stream, state.turn, 'connection_limit_reached', 'first');
  }
  if (![...core.links.values()].some(({ state }) => state.t !== 'retiring')) {
    dial(core, 'recovery', 0, 0, { reason: 'connection_limit', sinceMs: core.nowMs });
  }
}

/** Whether the error proves that the turn did not run and it may be written once more. */
function sendAgain(core: Core, link: LinkSlot, stream: Stream, turn: Turn, error: UpstreamError): boolean {
  const lane = core.lanes.get(turn.laneId) as Lane;
  const up = upOf(link);
  if (
    up?.capabilities.multiplexed === true &&
    turn.laneId !== '' &&
    !link.namesLanes &&
    refusesLanes(error.facts)
  ) {
    forgetName(link, turn.laneId);
    resend(core, link, stream, turn, 'lanes_not_supported', 'first');
    lanesRefuted(core, link, up, turn.laneId);
    return true;
  }
  if (sendOtherHistory(core, link, stream, turn, error)) return true;
  if (isStreamLimit(error)) {
    // The link has fewer names left than we thought; this lane never got one.
    link.namesExhausted = true;
    forgetName(link, turn.laneId);
    resend(core, link, stream, turn, 'stream_limit_reached', 'first');
    unsettle(core, lane, 'stream_limit');
    return true;
  }
  if (isNotReached(error))
    return turn.sends < core.limits.maxDialAttempts && goElsewhere(core, link, stream, turn);
  return isRateLimit(error) && turn.request.waitOnRateLimit && waitAndResend(core, link, stream, turn, error);
}

/**
 * The upstream could not use the conversation as it was told: it has forgotten the parent, or wants the history in another
 * form. It says so before it runs anything, some in a failed response.
 */
export function sendOtherHistory(
  core: Core,
  link: LinkSlot,
  stream: Stream,
  turn: Turn,
  error: UpstreamError,
): boolean {
  const wireId = turn.plan?.wireParentId;
  if (wireId !== undefined && isPreviousResponseNotFound(error)) {
    avoid(turn, wireId);
    for (const [laneId, entry] of link.cache) if (entry.responseId === wireId) link.cache.delete(laneId);
    core.transcript.forgetStored(wireId, turn.laneId);
    const parentId = turn.plan?.parentId;
    if (parentId === undefined || !core.transcript.isComplete(parentId, turn.laneId)) return false;
    resend(core, link, stream, turn, 'previous_response_not_found', 'first');
    return true;
  }
  const refusal = historyRefusal(error);
  const up = upOf(link);
  if (refusal === undefined || up === undefined || turn.historyRefusals.includes(refusal)) return false;
  const form = milderReplay(core, up, turn, refusal);
  if (form !== undefined) turn.replayForm = form;
  else if (wireId !== undefined && refusal === 'call_unanswered' && canTellWithoutHalfCall(core, turn))
    avoid(turn, wireId);
  else return false;
  turn.historyRefusals = [...turn.historyRefusals, refusal];
  evict(link, turn);
  resend(core, link, stream, turn, 'history_refused', 'first');
  return true;
}

function avoid(turn: Turn, wireId: string): void {
  turn.avoidIds = new Set([...(turn.avoidIds ?? []), wireId]);
}

/** Nothing new goes over a link that reaches nobody; what runs on it may yet finish. */
function goElsewhere(core: Core, link: LinkSlot, stream: Stream, turn: Turn): true {
  resend(core, link, stream, turn, 'not_reached', 'first');
  const up = upOf(link);
  if (link.inFlight > 0 && up !== undefined) {
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

function waitAndResend(
  core: Core,
  link: LinkSlot,
  stream: Stream,
  turn: Turn,
  error: UpstreamError,
): boolean {
  const guessMs = RATE_LIMIT_MIN_WAIT_MS * 2 ** Math.min(turn.rateLimitWaits, 5) * (1 + core.random() / 4);
  const askedMs = error.retryAfterMs ?? 0;
  // "At once" from an upstream that has just refused would be asked again and again.
  const waitMs = askedMs > 0 ? askedMs : guessMs;
  // A time of day, a quota or nonsense. The client hears of it, and the lane is free.
  if (waitMs >= MAX_RETRY_AFTER_MS) return false;
  if (turn.deadlineMs !== undefined && core.nowMs + waitMs >= turn.deadlineMs) return false;
  evict(link, turn);
  const lane = core.lanes.get(turn.laneId) as Lane;
  turn.rateLimitWaits += 1;
  lane.notBeforeMs = core.nowMs + waitMs;
  resend(core, link, stream, turn, 'rate_limited', 'first');
  core.deadlines.set({ kind: 'lane', laneId: lane.id }, lane.notBeforeMs);
  emitNotice(core, lane.id, turn.id, {
    kind: 'rate_limited',
    reason: error.facts.code ?? 'rate_limited',
    elapsedMs: waitMs,
  });
  return true;
}

/** A turn whose create still waits for its journal goes back into the queue: it was never written. */
export function withdraw(core: Core, turn: Turn | undefined): void {
  if (turn === undefined || turn.state.t !== 'sent' || !isWithheld(core, turn)) return;
  const link = core.links.get(turn.state.linkId);
  const stream = link?.streams.get(turn.laneId);
  if (link !== undefined && stream !== undefined) resend(core, link, stream, turn, 'not_reached', 'first');
}

function resend(
  core: Core,
  link: LinkSlot,
  stream: Stream,
  turn: Turn,
  proof: NotRunProof,
  where: 'first' | 'last',
): void {
  const lane = core.lanes.get(turn.laneId) as Lane;
  forgetWithheld(core, turn);
  releaseHold(core, turn);
  giveBack(core, lane, turn, link.id);
  turn.plan = undefined;
  requeueTurn(turn, proof);
  lane.active = undefined;
  releaseStream(core, link, stream);
  enqueue(core, lane, turn, where);
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

/** Whose frame the upstream found too large: of those that it has not answered the largest. */
function largestUnanswered(link: LinkSlot): Turn | undefined {
  let largest: Turn | undefined;
  for (const stream of link.streams.values()) {
    const turn = turnOf(stream);
    if (turn === undefined || !isUnanswered(turn)) continue;
    if (largest === undefined || turn.frameBytes > largest.frameBytes) largest = turn;
  }
  return largest;
}

function lose(
  core: Core,
  link: LinkSlot,
  stream: Stream,
  { error, bystanderError = error }: LinkDown,
  oversized: Turn | undefined,
): void {
  const { state } = stream;
  if (state.t === 'idle') return;
  if (state.t !== 'turn') return releaseStream(core, link, stream);
  const { turn } = state;
  if (turn.state.t === 'settling') return endUnanswered(core, turn, turn.state, 'link_lost');
  const told = turn === oversized ? error : bystanderError;
  failTurn(core, turn, told, verdictByPhase(phaseOf(turn)));
  if (stream.state.t !== 'idle') releaseStream(core, link, stream);
}

function dialFailed(core: Core, link: LinkSlot, down: LinkDown): void {
  const lanes = [...link.lanes].flatMap((id) => core.lanes.get(id) ?? []);
  removeLink(core, link, 'dial_failed');
  core.unrecovered = link.replaces ?? core.unrecovered;
  const waiting = [...core.lanes.values()]
    .filter(({ linkId, queue }) => linkId === undefined && queue.length > 0)
    .sort((a, b) => acceptedAtMs(a) - acceptedAtMs(b));
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
  for (const lane of lanes) if (lane.linkId === undefined) settle(core, lane, next);
}

function acceptedAtMs({ queue }: Lane): number {
  return queue[0]?.acceptedAtMs ?? 0;
}

/** Waiting behind others is better than failing; false when there is no other link. */
function joinAnother(core: Core, lane: Lane): boolean {
  const link = leastLoaded(core, lane);
  if (link !== undefined) settle(core, lane, link);
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
