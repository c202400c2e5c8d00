import { createFrame, type OutgoingFrame, warmFrame } from '../dialect/frames.ts';
import { GatewayError } from '../errors.ts';
import { backoffMs } from '../ground/backoff.ts';
import { takeCarried, tellForgotten } from './carry.ts';
import { type Core, emitNotice, isMoving, tell } from './core.ts';
import { frameLimit, tooLarge } from './frame-limit.ts';
import { announceBegin, commitOfBegin, hasBegun, sendTurn } from './gates.ts';
import { activate, recount, settle, unsettle, wake } from './home.ts';
import { isReady, type Lane, NOTHING_CARRIED } from './lane.ts';
import {
  canProbe,
  capacityOf,
  hasRoomFor,
  isBusy,
  type LinkSlot,
  moveLink,
  moveStream,
  newLinkSlot,
  streamFor,
  streamIdFor,
  takesTurns,
  type Up,
  upOf,
} from './link-slot.ts';
import { cachedLane, parentOf, planTurn, planWarmUp } from './planner.ts';
import { moveTurn, type Turn } from './turn.ts';
import { failTurn } from './turn-end.ts';
import type { DialPurpose, LinkCapabilities } from './types.ts';

/** Homeless lanes that are looked at in one pass while the session has other work under way. */
const HOMELESS_PER_PASS = 8;

/** Writes every queued turn whose lane, link and limits allow it. Looks at what has changed, not at every lane. */
export function pump(core: Core): void {
  if (core.life.t === 'closed') return;
  for (;;) {
    findHomes(core);
    let moved = false;
    for (const link of core.links.values()) {
      while (link.ready.size > 0 && takesTurns(link)) {
        const [lane] = link.ready as Set<Lane>;
        link.ready.delete(lane as Lane);
        if (serve(core, lane as Lane, link)) moved = true;
      }
    }
    // Whoever left a link for another looks for it now.
    if (!moved && !core.homeless.hasNewcomers && !hasNewRoom(core)) return;
  }
}

/** False: nothing changed for the lane here. */
function serve(core: Core, lane: Lane, link: LinkSlot): boolean {
  if (!isReady(lane, core.nowMs) || lane.linkId !== link.id) return false;
  if (isBusy(link, lane.id)) return leave(core, lane, link);
  if (!canProbe(link, lane.id)) {
    unsettle(core, lane, lane.lostReason ?? 'not_cached');
    return true;
  }
  // The process that goes on with the session begins it, when the client asks for it again.
  if (isMoving(core) && !hasBegun(core, lane.queue[0]?.id ?? '')) return false;
  while (isReady(lane, core.nowMs) && lane.linkId === link.id && takesTurns(link)) {
    if (dispatch(core, lane, link)) return true;
  }
  return true;
}

/**
 * The upstream still works for the lane here. A warm-up is short. A turn that was given up may take minutes: the next one
 * goes over another link, if the conversation can be found again there.
 */
function leave(core: Core, lane: Lane, link: LinkSlot): boolean {
  if (link.streams.get(lane.id)?.state.t !== 'abandoned' || !canLeave(core, lane)) return false;
  unsettle(core, lane, 'cancelled');
  return true;
}

/** What the lane stands on can be said again, or named, on any link. */
export function canLeave(core: Core, { id, headId }: Lane): boolean {
  return (
    headId === undefined ||
    core.transcript.get(headId, id)?.stored === true ||
    core.transcript.isComplete(headId, id)
  );
}

/** Gives a link to every lane that can have one: those that wait when there is new room, those that come in any case. */
function findHomes(core: Core): void {
  if (hasNewRoom(core)) findOldHomes(core);
  core.homeless.visitNewcomers((lane) => findHome(core, lane));
}

function hasNewRoom(core: Core): boolean {
  return core.homeless.size > 0 && core.roomSeen !== core.roomVersion;
}

function findOldHomes(core: Core): void {
  core.roomSeen = core.roomVersion;
  const busy = [...core.links.values()].some(({ inFlight }) => inFlight > 0);
  let missed = 0;
  for (let left = core.homeless.size; left > 0; left -= 1) {
    const lane = core.homeless.first;
    if (lane === undefined) return;
    if (findHome(core, lane)) continue;
    missed += 1;
    if (busy && missed >= HOMELESS_PER_PASS) return;
  }
}

/** False: it waits on. */
function findHome(core: Core, lane: Lane): boolean {
  if (!isReady(lane, core.nowMs)) {
    core.homeless.delete(lane);
    return true;
  }
  const anyWillDo = isUnbound(lane);
  const link = anyWillDo && core.fullAt === core.roomVersion ? undefined : choose(core, lane);
  if (link !== undefined) {
    settle(core, lane, link);
    return true;
  }
  if (anyWillDo) core.fullAt = core.roomVersion;
  core.homeless.moveToEnd(lane);
  return false;
}

