/** Bytes of the API ↔ what the rest of the gateway works with. Readers throw GatewayError. */
import protobuf from 'protobufjs/light.js';
import type { Chain, CreateBody, SessionEvent, StartTurn } from '../core/types.ts';
import { GatewayError, invalidField } from '../errors.ts';
import { parseMoney } from '../ground/money.ts';
import { type Api, loadApi } from './api.ts';
import { ANSWERS, type CallMethod, readCall, readStreamResponse, requestOf } from './calls.ts';
import { createSteps, decodeAs, itemSteps, shortCreate } from './create.ts';
import { durationOf, timeLimitMs } from './duration.ts';
import { EventEncoder, PHASE } from './events.ts';
import { countOf, formatOf, partOf, takenBytes, textOf, traceOf } from './fields.ts';
import { type Findings, inspect } from './inspect.ts';
import type { KnownHistories } from './known-items.ts';
import { DEFAULT_MAX_ITEMS } from './limits.ts';
import type {
  CallRequest,
  ClientMessage,
  CreateResponseRequest,
  EventFormat,
  FollowResponseRequest,
  GoAwayFacts,
  OpenedFacts,
  OpenRequest,
  RequestHead,
  Steps,
} from './messages.ts';
import type { Message } from './writer.ts';

const RESUME_OUTCOME = { NEW: 1, RESUMED: 2, PARTIAL: 3, GONE: 4, RECOVERED: 5 } as const;
const GO_AWAY = { draining: 1, maxAge: 2 } as const;
const FULL_HISTORY = 2;
const ECHO_NONE = 2;
/** In the order of their field numbers, from 1 on. */
const ARMS = ['open', 'start_turn', 'steer_turn', 'cancel_turn', 'ack', 'inject_turn', 'heartbeat'] as const;
/** What brings input; its refusal is an event. */
const REQUESTS = { start_turn: 'startTurn', steer_turn: 'steerTurn', inject_turn: 'injectTurn' } as const;
const INPUT_MESSAGES = { steer_turn: 'SteerTurn', inject_turn: 'InjectTurn' } as const;

export interface WireOptions {
  /** Input items of one request. Default `DEFAULT_MAX_ITEMS`. */
  readonly maxItems?: number;
}

export interface Wire {
  readConnect(bytes: Uint8Array, known?: KnownHistories): ClientMessage;
  /** Undefined: another message, or none that can be read. Costs little, however long it is. */
  requestHead(bytes: Uint8Array): RequestHead | undefined;
  readCreateResponse(bytes: Uint8Array, turnId: string): CreateResponseRequest;
  readCall(method: CallMethod, bytes: Uint8Array): CallRequest;
  /** The same in steps: a large request takes longer than others should wait. */
  connectSteps(bytes: Uint8Array, known?: KnownHistories): Steps<ClientMessage>;
  createResponseSteps(bytes: Uint8Array, turnId: string): Steps<CreateResponseRequest>;
  callSteps(method: CallMethod, bytes: Uint8Array): Steps<CallRequest>;
  readStreamResponse(bytes: Uint8Array): FollowResponseRequest;
  opened(facts: OpenedFacts): Uint8Array;
  goAway(facts: GoAwayFacts): Uint8Array;
  heartbeat(): Uint8Array;
  event(event: SessionEvent, format: EventFormat): Uint8Array;
  /** The event as it comes to a client that cannot take `bytes`, which it would need. */
  withoutContent(event: SessionEvent, format: EventFormat, bytes: number): SessionEvent;
  /** A ConnectResponse with the batch. */
  events(events: readonly SessionEvent[], format: EventFormat): Uint8Array;
  /** A CreateResponseResponse with the batch. */
  createResponse(events: readonly SessionEvent[], format: EventFormat): Uint8Array;
  /** The response message of a call from the upstream's JSON. */
  answer(method: CallMethod, json: Uint8Array, format?: EventFormat): Uint8Array;
}

