/** Bytes of the API ↔ what the rest of the gateway works with. Readers throw GatewayError. */
import type { Chain, SessionEvent, StartTurn, TraceContext } from '../core/types.ts';
import { GatewayError, invalidField } from '../errors.ts';
import { type Api, loadApi } from './api.ts';
import { compactBodyToUpstream, createBodyToUpstream, inputItems } from './create.ts';
import { durationOf, timeLimitMs } from './duration.ts';
import { EventEncoder, PHASE } from './events.ts';
import type {
  ClientMessage,
  CompactRequest,
  CreateResponseRequest,
  EventFormat,
  GoAwayFacts,
  OpenedFacts,
  OpenRequest,
} from './messages.ts';
import { refuseUnknownFields } from './unknown.ts';
import type { Message } from './writer.ts';

const PAYLOADS = ['typed', 'typed', 'json', 'both'] as const;
const RESUME_OUTCOME = { NEW: 1, RESUMED: 2, PARTIAL: 3, GONE: 4, RECOVERED: 5 } as const;
const GO_AWAY = { draining: 1, maxAge: 2 } as const;
const ARMS = ['open', 'start_turn', 'steer_turn', 'cancel_turn', 'ack'] as const;

export interface Wire {
  readConnect(bytes: Uint8Array): ClientMessage;
  readCreateResponse(bytes: Uint8Array, turnId: string): CreateResponseRequest;
  readCompact(bytes: Uint8Array): CompactRequest;
  opened(facts: OpenedFacts): Uint8Array;
  goAway(facts: GoAwayFacts): Uint8Array;
  event(event: SessionEvent, format: EventFormat): Uint8Array;
  /** A ConnectResponse with the batch. */
  events(events: readonly SessionEvent[], format: EventFormat): Uint8Array;
  /** A CreateResponseResponse with the batch. */
  createResponse(events: readonly SessionEvent[], format: EventFormat): Uint8Array;
  /** A CompactResponseResponse from the upstream's JSON. */
  compactResponse(json: Uint8Array, format?: EventFormat): Uint8Array;
}

export function createWire(api: Api = loadApi()): Wire {
  const encoder = new EventEncoder(api);
  const encode = (name: string, value: Message) => api.type(name).encode(value).finish();
  return {
    readConnect: (bytes) => readConnect(bytes, api),
    readCreateResponse: (bytes, turnId) => {
      const request = decode(api, 'CreateResponseRequest', bytes);
      refuseUnknownFields(api.type('CreateResponseRequest'), bytes);
      return readCreateResponse(request, turnId, api);
    },
    readCompact: (bytes) => {
      const request = decode(api, 'CompactResponseRequest', bytes);
      refuseUnknownFields(api.type('CompactResponseRequest'), bytes);
      return readCompact(request, api);
    },
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
    event: (event, format) => encoder.event(event, format),
    events: (events, format) => encoder.connectResponse(events, format),
    createResponse: (events, format) => encoder.createResponseResponse(events, format),
    compactResponse: (json, format = TYPED) => encoder.compactResponseResponse(json, format),
  };
}

const TYPED: EventFormat = { payload: 'typed', schemaRevision: 0 };

function decode(api: Api, name: string, bytes: Uint8Array): Message {
  try {
    return api.type(name).decode(bytes) as unknown as Message;
  } catch (cause) {
    throw new GatewayError('MALFORMED_MESSAGE', `the bytes are no ${name}`, { cause });
  }
}

function readConnect(bytes: Uint8Array, api: Api): ClientMessage {
  const message = decode(api, 'ConnectRequest', bytes);
  const [arm, second] = ARMS.filter((name) => Object.hasOwn(message, name));
  if (arm === undefined)
    throw new GatewayError('EMPTY_MESSAGE', `a ConnectRequest needs one of ${ARMS.join(', ')}`);
  if (second !== undefined) throw invalidField('message', `both ${arm} and ${second}`, 'one of them');
  const body = partOf(message, arm) ?? {};
  const laneId = textOf(body, 'lane_id');
  const turnId = textOf(body, 'turn_id');
  switch (arm) {
    case 'open':
      return { kind: 'open', open: readOpen(body) };
    case 'ack':
      return { kind: 'input', input: { kind: 'ack', seq: countOf(body, 'seq', 'ack.seq') } };
    case 'cancel_turn':
      return { kind: 'input', input: { kind: 'cancelTurn', laneId, turnId } };
    default:
      try {
        refuseUnknownFields(api.type('ConnectRequest'), bytes);
        if (arm === 'start_turn') return { kind: 'startTurn', turn: readStartTurn(body, api) };
        const input = inputItems('SteerTurn', body, 'steer_turn', api);
        if (input.length === 0) throw invalidField('steer_turn.input', 'nothing', 'at least one message');
        return { kind: 'input', input: { kind: 'steerTurn', laneId, turnId: turnId || undefined, input } };
      } catch (error) {
        if (!(error instanceof GatewayError)) throw error;
        const request = arm === 'start_turn' ? 'startTurn' : 'steerTurn';
        return { kind: 'refused', request, laneId, turnId, error };
      }
  }
}

function readOpen(open: Message): OpenRequest {
  const resume = partOf(open, 'resume');
  const recovery = open['recovery'];
  return {
    format: formatOf(open),
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
  };
}

function readStartTurn(turn: Message, api: Api): StartTurn {
  const create = createBodyToUpstream(partOf(turn, 'create') ?? {}, 'start_turn.create', api);
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
    inputMode: turn['input_mode'] === 2 ? 'fullHistory' : 'incremental',
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

function readCreateResponse(request: Message, turnId: string, api: Api): CreateResponseRequest {
  const create = createBodyToUpstream(partOf(request, 'create') ?? {}, 'create', api);
  const { previousResponseId: responseId } = create;
  return {
    format: formatOf(request),
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

function readCompact(request: Message, api: Api): CompactRequest {
  return {
    ...compactBodyToUpstream(partOf(request, 'compact') ?? {}, 'compact', api),
    format: formatOf(request),
    upstream: textOf(request, 'upstream') || undefined,
    timeoutMs: timeLimitMs(request['timeout'], 'timeout'),
    traceContext: traceOf(request),
  };
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

/** A payload choice of a newer client is none that we know: typed, which is the default. */
function formatOf(message: Message): EventFormat {
  return {
    payload: PAYLOADS[Number(message['payload'] ?? 0)] ?? 'typed',
    schemaRevision: Number(message['schema_revision'] ?? 0),
  };
}

function traceOf(message: Message): TraceContext | undefined {
  const trace = partOf(message, 'trace_context');
  const traceparent = trace === undefined ? '' : textOf(trace, 'traceparent');
  if (trace === undefined || traceparent === '') return undefined;
  const tracestate = textOf(trace, 'tracestate');
  const baggage = textOf(trace, 'baggage');
  return { traceparent, ...(tracestate !== '' && { tracestate }), ...(baggage !== '' && { baggage }) };
}

function partOf(message: Message, name: string): Message | undefined {
  const part = Object.hasOwn(message, name) ? message[name] : undefined;
  return typeof part === 'object' && part !== null ? (part as Message) : undefined;
}

function textOf(message: Message, name: string): string {
  const text = Object.hasOwn(message, name) ? message[name] : undefined;
  return typeof text === 'string' ? text : '';
}

function countOf(message: Message, name: string, path: string): number {
  const count = Number(Object.hasOwn(message, name) ? message[name] : 0);
  if (Number.isSafeInteger(count)) return count;
  throw invalidField(path, String(count), 'a seq that the gateway has sent');
}
