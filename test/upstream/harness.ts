import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type ServerOptions, type WebSocket, WebSocketServer } from 'ws';
import type { LinkCapabilities, LinkDown, LinkRoute, UpstreamFrame } from '../../src/core/types.ts';
import type { OutgoingFrame } from '../../src/dialect/frames.ts';
import { membersOf } from '../../src/ground/json-members.ts';
import type { DialRequest, LinkListener, UpstreamEvent } from '../../src/upstream/types.ts';

/** Remembers what a link reports and lets a test wait for it. */
export class Recorder implements LinkListener {
  readonly ups: { readonly capabilities: LinkCapabilities; readonly route: LinkRoute }[] = [];
  readonly frames: UpstreamFrame[] = [];
  readonly downs: LinkDown[] = [];
  readonly flow: ('blocked' | 'writable')[] = [];
  #waiting: (() => void)[] = [];

  onUp(capabilities: LinkCapabilities, route: LinkRoute): void {
    this.ups.push({ capabilities, route });
    this.#wake();
  }
  onFrame(frame: UpstreamFrame): void {
    this.frames.push(frame);
    this.#wake();
  }
  onBlocked(): void {
    this.flow.push('blocked');
    this.#wake();
  }
  onWritable(): void {
    this.flow.push('writable');
    this.#wake();
  }
  onDown(down: LinkDown): void {
    this.downs.push(down);
    this.#wake();
  }

  /** Resolves once the condition holds; it is looked at after every report. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
  async up() {
    await this.until(() => this.ups.length > 0 || this.downs.length > 0);
    const up = this.ups[0];
    if (up === undefined) throw new Error(`did not come up: ${this.downs[0]?.error.reason}`);
    return up;
  }
  async down(): Promise<LinkDown> {
    await this.until(() => this.downs.length > 0);
    return this.downs[0] as LinkDown;
  }
  async frame(count = 1): Promise<UpstreamFrame> {
    await this.until(() => this.frames.length >= count || this.downs.length > 0);
    const frame = this.frames[count - 1];
    if (frame === undefined) throw new Error(`no frame: ${this.downs[0]?.error.message}`);
    return frame;
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}

/** Remembers events and lets a test wait for one of a kind. */
export class Observed {
  readonly events: UpstreamEvent[] = [];
  #waiting: (() => void)[] = [];

  readonly observe = (event: UpstreamEvent): void => {
    this.events.push(event);
    for (const wake of this.#waiting.splice(0)) wake();
  };

  of<K extends UpstreamEvent['kind']>(kind: K): Extract<UpstreamEvent, { kind: K }>[] {
    return this.events.filter((event): event is Extract<UpstreamEvent, { kind: K }> => event.kind === kind);
  }
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
}

export interface TestServer {
  readonly port: number;
  /** `http://127.0.0.1:PORT/v1`. */
  readonly url: string;
  /** Handshakes and requests, in order. */
  readonly requests: IncomingMessage[];
  readonly sockets: WebSocket[];
  /** The WebSocket number `index`, once it is there. */
  socket(index?: number): Promise<WebSocket>;
  close(): Promise<void>;
}

export interface TestServerOptions {
  readonly onSocket?: (socket: WebSocket) => void;
  readonly onRequest?: RequestListener;
  readonly ws?: ServerOptions;
  /** False: no upgrade listener, so that upgrades are requests. */
  readonly upgrade?: boolean;
  readonly server?: Server;
}

export async function startServer(options: TestServerOptions = {}): Promise<TestServer> {
  const http = options.server ?? createServer();
  const requests: IncomingMessage[] = [];
  const sockets: WebSocket[] = [];
  http.on('request', (request, response) => {
    requests.push(request);
    if (options.onRequest === undefined) response.writeHead(404).end();
    else options.onRequest(request, response);
  });
  const wss = new WebSocketServer({ noServer: true, maxPayload: 0, ...options.ws });
  if (options.upgrade !== false) {
    http.on('upgrade', (request, socket, head) => {
      requests.push(request);
      wss.handleUpgrade(request, socket, head, (ws) => {
        ws.on('error', () => {});
        sockets.push(ws);
        options.onSocket?.(ws);
        wss.emit('connection', ws, request);
      });
    });
  }
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  const { port } = http.address() as AddressInfo;
  return {
    port,
    url: `http://127.0.0.1:${port}/v1`,
    requests,
    sockets,
    socket: async (index = 0) => {
      while (sockets[index] === undefined) await once(wss, 'connection');
      return sockets[index] as WebSocket;
    },
    close: async () => {
      for (const ws of sockets) ws.terminate();
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
    },
  };
}

/** Stays pending when the caller gives up the request: nobody waits for its answer then, nor for an error. */
export function bodyOf(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => resolve(Buffer.concat(chunks)));
  });
}

/** A frame as the core hands it to a link, from its text. */
export function outgoing(text: string): OutgoingFrame {
  const members = membersOf(text);
  const value = (name: string): unknown => {
    const member = members.find((each) => each.name === name);
    return member === undefined ? undefined : JSON.parse(text.slice(member.valueStart, member.end));
  };
  const [head, body] = [true, false].map((ofHead) =>
    members
      .filter(({ name }) => ['type', 'stream_id', 'generate'].includes(name) === ofHead)
      .map(({ start, end }) => text.slice(start, end)),
  ) as [string[], string[]];
  const create = value('generate') === false ? 'warmUp' : 'create';
  return {
    kind: value('type') === 'response.steer' ? 'steer' : create,
    streamId: value('stream_id') as string | undefined,
    head: `{${head.join(',')}${body.length > 0 ? ',' : ''}`,
    body: [`${body.join(',')}}`],
    bytes: Buffer.byteLength(text),
  };
}

export function dialRequest(changes: Partial<DialRequest> = {}): DialRequest {
  return {
    purpose: 'session',
    attempt: 0,
    upstream: undefined,
    model: undefined,
    tenantId: 'tenant',
    credential: undefined,
    traceContext: undefined,
    ...changes,
  };
}

/** Closes in reverse order what a test opened. */
export class Cleanup {
  readonly #tasks: (() => unknown)[] = [];

  add<T extends { close(): unknown }>(resource: T): T {
    this.#tasks.push(() => resource.close());
    return resource;
  }
  async run(): Promise<void> {
    for (const task of this.#tasks.splice(0).reverse()) await task();
  }
}