export function createWire(api: Api = loadApi(), { maxItems = DEFAULT_MAX_ITEMS }: WireOptions = {}): Wire {
  const encoder = new EventEncoder(api);
  const encode = (name: string, value: Message) => api.type(name).encode(value).finish();
  return {
    readConnect: (bytes, known) => readConnect(bytes, api, maxItems, known),
    requestHead,
    readCreateResponse: (bytes, turnId) => finish(readCreateResponse(bytes, turnId, api, maxItems)),
    readCall: (method, bytes) => finish(readCall(method, bytes, api, maxItems)),
    connectSteps: (bytes, known) => readConnectSteps(bytes, api, maxItems, known),
    createResponseSteps: (bytes, turnId) => readCreateResponse(bytes, turnId, api, maxItems),
    callSteps: (method, bytes) => readCall(method, bytes, api, maxItems),
    readStreamResponse: (bytes) => readStreamResponse(bytes, api),
    opened: (facts) => encode('ConnectResponse', { opened: openedOf(facts, api.schemaRevision) }),
    goAway: ({ reason, timeLeftMs, resumeToken, movable }) =>
      encode('ConnectResponse', {
        go_away: {
          reason: GO_AWAY[reason],
          time_left: durationOf(timeLeftMs),
          resume_token: resumeToken,
          movable,
        },
      }),
    heartbeat: () => encode('ConnectResponse', { heartbeat: {} }),
    event: (event, format) => encoder.event(event, format),
    withoutContent: (event, format, bytes) => encoder.withoutContent(event, format, bytes),
    events: (events, format) => encoder.connectResponse(events, format),
    createResponse: (events, format) => encoder.createResponseResponse(events, format),
    answer: (method, json, format = TYPED) => encoder.answer(ANSWERS[method], json, format),
  };
}

const TYPED: EventFormat = { payload: 'typed', schemaRevision: 0 };

/** To the end without a pause. */
function finish<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

function readConnect(bytes: Uint8Array, api: Api, maxItems: number, known?: KnownHistories): ClientMessage {
  const request = openedRequest(bytes, api, inspect(api.envelope('ConnectRequest'), bytes, { maxItems }));
  if ('kind' in request) return request;
  const { arm, body } = request;
  // A generator takes as long as reading a short message.
  if (arm === 'start_turn' && body['input_mode'] !== FULL_HISTORY && request.problem === undefined) {
    try {
      const create = shortCreate(partOf(body, 'create') ?? {}, bytes.length, CREATE, api);
      if (create !== undefined) return { kind: 'startTurn', turn: startTurnOf(body, create) };
    } catch (error) {
      return refusedRequest(request, error);
    }
  }
  return finish(requestSteps(request, bytes.length, api, known));
}

function* readConnectSteps(
  bytes: Uint8Array,
  api: Api,
  maxItems: number,
  known?: KnownHistories,
): Steps<ClientMessage> {
  const isLong = bytes.length >= LONG_MESSAGE_BYTES;
  const findings = inspect(api.envelope('ConnectRequest'), bytes, { maxItems });
  if (isLong) yield;
  const request = openedRequest(bytes, api, findings);
  if (isLong) yield;
  return 'kind' in request ? request : yield* requestSteps(request, bytes.length, api, known);
}

/** Ten thousand fields fit in. */
const LONG_MESSAGE_BYTES = 32 * 1024;

/** What brings input, and is not read yet. */
interface OpenedRequest {
  readonly arm: keyof typeof REQUESTS;
  readonly body: Message;
  readonly problem: GatewayError | undefined;
}

/** A message that brings no input is read whole. */
function openedRequest(
  bytes: Uint8Array,
  api: Api,
  { unknown, excess }: Findings,
): OpenedRequest | ClientMessage {
  const message = excess === undefined ? decodeAs(api.envelope('ConnectRequest'), bytes) : headOf(bytes);
  const arm = armOf(message);
  const body = partOf(message, arm) ?? {};
  if (isRequest(arm)) return { arm, body, problem: excess ?? unknown };
  if (excess !== undefined) throw excess;
  switch (arm) {
    case 'open':
      return { kind: 'open', open: readOpen(body) };
    case 'ack':
      return { kind: 'input', input: { kind: 'ack', seq: countOf(body, 'seq', 'ack.seq') } };
    case 'heartbeat':
      return { kind: 'heartbeat' };
    case 'cancel_turn': {
      const laneId = textOf(body, 'lane_id');
      return { kind: 'input', input: { kind: 'cancelTurn', laneId, turnId: textOf(body, 'turn_id') } };
    }
  }
}

function armOf(message: Message): (typeof ARMS)[number] {
  let found: (typeof ARMS)[number] | undefined;
  for (const name of ARMS) {
    if (!Object.hasOwn(message, name)) continue;
    if (found !== undefined) throw invalidField('message', `both ${found} and ${name}`, 'one of them');
    found = name;
  }
  if (found !== undefined) return found;
  throw new GatewayError('EMPTY_MESSAGE', `a ConnectRequest needs one of ${ARMS.join(', ')}`);
}

