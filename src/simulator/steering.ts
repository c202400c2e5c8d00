import type { Item, RequiredInput } from './context.ts';
import { isObject, type JsonObject } from './json.ts';
import type { Switches } from './options.ts';
import { inputItems } from './request.ts';
import { requestProblem } from './request-schema.ts';
import { globMatches } from './script.ts';
import { newId, type Run, type Steer } from './turn.ts';

export type SteerFailureCode =
  | 'response_not_found'
  | 'invalid_input'
  | 'steering_not_supported'
  | 'too_many_pending_steers'
  | 'response_already_completed'
  | 'response_not_active'
  | 'successor_creation_failed';

/** A response of this connection that has ended, as far as a late steer needs it. */
export interface EndedResponse {
  readonly streamId: string | undefined;
  readonly isCompleted: boolean;
  sequence: number;
}

export type SteerVerdict =
  | { kind: 'accepted'; run: Run; steer: Steer }
  | { kind: 'failed'; code: SteerFailureCode; target: Run | EndedResponse | null; message?: string };

/** Judges one `response.steer` by upstream.md#steering. An accepted steer is not yet in the run's queue. */
export function judgeSteer(
  frame: JsonObject,
  active: Run | undefined,
  ended: EndedResponse | undefined,
  switches: Switches,
): SteerVerdict {
  const target = active ?? ended ?? null;
  const failed = (code: SteerFailureCode, message?: string): SteerVerdict =>
    message === undefined ? { kind: 'failed', code, target } : { kind: 'failed', code, target, message };
  const problem = requestProblem(frame, 'Steer');
  if (problem !== null) return failed('invalid_input', problem.message);
  const input = inputItems(frame.input).map((item): Item => ({ type: 'message', ...item }));
  if (target === null) return failed('response_not_found');
  if (active === undefined) {
    return failed(ended?.isCompleted === true ? 'response_already_completed' : 'response_not_active');
  }
  const { request } = active;
  const isSupported =
    switches.steeringModels.some((glob) => globMatches(glob, request.model)) &&
    request.conversationId === null &&
    !request.compacts &&
    request.generate &&
    !isObject(request.body.multi_agent);
  if (!isSupported) return failed('steering_not_supported');
  if (active.steers.length >= switches.maxPendingSteers) return failed('too_many_pending_steers');
  return {
    kind: 'accepted',
    run: active,
    steer: { id: newId('steer'), input, rawInput: frame.input },
  };
}

export function steerAcceptedFrame(steer: Steer, target: Run | EndedResponse, targetId: string): string {
  return frame('response.steer.accepted', target, {
    steer: { id: steer.id, previous_response_id: targetId },
  });
}

export function steerPendingFrame(
  steer: Steer,
  target: Run | EndedResponse,
  targetId: string,
  required: Iterable<RequiredInput>,
): string {
  return frame('response.steer.pending', target, {
    steer: { id: steer.id, previous_response_id: targetId },
    reason: 'waiting_for_required_input',
    required_input: [...required],
  });
}

export function steerFailedFrame(fields: {
  target: Run | EndedResponse | null;
  targetId: unknown;
  input: unknown;
  /** Only for a steer that had been accepted. */
  id?: string | undefined;
  code: SteerFailureCode;
  message?: string | undefined;
}): string {
  return frame('response.steer.failed', fields.target, {
    steer: {
      ...(fields.id === undefined ? {} : { id: fields.id }),
      previous_response_id: typeof fields.targetId === 'string' ? fields.targetId : '',
      input: fields.input ?? '',
    },
    error: {
      type: 'invalid_request_error',
      code: fields.code,
      message: fields.message ?? MESSAGES[fields.code],
    },
  });
}

/** Input of the successor: all steers of the target in the order of their submission. */
export function steeredInput(steers: readonly Steer[]): Item[] {
  return steers.flatMap((steer) => steer.input);
}

function frame(type: string, target: Run | EndedResponse | null, fields: JsonObject): string {
  return JSON.stringify({
    type,
    // Steer events go on with the target's count, past its terminal.
    sequence_number: target === null ? 0 : target.sequence++,
    ...(target?.streamId === undefined ? {} : { stream_id: target.streamId }),
    ...fields,
  });
}

const MESSAGES: Readonly<Record<SteerFailureCode, string>> = {
  response_not_found: 'The target response is not available on this WebSocket connection.',
  invalid_input: 'The steering input is invalid.',
  steering_not_supported: 'This response does not support steering.',
  too_many_pending_steers:
    'Too much steering input is pending for this response. Wait for the automatic continuation before submitting more.',
  response_already_completed: 'The response already completed and is no longer accepting steering input.',
  response_not_active: 'The response is no longer accepting steering input.',
  successor_creation_failed:
    "We couldn't start the next response. Send this steering input again with response.create.",
};
