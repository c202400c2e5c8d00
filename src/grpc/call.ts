import { constants as http2 } from 'node:http2';
import {
  status as grpcStatus,
  Metadata,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type StatusObject,
} from '@grpc/grpc-js';
import { GatewayError, type StatusCode } from '../errors.ts';
import { steadyNow } from '../session/clock.ts';
import { ByteLedger } from './hardening/flow.ts';
import { type Pingable, roundTrip } from './hardening/round-trip.ts';
import { hearBytes, isInMessage } from './message-decoder.ts';
import { toStatus } from './status.ts';

/**
 * Bytes of one stream that may be on their way to the client. Several times the bandwidth-delay product that
 * HTTP/2's default window of 64 KiB allows, and small beside the core's own buffer, which is the real one.
 */
const MAX_IN_FLIGHT_BYTES = 256 * 1024;

/**
 * How long an ended call may take to leave: a client that does not read never gets its status, and one that
 * goes on sending never stops. Then the stream is reset.
 */
const END_TIMEOUT_MS = 5_000;

const OVER = 'the call is over';

type Status = Parameters<ServerInterceptingCallInterface['sendStatus']>[0];

export interface ReceivedMessage {
  readonly kind: 'message';
  /** To be given to `doneWith` by whoever has read them. */
  readonly bytes: Uint8Array;
  /** When its first byte arrived, as far as is known. */
  readonly beganAtMs: number;
}

export type Received = ReceivedMessage | { readonly kind: 'halfClose' } | { readonly kind: 'gone' };

/** What a call reports when it is over. `isCut`: in the middle of a message of the client, or with one that is too large. */
export type CallEnd = (status: StatusCode | 'OK', isCut: boolean) => void;

/**
 * One RPC, on grpc-js's own call instead of its Duplex: a Duplex takes in 16 messages that nobody asked for,
 * loses the callbacks of pending writes on cancel, and tells a cancelled client from a finished one by three
 * different events.
 */
export class RpcCall {
  readonly method: string;
  readonly metadata: Metadata;
  /** The client may be written to again. */
  onRoom: () => void = nothing;
  /** The client is gone, or the call has ended otherwise: nothing can be read or written any more. */
  onGone: () => void = nothing;

  readonly #base: ServerInterceptingCallInterface;
  #over: AbortController | undefined;
  readonly #ledger = new ByteLedger(MAX_IN_FLIGHT_BYTES);
  readonly #written = () => {
    if (this.#ledger.left() && !this.#gone) this.onRoom();
  };
  #reader: ((received: Received) => void) | undefined;
  #heard = false;
  #ended = false;
  #gone = false;

  constructor(base: ServerInterceptingCallInterface, method: string, metadata: Metadata) {
    this.#base = base;
    this.method = method;
    this.metadata = metadata;
  }