function* requestSteps(
  request: OpenedRequest,
  messageBytes: number,
  api: Api,
  known: KnownHistories | undefined,
): Steps<ClientMessage> {
  const { arm, body, problem } = request;
  try {
    if (problem !== undefined) throw problem;
    if (arm === 'start_turn') {
      const isFull = body['input_mode'] === FULL_HISTORY;
      const before = isFull ? known?.of(textOf(body, 'lane_id')) : undefined;
      const create = yield* createSteps(partOf(body, 'create') ?? {}, messageBytes, CREATE, api, before);
      return { kind: 'startTurn', turn: startTurnOf(body, create) };
    }
    const input = yield* itemSteps(INPUT_MESSAGES[arm], body, arm, api);
    if (input.length === 0) throw invalidField(`${arm}.input`, 'nothing', 'at least one item');
    const laneId = textOf(body, 'lane_id');
    const turnId = textOf(body, 'turn_id') || undefined;
    return { kind: 'input', input: { kind: REQUESTS[arm], laneId, turnId, input } };
  } catch (error) {
    return refusedRequest(request, error);
  }
}

/** Throws what says nothing about one turn alone. */
function refusedRequest({ arm, body }: OpenedRequest, error: unknown): ClientMessage {
  if (!(error instanceof GatewayError) || error.reason === 'MALFORMED_MESSAGE') throw error;
  const laneId = textOf(body, 'lane_id');
  return { kind: 'refused', request: REQUESTS[arm], laneId, turnId: textOf(body, 'turn_id'), error };
}

function isRequest(arm: (typeof ARMS)[number]): arm is keyof typeof REQUESTS {
  return arm in REQUESTS;
}

function requestHead(bytes: Uint8Array): RequestHead | undefined {
  let message: Message;
  try {
    message = headOf(bytes);
  } catch {
    return undefined;
  }
  const [arm, second] = ARMS.filter((name) => Object.hasOwn(message, name));
  if (arm === undefined || second !== undefined || !isRequest(arm)) return undefined;
  const turn = partOf(message, arm) ?? {};
  return {
    kind: REQUESTS[arm],
    laneId: textOf(turn, 'lane_id'),
    turnId: textOf(turn, 'turn_id') || undefined,
  };
}

/** What a request is, and for which turn, without what it has too much of. */
function headOf(bytes: Uint8Array): Message {
  return decodeAs(HEAD, bytes);
}

const HEAD = new protobuf.Type('ConnectRequest');
{
  const ids = (name: string) =>
    new protobuf.Type(name)
      .add(new protobuf.Field('lane_id', 1, 'string'))
      .add(new protobuf.Field('turn_id', 2, 'string'));
  const other = new protobuf.Type('Other');
  HEAD.add(ids('Turn')).add(other);
  ARMS.forEach((name, at) => {
    const type = isRequest(name) ? 'Turn' : 'Other';
    HEAD.add(new protobuf.Field(name, at + 1, type));
  });
}

function readOpen(open: Message): OpenRequest {
  const resume = partOf(open, 'resume');
  const recovery = open['recovery'];
  return {
    format: { ...formatOf(open), ...(open['echo'] === ECHO_NONE && { echo: 'none' }) },
    resume: resume && {
      token: textOf(resume, 'token'),
      lastSeq: countOf(resume, 'last_seq', 'open.resume.last_seq'),
      lastCommit: Object.hasOwn(resume, 'last_commit')
        ? countOf(resume, 'last_commit', 'open.resume.last_commit')
        : undefined,
    },
    upstream: textOf(open, 'upstream') || undefined,
    model: textOf(open, 'model') || undefined,
    recovery: typeof recovery === 'boolean' && Object.hasOwn(open, 'recovery') ? recovery : true,
    labels: new Map(
      Object.entries(partOf(open, 'metadata') ?? {}).map(([key, value]) => [key, String(value)]),
    ),
    clientName: textOf(open, 'client_name') || undefined,
    clientVersion: textOf(open, 'client_version') || undefined,
    heartbeatIntervalMs: offeredMs(open['heartbeat_interval']),
    maxMessageBytes: takenBytes(open['max_message_bytes']),
    budget: budgetOf(partOf(open, 'budget')),
  };
}

/** Empty, and 0 where a number is sent as nothing: no limit of that kind. */
function budgetOf(budget: Message | undefined): OpenRequest['budget'] {
  if (budget === undefined) return undefined;
  const text = textOf(budget, 'money');
  const money = text === '' ? undefined : parseMoney(text);
  if (text !== '' && (money === undefined || money === 0n))
    throw invalidField('open.budget.money', `"${text.slice(0, 40)}"`, 'a decimal above 0, such as "0.50"');
  return {
    turns: countOf(budget, 'turns', 'open.budget.turns') || undefined,
    tokens: countOf(budget, 'tokens', 'open.budget.tokens') || undefined,
    money,
  };
}

const CREATE = 'start_turn.create';

