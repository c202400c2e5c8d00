import type { GatewayError } from '../errors.ts';
import { giveBack, keepToolOutputs } from './carry.ts';
import { type Core, emitFrame, emitNotice, emitOwn, headsOf, tell } from './core.ts';
import { fingerprintOf, forgetWithheld, nextCommit, recordEnd } from './gates.ts';
import { activate, wake } from './home.ts';
import { endInjects } from './inject.ts';
import type { Lane } from './lane.ts';
import { type LinkSlot, moveStream } from './link-slot.ts';
import { parentOf } from './planner.ts';
import { forgetSteers, refuseHeldSteers, tellLostSteers, withoutInput } from './steering.ts';
import { type Stream, turnOf } from './stream.ts';
import { moveTurn, phaseOf, type Turn, type TurnState, verdictByPhase } from './turn.ts';
import type {
  ReplayVerdict,
  SessionEvent,
  TurnFailed,
  TurnOutcome,
  TurnRecord,
  UpstreamFrame,
} from './types.ts';

/** The last word of a turn: the upstream's own frame, a failure of ours, or a Notice. */
export type LastEvent =
  | { readonly frame: UpstreamFrame; readonly failed?: TurnFailed | undefined }
  | { readonly failed: TurnFailed }
  | { readonly noticeReason: string };

/** Ends the turn for client and upstream alike. */
export function endTurn(core: Core, turn: Turn, outcome: TurnOutcome, last: LastEvent): void {
  const lane = laneOf(core, turn);
  const headBefore = lane.headId;
  // A create that was refused has committed nothing: the upstream still holds the steers that waited for it.
  const heldBy = turn.state.t === 'sent' && !turn.outputStarted ? turn.state.linkId : undefined;
  const event = announce(core, turn, outcome, last);
  freeStream(core, turn);
  moveTurn(turn, { t: 'ended' });
  // A turn that failed or was given up leaves no trace in the conversation.
  if (turn.headId !== undefined && (outcome === 'COMPLETED' || outcome === 'INCOMPLETE')) {
    lane.headId = turn.headId;
    core.transcript.releaseBehind(turn.headId, lane.id, () => headsOf(core));
  } else leaveBehind(core, lane, turn, outcome, heldBy);
  lane.lastUsedAtMs = core.nowMs;
  record(core, turn, lane, headBefore, event);
  if (lane.active === turn) activate(core, lane, undefined);
}

/** Ends a settling turn whose steers will not be answered. */
export function endUnanswered(
  core: Core,
  turn: Turn,
  { outcome, failed }: Extract<TurnState, { t: 'settling' }>,
  reason: string,
): void {
  forgetSteers(core, turn);
  if (failed === undefined) return endTurn(core, turn, outcome, { noticeReason: reason });
  emitNotice(core, turn.laneId, turn.id, { kind: 'steer_lost', reason });
  endTurn(core, turn, outcome, { failed });
}

export function failTurn(
  core: Core,
  turn: Turn,
  error: GatewayError,
  replay: ReplayVerdict,
  frame?: UpstreamFrame,
): void {
  const failed: TurnFailed = { error, replay, phase: phaseOf(turn) };
  endTurn(core, turn, 'FAILED', frame === undefined ? { failed } : { frame, failed });
}

/**
 * Ends the turn for the client now; upstream it runs on until its terminal, and nothing of that is passed on
 * (upstream.md#cancel: there is no cancel event). Undefined: nothing runs on.
 */
export function abandonTurn(
  core: Core,
  turn: Turn,
  outcome: TurnOutcome,
  error: GatewayError,
): LinkSlot | undefined {
  const lane = laneOf(core, turn);
  const { state, plan } = turn;
  const phase = phaseOf(turn);
  const undecided = turn.steers.filter(({ state: { t } }) => t !== 'held').map(withoutInput);
  const failed = { error, replay: verdictByPhase(phase), phase };
  const event = announce(core, turn, outcome, { failed });
  moveTurn(turn, { t: 'ended' });
  const link = 'linkId' in state ? core.links.get(state.linkId) : undefined;
  const stream = link?.streams.get(turn.laneId);
  if (link !== undefined && stream !== undefined && turnOf(stream) === turn) {
    moveStream(link, stream, {
      t: 'abandoned',
      turnId: turn.id,
      plan: plan && { cachedIn: plan.cachedIn, wireParentId: plan.wireParentId },
      phase: state.t === 'settling' ? 'settling' : state.t === 'running' ? 'open' : 'awaiting',
      responseId: state.t === 'running' ? state.response.id : undefined,
      formerId: state.t === 'running' ? state.response.before?.id : undefined,
      steers: undecided,
      sinceMs: core.nowMs,
    });
    // A successor may still be on its way; its frames must not be taken for the next turn's.
    if (state.t === 'settling') awaitSuccessor(core, link, stream);
  }
  leaveBehind(core, lane, turn, outcome, undefined);
  lane.lastUsedAtMs = core.nowMs;
  record(core, turn, lane, lane.headId, event);
  activate(core, lane, undefined);
  return stream?.state.t === 'abandoned' ? link : undefined;
}

