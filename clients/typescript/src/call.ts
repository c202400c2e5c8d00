import { fromBinary } from '@bufbuild/protobuf';
import {
  type ClientDuplexStream,
  type Client as GrpcClient,
  InterceptingCall,
  type Interceptor,
  type Metadata,
  type StatusObject,
} from '@grpc/grpc-js';
import { inferred, type StreamError, streamError } from './errors.ts';
import {
  type ConnectResponse,
  ConnectResponseSchema,
  type Opened,
} from './gen/responses/gateway/v1/session_pb.ts';
import { readToTheEnd } from './grpc-js.ts';
import { CONNECT_PATH } from './service.ts';

/** One gRPC call of a session. */
export interface Call {
  /** Hands over the messages after Opened, and then once the end; undefined stands for OK. */
  listen(onMessage: (response: Received) => void, onEnd: (error: StreamError | undefined) => void): void;
  /** Calls back when the message has left for the transport; maybe never, once the call is over. */
  write(message: Uint8Array, done: () => void): void;
  halfClose(): void;
  cancel(): void;
  /** Stops and resumes receiving. While stopped, HTTP/2 holds the gateway up; one message may wait here. */
  pause(): void;
  resume(): void;
}

export interface Received {
  readonly response: ConnectResponse;
  readonly byteLength: number;
}

/**
 * Makes one attempt: Open out, Opened in. Aborting the signal ends it with the signal's reason. `onOver` is called once,
 * when nothing of the call is left.
 */
export function openCall(
  client: GrpcClient,
  open: Uint8Array,
  metadata: Metadata,
  signal: AbortSignal,
  onOver: () => void,
): Promise<{ readonly call: Call; readonly opened: Opened }> {
  const gate = new Gate();
  const stream: ClientDuplexStream<Uint8Array, Received> = client.makeBidiStreamRequest(
    CONNECT_PATH,
    (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    (bytes: Buffer) => ({ response: fromBinary(ConnectResponseSchema, bytes), byteLength: bytes.length }),
    metadata,
    { interceptors: [gate.interceptor] },
  );
  stream.once('status', onOver);
  // `status` tells the same, also of the calls that ended well.
  stream.on('error', () => {});
  const cancel = () => {
    stream.cancel();
    // A message that waits at the gate would hold back the end of the call.
    gate.open();
  };
  const { promise, resolve, reject } = Promise.withResolvers<{ call: Call; opened: Opened }>();
  const onAbort = () => {
    reject(signal.reason);
    cancel();
  };
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  const onEarlyEnd = (status: StatusObject) => reject(streamError(status, 'UNREACHABLE'));
  stream.once('status', onEarlyEnd);
  stream.once('data', ({ response }: Received) => {
    gate.close();
    const { message } = response;
    if (message.case !== 'opened') {
      cancel();
      return reject(inferred('INTERNAL', 'PROTOCOL', 'the first message was not Opened'));
    }
    stream.off('status', onEarlyEnd);
    // The end may come before anybody listens.
    const { promise: ended, resolve: end } = Promise.withResolvers<StatusObject>();
    stream.once('status', end);
    resolve({
      opened: message.value,
      call: {
        listen(onMessage, onEnd) {
          stream.on('data', onMessage);
          void ended.then((status) =>
            onEnd(status.code === 0 ? undefined : streamError(status, 'STREAM_LOST')),
          );
          gate.open();
        },
        write: (bytes, done) => void stream.write(bytes, done),
        halfClose: () => void stream.end(),
        cancel,
        pause: () => gate.close(),
        resume: () => gate.open(),
      },
    });
  });
  stream.write(open);
  return promise.finally(() => signal.removeEventListener('abort', onAbort));
}

/** grpc-js asks for the next message only when the last one went through: closing the gate stops receiving. */
class Gate {
  #isOpen = true;
  #waiting: (() => void) | undefined;

  readonly interceptor: Interceptor = (options, nextCall) => {
    const call = nextCall(options);
    let isFirst = true;
    return new InterceptingCall(call, {
      start: (metadata, _listener, next) =>
        next(metadata, {
          onReceiveMessage: (message, forward) => {
            if (isFirst) readToTheEnd(call);
            isFirst = false;
            if (this.#isOpen) forward(message);
            else this.#waiting = () => forward(message);
          },
        }),
    });
  };

  close(): void {
    this.#isOpen = false;
  }

  open(): void {
    this.#isOpen = true;
    const forward = this.#waiting;
    this.#waiting = undefined;
    forward?.();
  }
}
