import type { GatewayError } from '../errors.ts';
import { type Core, emitFrame, emitNotice, emitOwn, headsOf, tell } from './core.ts';
import type { Lane } from './lane.ts';
import { refuseHeldSteers } from './steering.ts';
import { moveTurn, phaseOf, type Turn, type TurnState, verdictByPhase } from './turn.ts';
import type { ReplayVerdict, TurnFailed, TurnOutcome, TurnRecord, UpstreamFrame } from './types.ts';

/** The last word of a turn: the upstream's own frame, a failure of ours, or a Notice. */
export type LastEvent =
  | { readonly frame: UpstreamFrame; readonly failed?: TurnFailed | undefined }
  | { readonly failed: TurnFailed }
  | { readonly noticeReason: string };

/** Ends the turn for client and upstream alike. */
export function endTurn(core: Core, turn: Turn, outcome: TurnOutcome, last: LastEvent): void {
  announce(core, turn, outcome, last);
  leaveLink(core, turn);
  moveTurn(turn, { t: 'ended' });
  const lane = laneOf(core, turn);
  if (lane.active === turn) lane.active = undefined;
  // A turn that failed or was given up leaves no trace in the conversation.
  if (turn.headId !== undefined && (outcome === 'COMPLETED' || outcome === 'INCOMPLETE')) {
    lane.headId = turn.headId;
    core.transcript.releaseBehind(turn.headId, () => headsOf(core));
  } else restoreSteers(lane, turn, undefined);
  lane.lastUsedAtMs = core.nowMs;
}

/** Ends a settling turn whose steers will not be answered. */
export function endUnanswered(
  core: Core,
  turn: Turn,
  { outcome, failed }: Extract<TurnState, { t: 'settling' }>,
  reason: string,
): void {
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
 * (protocol.md 9: there is no cancel event).
 */
export function discardTurn(core: Core, turn: Turn, outcome: TurnOutcome, error: GatewayError): void {
  const running = turn.state;
  if (running.t !== 'sent' && running.t !== 'running' && running.t !== 'settling') {
    endTurn(core, turn, outcome, { failed: { error, replay: 'SAFE', phase: phaseOf(turn) } });
    return;
  }
  const phase = phaseOf(turn);
  announce(core, turn, outcome, {
    failed: { error, replay: verdictByPhase(phase), phase },
  });
  const lane = laneOf(core, turn);
  const settling = running.t === 'settling';
  moveTurn(turn, { t: 'discarding', linkId: running.linkId, terminalSeen: settling });
  // A successor may still be on its way; its frames must not be taken for the next turn's.
  if (settling)
    core.deadlines.set({ kind: 'steerSettle', turnId: turn.id }, core.nowMs + core.limits.steerSettleMs);
  lane.active = undefined;
  lane.discarding = turn;
  restoreSteers(lane, turn, undefined);
}

/** The upstream is done with a discarded turn, or its link is gone. */
export function finishDiscarded(core: Core, turn: Turn): void {
  leaveLink(core, turn);
  moveTurn(turn, { t: 'ended' });
  core.deadlines.clear({ kind: 'steerSettle', turnId: turn.id });
  const lane = laneOf(core, turn);
  if (lane.discarding === turn) lane.discarding = undefined;
}

/** A warm-up of ours is over, one way or the other. */
export function finishWarmUp(core: Core, turn: Turn): void {
  if ('linkId' in turn.state)
    core.deadlines.clear({ kind: 'warmUp', laneId: turn.laneId, linkId: turn.state.linkId });
  leaveLink(core, turn);
  moveTurn(turn, { t: 'ended' });
}

/**
 * Waiting steers were taken from the lane when the turn was written; one that leaves nothing in the conversation gives
 * them back. `linkId` is the link whose upstream still holds them; without it they will be sent.
 */
export function restoreSteers(lane: Lane, { plan }: Turn, linkId: number | undefined): void {
  if (plan?.parentId === undefined) return;
  const steers = plan.input.slice(0, plan.input.length - plan.ownInput.length);
  if (steers.length > 0) lane.waitingSteers = { targetId: plan.parentId, linkId, input: steers };
}

export function releaseHold(core: Core, turn: Turn): void {
  if (turn.holds === undefined) return;
  const source = core.lanes.get(turn.holds);
  if (source !== undefined) source.waitingForks -= 1;
  turn.holds = undefined;
}

function announce(core: Core, turn: Turn, outcome: TurnOutcome, last: LastEvent): void {
  refuseHeldSteers(core, turn);
  core.turns.delete(turn.id);
  core.endedTurns.add(turn.id, core.fingerprints.of(turn.request));
  core.deadlines.clear({ kind: 'turn', turnId: turn.id });
  core.deadlines.clear({ kind: 'steerSettle', turnId: turn.id });
  releaseHold(core, turn);
  if ('noticeReason' in last) {
    emitNotice(core, turn.laneId, turn.id, { kind: 'steer_lost', reason: last.noticeReason }, outcome);
  } else {
    turn.failed = last.failed;
    if ('frame' in last) emitFrame(core, turn.laneId, turn.id, last.frame, outcome, last.failed);
    else
      emitOwn(core, turn.laneId, turn.id, { type: 'gateway.turn.failed', outcome, turnFailed: last.failed });
  }
  turn.events += 1;
  tell(core, { kind: 'turnEnded', record: recordOf(core, turn, outcome) });
}

function leaveLink(core: Core, turn: Turn): void {
  const { state } = turn;
  if (state.t === 'queued' || state.t === 'ended') return;
  const link = core.links.get(state.linkId);
  if (link?.inFlight.get(turn.laneId) === turn) link.inFlight.delete(turn.laneId);
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
    replays: turn.replays,
    sends: turn.sends,
    route: turn.route,
    warmUp: !turn.request.create.generate,
  };
}
