import { BinaryReader, type WireType } from '@bufbuild/protobuf/wire';
import type { Duration } from '@bufbuild/protobuf/wkt';
import { type Metadata, status } from '@grpc/grpc-js';
import {
  type Event as EventMessage,
  ReplayVerdict,
  type TurnFailed,
  TurnPhase,
} from './gen/responses/gateway/v1/event_pb.ts';
import type { FunctionCall } from './gen/responses/gateway/v1/items_pb.ts';
import { PATH_CAUSES } from './path-causes.ts';
import type { InferredReason, Reason } from './reasons.ts';
import type { Result } from './result.ts';

const CODES = [
  'OK',
  'CANCELLED',
  'UNKNOWN',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
  'UNAUTHENTICATED',
] as const;

/** The gRPC codes by their canonical names. */
export type Code = (typeof CODES)[number];

/** Whether a failed turn may be sent again: it certainly did not run, it ran wholly or in part, it may have run. */
export type Replay = 'safe' | 'unsafe' | 'unknown';

/** How far a turn had come. */
export type Phase = 'not_sent' | 'sent' | 'created' | 'output_started';

/** What the upstream said. Open sets: new values appear without notice. */
export interface UpstreamErrorFacts {
  /** HTTP status, 0 if it gave none. */
  readonly status: number;
  readonly type: string;
  readonly code: string;
  readonly message: string;
  readonly param: string;
  readonly json: Uint8Array;
}

export interface GatewayErrorFields {
  readonly code: Code;
  readonly reason: string;
  readonly message: string;
  readonly domain?: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly retryAfterMs?: number | undefined;
  readonly inferred?: boolean;
  readonly cause?: unknown;
}

/** Trouble with a turn ({@link TurnError}) or with a whole session ({@link StreamError}). */
export abstract class GatewayError extends Error {
  readonly code: Code;
  /** Stable and meant for programs, for instance `UPSTREAM_RATE_LIMITED`; see {@link Reason}. */
  readonly reason: Reason | (string & {});
  /** Whose `reason` it is. */
  readonly domain: string;
  /** Small facts, for instance `{ field: 'create.temperature' }`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Earliest time to try again, from now; undefined when waiting is not known to help. */
  readonly retryAfterMs: number | undefined;
  /** The client concluded it; the gateway did not say it. */
  readonly inferred: boolean;
  /** Whether what failed may be sent again; undefined for sessions. */
  abstract readonly replay: Replay | undefined;

  constructor(fields: GatewayErrorFields) {
    super(fields.message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.code = fields.code;
    this.reason = fields.reason;
    this.domain = fields.domain ?? DOMAIN;
    this.metadata = fields.metadata ?? {};
    this.retryAfterMs = fields.retryAfterMs;
    this.inferred = fields.inferred ?? false;
  }

  /** `code` as the number that grpc-js has for it. */
  get statusCode(): status {
    return status[this.code];
  }

  /** The error as plain values, for logs. */
  toJSON(): Readonly<Record<string, unknown>> {
    const { name, code, reason, message, metadata, retryAfterMs, inferred, replay } = this;
    return { name, code, reason, message, metadata, retryAfterMs, inferred, replay };
  }
}

/** Trouble with one turn; its session lives on, unless `inferred` by the session's end. */
export class TurnError extends GatewayError {
  override readonly name = 'TurnError';
  override readonly replay: Replay;
  readonly phase: Phase | undefined;
  readonly laneId: string;
  readonly turnId: string;
  readonly upstream: UpstreamErrorFacts | undefined;
  /** What had arrived of the turn; undefined if it did not begin. */
  result: Result | undefined;

  constructor(
    fields: GatewayErrorFields & {
      readonly replay: Replay;
      readonly phase?: Phase | undefined;
      readonly laneId: string;
      readonly turnId: string;
      readonly upstream?: UpstreamErrorFacts | undefined;
    },
  ) {
    super(fields);
    this.replay = fields.replay;
    this.phase = fields.phase;
    this.laneId = fields.laneId;
    this.turnId = fields.turnId;
    this.upstream = fields.upstream;
  }

