import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';

/**
 * Writes text frames of a server (RFC 6455, unmasked, unfragmented) to an upgraded socket, many in one buffer. `ws`
 * writes two buffers a frame, which costs more than making the event. Its own control frames go to the same stream and
 * may come between any two of ours.
 */
export class FrameWriter {
  readonly #stream: Duplex;
  #texts: string[] = [];
  #bytes = 0;
  #isCorked = false;

  constructor(stream: Duplex) {
    this.#stream = stream;
  }

  /** Sends a text at once, or with the others of the slice when corked. Returns its bytes on the wire. */
  write(text: string): number {
    const payload = Buffer.byteLength(text);
    const size = payload + (payload < 126 ? 2 : payload < 65_536 ? 4 : 10);
    this.#texts.push(text);
    this.#bytes += size;
    if (!this.#isCorked || this.#bytes > MAX_BATCH_BYTES) this.flush();
    return size;
  }

  cork(): void {
    this.#isCorked = true;
  }

  uncork(): void {
    this.#isCorked = false;
    this.flush();
  }

  pendingBytes(): number {
    return this.#stream.writableLength + this.#bytes;
  }

  /** `whenWritten`: everything is with the stream. */
  flush(whenWritten?: () => void): void {
    if (this.#bytes > 0) this.#flush();
    whenWritten?.();
  }

  #flush(): void {
    const batch = Buffer.allocUnsafe(this.#bytes);
    let at = 0;
    for (const text of this.#texts) at = writeFrame(batch, at, text);
    this.#texts = [];
    this.#bytes = 0;
    if (this.#stream.writable) this.#stream.write(batch);
  }
}

/** The same over permessage-deflate, which only `ws` can write: one frame after the other, each over the thread pool. */
export class DeflatingWriter {
  readonly #socket: WebSocket;
  readonly #onDrained: () => void;
  #unwritten = 0;
  #whenWritten: (() => void) | undefined;

  constructor(socket: WebSocket, onDrained: () => void) {
    this.#socket = socket;
    this.#onDrained = onDrained;
  }

  /** Returns the bytes of the text. */
  write(text: string): number {
    this.#unwritten += 1;
    this.#socket.send(text, () => {
      this.#unwritten -= 1;
      if (this.#unwritten > 0) return;
      this.#whenWritten?.();
      this.#onDrained();
    });
    return Buffer.byteLength(text);
  }

  cork(): void {}

  uncork(): void {}

  pendingBytes(): number {
    return this.#socket.bufferedAmount;
  }

  flush(whenWritten?: () => void): void {
    if (this.#unwritten === 0) whenWritten?.();
    else this.#whenWritten = whenWritten;
  }
}

function writeFrame(batch: Buffer, at: number, text: string): number {
  const payload = Buffer.byteLength(text);
  batch[at] = TEXT_FRAME;
  if (payload < 126) {
    batch[at + 1] = payload;
    return at + 2 + batch.write(text, at + 2);
  }
  if (payload < 65_536) {
    batch[at + 1] = 126;
    batch.writeUInt16BE(payload, at + 2);
    return at + 4 + batch.write(text, at + 4);
  }
  batch[at + 1] = 127;
  batch.writeUInt32BE(0, at + 2);
  batch.writeUInt32BE(payload, at + 6);
  return at + 10 + batch.write(text, at + 10);
}

/** FIN and opcode 1. */
const TEXT_FRAME = 0x81;
/** A slice rarely makes more; beyond this a larger buffer saves nothing. */
const MAX_BATCH_BYTES = 256 * 1024;
