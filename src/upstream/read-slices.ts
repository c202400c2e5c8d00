import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';

/** Read of one link in one turn of the event loop: as much as the kernel gives at once. */
const SLICE_BYTES = 64 * 1024;
/** Behind a shorter chunk nothing waits that would be worth a turn. A TLS record has 16 KiB. */
const MIN_CHUNK_BYTES = 8 * 1024;

interface Reader {
  /** In this turn of the event loop. */
  bytes: number;
  goOn(): void;
}

/** This process has one event loop, so that there is one of each: readers of this turn, and those that wait for one. */
const reading = new Set<Reader>();
const waiting = new Set<Reader>();

/**
 * libuv reads a socket that has more up to 32 times before it looks at the next one: links with large answers would
 * let everybody else wait for megabytes to be read. `isHeld`: whether the link is paused for another reason.
 */
export function readInSlices(ws: WebSocket, socket: Socket, isHeld: () => boolean): void {
  const reader: Reader = {
    bytes: 0,
    goOn() {
      if (!isHeld()) ws.resume();
    },
  };
  hearChunks(ws, socket, (length) => {
    if (length < MIN_CHUNK_BYTES) return;
    if (reading.size === 0 && waiting.size === 0) setImmediate(nextTurn);
    reading.add(reader);
    reader.bytes += length;
    if (reader.bytes < SLICE_BYTES) return;
    waiting.add(reader);
    ws.pause();
  });
}

/** A further listener of the socket's data would cost each chunk, which may be one event, a copy of the list of listeners. */
function hearChunks(ws: WebSocket, socket: Socket, heard: (bytes: number) => void): void {
  const receiver = '_receiver' in ws ? ws._receiver : undefined;
  if (!isReceiver(receiver)) {
    socket.on('data', ({ length }: Buffer) => heard(length));
    return;
  }
  const write = receiver._write;
  receiver._write = (chunk, encoding, done) => {
    heard(chunk.length);
    write.call(receiver, chunk, encoding, done);
  };
}

interface Receiver {
  _write(chunk: Buffer, encoding: BufferEncoding, done: () => void): void;
}

function isReceiver(value: unknown): value is Receiver {
  return (
    typeof value === 'object' && value !== null && '_write' in value && typeof value._write === 'function'
  );
}

/** One of those that wait goes on in a turn: a slice of large frames is a millisecond's work. */
function nextTurn(): void {
  for (const reader of reading) reader.bytes = 0;
  reading.clear();
  const [reader] = waiting;
  if (reader === undefined) return;
  waiting.delete(reader);
  if (waiting.size > 0) setImmediate(nextTurn);
  reader.goOn();
}
