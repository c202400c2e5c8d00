import { readFailedResponse, toGatewayError } from '../dialect/upstream-error.ts';
import { addUsage, readUsage } from '../dialect/usage.ts';
import { type Core, emitFrame, emitNotice, headsOf, tell } from './core.ts';
import type { Lane } from './lane.ts';
import { isMuted, type LinkSlot, laneOf, type Up, upOf } from './link-slot.ts';
import { warmUpFailed } from './rotation.ts';
import { muteLane } from './scheduler.ts';
import { commitSteers, decideSteer, hasUndecidedSteers, sendHeldSteers } from './steering.ts';
import type { NewNode } from './transcript.ts';
import { moveTurn, type OpenResponse, phaseOf, type Turn } from './turn.ts';
import { endTurn, endUnanswered, finishDiscarded, finishWarmUp, releaseHold } from './turn-end.ts';
import type { TurnFailed, TurnOutcome, UpstreamFrame } from './types.ts';
import { handleErrorFrame } from './upstream-failures.ts';

/**
 * One frame of the upstream. A frame that only moves content is numbered and handed on; everything else goes
 * through its own function. Returns whether anything but content happened, so that the queues are looked at again.
 */
export function handleFrame(core: Core, link: LinkSlot, frame: UpstreamFrame): boolean {
  const laneId = laneOf(link, frame.streamId);
  const handler = HANDLERS.get(frame.type);
  const routed = laneId === undefined ? undefined : link.inFlight.get(laneId);
  const turn =
    handler === onSteer && frame.streamId === undefined ? (steeredTurn(link, frame) ?? routed) : routed;
  if (turn !== undefined && handler === undefined) {
    if (frame.streamId === undefined && !frame.type.startsWith('response.')) emitFrame(core, '', '', frame);
    else content(core, turn, frame);
    return false;
  }
  if (frame.type === 'error') {
    handleErrorFrame(core, link, frame, turn);
  } else if (turn === undefined && isMuted(link, frame.streamId)) {
    // The rest of a turn that nobody waits for.
    if (TERMINALS.has(frame.type)) tellLateUsage(core, '', responseOf(frame));
  } else if (turn === undefined || handler === undefined) {
    // Nobody waits for it, but nothing is dropped: it belongs to the lane, or to the connection (protocol.md 3.3).
    const known = frame.streamId !== undefined && core.lanes.has(frame.streamId);
    emitFrame(core, known ? (frame.streamId as string) : '', '', frame);
  } else {
    handler(core, link, turn, frame);
  }
  return true;
}

type Handler = (core: Core, link: LinkSlot, turn: Turn, frame: UpstreamFrame) => void;

const HANDLERS: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  ['response.created', onCreated],
  ['response.in_progress', onProgress],
  ['response.queued', onProgress],
  ['response.output_item.done', onItemDone],
  ['response.completed', onTerminal],
  ['response.incomplete', onTerminal],
  ['response.failed', onTerminal],
  ['response.steer.accepted', onSteer],
  ['response.steer.pending', onSteer],
  ['response.steer.failed', onSteer],
  ['error', () => undefined],
]);

const TERMINALS: ReadonlySet<string> = new Set([
  'response.completed',
  'response.incomplete',
  'response.failed',
]);

/** The hot path. */
function content(core: Core, turn: Turn, frame: UpstreamFrame): void {
  if (turn.warming !== undefined || turn.state.t === 'discarding') return;
  turn.events += 1;
  turn.outputEvents += 1;
  turn.bytesDown += frame.byteLength;
  turn.lastOutputAtMs = core.nowMs;
  if (!turn.outputStarted) startOutput(core, turn);
  emitFrame(core, turn.laneId, turn.id, frame);
}

function startOutput(core: Core, turn: Turn): void {
  turn.outputStarted = true;
  turn.firstOutputAtMs = core.nowMs;
  tell(core, { kind: 'firstOutput', turnId: turn.id, atMs: core.nowMs });
}

function pass(core: Core, turn: Turn, frame: UpstreamFrame): void {
  if (turn.warming !== undefined || turn.state.t === 'discarding') return;
  turn.events += 1;
  turn.bytesDown += frame.byteLength;
  emitFrame(core, turn.laneId, turn.id, frame);
}

