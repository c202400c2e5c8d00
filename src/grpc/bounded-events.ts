import type { SessionEvent } from '../core/types.ts';
import type { EventFormat, Wire } from '../translate/index.ts';

/** How a stream's client wants its events, and the largest message that it takes. */
export interface BoundedFormat {
  readonly wire: Wire;
  readonly format: EventFormat;
  readonly maxMessageBytes: number;
  readonly encode: (events: readonly SessionEvent[], format: EventFormat) => Uint8Array;
}

/** The batch in messages that the client takes: cut where it has many events, without its content where it is one. */
export function boundedMessages(
  events: readonly SessionEvent[],
  bounded: BoundedFormat,
): readonly Uint8Array[] {
  const { wire, format, maxMessageBytes, encode } = bounded;
  const message = encode(events, format);
  if (message.length <= maxMessageBytes) return [message];
  const [first] = events;
  if (first === undefined) return [message];
  if (events.length === 1) return [encode([wire.withoutContent(first, format, message.length)], format)];
  const half = events.length >> 1;
  return [
    ...boundedMessages(events.slice(0, half), bounded),
    ...boundedMessages(events.slice(half), bounded),
  ];
}
