import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterEach, expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { readInSlices } from '../../src/upstream/read-slices.ts';

const MESSAGES = 200;
const MESSAGE = 'x'.repeat(20_000);

let server: WebSocketServer;
afterEach(() => server.close());

/** Two links to an upstream that says four megabytes on each at once. */
async function links(isHeld: (link: number) => boolean = () => false) {
  server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const received = [0, 0];
  const opened = [0, 1].map(async (link) => {
    const ws = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false });
    const upgraded = once(ws, 'upgrade') as Promise<[IncomingMessage]>;
    ws.on('message', () => {
      received[link] = (received[link] ?? 0) + 1;
    });
    const [[{ socket }]] = await Promise.all([upgraded, once(ws, 'open')]);
    readInSlices(ws, socket, () => isHeld(link));
    return ws;
  });
  const sockets = await Promise.all(opened);
  for (const client of server.clients) for (let n = 0; n < MESSAGES; n += 1) client.send(MESSAGE);
  return { received, sockets };
}

it('reads a little of each link in a turn of the event loop, and all of it in the end', async () => {
  const { received, sockets } = await links();
  let most = 0;
  for (let before = 0; before < 2 * MESSAGES; ) {
    await nextTurn();
    const now = (received[0] ?? 0) + (received[1] ?? 0);
    most = Math.max(most, now - before);
    before = now;
  }
  expect(received).toEqual([MESSAGES, MESSAGES]);
  // Two links, a slice of 64 KiB and one chunk more each.
  expect(most * MESSAGE.length).toBeLessThan(512 * 1024);
  for (const ws of sockets) ws.terminate();
});

it('leaves a link alone that is paused for another reason', async () => {
  let held = true;
  const { received, sockets } = await links((link) => link === 0 && held);
  while (received[1] !== MESSAGES) await nextTurn();
  expect(received[0]).toBeLessThan(MESSAGES / 4);

  held = false;
  sockets[0]?.resume();
  while (received[0] !== MESSAGES) await nextTurn();
  for (const ws of sockets) ws.terminate();
});
