import { type Ending, endingOf } from '../dialect/events.ts';
import { readFailedResponse, toGatewayError } from '../dialect/upstream-error.ts';
import { addUsage, readUsage } from '../dialect/usage.ts';
import { GatewayError } from '../errors.ts';
import { type Core, emitFrame, emitNotice, headsOf, tell } from './core.ts';
import { commitOfBegin } from './gates.ts';
import { muteLane } from './home.ts';
import { decideInject } from './inject.ts';
import type { Lane } from './lane.ts';
import { isNamed, type LinkSlot, moveStream, onlyBusy, streamOf, type Up, upOf } from './link-slot.ts';
import { keepItem, type OpenResponse, outputOf } from './open-response.ts';
import { lanesProven, unnamedAnswer } from './probe.ts';
import { warmUpFailed } from './rotation.ts';
import {
  answeredSteer,
  commitSteers,
  decideSteer,
  hasUndecidedSteers,
  readSteerAnswer,
  returnWaitingSteer,
  type SteerAnswer,
  sendHeldSteers,
  targetIdOf,
} from './steering.ts';
import { forgetEnded, isAwaiting, rememberEnded, responseIdOf, type Stream, turnOf } from './stream.ts';
import type { NewNode } from './transcript.ts';
import { moveTurn, phaseOf, type SendPlan, type Turn } from './turn.ts';
import { awaitSuccessor, endTurn, endUnanswered, releaseHold, releaseStream } from './turn-end.ts';
import type { TurnFailed, TurnOutcome, UpstreamFrame } from './types.ts';
import { attributeRefusals, handleErrorFrame, sendOtherHistory } from './upstream-failures.ts';

/**
 * One frame of the upstream. A frame that only moves content is numbered and handed on; everything else goes
 * through its own function. Returns whether anything but content happened, so that the queues are looked at again.
 *
 * A frame belongs to a response. `response.created` names the one that the stream's create began; terminals and progress
 * name theirs; content names none and belongs to the response that is open, since responses of a lane do not overlap.
 * What belongs to a response that is over, or that nobody asked for, is counted and shown to nobody.
 */
export function handleFrame(core: Core, link: LinkSlot, frame: UpstreamFrame): boolean {
  const stream = streamOf(link, frame.streamId);
  const handler = HANDLERS.get(frame.type);
  if (handler === undefined) {
    const speaker = stream ?? onlyBusy(link);
    if (speaker?.listener !== undefined && isOfResponse(frame)) content(core, speaker.listener, frame);
    else unheard(core, link, speaker, frame);
    return false;
  }
  const named = isNamed(link, frame.streamId);
  if (named) lanesProven(core, link);
  handler(core, link, named ? stream : unnamedAnswer(core, link, stream, frame), frame);
  if (link.refusals.length > 0) attributeRefusals(core, link);
  return true;
}

type Handler = (core: Core, link: LinkSlot, stream: Stream | undefined, frame: UpstreamFrame) => void;

const HANDLERS: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  ['response.created', onCreated],
  ['response.in_progress', onProgress],
  ['response.queued', onProgress],
  ['response.output_item.done', onItemDone],
  ['response.completed', onTerminal],
  ['response.incomplete', onTerminal],
  ['response.failed', onTerminal],
  ['response.cancelled', onTerminal],
  ['response.canceled', onTerminal],
  ['response.done', onTerminal],
  ['response.steer.accepted', onSteer],
  ['response.steer.pending', onSteer],
  ['response.steer.failed', onSteer],
  ['response.inject.created', onInject],
  ['response.inject.failed', onInject],
  ['error', handleErrorFrame],
  ['response.error', handleErrorFrame],
]);

/** Rate limits, keep-alives and timings of the connection come without a lane, on the unnamed one too (upstream.md#private-events). */
function isOfResponse({ streamId, type }: UpstreamFrame): boolean {
  return streamId !== undefined || type.startsWith('response.');
}

