import { steerFrame } from '../dialect/frames.ts';
import { GatewayError } from '../errors.ts';
import { carrySteer, dropCarriedSteer } from './carry.ts';
import { type Core, emitNotice, emitRejected } from './core.ts';
import { frameLimit, tooLarge } from './frame-limit.ts';
import type { Lane, WaitingSteer } from './lane.ts';
import { type LinkSlot, upOf } from './link-slot.ts';
import { memoryOfRequest, moveSteer, type Steer, type Turn } from './turn.ts';
import type { SteerTurn } from './types.ts';

/** More than the published third-party cap of 32 would only move the refusal upstream (upstream.md#steer-failures). */
const MAX_STEERS_PER_TURN = 32;

export function submitSteer(core: Core, request: SteerTurn): void {
  const refuse = (error: GatewayError) => emitRejected(core, request.laneId, request.turnId ?? '', error);
  const lane = core.lanes.get(request.laneId);
  if (lane === undefined) {
    refuse(
      new GatewayError('UNKNOWN_LANE', 'steer_turn.lane_id names a lane that this session does not have', {
        metadata: { field: 'steer_turn.lane_id' },
      }),
    );
    return;
  }
  const turn = targetOf(lane, request.turnId);
  if (turn === undefined) {
    const reason =
      request.turnId === undefined || core.endedTurns.get(request.turnId) !== undefined
        ? 'TURN_NOT_RUNNING'
        : 'UNKNOWN_TURN';
    refuse(
      new GatewayError(reason, 'there is no such running turn to steer; send the input with start_turn', {
        metadata: { field: 'steer_turn.turn_id' },
      }),
    );
    return;
  }
  if (turn.steers.length >= MAX_STEERS_PER_TURN) {
    refuse(
      new GatewayError('LIMIT_EXCEEDED', `a turn takes ${MAX_STEERS_PER_TURN} undecided steers`, {
        metadata: { limit: 'steers_per_turn', value: String(MAX_STEERS_PER_TURN) },
      }),
    );
    return;
  }
  const bytes = memoryOfRequest(request);
  turn.steers.push({ state: { t: 'held' }, input: request.input, bytes });
  core.heldInputBytes += bytes;
  sendHeldSteers(core, turn);
}

/** Steering needs the target's id (upstream.md#steering): steers wait for `response.created`. */
export function sendHeldSteers(core: Core, turn: Turn): void {
  if (turn.state.t !== 'running') return;
  const link = core.links.get(turn.state.linkId);
  const up = link === undefined ? undefined : upOf(link);
  if (link === undefined || up === undefined) return;
  const { id: targetId } = turn.state.response;
  for (const steer of turn.steers.filter(({ state }) => state.t === 'held')) {
    if (!up.capabilities.steering) {
      remove(core, turn, steer);
      emitRejected(
        core,
        turn.laneId,
        turn.id,
        new GatewayError('NOT_SUPPORTED_BY_UPSTREAM', 'this upstream does not support steering', {
          metadata: { upstream: up.route.upstream },
        }),
      );
      continue;
    }
    const frame = steerFrame(targetId, steer.input);
    const limit = frameLimit(core, up);
    if (frame.bytes > limit) {
      remove(core, turn, steer);
      emitRejected(core, turn.laneId, turn.id, tooLarge(frame.bytes, limit));
      continue;
    }
    moveSteer(steer, { t: 'sent', targetId });
    turn.bytesUp += frame.bytes;
    core.outputs.push({ kind: 'send', linkId: link.id, frame, turnId: turn.id });
  }
}

/** Steers that die with a turn that ended before it could take them. */
export function refuseHeldSteers(core: Core, turn: Turn): void {
  for (const steer of turn.steers.filter(({ state }) => state.t === 'held')) {
    remove(core, turn, steer);
    emitRejected(
      core,
      turn.laneId,
      turn.id,
      new GatewayError(
        'TURN_NOT_RUNNING',
        'the turn ended before it could be steered; send the input with start_turn',
      ),
    );
  }
}

/** The turn ends while the upstream owes an answer: what it does with them nobody will hear. */
export function tellLostSteers(core: Core, turn: Turn): void {
  if (turn.steers.length === 0) return;
  forgetSteers(core, turn);
  emitNotice(core, turn.laneId, turn.id, { kind: 'steer_lost', reason: 'turn_ended' });
}

/** Longer input than this is not compared with what an upstream gives back. */
const MAX_COMPARED_BYTES = 2 * 1024;

/** What is left of a steer whose turn was given up: enough to know its answer, and to count. */
export function withoutInput(steer: Steer): Steer {
  return steer.bytes > MAX_COMPARED_BYTES ? { ...steer, input: [] } : steer;
}

export function forgetSteers(core: Core, turn: Turn): void {
  for (const steer of [...turn.steers]) remove(core, turn, steer);
}

/** Whether the turn may still get a successor, or owes the client a `steer.pending` or `steer.failed`. */
export function hasUndecidedSteers(turn: Turn, responseId: string): boolean {
  return turn.steers.some((steer) => targetIdOf(steer) === responseId);
}