/** No link is more to the lane than any other: where one such lane finds nothing, none does. */
function isUnbound(lane: Lane): boolean {
  return !lane.wasSettled && lane.id !== '' && parentOf(lane, lane.queue[0] as Turn) === undefined;
}

export function enqueue(core: Core, lane: Lane, turn: Turn, where: 'last' | 'first'): void {
  if (where === 'last') lane.queue.push(turn);
  else lane.queue.unshift(turn);
  recount(core, lane);
  wake(core, lane);
}

/** Takes a queued turn out; false when it is not queued. */
export function unqueue(core: Core, lane: Lane, turn: Turn): boolean {
  const index = lane.queue.indexOf(turn);
  if (index < 0) return false;
  lane.queue.splice(index, 1);
  if (lane.queue.length === 0) {
    core.homeless.delete(lane);
    core.links.get(lane.linkId ?? 0)?.ready.delete(lane);
  }
  recount(core, lane);
  return true;
}

export function dial(
  core: Core,
  purpose: DialPurpose,
  attempt: number,
  delayMs: number,
  replaces: LinkSlot['replaces'],
): LinkSlot {
  const id = core.nextLinkId;
  core.nextLinkId += 1;
  const state = delayMs > 0 ? ({ t: 'waiting' } as const) : ({ t: 'dialing' } as const);
  const link = newLinkSlot(id, purpose, attempt, state, core.nowMs, replaces);
  core.links.set(id, link);
  core.roomVersion += 1;
  if (delayMs > 0) core.deadlines.set({ kind: 'redial', linkId: id }, core.nowMs + delayMs);
  else askToDial(core, link);
  return link;
}

export function dialNow(core: Core, link: LinkSlot): void {
  if (link.state.t !== 'waiting') return;
  moveLink(link, { t: 'dialing' });
  askToDial(core, link);
}

export function redialDelayMs(core: Core, attempt: number): number {
  const { redialMinMs, redialMaxMs } = core.limits;
  return backoffMs(attempt, { minMs: redialMinMs, maxMs: redialMaxMs, random: core.random });
}

/** Writes one of our own warm-ups for the lane on a link that it may move to. */
export function sendWarmUp(
  core: Core,
  lane: Lane,
  link: LinkSlot,
  up: Up,
  nodeId: string,
  fields: ReadonlyMap<string, string>,
): boolean {
  const plan = planWarmUp(core, lane, link, up, nodeId);
  if (plan instanceof GatewayError) return false;
  const frame = warmFrame(fields, plan, streamIdFor(link, lane.id, up.capabilities));
  if (frame.bytes > frameLimit(core, up)) return false;
  moveStream(link, streamFor(link, lane.id), { t: 'warmUp', nodeId, plan, responseId: undefined });
  link.lastUsedAtMs = core.nowMs;
  core.outputs.push({ kind: 'send', linkId: link.id, frame, turnId: `warm-up:${lane.id}` });
  tell(core, {
    kind: 'replayed',
    linkId: link.id,
    turnId: undefined,
    reason: 'warm_up',
    bytes: plan.replayedBytes,
    startedAtMs: core.nowMs,
    endedAtMs: core.nowMs,
  });
  return true;
}

/** False when the turn could not be written and has ended: the next one in the queue may try. */
function dispatch(core: Core, lane: Lane, link: LinkSlot): boolean {
  const turn = lane.queue[0] as Turn;
  const up = upOf(link) as Up;
  unqueue(core, lane, turn);
  const refusal = refusalOf(turn, up);
  const planned = refusal ?? planTurn(core, lane, link, up, turn);
  if (planned instanceof GatewayError) {
    failTurn(core, turn, planned, 'SAFE');
    return false;
  }

  const { plan } = planned;
  const streamId = streamIdFor(link, lane.id, up.capabilities);
  const frame = createFrame(turn.request.create, plan, streamId);
  const { bytes } = frame;
  const limit = frameLimit(core, up);
  if (bytes > limit) {
    failTurn(core, turn, tooLarge(bytes, limit, { replayed_bytes: String(plan.replayedBytes) }), 'SAFE');
    return false;
  }

  turn.plan = plan;
  takeCarried(core, lane, plan.parentId);
  if (plan.carried !== NOTHING_CARRIED) tellForgotten(core, lane, plan, link.id);
  holdSource(core, lane, turn, plan.cachedIn);
  announceBegin(core, turn);
  const saidFromSeq = core.outbox.nextSeq;
  if (planned.fullInputReason !== undefined) {
    const reason = planned.fullInputReason;
    emitNotice(core, lane.id, turn.id, {
      kind: 'full_input_sent',
      reason,
      commit: commitOfBegin(core, turn),
    });
  }
  if (plan.replayReason !== undefined)
    noteReplay(core, lane, link, up, turn, plan.replayReason, plan.replayedBytes);
  activate(core, lane, turn);
  core.recentSettings.set(lane.id, turn.request.create.fields);
  lane.lostReason = undefined;
  turn.fullContextBytes = bytes - plan.replayedBytes + core.transcript.contextBytes(plan.parentId, lane.id);
  turn.bytesUp += bytes;
  turn.frameBytes = bytes;
  turn.route = up.route;
  write(core, link, turn, frame, saidFromSeq);
  tell(core, { kind: 'turnSent', turnId: turn.id, linkId: link.id, atMs: core.nowMs });
  return true;
}