function onProgress(core: Core, _link: LinkSlot, turn: Turn, frame: UpstreamFrame): void {
  releaseHold(core, turn);
  pass(core, turn, frame);
}

function onCreated(core: Core, _link: LinkSlot, turn: Turn, frame: UpstreamFrame): void {
  const id = responseOf(frame)['id'];
  if (turn.state.t === 'discarding') {
    // A successor that nobody waits for: its terminal frees the lane, however long it takes.
    core.deadlines.clear({ kind: 'steerSettle', turnId: turn.id });
    return;
  }
  if (typeof id !== 'string') return pass(core, turn, frame);
  begin(core, turn, id);
  pass(core, turn, frame);
  sendHeldSteers(core, turn);
}

/** The turn's first response, or one that the upstream began by itself after steering (protocol.md 6.2). */
function begin(core: Core, turn: Turn, id: string): OpenResponse {
  const { state } = turn;
  if (state.t === 'queued' || state.t === 'ended' || state.t === 'discarding')
    throw new Error(`created while ${state.t}`);
  const previousId =
    state.t === 'settling' ? state.responseId : state.t === 'running' ? state.response.id : undefined;
  const response: OpenResponse = {
    id,
    parentId: previousId ?? turn.plan?.parentId,
    input: previousId === undefined ? (turn.plan?.input ?? []) : commitSteers(turn, previousId),
    stored: turn.request.create.store,
    output: [],
    outputBytes: 0,
    compactionIndex: undefined,
  };
  moveTurn(turn, { t: 'running', linkId: state.linkId, response });
  core.deadlines.clear({ kind: 'steerSettle', turnId: turn.id });
  turn.createdAtMs ??= core.nowMs;
  turn.responseId = id;
  if (turn.warming === undefined)
    tell(core, { kind: 'responseCreated', turnId: turn.id, responseId: id, atMs: core.nowMs });
  return response;
}

function onItemDone(core: Core, _link: LinkSlot, turn: Turn, frame: UpstreamFrame): void {
  if (turn.warming !== undefined || turn.state.t === 'discarding') return;
  if (turn.state.t === 'running') keepItem(core, turn, turn.state.response, frame.json());
  content(core, turn, frame);
}

function keepItem(
  core: Core,
  turn: Turn,
  response: OpenResponse,
  json: Readonly<Record<string, unknown>>,
): void {
  const item = json['item'];
  const index = json['output_index'];
  if (typeof item !== 'object' || item === null) return;
  const { id, type, name } = item as Readonly<Record<string, unknown>>;
  if (typeof id === 'string') tell(core, { kind: 'itemDone', itemId: id });
  if (type === 'function_call' || type === 'custom_tool_call') {
    turn.toolCalls += 1;
    tell(core, {
      kind: 'toolCalled',
      turnId: turn.id,
      name: typeof name === 'string' ? name : '',
      atMs: core.nowMs,
    });
  }
  const text = JSON.stringify(item);
  response.outputBytes += text.length;
  if (response.outputBytes > core.limits.maxTranscriptBytes) {
    response.output.length = 0;
    return;
  }
  // Items are not always done in their order. A hostile index would make the array sparse without bound.
  const at =
    typeof index === 'number' && Number.isInteger(index) && index >= 0 && index < MAX_OUTPUT_ITEMS
      ? index
      : response.output.length;
  response.output[at] = text;
  if (type === 'compaction') response.compactionIndex = Math.max(response.compactionIndex ?? 0, at);
}

const MAX_OUTPUT_ITEMS = 4_096;