/** The hot path. */
function content(core: Core, turn: Turn, frame: UpstreamFrame): void {
  turn.events += 1;
  turn.outputEvents += 1;
  turn.bytesDown += frame.byteLength;
  turn.lastOutputAtMs = core.nowMs;
  if (!turn.outputStarted) startOutput(core, turn);
  emitFrame(core, turn.laneId, turn.id, frame, undefined, undefined, firstCommit(core, turn));
}

/** Whoever has heard of a turn asks for it no more: a record that does not know it is too old for that client. */
function firstCommit(core: Core, turn: Turn): number | undefined {
  return turn.events === 1 ? commitOfBegin(core, turn) : undefined;
}

function startOutput(core: Core, turn: Turn): void {
  turn.outputStarted = true;
  turn.firstOutputAtMs = core.nowMs;
  tell(core, { kind: 'firstOutput', turnId: turn.id, atMs: core.nowMs });
}

/** The rest of a response that is over is shown to nobody; what is about the connection, or about no lane of ours, is. */
function unheard(core: Core, link: LinkSlot, stream: Stream | undefined, frame: UpstreamFrame): void {
  if (stream !== undefined && frame.type.startsWith('response.')) return swallow(core, link, frame);
  const known = frame.streamId !== undefined && core.lanes.has(frame.streamId);
  emitFrame(core, known ? (frame.streamId as string) : '', '', frame);
}

function swallow(core: Core, link: LinkSlot, frame: UpstreamFrame): void {
  tell(core, { kind: 'strayFrame', linkId: link.id, type: frame.type });
}

function pass(core: Core, turn: Turn, frame: UpstreamFrame): void {
  turn.events += 1;
  turn.bytesDown += frame.byteLength;
  turn.lastSignAtMs = core.nowMs;
  emitFrame(core, turn.laneId, turn.id, frame, undefined, undefined, firstCommit(core, turn));
}

function onProgress(core: Core, link: LinkSlot, stream: Stream | undefined, frame: UpstreamFrame): void {
  const turn = turnOf(stream);
  if (stream === undefined) return unheard(core, link, stream, frame);
  if (turn === undefined || isOver(stream, turn, idOf(responseOf(frame)))) return swallow(core, link, frame);
  releaseHold(core, turn);
  pass(core, turn, frame);
}

/** The frame names a response that is not the one that the turn waits for. */
function isOver(stream: Stream, turn: Turn, id: string | undefined): boolean {
  const own = turn.state.t === 'running' ? turn.state.response.id : undefined;
  if (id === undefined) return stream.strayId !== undefined;
  return id !== own && (stream.strayId === id || stream.endedIds.includes(id));
}

function onCreated(core: Core, link: LinkSlot, stream: Stream | undefined, frame: UpstreamFrame): void {
  const response = responseOf(frame);
  const id = idOf(response);
  link.announces = true;
  if (stream === undefined) return unheard(core, link, stream, frame);
  stream.owesAnswer = false;
  const { state } = stream;
  switch (state.t) {
    case 'idle':
      return stray(core, link, stream, frame, id);
    case 'warmUp':
      if (!namesParent(link, stream, state.plan, response)) return stray(core, link, stream, frame, id);
      stream.answered = true;
      return moveStream(link, stream, { ...state, responseId: id ?? '' });
    case 'abandoned': {
      // A successor that nobody waits for: its terminal frees the lane, however long it takes.
      const follows = state.phase === 'settling' || (state.phase === 'open' && state.steers.length > 0);
      if (!follows && !namesParent(link, stream, state.plan, response))
        return stray(core, link, stream, frame, id);
      if (id !== undefined && stream.endedIds.includes(id)) return swallow(core, link, frame);
      stream.answered = true;
      core.deadlines.clear({ kind: 'steerSettle', laneId: stream.laneId, linkId: link.id });
      const formerId = id === state.responseId ? state.formerId : state.responseId;
      return moveStream(link, stream, {
        ...state,
        phase: 'open',
        responseId: id,
        formerId,
        sinceMs: core.nowMs,
      });
    }
    case 'turn':
      return createdFor(core, link, stream, state.turn, frame, response);
  }
}

