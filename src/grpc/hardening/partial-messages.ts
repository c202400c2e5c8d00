import type { ServerInterceptingCallInterface } from '@grpc/grpc-js';
import { http2Stream, reset } from '../call.ts';
import { hearBytes } from '../message-decoder.ts';

/** gRPC's frame: a flag, four bytes of length, the message. */
const HEADER_BYTES = 5;

/** Under this a stream is not worth giving up. */
const MIN_BYTES = 64 * 1024;

export interface PartialLimits {
  readonly bytes: number;
  /** Of the streams of one connection. */
  readonly connectionBytes: number;
}

/**
 * Messages that have begun and not ended, over all streams. grpc-js keeps their bytes until the last one is there,
 * and nobody else sees them before: without a bound, streams that each stop short of the end fill the memory. Above
 * the bound the message that began first is given up, since an honest one does not take long; above that of a
 * connection, the first one of the connection.
 */
export class PartialMessages {
  readonly #max: PartialLimits;
  /** In the order in which they began. */
  readonly #partial = new Map<Framing, ServerInterceptingCallInterface>();
  readonly #bytesOf = new WeakMap<object, number>();
  #bytes = 0;

  constructor(max: PartialLimits) {
    this.#max = max;
  }

  get bytes(): number {
    return this.#bytes;
  }

  watch(base: ServerInterceptingCallInterface): void {
    const stream = http2Stream(base);
    if (stream === undefined) return;
    const framing = new Framing(stream.session ?? stream);
    hearBytes(base, (chunk) => this.#received(framing, base, chunk));
    stream.on('close', () => {
      this.#forget(framing);
      framing.givenUp = true;
    });
  }

  #received(framing: Framing, base: ServerInterceptingCallInterface, chunk: Uint8Array): void {
    if (framing.givenUp) return;
    const before = framing.heldBytes;
    const sameMessage = framing.take(chunk);
    // Most messages come in one piece.
    if (before === 0 && framing.heldBytes === 0) return;
    this.#count(framing.connection, framing.heldBytes - before);
    if (framing.heldBytes === 0 || !sameMessage) this.#partial.delete(framing);
    if (framing.heldBytes > 0 && !this.#partial.has(framing)) this.#partial.set(framing, base);
    if (this.#bytes > this.#max.bytes) this.#giveUpOldest();
    else if (this.#held(framing.connection) > this.#max.connectionBytes)
      this.#giveUpOldest(framing.connection);
  }

  #giveUpOldest(connection?: object): void {
    for (const [framing, base] of this.#partial) {
      if (framing.heldBytes < MIN_BYTES) continue;
      if (connection !== undefined && framing.connection !== connection) continue;
      this.#forget(framing);
      // What is on its way already still comes.
      framing.givenUp = true;
      reset(base);
      return;
    }
  }

  #forget(framing: Framing): void {
    if (this.#partial.delete(framing)) this.#count(framing.connection, -framing.heldBytes);
  }

  #count(connection: object, bytes: number): void {
    this.#bytes += bytes;
    this.#bytesOf.set(connection, this.#held(connection) + bytes);
  }

  #held(connection: object): number {
    return this.#bytesOf.get(connection) ?? 0;
  }
}

/** Follows the frames of one stream by their lengths. */
class Framing {
  /** Bytes of the message that has begun; 0 between messages. */
  heldBytes = 0;
  givenUp = false;
  readonly connection: object;
  #lengthBytes = 0;
  #length = 0;

  constructor(connection: object) {
    this.connection = connection;
  }

  /** False when a message ended in the chunk: what is held now, if anything, is the next one's. */
  take(chunk: Uint8Array): boolean {
    let same = true;
    for (let at = 0; at < chunk.length; ) {
      if (this.heldBytes < HEADER_BYTES) {
        if (this.heldBytes > 0) this.#length = this.#length * 256 + (chunk[at] ?? 0);
        at += 1;
        this.heldBytes += 1;
        if (this.heldBytes < HEADER_BYTES) continue;
        this.#lengthBytes = HEADER_BYTES + this.#length;
        this.#length = 0;
      } else {
        const rest = Math.min(this.#lengthBytes - this.heldBytes, chunk.length - at);
        at += rest;
        this.heldBytes += rest;
      }
      if (this.heldBytes < this.#lengthBytes) continue;
      this.heldBytes = 0;
      same = false;
    }
    return same;
  }
}