/** The steers that the successor of `responseId` begins with; they are decided now. */
export function commitSteers(core: Core, turn: Turn, responseId: string): readonly string[] {
  const committed = turn.steers.filter(({ state }) => state.t === 'queued' && state.targetId === responseId);
  for (const steer of committed) remove(core, turn, steer);
  return committed.flatMap(({ input }) => input);
}

export function targetIdOf({ state }: Steer): string | undefined {
  return state.t === 'held' ? undefined : state.targetId;
}

/** A `response.steer.*` frame, as far as it can be read. */
export interface SteerAnswer {
  readonly type: string;
  readonly id: string | undefined;
  /** Empty where the upstream does not say. */
  readonly targetId: string;
  /** What the client had said, where the upstream gives it back. */
  readonly input: readonly unknown[] | undefined;
}

export function readSteerAnswer(type: string, json: Readonly<Record<string, unknown>>): SteerAnswer {
  const facts = (json['steer'] ?? {}) as Readonly<Record<string, unknown>>;
  const { id, previous_response_id: targetId, input } = facts;
  return {
    type,
    id: typeof id === 'string' ? id : undefined,
    targetId: typeof targetId === 'string' ? targetId : '',
    input: Array.isArray(input) ? input : undefined,
  };
}

/**
 * The steer of these that the answer is about: by its id, by what it said, else the first that has no answer. Servers that
 * give a steer no id, or do not say which response it is for, answer in the order of the steers.
 */
export function answeredSteer(steers: readonly Steer[], answer: SteerAnswer): Steer | undefined {
  const { type, id, targetId, input } = answer;
  const byId =
    id === undefined ? undefined : steers.find(({ state }) => state.t === 'queued' && state.id === id);
  if (byId !== undefined) return byId;
  const ofTarget = steers.filter((steer) => targetId === '' || targetIdOf(steer) === targetId);
  // One that was accepted is meant only where no other waits for its first answer.
  const open = [
    ...ofTarget.filter(({ state }) => state.t === 'sent'),
    ...ofTarget.filter(
      ({ state }) =>
        state.t === 'queued' &&
        type !== 'response.steer.accepted' &&
        (id === undefined || state.id === undefined),
    ),
  ];
  const said = input === undefined ? undefined : contentOf(input);
  return (
    (said === undefined ? undefined : open.find((steer) => contentOf(parsed(steer)) === said)) ?? open[0]
  );
}

/** Applies `response.steer.*` to the turn it is about. */
export function decideSteer(core: Core, lane: Lane, link: LinkSlot, turn: Turn, answer: SteerAnswer): void {
  const { type, id, targetId } = answer;
  const steer = answeredSteer(turn.steers, answer);
  if (steer === undefined) return;
  if (type === 'response.steer.accepted') {
    if (steer.state.t === 'sent') moveSteer(steer, { t: 'queued', targetId: steer.state.targetId, id });
    return;
  }
  remove(core, turn, steer);
  if (type === 'response.steer.pending')
    carrySteer(core, lane, targetId || (targetIdOf(steer) ?? ''), {
      id: id ?? idOf(steer),
      input: steer.input,
      heldBy: link.id,
    });
}

/** A steer that waited for its create is given back: whoever sent it hears so, and it is not sent by us as well. */
export function returnWaitingSteer(core: Core, lane: Lane, { id, targetId, input }: SteerAnswer): boolean {
  // Some upstreams do not say for which response it waited.
  const targets = targetId === '' ? [...lane.carried.keys()] : [targetId];
  const drop = (is: (steer: WaitingSteer) => boolean) =>
    targets.some((target) => dropCarriedSteer(core, lane, target, is));
  if (id !== undefined && drop((steer) => steer.id === id)) return true;
  if (input === undefined) return false;
  const said = contentOf(input);
  return drop((steer) => contentOf(steer.input.map(parse)) === said);
}

function idOf({ state }: Steer): string | undefined {
  return state.t === 'queued' ? state.id : undefined;
}

function remove(core: Core, turn: Turn, steer: Steer): void {
  const at = turn.steers.indexOf(steer);
  if (at < 0) return;
  turn.steers.splice(at, 1);
  core.heldInputBytes -= steer.bytes;
}

function parsed({ input }: Steer): readonly unknown[] {
  return input.map(parse);
}

function parse(text: string): unknown {
  return JSON.parse(text);
}

/** The text alone: upstreams give an item back with members of their own. */
function contentOf(items: readonly unknown[]): string {
  return JSON.stringify(items.map(textOf));
}

function textOf(item: unknown): unknown {
  const content = (item as { content?: unknown } | null)?.content;
  if (!Array.isArray(content)) return content;
  return content.map((part: { text?: unknown } | null) => part?.text ?? JSON.stringify(part)).join('');
}

function targetOf(lane: Lane, turnId: string | undefined): Turn | undefined {
  if (turnId === undefined) return lane.active ?? lane.queue[0];
  if (lane.active?.id === turnId) return lane.active;
  return lane.queue.find((turn) => turn.id === turnId);
}