function createdFor(
  core: Core,
  link: LinkSlot,
  stream: Stream,
  turn: Turn,
  frame: UpstreamFrame,
  response: Readonly<Record<string, unknown>>,
): void {
  const id = idOf(response);
  const { state } = turn;
  if (state.t === 'sent' && !namesParent(link, stream, turn.plan, response))
    return stray(core, link, stream, frame, id);
  if (state.t === 'running') {
    if (isBegunTwice(turn, frame.type, id)) forgetEnded(stream, id);
    // Told twice; or the relay has begun anew, and what is said from now on belongs to the new id.
    if (id === undefined || id === state.response.id || stream.endedIds.includes(id))
      return swallow(core, link, frame);
    const follows = hasUndecidedSteers(turn, state.response.id);
    if (!follows && !namesParent(link, stream, turn.plan, response))
      return stray(core, link, stream, frame, id);
    rememberEnded(stream, state.response.id);
  }
  if (id === undefined) {
    turn.announced = true;
    stream.answered = true;
    stream.strayId = undefined;
    stream.listener = turn;
    return pass(core, turn, frame);
  }
  begin(core, link, stream, turn, id);
  pass(core, turn, frame);
  sendHeldSteers(core, turn);
}

/** A response that nobody asked for: its content must not be taken for the answer to what comes next. */
function stray(
  core: Core,
  link: LinkSlot,
  stream: Stream,
  frame: UpstreamFrame,
  id: string | undefined,
): void {
  stream.strayId = id ?? '';
  stream.listener = undefined;
  stream.answered = true;
  swallow(core, link, frame);
}

/** It has interrupted a response of ours that now goes on. */
function strayEnded(stream: Stream): void {
  if (stream.strayId === undefined) return;
  stream.strayId = undefined;
  const turn = turnOf(stream);
  if (turn?.state.t === 'running') stream.listener = turn;
}

/**
 * A response that continues something else is not the answer, where the upstream is known to say what it continues. That
 * it is, is known once it has named the parent that was asked for, or another response of this lane.
 */
function namesParent(
  link: LinkSlot,
  stream: Stream,
  plan: Pick<SendPlan, 'wireParentId'> | undefined,
  response: Readonly<Record<string, unknown>>,
): boolean {
  const said = response['previous_response_id'];
  const wanted = plan?.wireParentId;
  if (said === undefined) return true;
  if (typeof said === 'string' && said === wanted) link.echoesParent = true;
  if ((said ?? undefined) === wanted) return true;
  // A relay may know the parent by the id that it began with.
  const isOther = typeof said === 'string' && !link.renames && stream.endedIds.includes(said);
  return !link.echoesParent && !isOther;
}

/** The turn's first response, or one that the upstream began by itself after steering (upstream.md#life-of-a-steer). */
function begin(core: Core, link: LinkSlot, stream: Stream, turn: Turn, id: string): OpenResponse {
  const { state } = turn;
  if (state.t === 'queued' || state.t === 'ended') throw new Error(`created while ${state.t}`);
  const previousId =
    state.t === 'settling' ? state.responseId : state.t === 'running' ? state.response.id : undefined;
  const isSuccessor = previousId !== undefined && hasUndecidedSteers(turn, previousId);
  const restarted = state.t === 'running' && !isSuccessor ? state.response : undefined;
  const response: OpenResponse = restarted
    ? { ...restarted, id, before: { id: restarted.id, outputEvents: turn.outputEvents } }
    : {
        id,
        parentId: previousId ?? turn.plan?.parentId,
        input: previousId === undefined ? (turn.plan?.input ?? []) : commitSteers(core, turn, previousId),
        stored: turn.request.create.store,
        output: [],
        injected: [],
        outputBytes: 0,
      };
  moveTurn(turn, { t: 'running', linkId: link.id, response });
  stream.listener = turn;
  stream.answered = true;
  stream.strayId = undefined;
  core.deadlines.clear({ kind: 'steerSettle', laneId: stream.laneId, linkId: link.id });
  turn.createdAtMs ??= core.nowMs;
  turn.lastSignAtMs = core.nowMs;
  turn.responseId = id;
  tell(core, { kind: 'responseCreated', turnId: turn.id, responseId: id, atMs: core.nowMs });
  return response;
}

