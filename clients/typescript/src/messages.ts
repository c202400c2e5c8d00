import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import type { InputItem } from './gen/responses/gateway/v1/items_pb.ts';
import {
  ConnectRequestSchema,
  PayloadFormat,
  type StartTurn,
} from './gen/responses/gateway/v1/session_pb.ts';
import { type Budget, DEFAULT_HEARTBEAT_MS, type SessionOptions } from './options.ts';

/** The newest `since_revision` of the generated code: what is newer comes as raw JSON. */
const SCHEMA_REVISION = 3;

/** What the calls of a session take in one message. */
export interface Receiving {
  readonly maxReceiveBytes: number;
}

export function openMessage(
  options: SessionOptions,
  { maxReceiveBytes }: Receiving,
  resume: { readonly token: string; readonly lastSeq: number; readonly lastCommit: bigint } | undefined,
): Uint8Array {
  return encode({
    case: 'open',
    value: {
      payload: options.rawJson ? PayloadFormat.BOTH : PayloadFormat.UNSPECIFIED,
      schemaRevision: SCHEMA_REVISION,
      upstream: options.upstream ?? '',
      metadata: { ...options.labels },
      model: options.model ?? '',
      clientName: options.clientName ?? '',
      clientVersion: options.clientVersion ?? '',
      heartbeatInterval: durationOf(options.heartbeatMs ?? DEFAULT_HEARTBEAT_MS),
      // -1 is no limit to grpc-js.
      maxMessageBytes: BigInt(maxReceiveBytes < 0 ? Number.MAX_SAFE_INTEGER : maxReceiveBytes),
      ...(options.recovery !== undefined && { recovery: options.recovery }),
      ...(options.budget && { budget: budgetMessage(options.budget) }),
      ...(resume && { resume: { ...resume, lastSeq: BigInt(resume.lastSeq) } }),
    },
  });
}

function budgetMessage({ tokens = 0, money = '', turns = 0 }: Budget) {
  return { tokens: BigInt(tokens), money, turns };
}

export function startMessage(value: StartTurn): Uint8Array {
  return encode({ case: 'startTurn', value });
}

export function steerMessage(laneId: string, turnId: string, input: InputItem[]): Uint8Array {
  return encode({ case: 'steerTurn', value: { laneId, turnId, input } });
}

export function cancelMessage(turn: {
  readonly id: string;
  readonly lane: { readonly id: string };
}): Uint8Array {
  return encode({ case: 'cancelTurn', value: { laneId: turn.lane.id, turnId: turn.id } });
}

export function ackMessage(seq: number): Uint8Array {
  return encode({ case: 'ack', value: { seq: BigInt(seq) } });
}

export function heartbeatMessage(): Uint8Array {
  return encode({ case: 'heartbeat', value: {} });
}

function durationOf(ms: number): { readonly seconds: bigint; readonly nanos: number } {
  const seconds = Math.floor(ms / 1000);
  return { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) };
}

function encode(message: NonNullable<MessageInitShape<typeof ConnectRequestSchema>['message']>): Uint8Array {
  return toBinary(ConnectRequestSchema, create(ConnectRequestSchema, { message }));
}