/** How long the upstream may take to begin the response that follows a steered one. */
export function awaitSuccessor(core: Core, link: LinkSlot, stream: Stream): void {
  core.deadlines.set(
    { kind: 'steerSettle', laneId: stream.laneId, linkId: link.id },
    core.nowMs + core.limits.steerSettleMs,
  );
}

/** The upstream is done with what it was asked for on this stream. */
export function releaseStream(core: Core, link: LinkSlot, stream: Stream): void {
  if (stream.state.t === 'idle') return;
  core.deadlines.clear({ kind: 'steerSettle', laneId: stream.laneId, linkId: link.id });
  core.deadlines.clear({ kind: 'warmUp', laneId: stream.laneId, linkId: link.id });
  moveStream(link, stream, { t: 'idle' });
  core.roomVersion += 1;
  const lane = core.lanes.get(stream.laneId);
  if (lane !== undefined) wake(core, lane);
}

/** What a turn that left no trace had brought along; tool outputs of one that was given up stay in the conversation. */
function leaveBehind(
  core: Core,
  lane: Lane,
  turn: Turn,
  outcome: TurnOutcome,
  heldBy: number | undefined,
): void {
  giveBack(core, lane, turn, heldBy);
  if (outcome === 'CANCELLED' || outcome === 'DEADLINE_EXCEEDED')
    keepToolOutputs(core, lane, turn, turn.plan === undefined ? parentOf(lane, turn) : turn.plan.parentId);
}

export function releaseHold(core: Core, turn: Turn): void {
  if (turn.holds === undefined) return;
  const source = core.lanes.get(turn.holds);
  turn.holds = undefined;
  if (source === undefined) return;
  source.waitingForks -= 1;
  wake(core, source);
}

function announce(core: Core, turn: Turn, outcome: TurnOutcome, last: LastEvent): SessionEvent {
  endInjects(core, turn, 'frame' in last && turn.state.t === 'running');
  refuseHeldSteers(core, turn);
  tellLostSteers(core, turn);
  core.turns.delete(turn.id);
  core.heldInputBytes -= turn.requestBytes;
  core.endedTurns.add(turn.id, fingerprintOf(core, turn));
  core.deadlines.clear({ kind: 'turn', turnId: turn.id });
  releaseHold(core, turn);
  const commit = nextCommit(core);
  if (!('noticeReason' in last)) turn.failed = last.failed;
  turn.events += 1;
  const ended = recordOf(core, turn, outcome);
  const account = core.account?.(ended);
  const cost = account?.cost;
  if (account?.spent !== undefined) core.spent = account.spent;
  if ('noticeReason' in last) {
    const notice = { kind: 'steer_lost', reason: last.noticeReason, commit, cost } as const;
    emitNotice(core, turn.laneId, turn.id, notice, outcome);
  } else {
    if ('frame' in last)
      emitFrame(core, turn.laneId, turn.id, last.frame, outcome, last.failed, commit, cost);
    else
      emitOwn(core, turn.laneId, turn.id, {
        type: 'gateway.turn.failed',
        outcome,
        turnFailed: last.failed,
        commit,
        cost,
      });
  }
  const event = core.outbox.newest as SessionEvent;
  forgetWithheld(core, turn);
  const record = account === undefined ? ended : { ...ended, cost, unpriced: account.unpriced };
  tell(core, { kind: 'turnEnded', record });
  return event;
}

function record(
  core: Core,
  turn: Turn,
  lane: Lane,
  headBefore: string | undefined,
  event: SessionEvent,
): void {
  if (core.journal === undefined) return;
  const fingerprint = core.endedTurns.get(turn.id) ?? '';
  recordEnd(core, lane, { fingerprint, headBefore, event });
}

function freeStream(core: Core, turn: Turn): void {
  const { state } = turn;
  const link = 'linkId' in state ? core.links.get(state.linkId) : undefined;
  const stream = link?.streams.get(turn.laneId);
  if (link === undefined || stream === undefined || turnOf(stream) !== turn) return;
  releaseStream(core, link, stream);
}

function laneOf(core: Core, turn: Turn): Lane {
  const lane = core.lanes.get(turn.laneId);
  if (lane === undefined) throw new Error('a turn without its lane');
  return lane;
}

function recordOf(core: Core, turn: Turn, outcome: TurnOutcome): TurnRecord {
  return {
    laneId: turn.laneId,
    turnId: turn.id,
    outcome,
    failed: turn.failed,
    acceptedAtMs: turn.acceptedAtMs,
    sentAtMs: turn.sentAtMs,
    createdAtMs: turn.createdAtMs,
    firstOutputAtMs: turn.firstOutputAtMs,
    lastOutputAtMs: turn.lastOutputAtMs,
    endedAtMs: core.nowMs,
    outputEvents: turn.outputEvents,
    events: turn.events,
    requestModel: turn.request.create.model,
    responseModel: turn.responseModel,
    responseId: turn.responseId,
    serviceTier: turn.serviceTier,
    finishReason: turn.finishReason,
    usage: turn.usage,
    bytesUp: turn.bytesUp,
    fullContextBytes: turn.fullContextBytes,
    bytesDown: turn.bytesDown,
    toolCalls: turn.toolCalls,
    hostedCalls: turn.hostedCalls,
    replays: turn.replays,
    sends: turn.sends,
    route: turn.route,
    warmUp: !turn.request.create.generate,
  };
}