function onItemDone(core: Core, link: LinkSlot, stream: Stream | undefined, frame: UpstreamFrame): void {
  const turn = stream?.listener;
  if (turn === undefined) return unheard(core, link, stream, frame);
  if (turn.state.t === 'running') {
    noteItem(core, turn, frame.json()['item']);
    keepItem(turn.state.response, frame, core.limits.maxTranscriptBytes);
  }
  content(core, turn, frame);
}

function noteItem(core: Core, turn: Turn, item: unknown): void {
  const { id, type, name } = (item ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof id === 'string') tell(core, { kind: 'itemDone', itemId: id });
  if (type !== 'function_call' && type !== 'custom_tool_call') return noteHostedCall(turn, type);
  turn.toolCalls += 1;
  tell(core, {
    kind: 'toolCalled',
    turnId: turn.id,
    name: typeof name === 'string' ? name : '',
    atMs: core.nowMs,
  });
}

const MAX_HOSTED_TYPES = 16;
/** The upstream asks for them, and its clients run them. */
const RUN_BY_CLIENTS: ReadonlySet<string> = new Set([
  'apply_patch_call',
  'computer_call',
  'local_shell_call',
]);

function noteHostedCall(turn: Turn, type: unknown): void {
  if (typeof type !== 'string' || !type.endsWith('_call') || RUN_BY_CLIENTS.has(type)) return;
  turn.hostedCalls ??= new Map();
  const count = turn.hostedCalls.get(type);
  if (count !== undefined || turn.hostedCalls.size < MAX_HOSTED_TYPES)
    turn.hostedCalls.set(type, (count ?? 0) + 1);
}

function onTerminal(core: Core, link: LinkSlot, stream: Stream | undefined, frame: UpstreamFrame): void {
  if (stream === undefined) return unheard(core, link, stream, frame);
  stream.owesAnswer = false;
  const json = responseOf(frame);
  const id = idOf(json);
  const { state } = stream;
  if (endsOther(link, stream, frame.type, json)) {
    if (id === undefined || stream.strayId === id || stream.strayId === '') strayEnded(stream);
    // What nobody asked for is paid for all the same; what is said twice is counted once.
    if (id === undefined || !stream.endedIds.includes(id)) tellLateUsage(core, '', json);
    rememberEnded(stream, id);
    return swallow(core, link, frame);
  }
  switch (state.t) {
    case 'idle':
      return;
    case 'warmUp':
      return warmUpEnded(core, link, stream, state, frame, json);
    case 'abandoned':
      return abandonedEnded(core, link, stream, state, frame, json);
    case 'turn':
      return turnEnded(core, link, stream, state.turn, frame, json);
  }
}

/** The terminal is not that of the response which the stream waits for. */
function endsOther(
  link: LinkSlot,
  stream: Stream,
  type: string,
  response: Readonly<Record<string, unknown>>,
): boolean {
  const { state } = stream;
  const id = idOf(response);
  if (state.t === 'idle') return true;
  const turn = turnOf(stream);
  if (turn?.state.t === 'settling') return true;
  // Its response is over; only a successor may follow.
  if (state.t === 'abandoned' && state.phase === 'settling') return true;
  if (id !== undefined && id === responseIdOf(state)) return false;
  if (id !== undefined && state.t === 'abandoned' && id === state.formerId) return false;
  if (isBegunTwice(turn, type, id) || isDoneBefore(turn, endingOf(type, response['status']), id))
    return false;
  if (id !== undefined && (id === stream.strayId || stream.endedIds.includes(id))) return true;
  if (stream.strayId !== undefined) return id === undefined || stream.strayId === '';
  if (!isAwaiting(stream)) return false;
  // Nothing of this create has been heard. What names no response, or ends one in words of its own, is an earlier one's.
  return link.announces && stream.answered && (id === undefined || type === 'response.done');
}

