import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';

/** Read of one link in one turn of the event loop: as much as the kernel gives at once. */
const SLICE_BYTES = 64 * 1024;
/** Behind a shorter chunk nothing waits that would be worth a turn. A TLS record has 16 KiB. */
const MIN_CHUNK_BYTES = 8 * 1024;
/** The links of this process that wait to be read again, longest first. It has one event loop, so there is one queue. */
const waiting = new Set<() => void>();

/**
 * libuv reads a socket that has more up to 32 times before it looks at the next one: links with large answers would
 * let everybody else wait for megabytes to be read. `isHeld`: whether the link is paused for another reason.
 */
export function readInSlices(ws: WebSocket, socket: Socket, isHeld: () => boolean): void {
  let bytes = 0;
  const goOn = () => {
    const paused = bytes >= SLICE_BYTES;
    bytes = 0;
    if (paused && !isHeld()) ws.resume();
  };
  socket.on('data', ({ length }: Buffer) => {
    if (length < MIN_CHUNK_BYTES || bytes >= SLICE_BYTES) return;
    if (bytes === 0) wait(goOn);
    bytes += length;
    if (bytes >= SLICE_BYTES) ws.pause();
  });
}

function wait(goOn: () => void): void {
  if (waiting.size === 0) setImmediate(nextTurn);
  waiting.add(goOn);
}

/** One link in a turn: a slice of large frames is a millisecond's work. */
function nextTurn(): void {
  const [goOn] = waiting;
  if (goOn === undefined) return;
  waiting.delete(goOn);
  if (waiting.size > 0) setImmediate(nextTurn);
  goOn();
}