function write(core: Core, link: LinkSlot, turn: Turn, frame: OutgoingFrame, saidFromSeq: number): void {
  moveTurn(turn, { t: 'sent', linkId: link.id });
  turn.sentAtMs ??= core.nowMs;
  turn.lastSignAtMs = core.nowMs;
  turn.announced = false;
  turn.sends += 1;
  const stream = streamFor(link, turn.laneId);
  moveStream(link, stream, { t: 'turn', turn });
  // An upstream that does not announce its responses may begin with their content.
  if (!stream.answered || !link.announces) stream.listener = turn;
  link.lastUsedAtMs = core.nowMs;
  const { silentTurnTimeoutMs } = core.limits;
  if (silentTurnTimeoutMs !== undefined && !core.deadlines.has({ kind: 'silence' }))
    core.deadlines.set({ kind: 'silence' }, core.nowMs + silentTurnTimeoutMs);
  sendTurn(core, turn, { kind: 'send', linkId: link.id, frame, turnId: turn.id }, saidFromSeq);
}

function refusalOf(turn: Turn, up: Up): GatewayError | undefined {
  if (turn.request.create.generate || up.capabilities.warmUp) return undefined;
  return new GatewayError(
    'NOT_SUPPORTED_BY_UPSTREAM',
    'create.generate: false is not supported by this upstream',
    {
      metadata: { field: 'create.generate', upstream: up.route.upstream },
    },
  );
}

function noteReplay(
  core: Core,
  lane: Lane,
  link: LinkSlot,
  up: Up,
  turn: Turn,
  reason: string,
  bytes: number,
): void {
  turn.replays += 1;
  tell(core, {
    kind: 'replayed',
    linkId: link.id,
    turnId: turn.id,
    reason,
    bytes,
    startedAtMs: turn.sentAtMs ?? core.nowMs,
    endedAtMs: core.nowMs,
  });
  // An upstream without memory is sent the transcript every turn; that is its normal course, not news.
  if (!up.capabilities.keepsUnstored && reason === 'not_cached') return;
  const elapsedMs = core.nowMs - (turn.sentAtMs ?? turn.acceptedAtMs);
  const commit = commitOfBegin(core, turn);
  emitNotice(core, lane.id, turn.id, { kind: 'replayed', reason, replayedBytes: bytes, elapsedMs, commit });
}

/** A fork of a response that only the cache holds: its lane must not push it out before the fork runs. */
function holdSource(core: Core, lane: Lane, turn: Turn, cachedIn: string | undefined): void {
  if (cachedIn === undefined || cachedIn === lane.id) return;
  const source = core.lanes.get(cachedIn);
  if (source === undefined || source.active !== undefined) return;
  source.waitingForks += 1;
  turn.holds = source.id;
}

/** Where the lane's next turn goes; undefined while there is no link for it. */
function choose(core: Core, lane: Lane): LinkSlot | undefined {
  const parentId = lane.queue[0] === undefined ? undefined : parentOf(lane, lane.queue[0]);
  const unnamedOn = core.lanes.get('')?.countedOn;
  let best: LinkSlot | undefined;
  let least: LinkSlot | undefined;
  for (const link of core.links.values()) {
    if (!takesLanes(core, link)) continue;
    const capabilities = capabilitiesOf(core, link);
    if (!hasRoomFor(link, lane.id, capabilities)) continue;
    // A fork belongs where its parent is cached; anywhere else it costs a replay.
    if (parentId !== undefined && cachedLane(link, parentId) !== undefined) return link;
    if (least === undefined || link.load < least.load) least = link;
    // Behind a probe a lane waits for a moment, behind the unnamed lane for a whole answer.
    const places = unnamedOn === link.id ? capacityOf(link, capabilities, lane.id) : capabilities.maxInFlight;
    if (link.load < places && (best === undefined || link.load < best.load)) best = link;
  }
  if (best !== undefined) return best;
  if (core.links.size < core.limits.maxLinks) {
    const purpose = purposeOf(core);
    return dial(core, purpose, 0, 0, purpose === 'recovery' ? core.unrecovered : undefined);
  }
  // Every link is busy to its limit and no more may be opened: wait behind the shortest queue.
  return least ?? recycled(core);
}

