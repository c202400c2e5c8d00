import { status } from '@grpc/grpc-js';

/**
 * grpc-js tells a status that is not OK as soon as the trailers have come, and drops the messages before them that were
 * not read yet: the last events of a session, and with them the outcomes of turns. There is no public way to have them,
 * so the transport's own call is made to wait until all was read, as it does by itself for OK. Meanwhile a write would
 * fail, since the server has ended the call, and put its own status in the place of the server's.
 */
export function readToTheEnd(call: object): void {
  const transport = transportOf(call, 0);
  // Another version of grpc-js: it stays as it is, and a test tells.
  if (!transport) return;
  const told = transport.maybeOutputStatus.bind(transport);
  transport.maybeOutputStatus = () => {
    const { finalStatus, serverEndedCall, http2Stream } = transport;
    const isRead =
      transport.readsClosed &&
      transport.unpushedReadMessages.length === 0 &&
      !transport.isReadFilterPending &&
      !transport.isPushPending;
    if (finalStatus !== null && (isRead || !serverEndedCall || http2Stream.destroyed)) told();
  };
  const startRead = transport.startRead.bind(transport);
  transport.startRead = () => {
    const final = transport.finalStatus;
    // It would take the stream for read.
    if (transport.serverEndedCall && !transport.http2Stream.destroyed) transport.finalStatus = null;
    startRead();
    transport.finalStatus = final;
  };
  const send = transport.sendMessageWithContext.bind(transport);
  transport.sendMessageWithContext = (context, message) => {
    // Node would destroy the stream for it, and all that was not read with it.
    if (transport.serverEndedCall) process.nextTick(() => context.callback?.());
    else send(context, message);
  };
  const cancel = transport.cancelWithStatus.bind(transport);
  transport.cancelWithStatus = (code, details) => {
    // A write that was on its way.
    const isOfWriting = code === status.UNAVAILABLE || code === status.INTERNAL;
    if (isOfWriting && transport.serverEndedCall && transport.finalStatus !== null) return;
    cancel(code, details);
  };
  // What was not read until then never will be.
  transport.http2Stream.once('close', () => process.nextTick(() => transport.maybeOutputStatus()));
}

/** grpc-js's Http2SubchannelCall, as far as it is touched here. */
interface Transport {
  maybeOutputStatus: () => void;
  startRead: () => void;
  cancelWithStatus: (code: status, details: string) => void;
  sendMessageWithContext: (context: { readonly callback?: () => void }, message: Buffer) => void;
  finalStatus: object | null;
  readonly serverEndedCall: boolean;
  readonly readsClosed: boolean;
  readonly unpushedReadMessages: readonly unknown[];
  readonly isReadFilterPending: boolean;
  readonly isPushPending: boolean;
  readonly http2Stream: { readonly destroyed: boolean; once(event: 'close', listener: () => void): unknown };
}

/** Calls wrap each other: interceptors, resolver, retries, balancer, transport. */
const MOST_WRAPPERS = 12;

function transportOf(call: unknown, depth: number): Transport | undefined {
  if (typeof call !== 'object' || call === null || depth > MOST_WRAPPERS) return undefined;
  if (isTransport(call)) return call;
  const { nextCall, child, call: inner, underlyingCalls } = call as Readonly<Record<string, unknown>>;
  const last: unknown = Array.isArray(underlyingCalls) ? underlyingCalls.at(-1) : undefined;
  for (const one of [nextCall, inner, child, last]) {
    const found = transportOf(one, depth + 1);
    if (found) return found;
  }
  return undefined;
}

function isTransport(call: object): call is Transport {
  return 'unpushedReadMessages' in call && 'maybeOutputStatus' in call && 'http2Stream' in call;
}