/** It was said to begin again under another id, of which nothing was heard: the first one has gone on. */
function isBegunTwice(turn: Turn | undefined, type: string, id: string | undefined): boolean {
  const before = turn?.state.t === 'running' ? turn.state.response.before : undefined;
  if (before === undefined || before.id !== id || turn?.outputEvents !== before.outputEvents) return false;
  return endingOf(type, undefined) !== 'failed';
}

/** Two responses run for one create, and the first one is done: it is the answer. One that did not get so far was begun anew. */
function isDoneBefore(turn: Turn | undefined, ending: Ending | undefined, id: string | undefined): boolean {
  const before = turn?.state.t === 'running' ? turn.state.response.before : undefined;
  return before !== undefined && before.id === id && ending === 'completed';
}

function turnEnded(
  core: Core,
  link: LinkSlot,
  stream: Stream,
  turn: Turn,
  frame: UpstreamFrame,
  json: Readonly<Record<string, unknown>>,
): void {
  const named = idOf(json);
  if (turn.state.t === 'sent') begin(core, link, stream, turn, named ?? '');
  if (turn.state.t !== 'running') return pass(core, turn, frame);
  const { response } = turn.state;
  // What the conversation goes on from is what the terminal names: relays give a response its public id there.
  const responseId = named ?? response.id;
  rememberEnded(stream, response.id, responseId);
  // Some tell so what others refuse the request with.
  const mayRunAgain = frame.type === 'response.failed' && !turn.outputStarted;
  if (mayRunAgain && sendOtherHistory(core, link, stream, turn, readFailedResponse(frame, core.nowMs)))
    return;
  if (responseId !== response.id) {
    link.renames ||= response.before === undefined;
    turn.responseId = responseId;
    tell(core, { kind: 'responseCreated', turnId: turn.id, responseId, atMs: core.nowMs });
  }
  turn.bytesDown += frame.byteLength;
  readSummary(turn, json);

  const lane = core.lanes.get(turn.laneId) as Lane;
  const up = upOf(link) as Up;
  const ending = endingOf(frame.type, json['status']);
  if (ending === 'failed' || ending === 'cancelled') {
    evict(link, turn);
    const failure = ending === 'failed' ? readFailedResponse(frame, core.nowMs) : undefined;
    noteFailure(stream, failure?.facts.code, frame);
    const error =
      failure === undefined
        ? new GatewayError('TURN_CANCELLED', 'the upstream cancelled the response')
        : toGatewayError(failure, turn.plan?.wireParentId !== undefined);
    const failed: TurnFailed = { error, replay: 'UNSAFE', phase: phaseOf(turn) };
    const outcome = ending === 'failed' ? 'FAILED' : 'CANCELLED';
    if (settleLater(core, link, stream, turn, frame, responseId, outcome, failed)) return;
    return endTurn(core, turn, outcome, { frame, failed });
  }
  if (up.capabilities.keepsUnstored) link.cache.set(lane.id, { responseId, nodeId: responseId });
  tellListedItems(core, response, json['output']);
  remember(core, lane, turn, up, { ...response, id: responseId }, outputOf(response, frame));
  const outcome: TurnOutcome = ending === 'incomplete' ? 'INCOMPLETE' : 'COMPLETED';
  if (settleLater(core, link, stream, turn, frame, responseId, outcome)) return;
  endTurn(core, turn, outcome, { frame });
}

/** With undecided steers the terminal is not the turn's last event (design, section 6). */
function settleLater(
  core: Core,
  link: LinkSlot,
  stream: Stream,
  turn: Turn,
  frame: UpstreamFrame,
  responseId: string,
  outcome: TurnOutcome,
  failed?: TurnFailed,
): boolean {
  if (!hasUndecidedSteers(turn, responseId)) return false;
  turn.events += 1;
  emitFrame(core, turn.laneId, turn.id, frame);
  moveTurn(turn, { t: 'settling', linkId: link.id, responseId, outcome, failed });
  stream.listener = undefined;
  awaitSuccessor(core, link, stream);
  return true;
}

