import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { WebSocket } from 'ws';
import { DEFAULT_FRAGMENT_BYTES, SendQueue } from '../../src/upstream/send-queue.ts';

const MIB = 1024 * 1024;

/** A system that takes everything at once, and says so in the same tick; pings are answered by nobody. */
class Greedy {
  bytes = 0;

  send(piece: Buffer, _options: unknown, taken: () => void): void {
    this.bytes += piece.length;
    process.nextTick(taken);
  }

  ping(): void {}
}

test('a long message leaves the loop to others after each MiB, also where the socket takes all of it', async () => {
  const socket = new Greedy();
  const queue = new SendQueue(socket as unknown as WebSocket, {
    fragmentBytes: DEFAULT_FRAGMENT_BYTES,
    highWaterBytes: 64 * MIB,
    lowWaterBytes: MIB,
    // A peer that answers no pings is not waited for.
    pongTimeoutMs: 0,
    onBlocked: () => {},
    onWritable: () => {},
  });
  queue.send(['x'.repeat(6 * MIB)], 6 * MIB);
  let before = 0;
  while (socket.bytes < 6 * MIB) {
    await nextTurn();
    expect(socket.bytes - before).toBeLessThanOrEqual(2 * MIB);
    before = socket.bytes;
  }
  queue.clear();
});
