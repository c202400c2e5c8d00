import type { ServerInterceptingCallInterface } from '@grpc/grpc-js';
import { MessageMemory } from './message-memory.ts';

/** gRPC's frame: a flag, four bytes of length, the message. */
const HEADER_BYTES = 5;
/**
 * A piece costs some hundred bytes beside its own, and the client chooses how it cuts its message: in pieces of a byte the
 * largest one would take gigabytes.
 */
const SMALL_PIECE_BYTES = 1024;
const MAX_SMALL_PIECES = 256;

/** Of the process: large messages of all streams are put together in it, one after the other. */
const memory = new MessageMemory();

/**
 * Puts messages together in place of grpc-js's decoder, which keeps the pieces of a message until the next one begins,
 * maybe an hour later, and asks the system for fresh memory for each: touching that costs ten times what copying costs.
 */
export function decodeMessages(base: ServerInterceptingCallInterface, maxBytes: number): void {
  if (!('decoder' in base)) throw new Error('grpc-js has changed: its decoder cannot be reached');
  base.decoder = new MessageDecoder(maxBytes);
}

/**
 * Calls `onBytes` whenever bytes of the call have come. A further listener of its stream's data would cost each chunk a
 * copy of the list of listeners.
 */
export function hearBytes(base: object, onBytes: (chunk: Uint8Array) => void): void {
  const decoder = 'decoder' in base ? base.decoder : undefined;
  if (!(decoder instanceof MessageDecoder)) return;
  const before = decoder.onBytes;
  decoder.onBytes = (chunk) => {
    before(chunk);
    onBytes(chunk);
  };
}

/** Whether the client has begun a message and not ended it, or sent one that is too long. */
export function isInMessage(base: ServerInterceptingCallInterface): boolean {
  return 'decoder' in base && base.decoder instanceof MessageDecoder && base.decoder.isInMessage;
}

/** The message, and whatever points into it, is not used any more. Does nothing for a message with memory of its own. */
export function doneWith(message: Uint8Array): void {
  memory.giveBack(message.buffer);
}

export class MessageDecoder {
  /** As grpc-js calls it; its users set it. */
  maxReadMessageLength: number;
  /** Hears of each chunk before it is read. */
  onBytes: (chunk: Uint8Array) => void = () => {};
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  #pieces: Buffer[] = [];
  /** How many of the last ones are small. */
  #smallPieces = 0;
  /** Of the message, still to come. */
  #left = 0;
  #isRefused = false;

  constructor(maxBytes: number) {
    this.maxReadMessageLength = maxBytes;
  }

  get isInMessage(): boolean {
    return this.#headerBytes > 0 || this.#isRefused;
  }

  /** Parts of the message that has begun. */
  get pieces(): number {
    return this.#pieces.length;
  }

  /**
   * The messages that end in the chunk, each in its gRPC frame. Throws in grpc-js's words for one that is too long; then
   * nothing more comes.
   */
  write(chunk: Buffer): Buffer[] {
    this.onBytes(chunk);
    const messages: Buffer[] = [];
    if (this.#isRefused) return messages;
    for (let at = 0; at < chunk.length || this.#isComplete; ) {
      if (this.#isComplete) {
        messages.push(this.#takeMessage());
      } else if (this.#headerBytes < HEADER_BYTES) {
        const copied = chunk.copy(this.#header, this.#headerBytes, at);
        this.#headerBytes += copied;
        at += copied;
        if (this.#headerBytes === HEADER_BYTES) this.#left = this.#checkedLength();
      } else {
        const piece = chunk.subarray(at, at + this.#left);
        this.#keep(piece);
        this.#left -= piece.length;
        at += piece.length;
      }
    }
    return messages;
  }

  get #isComplete(): boolean {
    return this.#headerBytes === HEADER_BYTES && this.#left === 0;
  }

  #checkedLength(): number {
    const length = this.#header.readUInt32BE(1);
    if (this.maxReadMessageLength === -1 || length <= this.maxReadMessageLength) return length;
    this.#isRefused = true;
    throw new Error(`Received message larger than max (${length} vs ${this.maxReadMessageLength})`);
  }

  #keep(piece: Buffer): void {
    this.#pieces.push(piece);
    this.#smallPieces = piece.length < SMALL_PIECE_BYTES ? this.#smallPieces + 1 : 0;
    if (this.#smallPieces < MAX_SMALL_PIECES) return;
    this.#pieces.push(Buffer.concat(this.#pieces.splice(-MAX_SMALL_PIECES)));
    this.#smallPieces = 0;
  }

  #takeMessage(): Buffer {
    const message = memory.take(HEADER_BYTES + this.#header.readUInt32BE(1));
    this.#header.copy(message);
    let at = HEADER_BYTES;
    for (const piece of this.#pieces) at += piece.copy(message, at);
    this.#pieces = [];
    this.#smallPieces = 0;
    this.#headerBytes = 0;
    return message;
  }
}