function warmUpEnded(
  core: Core,
  link: LinkSlot,
  stream: Stream,
  state: Extract<Stream['state'], { t: 'warmUp' }>,
  frame: UpstreamFrame,
  json: Readonly<Record<string, unknown>>,
): void {
  const responseId = idOf(json) ?? state.responseId ?? '';
  rememberEnded(stream, state.responseId, responseId);
  link.renames ||= state.responseId !== undefined && state.responseId !== responseId;
  stream.answered = true;
  tellLateUsage(core, '', json);
  const ending = endingOf(frame.type, json['status']);
  if (ending === 'failed' || ending === 'cancelled') {
    evictFor(link, stream.laneId, state.plan);
    return warmUpFailed(core, link, stream);
  }
  if (upOf(link)?.capabilities.keepsUnstored === true)
    link.cache.set(stream.laneId, { responseId, nodeId: state.nodeId });
  releaseStream(core, link, stream);
}

/** The terminal of a turn that was given up: its tokens are accounted, its lane is free unless a successor is on its way. */
function abandonedEnded(
  core: Core,
  link: LinkSlot,
  stream: Stream,
  state: Extract<Stream['state'], { t: 'abandoned' }>,
  frame: UpstreamFrame,
  json: Readonly<Record<string, unknown>>,
): void {
  const id = idOf(json) ?? state.responseId;
  rememberEnded(stream, state.responseId, id);
  stream.answered = true;
  // What it said has taken the place of what its lane had in the upstream's cache (upstream.md#connection-cache).
  if (endingOf(frame.type, json['status']) === 'failed') {
    evictFor(link, stream.laneId, state.plan);
    noteFailure(stream, readFailedResponse(frame, core.nowMs).facts.code, frame);
  } else link.cache.delete(stream.laneId);
  tellLateUsage(core, state.turnId, json);
  const steers = state.steers.filter((steer) => targetIdOf(steer) === id);
  if (steers.length === 0) return releaseStream(core, link, stream);
  moveStream(link, stream, {
    ...state,
    phase: 'settling',
    responseId: undefined,
    formerId: undefined,
    steers,
    sinceMs: core.nowMs,
  });
  awaitSuccessor(core, link, stream);
}

function onSteer(core: Core, link: LinkSlot, routed: Stream | undefined, frame: UpstreamFrame): void {
  const answer = readSteerAnswer(frame.type, frame.json());
  const stream = steeredStream(link, routed, answer) ?? routed;
  if (stream === undefined) return unheardSteer(core, link, undefined, answer, frame);
  const lane = core.lanes.get(stream.laneId) as Lane;
  const { state } = stream;
  if (state.t === 'abandoned') {
    const decided =
      answer.type === 'response.steer.accepted' ? undefined : answeredSteer(state.steers, answer);
    if (answer.type === 'response.steer.accepted' || decided === undefined) return swallow(core, link, frame);
    const steers = state.steers.filter((steer) => steer !== decided);
    moveStream(link, stream, { ...state, steers });
    if (state.phase === 'settling' && steers.length === 0) releaseStream(core, link, stream);
    return swallow(core, link, frame);
  }
  const turn = turnOf(stream);
  if (turn === undefined || answeredSteer(turn.steers, answer) === undefined)
    return unheardSteer(core, link, lane, answer, frame);
  decideSteer(core, lane, link, turn, answer);
  if (turn.state.t !== 'settling' || hasUndecidedSteers(turn, turn.state.responseId))
    return pass(core, turn, frame);
  const { outcome, failed } = turn.state;
  endTurn(core, turn, outcome, { frame, failed });
}

/** It names its response, and a lane only where lanes are named. */
function onInject(core: Core, link: LinkSlot, routed: Stream | undefined, frame: UpstreamFrame): void {
  const turn = decideInject(core, link, frame);
  if (turn === undefined) return unheard(core, link, routed, frame);
  pass(core, turn, frame);
}

