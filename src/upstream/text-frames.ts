import type { WebSocket } from 'ws';

/** Called with where a message lies in a chunk of the socket. Nothing is copied; the chunk is not changed later. */
export type OnText = (chunk: Buffer, start: number, end: number) => void;

/**
 * Takes whole unfragmented text messages straight out of the socket's chunks, before `ws` cuts them into five
 * buffers each, which is half of what an event costs to receive. Everything else (control frames, fragments, what
 * lies over two chunks, whatever is wrong) goes through `ws` as always, its `message` event included. To be called
 * once the socket is open. Without effect where compression is used or `ws` is built differently.
 */
export function takeTextFrames(ws: WebSocket, onText: OnText): void {
  const receiver = '_receiver' in ws ? ws._receiver : undefined;
  if (!isReceiver(receiver) || Object.keys(receiver._extensions).length > 0) return;
  const splitter = new Splitter(receiver, onText);
  receiver._write = (chunk, encoding, done) => splitter.write(chunk, encoding, done);
}

type Done = (error?: Error | null) => void;

/** The part of a `ws` receiver that is used: what it is in the middle of, and its entry. */
interface Receiver {
  /** Of the last frame it was given; 8 is close, after which everything is ignored. */
  readonly _opcode: number;
  /** Opcode of the fragmented message that it collects, or 0. */
  readonly _fragmented: number;
  readonly _extensions: object;
  /** 0: no limit. */
  readonly _maxPayload: number;
  _write(chunk: Buffer, encoding: BufferEncoding, done: Done): void;
}

/** What a length of two bytes can say. Larger messages are rare, and `ws` has its limits for them. */
const MAX_TAKEN_BYTES = 64 * 1024 - 1;

const FINAL_TEXT = 0x81;
const CLOSE = 0x08;

class Splitter {
  readonly #receiver: Receiver;
  readonly #forward: Receiver['_write'];
  readonly #onText: OnText;
  readonly #maxBytes: number;
  /** Bytes to come of the frame that `ws` is reading. */
  #owed = 0;
  /** A header that is not complete yet. */
  #header: Buffer | undefined;
  #error: Error | null | undefined;
  readonly #done: Done = (error) => {
    this.#error = error;
  };

  constructor(receiver: Receiver, onText: OnText) {
    this.#receiver = receiver;
    this.#forward = receiver._write;
    this.#onText = onText;
    this.#maxBytes = Math.min(receiver._maxPayload || MAX_TAKEN_BYTES, MAX_TAKEN_BYTES);
  }

  write(chunk: Buffer, encoding: BufferEncoding, done: Done): void {
    const bytes = this.#header === undefined ? chunk : Buffer.concat([this.#header, chunk]);
    this.#header = undefined;
    const receiver = this.#receiver;
    let pos = 0;
    while (pos < bytes.length) {
      if (this.#owed === 0) {
        if (receiver._opcode === CLOSE) break;
        const start = pos + headerBytes(bytes, pos);
        if (start > bytes.length) {
          this.#header = Buffer.from(bytes.subarray(pos));
          break;
        }
        const length = payloadBytes(bytes, pos);
        const end = start + length;
        const plain =
          bytes[pos] === FINAL_TEXT && start - pos <= 4 && ((bytes[pos + 1] as number) & 0x80) === 0;
        if (plain && end <= bytes.length && length <= this.#maxBytes && receiver._fragmented === 0) {
          pos = end;
          this.#onText(bytes, start, end);
          continue;
        }
        this.#owed = end - pos;
      }
      const end = Math.min(pos + this.#owed, bytes.length);
      this.#owed -= end - pos;
      this.#forward.call(receiver, bytes.subarray(pos, end), encoding, this.#done);
      if (this.#error != null) return done(this.#error);
      pos = end;
    }
    done();
  }
}

/** Mask included. 2 if not even the length is there. */
function headerBytes(bytes: Buffer, at: number): number {
  const second = bytes[at + 1] ?? 0;
  const length = second & 0x7f;
  return (length === 126 ? 4 : length === 127 ? 10 : 2) + ((second & 0x80) === 0 ? 0 : 4);
}

function payloadBytes(bytes: Buffer, at: number): number {
  const length = (bytes[at + 1] as number) & 0x7f;
  if (length < 126) return length;
  if (length === 126) return ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number);
  return Number(bytes.readBigUInt64BE(at + 2));
}

function isReceiver(value: unknown): value is Receiver {
  const known = {
    _opcode: 'number',
    _fragmented: 'number',
    _extensions: 'object',
    _maxPayload: 'number',
    _write: 'function',
  };
  if (typeof value !== 'object' || value === null) return false;
  return Object.entries(known).every(
    ([name, type]) => typeof (value as Record<string, unknown>)[name] === type,
  );
}
