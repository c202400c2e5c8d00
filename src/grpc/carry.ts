import { type ClientDuplexStream, status as grpcStatus, type StatusObject } from '@grpc/grpc-js';
import type { RpcCall } from './call.ts';
import { DETAILS_KEY } from './status.ts';

/**
 * taken: it is the other process's now. unknown: it does not have the session. refused: it does not know us.
 * unreachable: nobody is there. silent: no answer in time. unheard: the client has left before.
 */
export type Answer = 'taken' | 'unknown' | 'refused' | 'unreachable' | 'silent' | 'unheard';

export interface Carried {
  /** Unless it is taken nothing has happened, and the client still waits. */
  readonly answered: Promise<Answer>;
  readonly over: Promise<void>;
}

/** Carries a call on, message by message; both directions are held back by the one who reads them. */
export function carry(
  call: RpcCall,
  stream: ClientDuplexStream<Uint8Array, Buffer>,
  open: Uint8Array,
  openedTimeoutMs: number,
): Carried {
  const answered = Promise.withResolvers<Answer>();
  const over = Promise.withResolvers<void>();
  let answer: Answer | undefined;
  let status: StatusObject | undefined;
  let ended = false;
  const settle = (what: Answer): void => {
    clearTimeout(timer);
    answer = what;
    answered.resolve(what);
  };
  const finish = (): void => {
    // The status comes when it is received, which may be before the last messages are read.
    if (status === undefined || !ended) return;
    if (answer === undefined) settle(answerOf(status));
    // A refusal is the client's to hear: the session is still there, and it may try again.
    if (answer === 'taken') call.endWith(status);
    over.resolve();
  };
  const timer = setTimeout(() => {
    settle('silent');
    stream.cancel();
  }, openedTimeoutMs);
  stream.on('data', (bytes: Buffer) => {
    if (answer === 'silent' || answer === 'unheard') return;
    call.write(bytes);
    if (!call.hasRoom) stream.pause();
    if (answer !== undefined) return;
    settle('taken');
    call.onRoom = () => stream.resume();
    void carryUp(call, stream);
  });
  const left = (): void => {
    stream.cancel();
    // Nobody waits for a session any more, wherever it would be.
    if (answer === undefined) settle('unheard');
    over.resolve();
  };
  call.signal.addEventListener('abort', left, { once: true });
  // What follows when the call is served here after all is not this stream's business.
  void answered.promise.then((what) => {
    if (what !== 'taken') call.signal.removeEventListener('abort', left);
  });
  // The same as the status says.
  stream.on('error', () => {});
  stream.on('status', (received: StatusObject) => {
    status = received;
    finish();
  });
  stream.on('end', () => {
    ended = true;
    finish();
  });
  stream.write(open);
  return { answered: answered.promise, over: over.promise };
}

/** A status before the first message. */
function answerOf({ code, metadata }: StatusObject): Answer {
  if (code === grpcStatus.NOT_FOUND) return 'unknown';
  if (code === grpcStatus.UNAUTHENTICATED) return 'refused';
  if (code === grpcStatus.UNAVAILABLE) return 'unreachable';
  // What no gateway said: another server has the address now, or a port that wants TLS.
  return code === grpcStatus.OK || metadata.get(DETAILS_KEY).length > 0 ? 'taken' : 'unreachable';
}

async function carryUp(call: RpcCall, stream: ClientDuplexStream<Uint8Array, Buffer>): Promise<void> {
  for (;;) {
    const received = await call.read();
    if (received.kind === 'gone') return stream.cancel();
    if (received.kind === 'halfClose') {
      return void ((await call.halfCloseHolds()) ? stream.end() : stream.cancel());
    }
    if (!stream.write(received.bytes)) await roomOrEnd(call, stream);
  }
}

function roomOrEnd(call: RpcCall, stream: ClientDuplexStream<Uint8Array, Buffer>): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      stream.off('drain', done);
      call.signal.removeEventListener('abort', done);
      resolve();
    };
    stream.once('drain', done);
    call.signal.addEventListener('abort', done, { once: true });
  });
}