function onTerminal(core: Core, link: LinkSlot, turn: Turn, frame: UpstreamFrame): void {
  if (turn.state.t === 'discarding') return onDiscardedTerminal(core, link, turn, frame);
  const json = responseOf(frame);
  if (turn.state.t === 'sent') begin(core, turn, typeof json['id'] === 'string' ? json['id'] : '');
  if (turn.state.t !== 'running') return pass(core, turn, frame);
  const { response, linkId } = turn.state;
  turn.bytesDown += frame.byteLength;
  readSummary(turn, json);
  if (turn.warming !== undefined) tellLateUsage(core, '', json);

  const lane = core.lanes.get(turn.laneId) as Lane;
  const up = upOf(link) as Up;
  if (frame.type === 'response.failed') {
    evict(link, turn);
    if (turn.warming !== undefined) return warmUpFailed(core, turn);
    const error = toGatewayError(readFailedResponse(frame, core.nowMs));
    const failed: TurnFailed = { error, replay: 'UNSAFE', phase: phaseOf(turn) };
    if (settleLater(core, turn, frame, linkId, response.id, 'FAILED', failed)) return;
    return endTurn(core, turn, 'FAILED', { frame, failed });
  }
  if (up.capabilities.keepsUnstored)
    link.cache.set(lane.id, { responseId: response.id, nodeId: turn.warming?.nodeId ?? response.id });
  if (turn.warming !== undefined) return finishWarmUp(core, turn);

  tellListedItems(core, response, json['output']);
  remember(core, lane, turn, up, response, outputOf(response, json['output']));
  const outcome: TurnOutcome = frame.type === 'response.incomplete' ? 'INCOMPLETE' : 'COMPLETED';
  if (settleLater(core, turn, frame, linkId, response.id, outcome)) return;
  endTurn(core, turn, outcome, { frame });
}

/** With undecided steers the terminal is not the turn's last event (design, section 6). */
function settleLater(
  core: Core,
  turn: Turn,
  frame: UpstreamFrame,
  linkId: number,
  responseId: string,
  outcome: TurnOutcome,
  failed?: TurnFailed,
): boolean {
  if (!hasUndecidedSteers(turn, responseId)) return false;
  turn.events += 1;
  emitFrame(core, turn.laneId, turn.id, frame);
  moveTurn(turn, { t: 'settling', linkId, responseId, outcome, failed });
  core.deadlines.set({ kind: 'steerSettle', turnId: turn.id }, core.nowMs + core.limits.steerSettleMs);
  return true;
}

/** The terminal of a cancelled turn: its tokens are accounted, its lane is free unless a successor is on its way. */
function onDiscardedTerminal(core: Core, link: LinkSlot, turn: Turn, frame: UpstreamFrame): void {
  if (turn.state.t !== 'discarding') return;
  // What it said has taken the place of what its lane had in the upstream's cache (protocol.md 4.1).
  if (frame.type === 'response.failed') evict(link, turn);
  else link.cache.delete(turn.laneId);
  tellLateUsage(core, turn.id, responseOf(frame));
  const successorPossible =
    !turn.state.terminalSeen && turn.steers.some(({ state }) => state === 'sent' || state === 'queued');
  if (!successorPossible) return finishDiscarded(core, turn);
  moveTurn(turn, { ...turn.state, terminalSeen: true });
  core.deadlines.set({ kind: 'steerSettle', turnId: turn.id }, core.nowMs + core.limits.steerSettleMs);
}

function onSteer(core: Core, link: LinkSlot, turn: Turn, frame: UpstreamFrame): void {
  const lane = core.lanes.get(turn.laneId) as Lane;
  decideSteer(lane, link, turn, frame.type, frame.json());
  if (turn.state.t === 'discarding') {
    if (turn.state.terminalSeen && turn.steers.length === 0) finishDiscarded(core, turn);
    return;
  }
  if (turn.state.t !== 'settling' || hasUndecidedSteers(turn, turn.state.responseId))
    return pass(core, turn, frame);
  const { outcome, failed } = turn.state;
  endTurn(core, turn, outcome, { frame, failed });
}

/** A failed steer names no lane when its target was not found (protocol.md 6.4). */
function steeredTurn(link: LinkSlot, frame: UpstreamFrame): Turn | undefined {
  const steer = frame.json()['steer'] as { previous_response_id?: unknown } | undefined;
  for (const turn of link.inFlight.values()) {
    if (turn.steers.some(({ targetId }) => targetId === steer?.previous_response_id)) return turn;
  }
  return undefined;
}

