import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type RawData, type WebSocket, WebSocketServer } from 'ws';

/** What the upstream does with a create; `n` counts creates of the server from 1. */
export type Behaviour = (
  socket: WebSocket,
  create: Readonly<Record<string, unknown>>,
  n: number,
  /** The handshake. */
  request: IncomingMessage,
) => void;

export interface HostileUpstreamOptions {
  readonly onCreate?: Behaviour;
  /** Answers the WebSocket handshake instead of upgrading it; undefined: it is upgraded. */
  readonly onHandshake?: (request: IncomingMessage) => string | undefined;
  readonly onRequest?: (request: IncomingMessage, response: ServerResponse) => void;
}

/** An upstream that speaks WebSocket and HTTP, and nothing but what a test tells it. Remembers who called. */
export async function startHostileUpstream(options: HostileUpstreamOptions) {
  const seen: IncomingHttpHeaders[] = [];
  let creates = 0;
  const server = createServer((request, response) => {
    seen.push(request.headers);
    if (options.onRequest === undefined) response.writeHead(404).end();
    else options.onRequest(request, response);
  });
  const sockets = new WebSocketServer({ noServer: true, maxPayload: 0 });
  server.on('upgrade', (request, socket, head) => {
    seen.push(request.headers);
    socket.on('error', () => {});
    const answer = options.onHandshake?.(request);
    if (answer !== undefined) {
      socket.end(answer);
      return;
    }
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      webSocket.on('error', () => {});
      webSocket.on('message', (data: RawData) => {
        const frame = JSON.parse(String(data)) as Readonly<Record<string, unknown>>;
        if (frame['type'] !== 'response.create') return;
        creates += 1;
        options.onCreate?.(webSocket, frame, creates, request);
      });
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    /** Base URL. */
    url: `http://127.0.0.1:${port}/v1`,
    port,
    /** Headers of every handshake and request. */
    seen: seen as readonly IncomingHttpHeaders[],
    close: async () => {
      for (const socket of sockets.clients) socket.terminate();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A turn as it should be: created, one delta, one item, completed. */
export function answer(
  socket: WebSocket,
  create: Readonly<Record<string, unknown>>,
  text = 'ok',
  more: Readonly<Record<string, unknown>> = {},
): void {
  const lane = typeof create['stream_id'] === 'string' ? { stream_id: create['stream_id'] } : {};
  const id = `resp_${Math.random().toString(36).slice(2)}`;
  const response = { id, object: 'response', status: 'in_progress', model: 'm', output: [], ...more };
  const item = {
    id: 'msg_1',
    type: 'message',
    role: 'assistant',
    status: 'completed',
    content: [{ type: 'output_text', text }],
  };
  const events = [
    { type: 'response.created', response },
    { type: 'response.output_text.delta', item_id: 'msg_1', output_index: 0, content_index: 0, delta: text },
    { type: 'response.output_item.done', output_index: 0, item },
    { type: 'response.completed', response: { ...response, status: 'completed' } },
  ];
  events.forEach((event, sequence_number) => {
    socket.send(JSON.stringify({ ...event, sequence_number, ...lane }));
  });
}
