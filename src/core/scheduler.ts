import { createFrame, type OutgoingFrame, warmFrame } from '../dialect/frames.ts';
import { GatewayError } from '../errors.ts';
import { backoffMs } from '../ground/backoff.ts';
import { type Core, emitNotice, tell } from './core.ts';
import { isIdle, type Lane } from './lane.ts';
import { hasRoomFor, type LinkSlot, streamIdFor, takesTurns, type Up, upOf } from './link-slot.ts';
import { cachedLane, parentOf, planTurn } from './planner.ts';
import { moveTurn, type Turn } from './turn.ts';
import { failTurn } from './turn-end.ts';
import type { DialPurpose, LinkCapabilities } from './types.ts';

/** Writes every queued turn whose lane, link and limits allow it. Called after anything that may have made room. */
export function pump(core: Core): void {
  if (core.life.t === 'closed') return;
  for (const lane of core.waiting) {
    if (lane.active !== undefined || lane.discarding !== undefined || lane.waitingForks > 0) continue;
    if (lane.notBeforeMs !== undefined && lane.notBeforeMs > core.nowMs) continue;
    const link = linkFor(core, lane);
    // The lane's warm-up is under way there; its frames would be taken for the turn's.
    if (link?.inFlight.has(lane.id)) continue;
    while (link !== undefined && lane.queue.length > 0 && takesTurns(link) && !dispatch(core, lane, link));
  }
}

export function enqueue(core: Core, lane: Lane, turn: Turn, where: 'last' | 'first'): void {
  if (where === 'last') lane.queue.push(turn);
  else lane.queue.unshift(turn);
  core.queuedInputBytes += inputBytesOf(turn);
  core.waiting.add(lane);
}

/** Takes a queued turn out; false when it is not queued. */
export function unqueue(core: Core, lane: Lane, turn: Turn): boolean {
  const index = lane.queue.indexOf(turn);
  if (index < 0) return false;
  lane.queue.splice(index, 1);
  core.queuedInputBytes -= inputBytesOf(turn);
  if (lane.queue.length === 0) core.waiting.delete(lane);
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
  const link: LinkSlot = {
    id,
    purpose,
    attempt,
    state: delayMs > 0 ? { t: 'waiting' } : { t: 'dialing' },
    askedAtMs: core.nowMs,
    lanes: new Set(),
    names: new Set(),
    unnamed: undefined,
    inFlight: new Map(),
    cache: new Map(),
    muted: new Set(),
    namesExhausted: false,
    blocked: false,
    paused: false,
    lastUsedAtMs: core.nowMs,
    replaces,
  };
  core.links.set(id, link);
  if (delayMs > 0) core.deadlines.set({ kind: 'redial', linkId: id }, core.nowMs + delayMs);
  else askToDial(core, link);
  return link;
}

export function dialNow(core: Core, link: LinkSlot): void {
  if (link.state.t !== 'waiting') return;
  link.state = { t: 'dialing' };
  askToDial(core, link);
}

export function redialDelayMs(core: Core, attempt: number): number {
  const { redialMinMs, redialMaxMs } = core.limits;
  return backoffMs(attempt, { minMs: redialMinMs, maxMs: redialMaxMs, random: core.random });
}

export function settle(lane: Lane, link: LinkSlot): void {
  lane.linkId = link.id;
  link.lanes.add(lane.id);
}

export function unsettle(core: Core, lane: Lane, reason: string): void {
  const link = lane.linkId === undefined ? undefined : core.links.get(lane.linkId);
  link?.lanes.delete(lane.id);
  lane.linkId = undefined;
  lane.lostReason = reason;
}

/** Takes the lane off a link whose upstream may still send something for it. */
export function muteLane(core: Core, lane: Lane, linkId: number, reason: string): void {
  const link = core.links.get(linkId);
  if (link === undefined) return;
  link.muted.add(lane.id);
  link.cache.delete(lane.id);
  if (lane.linkId === linkId) unsettle(core, lane, reason);
}