  override toJSON(): Readonly<Record<string, unknown>> {
    const { laneId, turnId, phase } = this;
    return { ...super.toJSON(), laneId, turnId, phase };
  }
}

/** Trouble with a whole session. */
export class StreamError extends GatewayError {
  override readonly name = 'StreamError';
  override readonly replay = undefined;

  /** The session's end as the end of one of its turns. */
  forTurn(turn: { readonly id: string; readonly lane: { readonly id: string } }, replay: Replay): TurnError {
    return new TurnError({
      code: this.code,
      reason: this.reason,
      message: this.message,
      domain: this.domain,
      metadata: this.metadata,
      retryAfterMs: this.retryAfterMs,
      inferred: true,
      cause: this.cause,
      laneId: turn.lane.id,
      turnId: turn.id,
      replay,
    });
  }

  /**
   * Whether the session may still live behind a stream that ended so: the transport broke, or the gateway cut a slow
   * reader or is short of room. Whatever else the gateway says is meant.
   */
  get resumable(): boolean {
    if (!this.inferred) return GOES_ON.has(this.reason);
    // A token source may do better next time.
    return RESUMABLE.has(this.code) || this.reason === 'TOKEN_SOURCE_FAILED';
  }
}

/**
 * A tool loop reached one of its limits; `reason` says which. The lane can be used: its next turn answers the calls that
 * are open.
 */
export class LoopLimitError extends GatewayError {
  override readonly name = 'LoopLimitError';
  override readonly replay = undefined;
  /** What the loop came to so far, with the usage of all its turns. */
  readonly result: Result;
  /** Calls of the model that were not made. */
  readonly openCalls: readonly FunctionCall[];

  constructor(
    code: Code,
    reason: InferredReason,
    message: string,
    result: Result,
    openCalls: readonly FunctionCall[],
  ) {
    super({ code, reason, message, inferred: true });
    this.result = result;
    this.openCalls = openCalls;
  }
}

/** A second reader read a turn that already has one. */
export class TurnBusyError extends GatewayError {
  override readonly name = 'TurnBusyError';
  override readonly replay = undefined;