/** The answer to the last undecided steer never came; if it comes yet, no later turn may be mistaken for its owner. */
export function steerSettleExpired(core: Core, turnId: string): void {
  for (const lane of core.lanes.values()) {
    const turn =
      lane.active?.id === turnId ? lane.active : lane.discarding?.id === turnId ? lane.discarding : undefined;
    if (turn === undefined) continue;
    const { state } = turn;
    if (state.t === 'settling') endUnanswered(core, turn, state, 'no_answer');
    else if (state.t === 'discarding') finishDiscarded(core, turn);
    if (state.t === 'settling' || state.t === 'discarding') muteLane(core, lane, state.linkId, 'steer_lost');
    return;
  }
}

function remember(
  core: Core,
  lane: Lane,
  turn: Turn,
  up: Up,
  response: OpenResponse,
  said: Pick<NewNode, 'output' | 'compactionIndex'>,
): void {
  if (response.id === '') return;
  turn.headId = response.id;
  const kept = core.transcript.add(
    {
      id: response.id,
      parentId: response.parentId,
      stored: response.stored,
      upstream: up.route.upstream,
      input: response.input,
      ...said,
      overflowed: response.outputBytes > core.limits.maxTranscriptBytes,
    },
    () => headsOf(core),
  );
  if (kept || response.stored || lane.droppedTold) return;
  lane.droppedTold = true;
  const reason = core.limits.maxTranscriptBytes === 0 ? 'recovery_off' : 'transcript_limit';
  emitNotice(core, lane.id, '', { kind: 'transcript_dropped', reason });
}

/** The items as they were done; the terminal's own list where that says more (protocol.md 3.2). */
function outputOf(response: OpenResponse, listed: unknown): Pick<NewNode, 'output' | 'compactionIndex'> {
  // Skips what was never done.
  const output = response.output.filter(() => true);
  if (Array.isArray(listed) && listed.length > output.length) {
    const at = listed.findLastIndex((item) => item?.type === 'compaction');
    return { output: listed.map((item) => JSON.stringify(item)), compactionIndex: at < 0 ? undefined : at };
  }
  const { compactionIndex: at } = response;
  const before = at === undefined ? undefined : response.output.slice(0, at).filter(() => true);
  return { output, compactionIndex: before?.length };
}

/** Some upstreams list items that they never told to be done. */
function tellListedItems(core: Core, response: OpenResponse, listed: unknown): void {
  if (!Array.isArray(listed) || listed.length <= response.output.length) return;
  for (const item of listed)
    if (typeof item?.id === 'string') tell(core, { kind: 'itemDone', itemId: item.id });
}

/** A failed continuation pushes its own lane's entry out of the cache; a failed fork leaves the parent (protocol.md 4.3). */
export function evict(link: LinkSlot, turn: Turn): void {
  if (turn.plan?.cachedIn === undefined || turn.plan.cachedIn === turn.laneId) link.cache.delete(turn.laneId);
}

function readSummary(turn: Turn, response: Readonly<Record<string, unknown>>): void {
  const { model, service_tier, incomplete_details, status } = response;
  if (typeof model === 'string') turn.responseModel = model;
  if (typeof service_tier === 'string') turn.serviceTier = service_tier;
  const reason = (incomplete_details as { reason?: unknown } | null | undefined)?.reason;
  turn.finishReason = typeof reason === 'string' ? reason : typeof status === 'string' ? status : undefined;
  const usage = readUsage(response['usage']);
  if (usage !== undefined) turn.usage = turn.usage === undefined ? usage : addUsage(turn.usage, usage);
}

function tellLateUsage(core: Core, turnId: string, response: Readonly<Record<string, unknown>>): void {
  const usage = readUsage(response['usage']);
  if (usage === undefined) return;
  const { id } = response;
  const responseId = typeof id === 'string' ? id : undefined;
  tell(core, { kind: 'lateUsage', turnId, responseId, usage });
}

function responseOf(frame: UpstreamFrame): Readonly<Record<string, unknown>> {
  const response = frame.json()['response'];
  return typeof response === 'object' && response !== null ? (response as Record<string, unknown>) : {};
}