/** Writes one of our own warm-ups for the lane on a link that it may move to. */
export function sendWarmUp(core: Core, lane: Lane, link: LinkSlot, up: Up, turn: Turn): boolean {
  const planned = planTurn(core, lane, link, up, turn);
  if (planned instanceof GatewayError) return false;
  turn.plan = planned.plan;
  const frame = warmFrame(
    turn.request.create.fields,
    planned.plan,
    streamIdFor(link, lane.id, up.capabilities),
  );
  if (bytesOf(frame) > frameLimit(core, up)) return false;
  write(core, link, turn, frame);
  tell(core, {
    kind: 'replayed',
    linkId: link.id,
    turnId: undefined,
    reason: 'warm_up',
    bytes: planned.plan.replayedBytes,
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
  const bytes = bytesOf(frame);
  const limit = frameLimit(core, up);
  if (bytes > limit) {
    failTurn(core, turn, tooLarge(bytes, limit, plan.replayedBytes), 'SAFE');
    return false;
  }

  turn.plan = plan;
  if (lane.waitingSteers?.targetId === plan.parentId) lane.waitingSteers = undefined;
  holdSource(core, lane, turn, plan.cachedIn);
  if (planned.fullInputReason !== undefined) {
    emitNotice(core, lane.id, turn.id, { kind: 'full_input_sent', reason: planned.fullInputReason });
  }
  if (plan.replayReason !== undefined)
    noteReplay(core, lane, link, up, turn, plan.replayReason, plan.replayedBytes);
  lane.active = turn;
  core.recentSettings.set(lane.id, turn.request.create.fields);
  lane.lostReason = undefined;
  turn.fullContextBytes = bytes - plan.replayedBytes + core.transcript.contextBytes(plan.parentId);
  turn.bytesUp += bytes;
  turn.route = up.route;
  write(core, link, turn, frame);
  tell(core, { kind: 'turnSent', turnId: turn.id, linkId: link.id, atMs: core.nowMs });
  return true;
}

function write(core: Core, link: LinkSlot, turn: Turn, frame: OutgoingFrame): void {
  moveTurn(turn, { t: 'sent', linkId: link.id });
  turn.sentAtMs ??= core.nowMs;
  turn.sends += 1;
  link.inFlight.set(turn.laneId, turn);
  link.lastUsedAtMs = core.nowMs;
  core.outputs.push({ kind: 'send', linkId: link.id, frame, turnId: turn.id });
}

function bytesOf({ head, body }: OutgoingFrame): number {
  return Buffer.byteLength(head) + Buffer.byteLength(body);
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

function tooLarge(bytes: number, limit: number, replayedBytes: number): GatewayError {
  return new GatewayError('FRAME_TOO_LARGE', `the request has ${bytes} bytes, the upstream takes ${limit}`, {
    metadata: { bytes: String(bytes), limit: String(limit), replayed_bytes: String(replayedBytes) },
  });
}

function frameLimit(core: Core, up: Up): number {
  return Math.min(core.limits.maxFrameBytes, up.capabilities.maxFrameBytes);
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
  emitNotice(core, lane.id, turn.id, { kind: 'replayed', reason, replayedBytes: bytes, elapsedMs });
}

/** A fork of a response that only the cache holds: its lane must not push it out before the fork runs. */
function holdSource(core: Core, lane: Lane, turn: Turn, cachedIn: string | undefined): void {
  if (cachedIn === undefined || cachedIn === lane.id) return;
  const source = core.lanes.get(cachedIn);
  if (source === undefined || source.active !== undefined) return;
  source.waitingForks += 1;
  turn.holds = source.id;
}

/** Where the lane's next turn goes; undefined while a link for it is on its way. */
function linkFor(core: Core, lane: Lane): LinkSlot | undefined {
  const home = lane.linkId === undefined ? undefined : core.links.get(lane.linkId);
  if (home !== undefined && home.state.t !== 'retiring') return home;
  if (home !== undefined) unsettle(core, lane, home.state.t === 'retiring' ? home.state.reason : 'link_lost');
  const chosen = choose(core, lane);
  if (chosen !== undefined) settle(lane, chosen);
  return chosen;
}

function choose(core: Core, lane: Lane): LinkSlot | undefined {
  const parentId = lane.queue[0] === undefined ? undefined : parentOf(lane, lane.queue[0]);
  let best: LinkSlot | undefined;
  let bestLoad = Number.POSITIVE_INFINITY;
  for (const link of core.links.values()) {
    if (!takesLanes(core, link)) continue;
    const capabilities = capabilitiesOf(core, link);
    if (!hasRoomFor(link, lane.id, capabilities)) continue;
    // A fork belongs where its parent is cached; anywhere else it costs a replay.
    if (parentId !== undefined && cachedLane(link, parentId) !== undefined) return link;
    const load = loadOf(core, link);
    if (load < capabilities.maxInFlight && load < bestLoad) {
      best = link;
      bestLoad = load;
    }
  }
  if (best !== undefined) return best;
  if (core.links.size < core.limits.maxLinks) {
    const purpose = purposeOf(core);
    return dial(core, purpose, 0, 0, purpose === 'recovery' ? core.unrecovered : undefined);
  }
  return leastLoaded(core, lane) ?? recycled(core);
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

/** A session that has lost all it had recovers, wherever that is possible; a further link stays where the others are. */
export function purposeOf(core: Core): DialPurpose {
  const alone = [...core.links.values()].every((link) => link.state.t === 'retiring' || !upOf(link));
  return alone && core.lastUpstream !== undefined ? 'recovery' : 'lanes';
}

/** Every link is busy to its limit and no more may be opened: wait behind the shortest queue. */
export function leastLoaded(core: Core, lane: Lane): LinkSlot | undefined {
  let best: LinkSlot | undefined;
  for (const link of core.links.values()) {
    if (!takesLanes(core, link)) continue;
    if (!hasRoomFor(link, lane.id, capabilitiesOf(core, link))) continue;
    if (best === undefined || loadOf(core, link) < loadOf(core, best)) best = link;
  }
  return best;
}

/** Names are never freed on a link, so the idle link used longest ago makes room for a new one. */
function recycled(core: Core): LinkSlot | undefined {
  let oldest: LinkSlot | undefined;
  for (const link of core.links.values()) {
    const busy =
      link.inFlight.size > 0 ||
      loadOf(core, link) > 0 ||
      link.state.t === 'dialing' ||
      link.state.t === 'waiting';
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
  for (const laneId of [...link.lanes]) {
    const lane = core.lanes.get(laneId);
    if (lane !== undefined) unsettle(core, lane, reason);
  }
  core.links.delete(link.id);
  core.deadlines.clear({ kind: 'redial', linkId: link.id });
  core.deadlines.clear({ kind: 'rotate', linkId: link.id });
  core.deadlines.clear({ kind: 'retire', linkId: link.id });
}

function askToDial(core: Core, link: LinkSlot): void {
  core.outputs.push({ kind: 'dial', linkId: link.id, purpose: link.purpose, attempt: link.attempt });
  tell(core, { kind: 'linkDialing', linkId: link.id, purpose: link.purpose, atMs: core.nowMs });
}

/** Lanes on the link that are doing or waiting for something. */
function loadOf(core: Core, link: LinkSlot): number {
  let load = 0;
  for (const laneId of link.lanes) {
    const lane = core.lanes.get(laneId);
    if (lane !== undefined && !isIdle(lane)) load += 1;
  }
  return load;
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

function inputBytesOf(turn: Turn): number {
  let bytes = 0;
  for (const item of turn.request.create.input) bytes += item.length;
  return bytes;
}
