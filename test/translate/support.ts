import type protobuf from 'protobufjs';
import type { SessionEvent, UpstreamFrame } from '../../src/core/types.ts';
import { type Api, loadApi } from '../../src/translate/api.ts';
import type { EventFormat } from '../../src/translate/messages.ts';
import { type Message, Writer } from '../../src/translate/writer.ts';

export const TYPED: EventFormat = { payload: 'typed', schemaRevision: 0 };

export function eventOf(frame: UpstreamFrame): SessionEvent {
  return {
    seq: 7,
    laneId: frame.streamId ?? '',
    turnId: 'turn',
    type: frame.type,
    outcome: undefined,
    frame,
    turnFailed: undefined,
    notice: undefined,
    commit: undefined,
    byteLength: frame.bytes.length,
  };
}

export interface DecodedEvent {
  readonly seq: number;
  readonly laneId: string;
  readonly turnId: string;
  readonly type: string;
  readonly outcome: number;
  readonly json: Buffer;
  /** Name of the payload's field, and the payload. */
  readonly payload: readonly [string, Message] | undefined;
}

export function decodeEvent(bytes: Uint8Array, api: Api = loadApi()): DecodedEvent {
  const event = decode('Event', bytes, api);
  const names = new Set(api.type('Event').oneofs['payload']?.oneof);
  const arm = Object.keys(event).find((name) => names.has(name));
  return {
    seq: Number(event['seq']),
    laneId: String(event['lane_id']),
    turnId: String(event['turn_id']),
    type: String(event['type']),
    outcome: Number(event['outcome']),
    json: Buffer.from(event['json'] as Uint8Array),
    payload: arm === undefined ? undefined : [arm, event[arm] as Message],
  };
}

export function decode(name: string, bytes: Uint8Array, api: Api = loadApi()): Message {
  return api.type(name).decode(bytes) as unknown as Message;
}

export function encode(name: string, value: object, api: Api = loadApi()): Uint8Array {
  const type: protobuf.Type = api.type(name);
  return type.encode(type.fromObject(value)).finish();
}

export function payloadOf(event: DecodedEvent): Message {
  if (event.payload === undefined) throw new Error(`${event.type} has no typed payload`);
  return event.payload[1];
}

/** The upstream's document as far as the typed payload and the envelope tell it. */
export function documentOf(event: DecodedEvent, api: Api = loadApi()): unknown {
  const field = api
    .plan('Event')
    .slots.flatMap((slot) => slot.fields)
    .find((candidate) => candidate.name === event.payload?.[0]);
  if (field === undefined || event.payload === undefined) throw new Error('the event has no typed payload');
  const json = new Writer(false).arm(field, 'type', event.payload[1], 'event');
  return { ...(JSON.parse(json) as object), ...(event.laneId !== '' && { stream_id: event.laneId }) };
}

/** Null and absent are one; so are -0 and 0, as JSON.stringify has it. */
export function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([, member]) => member !== null && member !== undefined);
  const copy: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  for (const [key, member] of entries) copy[key] = withoutNulls(member);
  return copy;
}