  /** Aborts with `onGone`. Made when somebody asks: a session at rest does without. */
  get signal(): AbortSignal {
    this.#over ??= new AbortController();
    if (this.#gone) this.#over.abort(OVER);
    return this.#over.signal;
  }

  get hasRoom(): boolean {
    return this.#ledger.hasRoom;
  }

  get inFlightBytes(): number {
    return this.#ledger.inFlightBytes;
  }

  /** Whoever ended it. */
  get over(): boolean {
    return this.#ended || this.#gone;
  }

  /** What its calls share. */
  get connection(): object {
    return http2Stream(this.#base)?.session ?? this.#base;
  }

  get peer(): string {
    return this.#base.getPeer();
  }

  get authority(): string {
    return this.#base.getHost();
  }

  /** Verified client certificate in DER. */
  get peerCertificate(): Uint8Array | undefined {
    return this.#base.getAuthContext().sslPeerCertificate?.raw;
  }

  /** The next message. One at a time: the client is held back by HTTP/2 until it is asked for. */
  read(): Promise<Received> {
    if (this.over) return Promise.resolve({ kind: 'gone' });
    return new Promise((resolve) => {
      this.#reader = resolve;
      this.#base.startRead();
    });
  }

  /** Somebody waits for the next message. */
  get isReading(): boolean {
    return this.#reader !== undefined;
  }

  /** Bytes of the client have come. */
  heard(): void {
    this.#heard = true;
  }

  /** Whether any have come since the last look. */
  takeHeard(): boolean {
    const heard = this.#heard;
    this.#heard = false;
    return heard;
  }

  /** Sends the headers before the first message: proxies wait for them, and not for long. */
  sendHeaders(): void {
    if (!this.over) this.#base.sendMetadata(new Metadata());
  }

  /** Never blocks and never throws; look at `hasRoom` before. */
  write(message: Uint8Array): void {
    if (this.over) return;
    this.#ledger.wrote(message.length);
    this.#base.sendMessage(message, this.#written);
  }

  /**
   * Whether a half-close was meant: a cancelling grpc-js client ends its side first, and resets the stream in the same turn
   * of its event loop.
   */
  async halfCloseHolds(): Promise<boolean> {
    const stream = http2Stream(this.#base);
    if (stream === undefined || this.over) return !this.over;
    const { session } = stream;
    // A connection that ends does so before its calls are told, and leaves them without one.
    if (session === undefined) return false;
    await Promise.race([roundTrip(session), this.#untilGone()]);
    // A reset shows here before it is told.
    return !this.over && stream.closed !== true && !session.destroyed;
  }

  #untilGone(): Promise<void> {
    const { signal } = this;
    return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  }

  /** Ends the call after everything written. Repeated calls do nothing. */
  end(error?: GatewayError): void {
    this.endWith(toStatus(error));
  }

  /** The same with the status that another process gave. */
  endWith(status: StatusObject): void {
    if (this.over) return;
    this.#ended = true;
    this.#base.sendStatus(status);
    // Whatever the client still sends is nobody's any more.
    this.received({ kind: 'gone' });
  }

  received(received: Received): void {
    const reader = this.#reader;
    this.#reader = undefined;
    reader?.(received);
  }

  /** Called once with the final status, by whoever set it. */
  onEnd: CallEnd = nothing;

  gone(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.onGone();
    // Without a reason of ours each one makes an error with a stack.
    this.#over?.abort(OVER);
    this.received({ kind: 'gone' });
  }
}

/** Serves a method by an RpcCall; the handler registered with grpc-js is never reached. */
export class TakenCall extends ServerInterceptingCall {
  readonly #base: ServerInterceptingCallInterface;
  readonly #method: string;
  readonly #serve: (call: RpcCall) => void;

  constructor(base: ServerInterceptingCallInterface, method: string, serve: (call: RpcCall) => void) {
    super(base);
    this.#base = base;
    this.#method = method;
    this.#serve = serve;
  }

  override start(): void {
    let call: RpcCall | undefined;
    let beganAtMs: number | undefined;
    hearBytes(this.#base, () => {
      beganAtMs ??= steadyNow();
      call?.heard();
    });
    this.#base.start({
      onReceiveMetadata: (metadata) => {
        call = new RpcCall(this.#base, this.#method, metadata);
        this.#serve(call);
      },
      onReceiveMessage: (bytes: Uint8Array) => {
        call?.received({ kind: 'message', bytes, beganAtMs: beganAtMs ?? steadyNow() });
        beganAtMs = undefined;
      },
      // A reset ends the readable side as well, before the cancellation is told (grpc-node issue 2583).
      onReceiveHalfClose: () => call?.received({ kind: 'halfClose' }),
      onCancel: () => call?.gone(),
    });
  }
}

/**
 * Watches how a call ends, whoever ends it: handler, client, deadline or grpc-js itself, which ends calls by
 * `sendStatus` on its own object. Gives grpc-js's own refusals our error details, and resets streams that do
 * not leave. `unreadTimeoutMs` is what the client may still take for what it was sent before the status.
 */
export function watchEnd(
  base: ServerInterceptingCallInterface,
  maxMessageBytes: number,
  onEnd: CallEnd,
  unreadTimeoutMs: () => number,
): void {
  const stream = http2Stream(base);
  const send = base.sendStatus.bind(base);
  let told = false;
  const tell = (status: StatusCode | 'OK', isCut = isInMessage(base)) => {
    if (told) return;
    told = true;
    onEnd(status, isCut);
  };
  base.sendStatus = (status) => {
    const isTooLarge = isRefusalForLength(status);
    const full = isTooLarge ? tooLarge(maxMessageBytes) : status;
    send(full);
    tell(statusName(full.code), isTooLarge || isInMessage(base));
    if (stream === undefined || stream.destroyed) return;
    if (isTooLarge) leaveUnread(stream);
    const leaveMs = Math.max(END_TIMEOUT_MS, unreadTimeoutMs());
    const timer = setTimeout(() => {
      // The status waits behind what the client does not read. CANCEL, as a status of the stream's own would tell the
      // client that the session is over: so it resumes, and gets all of it.
      stream.close(http2.NGHTTP2_CANCEL);
      stream.resume();
    }, leaveMs);
    stream.once('close', () => clearTimeout(timer));
  };
  stream?.on('close', () => tell('CANCELLED'));
}

/** Ends the stream at once and drops what it holds; the client sees RESOURCE_EXHAUSTED. */
export function reset(base: ServerInterceptingCallInterface): void {
  http2Stream(base)?.close(http2.NGHTTP2_ENHANCE_YOUR_CALM);
}

/**
 * A message that is refused for its length is still being sent. What nobody reads shuts the stream's window and ends
 * that; but a stream with something unread does not leave by itself.
 */
function leaveUnread(stream: ClosableStream): void {
  stream.pause();
  stream.once('aborted', () => stream.resume());
}

interface ClosableStream {
  /** Also when it was reset and nobody has been told yet. */
  readonly closed?: boolean;
  readonly destroyed: boolean;
  readonly session?: Pingable | undefined;
  close(code: number): void;
  pause(): unknown;
  resume(): unknown;
  once(event: 'aborted' | 'close', listener: () => void): unknown;
  on(event: 'close', listener: () => void): unknown;
}

/** grpc-js has no public way to reset a stream from the server's side; a private field is the only handle. */
export function http2Stream(base: object): ClosableStream | undefined {
  const stream = 'stream' in base ? base.stream : undefined;
  return isClosable(stream) ? stream : undefined;
}

function isClosable(value: unknown): value is ClosableStream {
  return (
    typeof value === 'object' &&
    value !== null &&
    'close' in value &&
    'pause' in value &&
    'on' in value &&
    'once' in value &&
    'destroyed' in value
  );
}

function tooLarge(maxMessageBytes: number): Status {
  return toStatus(
    new GatewayError('MESSAGE_TOO_LARGE', `message over the limit of ${maxMessageBytes} bytes`, {
      metadata: { limit: 'max_message_bytes', max_bytes: String(maxMessageBytes) },
    }),
  );
}

/** grpc-js's own. */
function isRefusalForLength({ code, details }: Status): boolean {
  return (
    code === grpcStatus.RESOURCE_EXHAUSTED &&
    /^Received message (larger than|that decompresses)/.test(String(details))
  );
}

function nothing(): void {}

function statusName(code: number | null | undefined): StatusCode | 'OK' {
  return (grpcStatus[code ?? grpcStatus.UNKNOWN] ?? 'UNKNOWN') as StatusCode | 'OK';
}
