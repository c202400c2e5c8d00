import { injectFrame } from '../dialect/frames.ts';
import { GatewayError } from '../errors.ts';
import { type Core, emitNotice, emitRejected } from './core.ts';
import { frameLimit, tooLarge } from './frame-limit.ts';
import { type LinkSlot, upOf } from './link-slot.ts';
import { turnOf } from './stream.ts';
import { type Inject, memoryOfRequest, type Turn } from './turn.ts';
import type { InjectTurn, UpstreamFrame } from './types.ts';

/** Undecided ones of a turn: each is answered at once, so more of them means that nobody listens. */
const MAX_INJECTS_PER_TURN = 32;

/** Tool outputs for a response that runs; its upstream takes all of them or none, and says so. */
export function submitInject(core: Core, request: InjectTurn): void {
  const { laneId, turnId, input } = request;
  const refuse = (error: GatewayError) => emitRejected(core, laneId, turnId ?? '', error);
  const lane = core.lanes.get(laneId);
  if (lane === undefined) {
    return refuse(
      new GatewayError('UNKNOWN_LANE', 'inject_turn.lane_id names a lane that this session does not have', {
        metadata: { field: 'inject_turn.lane_id' },
      }),
    );
  }
  const turn = lane.active;
  if (turn?.state.t !== 'running' || (turnId !== undefined && turn.id !== turnId)) {
    const known = turnId === undefined || core.turns.has(turnId) || core.endedTurns.get(turnId) !== undefined;
    return refuse(
      new GatewayError(
        known ? 'TURN_NOT_RUNNING' : 'UNKNOWN_TURN',
        'there is no such running turn to give outputs to; send them with start_turn',
        { metadata: { field: 'inject_turn.turn_id' } },
      ),
    );
  }
  const { linkId, response } = turn.state;
  const link = core.links.get(linkId);
  const up = link === undefined ? undefined : upOf(link);
  if (up?.capabilities.injecting !== true) {
    return refuse(
      new GatewayError('NOT_SUPPORTED_BY_UPSTREAM', 'this upstream takes no input into a running response', {
        metadata: { upstream: up?.route.upstream ?? '', capability: 'multi_agent' },
      }),
    );
  }
  if (turn.injects.length >= MAX_INJECTS_PER_TURN) {
    return refuse(
      new GatewayError('LIMIT_EXCEEDED', `a turn takes ${MAX_INJECTS_PER_TURN} undecided injects`, {
        metadata: { limit: 'injects_per_turn', value: String(MAX_INJECTS_PER_TURN) },
      }),
    );
  }
  const frame = injectFrame(response.id, input);
  const limit = frameLimit(core, up);
  if (frame.bytes > limit) return refuse(tooLarge(frame.bytes, limit));
  const bytes = memoryOfRequest(request);
  turn.injects.push({ targetId: response.id, input, bytes });
  core.heldInputBytes += bytes;
  turn.bytesUp += frame.bytes;
  core.outputs.push({ kind: 'send', linkId, frame, turnId: turn.id });
}

/**
 * The turn that an answer is about; the answer decides its inject. What was taken is part of the running response: a
 * replay has to tell it with what the response said.
 */
export function decideInject(core: Core, link: LinkSlot, frame: UpstreamFrame): Turn | undefined {
  const { response_id: targetId, input } = frame.json();
  for (const stream of link.streams.values()) {
    const turn = turnOf(stream);
    const open = turn?.injects.filter((inject) => inject.targetId === targetId) ?? [];
    const [first] = open;
    if (turn === undefined || first === undefined) continue;
    const said = Array.isArray(input) ? JSON.stringify(input) : undefined;
    const decided = open.find((inject) => said !== undefined && printed(inject) === said) ?? first;
    remove(core, turn, decided);
    if (frame.type === 'response.inject.created' && turn.state.t === 'running')
      turn.state.response.injected.push(...decided.input);
    return turn;
  }
  return undefined;
}

/** The turn ends. Its upstream says first what it takes: what has no answer when the response ends was not taken. */
export function endInjects(core: Core, turn: Turn, endedUpstream: boolean): void {
  if (turn.injects.length === 0) return;
  for (const inject of [...turn.injects]) {
    remove(core, turn, inject);
    if (endedUpstream)
      emitRejected(
        core,
        turn.laneId,
        turn.id,
        new GatewayError(
          'TURN_NOT_RUNNING',
          'the response ended before it took the outputs; send them with start_turn',
        ),
      );
  }
  if (!endedUpstream) emitNotice(core, turn.laneId, turn.id, { kind: 'inject_lost', reason: 'turn_ended' });
}

function printed({ input }: Inject): string {
  return JSON.stringify(input.map((item): unknown => JSON.parse(item)));
}

function remove(core: Core, turn: Turn, inject: Inject): void {
  turn.injects.splice(turn.injects.indexOf(inject), 1);
  core.heldInputBytes -= inject.bytes;
}