  constructor() {
    const message = 'the turn already has a reader';
    super({ code: 'FAILED_PRECONDITION', reason: 'TURN_BUSY', message, inferred: true });
  }
}

const DOMAIN = 'responses-gateway';
/** The gateway ended the stream, and keeps the session. */
const GOES_ON: ReadonlySet<string> = new Set(['SLOW_CONSUMER', 'OVERLOADED', 'CLIENT_SILENT']);
const RESUMABLE: ReadonlySet<Code> = new Set([
  'OK',
  'UNAVAILABLE',
  'INTERNAL',
  'UNKNOWN',
  'CANCELLED',
  'DEADLINE_EXCEEDED',
]);
const REPLAYS = new Map<ReplayVerdict, Replay>([
  [ReplayVerdict.SAFE, 'safe'],
  [ReplayVerdict.UNSAFE, 'unsafe'],
]);
const PHASES = new Map<TurnPhase, Phase>([
  [TurnPhase.NOT_SENT, 'not_sent'],
  [TurnPhase.SENT, 'sent'],
  [TurnPhase.CREATED, 'created'],
  [TurnPhase.OUTPUT_STARTED, 'output_started'],
]);

export function inferred(
  code: Code,
  reason: InferredReason | 'SESSION_EXPIRED' | 'ENGINE_LOST_DATA' | 'DRAINING' | 'MESSAGE_TOO_LARGE',
  message: string,
  cause?: unknown,
  metadata: Readonly<Record<string, string>> = {},
): StreamError {
  return new StreamError({ code, reason, message, inferred: true, cause, metadata });
}

export function turnError(event: EventMessage, failed: TurnFailed): TurnError {
  return new TurnError({
    code: codeOf(failed.code),
    reason: failed.reason,
    message: failed.message,
    metadata: failed.metadata,
    retryAfterMs: failed.retryAfter && durationMs(failed.retryAfter),
    replay: REPLAYS.get(failed.replay) ?? 'unknown',
    phase: PHASES.get(failed.phase),
    laneId: event.laneId,
    turnId: event.turnId,
    upstream: failed.upstreamError,
  });
}

/** The end of a gRPC call as an error. `otherwise` is the reason if the gateway gave none. */
export function streamError(
  status: { readonly code: number; readonly details: string; readonly metadata?: Metadata },
  otherwise: InferredReason,
): StreamError {
  const info = { reason: '', domain: '', metadata: {} as Record<string, string> };
  let retryAfterMs: number | undefined;
  const bin = status.metadata?.get('grpc-status-details-bin')[0];
  if (bin instanceof Uint8Array) {
    try {
      for (const { typeUrl, value } of statusDetails(bin)) {
        if (typeUrl.endsWith('/google.rpc.ErrorInfo')) readErrorInfo(value, info);
        if (typeUrl.endsWith('/google.rpc.RetryInfo')) retryAfterMs = readRetryDelayMs(value);
      }
    } catch {
      // Not the gateway's.
    }
  }
  const own = info.domain === DOMAIN;
  const code = codeOf(status.code);
  const path = own ? undefined : pathOf(code, status.details);
  return new StreamError({
    code,
    reason: own ? info.reason : otherwise,
    message: path ? `${status.details} (${path.says})` : status.details,
    domain: own ? DOMAIN : '',
    metadata: own ? info.metadata : (path?.metadata ?? {}),
    retryAfterMs,
    inferred: !own,
  });
}

/** grpc-js and the other libraries write the status of an HTTP answer that is none of gRPC's so. */
const HTTP_STATUS = /\bstatus(?: code)?(?: received from server)?:? (\d{3})\b/i;

/** What something on the way has done, where the gateway has said nothing. */
function pathOf(
  code: Code,
  message: string,
): { readonly says: string; readonly metadata: Readonly<Record<string, string>> } | undefined {
  const status = HTTP_STATUS.exec(message)?.[1];
  const cause = PATH_CAUSES.find(({ http, text, codes }) =>
    status === undefined
      ? codes.includes(code) || (text !== '' && message.toLowerCase().includes(text))
      : http.includes(Number(status)) || http.includes(0),
  );
  if (!cause) return undefined;
  return {
    says: cause.says,
    metadata: { path: cause.name, ...(status !== undefined && { http_status: status }) },
  };
}

export function codeOf(number: number): Code {
  return CODES[number] ?? 'UNKNOWN';
}

export function durationMs(duration: Duration): number {
  return Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

/** google.rpc.Status, of which only the details are of interest: field 3, each an Any. */
function statusDetails(bytes: Uint8Array): { typeUrl: string; value: Uint8Array }[] {
  const details: { typeUrl: string; value: Uint8Array }[] = [];
  eachField(bytes, (field, reader) => {
    if (field !== 3) return false;
    const detail: { typeUrl: string; value: Uint8Array } = { typeUrl: '', value: new Uint8Array() };
    eachField(reader.bytes(), (inner, any) => {
      if (inner === 1) detail.typeUrl = any.string();
      else if (inner === 2) detail.value = any.bytes();
      else return false;
      return true;
    });
    details.push(detail);
    return true;
  });
  return details;
}

function readErrorInfo(
  bytes: Uint8Array,
  info: { reason: string; domain: string; metadata: Record<string, string> },
): void {
  eachField(bytes, (field, reader) => {
    if (field === 1) info.reason = reader.string();
    else if (field === 2) info.domain = reader.string();
    else if (field === 3) {
      let key = '';
      let value = '';
      eachField(reader.bytes(), (inner, entry) => {
        if (inner === 1) key = entry.string();
        else if (inner === 2) value = entry.string();
        else return false;
        return true;
      });
      info.metadata[key] = value;
    } else return false;
    return true;
  });
}

function readRetryDelayMs(bytes: Uint8Array): number {
  let delayMs = 0;
  eachField(bytes, (field, reader) => {
    if (field !== 1) return false;
    eachField(reader.bytes(), (inner, duration) => {
      if (inner === 1) delayMs += Number(duration.int64()) * 1000;
      else if (inner === 2) delayMs += duration.int32() / 1e6;
      else return false;
      return true;
    });
    return true;
  });
  return delayMs;
}

/** Calls `take` with each field; it returns false for those that it did not read. */
function eachField(bytes: Uint8Array, take: (field: number, reader: BinaryReader) => boolean): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (!take(field, reader)) reader.skip(wireType as WireType, field);
  }
}
