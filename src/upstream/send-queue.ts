import type { WebSocket } from 'ws';
import { OutgoingText } from './outgoing-text.ts';
import { SendWindow } from './send-window.ts';

export interface SendQueueOptions {
  /** Messages above it go out as fragments of this size. Infinity: never, for servers that take no fragments. */
  readonly fragmentBytes: number;
  readonly highWaterBytes: number;
  readonly lowWaterBytes: number;
  /** How long a pong may take before the peer counts as one that answers no pings. */
  readonly pongTimeoutMs: number;
  readonly onBlocked: () => void;
  readonly onWritable: () => void;
}

/** 16 MiB are 256 fragments, far below the limits of WebSocket servers; the smallest send window is one. */
export const DEFAULT_FRAGMENT_BYTES = 64 * 1024;
/** About ten ordinary creates. One frame may go over it; the core then waits. */
export const DEFAULT_HIGH_WATER_BYTES = 1024 * 1024;
export const DEFAULT_LOW_WATER_BYTES = 256 * 1024;
/** A socket that takes everything at once calls back in the same tick: masking and writing 16 MiB is 100 ms of it. */
const MAX_UNPAUSED_BYTES = 1024 * 1024;

/**
 * Feeds a WebSocket in pieces and never hands over more than two of them before the system has taken one: a pong
 * that `ws` writes in between is then at most two fragments late, whatever the size of the message. Control frames
 * may stand between fragments (RFC 6455, 5.4).
 */
export class SendQueue {
  readonly #socket: WebSocket;
  readonly #options: SendQueueOptions;
  readonly #waiting: OutgoingText[] = [];
  /** Bytes of messages not yet taken by the system: waiting here or in the socket. */
  #queuedBytes = 0;
  readonly #window: SendWindow;
  #handedOver = 0;
  #writtenBytes = 0;
  #blocked = false;
  #unpausedBytes = 0;
  #pause: NodeJS.Immediate | undefined;

  constructor(socket: WebSocket, options: SendQueueOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#window = new SendWindow({
      ping: (payload) => socket.ping(payload),
      onOpen: () => this.#pump(),
      pongTimeoutMs: options.pongTimeoutMs,
    });
  }

  /** Total of bytes that the system has taken. */
  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** `bytes`: of all parts together, in UTF-8. */
  send(parts: readonly string[], bytes: number): void {
    this.#queuedBytes += bytes;
    const isAlone = this.#waiting.length === 0 && bytes <= this.#options.fragmentBytes;
    const isRested = this.#pause === undefined && this.#unpausedBytes < MAX_UNPAUSED_BYTES;
    if (isAlone && isRested && this.#hasRoom && this.#window.isOpen())
      this.#handOver(Buffer.from(parts.join('')), true);
    else {
      this.#waiting.push(new OutgoingText(parts, this.#options.fragmentBytes));
      this.#pump();
    }
    if (!this.#blocked && this.#queuedBytes > this.#options.highWaterBytes) {
      this.#blocked = true;
      this.#options.onBlocked();
    }
  }

  pong(payload: string): void {
    this.#window.pong(payload);
  }

  /** Pongs are not read while the link is paused. */
  set readingPaused(paused: boolean) {
    if (paused) this.#window.suspend();
    else this.#window.resume();
  }

  clear(): void {
    this.#waiting.length = 0;
    clearImmediate(this.#pause);
    this.#window.stop();
  }

  #pump(): void {
    while (this.#hasRoom) {
      const message = this.#waiting[0];
      if (message === undefined || this.#pause !== undefined || !this.#window.isOpen()) return;
      if (this.#unpausedBytes >= MAX_UNPAUSED_BYTES) return this.#rest();
      const piece = message.next();
      const fin = message.isDone;
      if (fin) this.#waiting.shift();
      this.#handOver(piece, fin);
    }
  }

  get #hasRoom(): boolean {
    return this.#handedOver < 2 * this.#options.fragmentBytes;
  }

  #handOver(piece: Buffer, fin: boolean): void {
    this.#handedOver += piece.length;
    this.#unpausedBytes += piece.length;
    this.#socket.send(piece, { binary: false, fin }, () => this.#taken(piece.length));
    this.#window.sent(piece.length);
  }

  #rest(): void {
    this.#pause = setImmediate(() => {
      this.#pause = undefined;
      this.#unpausedBytes = 0;
      this.#pump();
    });
  }

  #taken(length: number): void {
    this.#handedOver -= length;
    this.#queuedBytes -= length;
    this.#writtenBytes += length;
    this.#pump();
    if (this.#blocked && this.#queuedBytes <= this.#options.lowWaterBytes) {
      this.#blocked = false;
      this.#options.onWritable();
    }
  }
}