/** The answer to a steer that no running turn waits for: it may have waited for the create that commits it. */
function unheardSteer(
  core: Core,
  link: LinkSlot,
  lane: Lane | undefined,
  answer: SteerAnswer,
  frame: UpstreamFrame,
): void {
  const lanes = lane === undefined ? core.lanes.values() : [lane];
  if (answer.type === 'response.steer.failed') {
    for (const each of lanes) {
      if (!returnWaitingSteer(core, each, answer)) continue;
      return emitFrame(core, each.id, '', frame);
    }
  }
  const turn = lane?.active;
  if (turn !== undefined && link.id === lane?.linkId && turn.state.t === 'running')
    return pass(core, turn, frame);
  emitFrame(core, lane?.id ?? '', '', frame);
}

/** A failed steer names no lane when its target was not found (upstream.md#steer-failures). */
function steeredStream(link: LinkSlot, routed: Stream | undefined, answer: SteerAnswer): Stream | undefined {
  const first = answer.targetId === '' && routed !== undefined ? [routed] : [];
  for (const stream of [...first, ...link.streams.values()]) {
    const { state } = stream;
    const steers =
      state.t === 'turn' ? state.turn.steers : state.t === 'abandoned' ? state.steers : undefined;
    if (steers !== undefined && steers.length > 0 && answeredSteer(steers, answer) !== undefined)
      return stream;
  }
  return undefined;
}

/** The answer to the last undecided steer never came; if it comes yet, no later turn may be mistaken for its owner. */
export function steerSettleExpired(core: Core, laneId: string, linkId: number): void {
  const link = core.links.get(linkId);
  const stream = link?.streams.get(laneId);
  const lane = core.lanes.get(laneId);
  if (link === undefined || stream === undefined || lane === undefined) return;
  const turn = turnOf(stream);
  if (turn?.state.t === 'settling') endUnanswered(core, turn, turn.state, 'no_answer');
  else if (stream.state.t === 'abandoned') releaseStream(core, link, stream);
  else return;
  muteLane(core, lane, linkId, 'steer_lost');
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
  if (turn.replayForm !== undefined) core.replayForms.learn(up.route, turn.replayForm);
  const kept = core.transcript.add(
    {
      id: response.id,
      laneId: lane.id,
      parentId: response.parentId,
      stored: response.stored,
      upstream: up.route.upstream,
      account: up.route.account,
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

/** Some upstreams list items that they never told to be done. */
function tellListedItems(core: Core, response: OpenResponse, listed: unknown): void {
  if (!Array.isArray(listed) || listed.length <= response.output.length) return;
  for (const item of listed)
    if (typeof item?.id === 'string') tell(core, { kind: 'itemDone', itemId: item.id });
}

/** A failed continuation pushes its own lane's entry out of the cache; a failed fork leaves the parent (upstream.md#eviction). */
export function evict(link: LinkSlot, turn: Turn): void {
  evictFor(link, turn.laneId, turn.plan);
}

export function evictFor(
  link: LinkSlot,
  laneId: string,
  plan: { readonly cachedIn: string | undefined } | undefined,
): void {
  if (plan?.cachedIn === undefined || plan.cachedIn === laneId) link.cache.delete(laneId);
}

/** To know the failure again when it is told a second time in another form. */
export function noteFailure(
  stream: Stream,
  code: string | undefined,
  frame: UpstreamFrame | undefined,
): void {
  const sequence = (frame?.brief?.() ?? frame?.json())?.['sequence_number'];
  stream.lastFailure = typeof sequence === 'number' ? { code, sequence } : undefined;
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
  if (usage !== undefined) tell(core, { kind: 'lateUsage', turnId, responseId: idOf(response), usage });
}

function responseOf(frame: UpstreamFrame): Readonly<Record<string, unknown>> {
  const response = (frame.brief?.() ?? frame.json())['response'];
  return typeof response === 'object' && response !== null ? (response as Record<string, unknown>) : {};
}

function idOf(response: Readonly<Record<string, unknown>>): string | undefined {
  const { id } = response;
  return typeof id === 'string' && id !== '' ? id : undefined;
}