function startTurnOf(turn: Message, create: CreateBody): StartTurn {
  const chain = chainOf(turn, create.previousResponseId);
  if (chain.kind === 'from' && create.usesConversation) {
    throw invalidField('start_turn', 'both create.conversation and previous_response_id', 'one of them');
  }
  return {
    kind: 'startTurn',
    laneId: textOf(turn, 'lane_id'),
    turnId: textOf(turn, 'turn_id'),
    create,
    chain,
    inputMode: turn['input_mode'] === FULL_HISTORY ? 'fullHistory' : 'incremental',
    timeoutMs: timeLimitMs(turn['timeout'], 'start_turn.timeout'),
    waitOnRateLimit: turn['wait_on_rate_limit'] === true,
    traceContext: traceOf(turn),
  };
}

function chainOf(turn: Message, fromCreate: string | undefined): Chain {
  const fresh = partOf(turn, 'new_conversation') !== undefined;
  const named = textOf(turn, 'previous_response_id');
  if (fresh && (named !== '' || fromCreate !== undefined)) {
    throw invalidField('start_turn.new_conversation', 'also previous_response_id', 'one of them');
  }
  if (named !== '' && fromCreate !== undefined && named !== fromCreate) {
    throw invalidField(
      'start_turn.previous_response_id',
      'another id in create',
      'the same id, or only one of them',
    );
  }
  const responseId = named || fromCreate;
  if (responseId !== undefined) return { kind: 'from', responseId };
  return fresh ? { kind: 'newConversation' } : { kind: 'automatic' };
}

function* readCreateResponse(
  bytes: Uint8Array,
  turnId: string,
  api: Api,
  maxItems: number,
): Steps<CreateResponseRequest> {
  const request = requestOf('CreateResponseRequest', bytes, api, maxItems);
  const body = partOf(request, 'create') ?? {};
  const create = yield* createSteps(body, bytes.length, 'create', api, undefined, 'backgroundToo');
  const { previousResponseId: responseId } = create;
  return {
    format: formatOf(request),
    maxMessageBytes: takenBytes(request['max_message_bytes']),
    idempotencyKey: idempotencyKeyOf(request),
    upstream: textOf(request, 'upstream') || undefined,
    turn: {
      kind: 'startTurn',
      laneId: '',
      turnId,
      create,
      chain: responseId === undefined ? { kind: 'newConversation' } : { kind: 'from', responseId },
      inputMode: 'incremental',
      timeoutMs: timeLimitMs(request['timeout'], 'timeout'),
      waitOnRateLimit: request['wait_on_rate_limit'] === true,
      traceContext: traceOf(request),
    },
  };
}

const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,256}$/;

function idempotencyKeyOf(request: Message): string | undefined {
  const key = textOf(request, 'idempotency_key');
  if (key === '') return undefined;
  if (IDEMPOTENCY_KEY.test(key)) return key;
  throw invalidField('idempotency_key', `${key.length} characters`, '1 to 256 visible ASCII characters');
}

function openedOf(facts: OpenedFacts, schemaRevision: number): Message {
  return {
    session_id: facts.sessionId,
    resume_token: facts.resumeToken,
    resume_grace: durationOf(facts.limits.resumeGraceMs),
    resume_outcome: RESUME_OUTCOME[facts.resumeOutcome],
    oldest_seq: facts.oldestSeq,
    next_seq: facts.nextSeq,
    durable: facts.durable,
    gone_reason: facts.goneReason ?? '',
    ...(facts.heartbeatIntervalMs !== undefined && {
      heartbeat_interval: durationOf(facts.heartbeatIntervalMs),
    }),
    schema_revision: schemaRevision,
    limits: {
      max_message_bytes: facts.maxMessageBytes,
      max_lanes: unlimitedIsZero(facts.limits.maxLanes),
      max_turns_in_flight: unlimitedIsZero(facts.maxTurnsInFlight),
      max_buffered_bytes: unlimitedIsZero(facts.limits.maxBufferedBytes),
      max_frame_bytes: unlimitedIsZero(facts.limits.maxFrameBytes),
      max_queued_turns_per_lane: unlimitedIsZero(facts.limits.maxQueuedTurnsPerLane),
      max_resume_bytes: unlimitedIsZero(facts.limits.maxResumeBytes),
    },
    active_turns: facts.activeTurns.map(({ laneId, turnId, phase }) => ({
      lane_id: laneId,
      turn_id: turnId,
      phase: PHASE[phase],
    })),
  };
}

function unlimitedIsZero(limit: number): number {
  return Number.isSafeInteger(limit) ? limit : 0;
}

/** Of a duration that is only an offer: what makes no sense is none. */
function offeredMs(value: unknown): number | undefined {
  const { seconds = 0, nanos = 0 } = (value ?? {}) as {
    readonly seconds?: unknown;
    readonly nanos?: unknown;
  };
  const ms = Number(seconds) * 1000 + Number(nanos) / 1e6;
  return ms > 0 ? ms : undefined;
}
