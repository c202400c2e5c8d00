/** Reads members of decoded messages. */
import type { TraceContext } from '../core/types.ts';
import { invalidField } from '../errors.ts';
import type { EventFormat } from './messages.ts';
import type { Message } from './writer.ts';

const PAYLOADS = ['typed', 'typed', 'json', 'both'] as const;

/** A payload choice of a newer client is none that we know: typed, which is the default. */
export function formatOf(message: Message): EventFormat {
  return {
    payload: PAYLOADS[Number(message['payload'] ?? 0)] ?? 'typed',
    schemaRevision: Number(message['schema_revision'] ?? 0),
  };
}

export function traceOf(message: Message): TraceContext | undefined {
  const trace = partOf(message, 'trace_context');
  const traceparent = trace === undefined ? '' : textOf(trace, 'traceparent');
  if (trace === undefined || traceparent === '') return undefined;
  const tracestate = textOf(trace, 'tracestate');
  const baggage = textOf(trace, 'baggage');
  return { traceparent, ...(tracestate !== '' && { tracestate }), ...(baggage !== '' && { baggage }) };
}

export function partOf(message: Message, name: string): Message | undefined {
  const part = Object.hasOwn(message, name) ? message[name] : undefined;
  return typeof part === 'object' && part !== null ? (part as Message) : undefined;
}

export function textOf(message: Message, name: string): string {
  const text = Object.hasOwn(message, name) ? message[name] : undefined;
  return typeof text === 'string' ? text : '';
}

export function countOf(message: Message, name: string, path: string): number {
  const count = Number(Object.hasOwn(message, name) ? message[name] : 0);
  if (Number.isSafeInteger(count)) return count;
  throw invalidField(path, String(count), 'a seq that the gateway has sent');
}

/** gRPC's libraries take so much by default. */
const DEFAULT_TAKEN_BYTES = 4 * 1024 * 1024;
/** An event without content always fits. */
const MIN_TAKEN_BYTES = 64 * 1024;

/** The largest message of a client, from its `max_message_bytes`. */
export function takenBytes(value: unknown): number {
  const bytes = Number(value ?? 0);
  return bytes > 0 ? Math.max(bytes, MIN_TAKEN_BYTES) : DEFAULT_TAKEN_BYTES;
}
