/**
 * An upstream that sends deltas by the clock, whatever becomes of them: open loop. Each carries the moment at which
 * it was handed to the socket. Prints `listening HOST:PORT`.
 */
import type { AddressInfo } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';

/** A turn asks for `#deltas=N #rate=N` in its last text. */
const PATTERN = /#deltas=(\d+) #rate=(\d+)/;
const TEXT_BYTES = 200;

interface Turn {
  readonly socket: WebSocket;
  readonly id: string;
  readonly startMs: number;
  readonly intervalMs: number;
  readonly deltas: number;
  sent: number;
}

const turns = new Set<Turn>();
let responses = 0;
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
server.on('connection', (socket) => {
  socket.on('error', () => {});
  socket.on('message', (message) => start(socket, message.toString()));
  socket.on('close', () => {
    for (const turn of turns) if (turn.socket === socket) turns.delete(turn);
  });
});
server.on('listening', () => {
  process.stdout.write(`listening 127.0.0.1:${(server.address() as AddressInfo).port}\n`);
});
setInterval(tick, 1);

function start(socket: WebSocket, create: string): void {
  const [, deltas, rate] = PATTERN.exec(create) ?? [];
  responses += 1;
  const id = `resp_${responses}`;
  socket.send(
    JSON.stringify({ type: 'response.created', sequence_number: 0, response: response(id, 'in_progress') }),
  );
  const intervalMs = 1_000 / Number(rate ?? 50);
  // Sessions are spread over the interval instead of all sending at once.
  const startMs = performance.now() + (responses % 20) * (intervalMs / 20);
  turns.add({ socket, id, startMs, intervalMs, deltas: Number(deltas ?? 1), sent: 0 });
}

function tick(): void {
  const now = performance.now();
  for (const turn of turns) {
    while (turn.sent < turn.deltas && turn.startMs + turn.sent * turn.intervalMs <= now) {
      turn.sent += 1;
      turn.socket.send(delta(turn));
    }
    if (turn.sent < turn.deltas) continue;
    turns.delete(turn);
    const done = {
      type: 'response.completed',
      sequence_number: turn.sent + 1,
      response: response(turn.id, 'completed'),
    };
    turn.socket.send(JSON.stringify(done));
  }
}

function delta({ id, sent }: Turn): string {
  const stamp = `@ns=${process.hrtime.bigint()}`;
  return `{"type":"response.output_text.delta","item_id":"msg_${id}","output_index":0,"content_index":0,"delta":"${stamp.padEnd(TEXT_BYTES)}","sequence_number":${sent},"logprobs":[]}`;
}

function response(id: string, status: string): object {
  return {
    id,
    object: 'response',
    created_at: 0,
    status,
    model: 'metronome',
    output: [],
    usage: null,
    store: false,
  };
}
