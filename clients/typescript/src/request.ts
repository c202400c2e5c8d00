import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { CreateBodySchema } from './gen/responses/gateway/v1/create_pb.ts';
import { type InputItem, InputItemSchema } from './gen/responses/gateway/v1/items_pb.ts';
import { InputMode, type StartTurn, StartTurnSchema } from './gen/responses/gateway/v1/session_pb.ts';
import type { Tool } from './gen/responses/gateway/v1/tools_pb.ts';
import { currentTraceContext } from './trace.ts';

/** Says what a turn runs. An empty one continues the lane with no new input. */
export interface TurnRequest {
  /** What is new since the lane's last response; everything, with `fullHistory`. A string is one user message. */
  readonly input?: string | readonly InputItem[];
  /** Default: the session's. */
  readonly model?: string;
  /** System message. Not inherited from the lane's last turn: give it with each one. */
  readonly instructions?: string;
  /** Tools that the model may call. Not inherited either. */
  readonly tools?: readonly Tool[];
  /** Whether the upstream keeps the response. Upstream's default: true. */
  readonly store?: boolean;
  /** Everything else of the upstream's request; the fields above are put over it. */
  readonly create?: MessageInitShape<typeof CreateBodySchema>;
  /** Continues from this response id, of whichever lane: a fork. */
  readonly from?: string;
  /** Starts from nothing on this lane. */
  readonly newConversation?: boolean;
  /** `input` is the whole conversation, and the gateway works out what is new. */
  readonly fullHistory?: boolean;
  /** From acceptance to outcome, kept by the gateway. Default: the gateway's, usually none. */
  readonly timeoutMs?: number;
  /** Lets the gateway wait and send again when the upstream refuses for its rate limit. */
  readonly waitOnRateLimit?: boolean;
  /** Unique in the session. Default: chosen by the client. */
  readonly turnId?: string;
}

/** One message of user, assistant, system or developer. */
export function message(
  role: 'user' | 'assistant' | 'system' | 'developer' | (string & {}),
  text: string,
): InputItem {
  return create(InputItemSchema, { kind: { case: 'message', value: { role, text } } });
}

/** The result of a function call. */
export function callOutput(callId: string, output: string): InputItem {
  return create(InputItemSchema, { kind: { case: 'functionCallOutput', value: { callId, output } } });
}

/** An input item as the upstream's JSON, for kinds that this client does not know. */
export function jsonItem(json: string | Uint8Array): InputItem {
  return create(InputItemSchema, {
    kind: { case: 'json', value: typeof json === 'string' ? new TextEncoder().encode(json) : json },
  });
}

export function inputItems(input: string | readonly InputItem[]): InputItem[] {
  return typeof input === 'string' ? [message('user', input)] : [...input];
}

export function startTurn(request: TurnRequest, laneId: string, turnId: string): StartTurn {
  // A copy, so that neither the caller's later changes nor ours reach the other.
  const body = create(CreateBodySchema, { ...request.create });
  if (request.input !== undefined) body.input = inputItems(request.input);
  if (request.tools !== undefined) body.tools = [...request.tools];
  if (request.model !== undefined) body.model = request.model;
  if (request.instructions !== undefined) body.instructions = request.instructions;
  if (request.store !== undefined) body.store = request.store;
  const start = create(StartTurnSchema, {
    laneId,
    turnId,
    create: body,
    waitOnRateLimit: request.waitOnRateLimit ?? false,
  });
  const traceContext = currentTraceContext();
  if (traceContext) start.traceContext = traceContext;
  if (request.from !== undefined) start.chain = { case: 'previousResponseId', value: request.from };
  else if (request.newConversation)
    start.chain = create(StartTurnSchema, { chain: { case: 'newConversation', value: {} } }).chain;
  if (request.fullHistory) start.inputMode = InputMode.FULL_HISTORY;
  if (request.timeoutMs !== undefined) start.timeout = durationFromMs(request.timeoutMs);
  return start;
}

export function warmUp(request: TurnRequest): TurnRequest {
  return {
    ...request,
    create: { ...request.create, generate: false } as MessageInitShape<typeof CreateBodySchema>,
  };
}
