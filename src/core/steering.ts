import { steerFrame } from '../dialect/frames.ts';
import { GatewayError } from '../errors.ts';
import { type Core, emitRejected } from './core.ts';
import type { Lane } from './lane.ts';
import { type LinkSlot, upOf } from './link-slot.ts';
import type { Steer, Turn } from './turn.ts';
import type { SteerTurn } from './types.ts';

/** More than the published third-party cap of 32 would only move the refusal upstream (protocol.md 6.4). */
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
  const steer: Steer = { state: 'held', input: request.input, targetId: '', id: undefined };
  turn.steers.push(steer);
  sendHeldSteers(core, turn);
}

/** Steering needs the target's id (protocol.md 6.1): steers wait for `response.created`. */
export function sendHeldSteers(core: Core, turn: Turn): void {
  if (turn.state.t !== 'running') return;
  const link = core.links.get(turn.state.linkId);
  const up = link === undefined ? undefined : upOf(link);
  if (link === undefined || up === undefined) return;
  for (const steer of turn.steers.filter(({ state }) => state === 'held')) {
    if (!up.capabilities.steering) {
      turn.steers.splice(turn.steers.indexOf(steer), 1);
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
    const frame = steerFrame(turn.state.response.id, steer.input);
    steer.state = 'sent';
    steer.targetId = turn.state.response.id;
    turn.bytesUp += frame.head.length + frame.body.length;
    core.outputs.push({ kind: 'send', linkId: link.id, frame, turnId: turn.id });
  }
}

/** Steers that die with a turn that ended before it could take them. */
export function refuseHeldSteers(core: Core, turn: Turn): void {
  for (const steer of turn.steers) {
    if (steer.state !== 'held') continue;
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
  turn.steers = turn.steers.filter(({ state }) => state !== 'held');
}

/** Whether the turn may still get a successor, or owes the client a `steer.pending` or `steer.failed`. */
export function hasUndecidedSteers(turn: Turn, responseId: string): boolean {
  return turn.steers.some(
    ({ state, targetId }) => targetId === responseId && (state === 'sent' || state === 'queued'),
  );
}

/** The steers that the successor of `responseId` begins with; they are decided now. */
export function commitSteers(turn: Turn, responseId: string): readonly string[] {
  const committed = turn.steers.filter(
    ({ state, targetId }) => targetId === responseId && state === 'queued',
  );
  turn.steers = turn.steers.filter((steer) => !committed.includes(steer));
  return committed.flatMap(({ input }) => input);
}

/** Applies `response.steer.*` to the turn it is about. */
export function decideSteer(
  lane: Lane,
  link: LinkSlot,
  turn: Turn,
  type: string,
  json: Readonly<Record<string, unknown>>,
): void {
  const facts = (json['steer'] ?? {}) as Readonly<Record<string, unknown>>;
  const id = typeof facts['id'] === 'string' ? facts['id'] : undefined;
  const targetId = typeof facts['previous_response_id'] === 'string' ? facts['previous_response_id'] : '';
  const byId = id === undefined ? undefined : turn.steers.find((steer) => steer.id === id);
  // Answers come in the order of submission; a failure before acceptance has no id.
  const steer = byId ?? turn.steers.find(({ state, targetId: of }) => state === 'sent' && of === targetId);
  if (steer === undefined) return;
  if (type === 'response.steer.accepted') {
    steer.state = 'queued';
    steer.id = id;
    return;
  }
  turn.steers.splice(turn.steers.indexOf(steer), 1);
  if (type !== 'response.steer.pending') return;
  const before = lane.waitingSteers?.targetId === targetId ? lane.waitingSteers.input : [];
  lane.waitingSteers = { targetId, linkId: link.id, input: [...before, ...steer.input] };
}

function targetOf(lane: Lane, turnId: string | undefined): Turn | undefined {
  if (turnId === undefined) return lane.active ?? lane.queue[0];
  if (lane.active?.id === turnId) return lane.active;
  return lane.queue.find((turn) => turn.id === turnId);
}