/** A link takes lanes until its successor is up, and the successor from then on: no lane waits for a rotation. */
function takesLanes(core: Core, link: LinkSlot): boolean {
  const { state } = link;
  if (state.t === 'retiring') return false;
  const successor = state.t === 'rotating' ? core.links.get(state.successorId) : undefined;
  if (successor !== undefined) return upOf(successor) === undefined;
  const isUp = upOf(link) !== undefined;
  return isUp || ![...core.links.values()].some((old) => isReplacedBy(old, link));
}

function isReplacedBy({ state }: LinkSlot, successor: LinkSlot): boolean {
  return state.t === 'rotating' && state.successorId === successor.id;
}

/**
 * A session that has lost all it had recovers, wherever that is possible; one that never had any goes wherever something
 * answers; a further link stays where the others are.
 */
export function purposeOf(core: Core): DialPurpose {
  const others = [...core.links.values()].filter(({ state }) => state.t !== 'retiring');
  if (core.lastUpstream === undefined) return others.length === 0 ? 'session' : 'lanes';
  return others.some(upOf) ? 'lanes' : 'recovery';
}

/** The link with the shortest queue, full or not. */
export function leastLoaded(core: Core, lane: Lane): LinkSlot | undefined {
  let best: LinkSlot | undefined;
  for (const link of core.links.values()) {
    if (!takesLanes(core, link)) continue;
    if (!hasRoomFor(link, lane.id, capabilitiesOf(core, link))) continue;
    if (best === undefined || link.load < best.load) best = link;
  }
  return best;
}

/** Names are never freed on a link, so the idle link used longest ago makes room for a new one. */
function recycled(core: Core): LinkSlot | undefined {
  let oldest: LinkSlot | undefined;
  for (const link of core.links.values()) {
    const busy =
      link.inFlight > 0 || link.load > 0 || link.state.t === 'dialing' || link.state.t === 'waiting';
    if (!busy && (oldest === undefined || link.lastUsedAtMs < oldest.lastUsedAtMs)) oldest = link;
  }
  if (oldest === undefined) return undefined;
  closeLink(core, oldest, 'recycled', 'lanes moved');
  return dial(core, 'lanes', 0, 0, undefined);
}

/** Ends a link of ours; `reason` is what its lanes will say if they need a replay. */
export function closeLink(core: Core, link: LinkSlot, reason: string, said: string): void {
  removeLink(core, link, reason);
  core.outputs.push({ kind: 'closeLink', linkId: link.id, code: 1000, reason: said });
  tell(core, { kind: 'linkDown', linkId: link.id, reason, closeCode: undefined, atMs: core.nowMs });
}

/** Forgets the link; its lanes find another when they need one. */
export function removeLink(core: Core, link: LinkSlot, reason: string): void {
  const lanes = [...link.lanes].flatMap((laneId) => core.lanes.get(laneId) ?? []);
  core.links.delete(link.id);
  for (const lane of lanes) {
    lane.linkId = undefined;
    lane.countedOn = undefined;
    lane.lostReason = reason;
    wake(core, lane);
  }
  core.roomVersion += 1;
  core.pumpDue = true;
  for (const kind of ['redial', 'rotate', 'retire', 'refusals'] as const)
    core.deadlines.clear({ kind, linkId: link.id });
  for (const laneId of link.streams.keys()) {
    core.deadlines.clear({ kind: 'warmUp', laneId, linkId: link.id });
    core.deadlines.clear({ kind: 'steerSettle', laneId, linkId: link.id });
  }
}

function askToDial(core: Core, link: LinkSlot): void {
  core.outputs.push({ kind: 'dial', linkId: link.id, purpose: link.purpose, attempt: link.attempt });
  tell(core, { kind: 'linkDialing', linkId: link.id, purpose: link.purpose, atMs: core.nowMs });
}

function capabilitiesOf(core: Core, link: LinkSlot): LinkCapabilities {
  return upOf(link)?.capabilities ?? core.lastCapabilities ?? ASSUMED;
}

/** OpenAI's, until the first link says what it really is. */
const ASSUMED: LinkCapabilities = Object.freeze({
  transport: 'websocket',
  multiplexed: true,
  maxInFlight: 16,
  maxNamedLanes: 32,
  keepsUnstored: true,
  storesResponses: true,
  steering: true,
  warmUp: true,
  maxAgeMs: 3_600_000,
  rotateAfterMs: undefined,
  maxFrameBytes: 16 * 1024 * 1024,
});
