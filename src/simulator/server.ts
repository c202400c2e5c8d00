import { createServer, type IncomingMessage, type Server, STATUS_CODES } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import { BackgroundLogs } from './background.ts';
import { Connection } from './connection.ts';
import { ApiError, errorResponseBody, invalidApiKey } from './errors.ts';
import { FaultPlan } from './faults.ts';
import { handleHttp, sendError } from './http.ts';
import { Journal } from './journal.ts';
import {
  mergeSettings,
  parseOptions,
  type ResolvedOptions,
  type Settings,
  type SettingsChange,
  type SimulatorOptions,
  type Switches,
} from './options.ts';
import { ResponseStore } from './store.ts';
import { keyTagOf, type World } from './turn.ts';

/** A running simulator. */
export interface Simulator {
  /** Base URL for WebSocket clients, `ws://HOST:PORT/v1` (`wss:` with TLS); clients append `/responses`. */
  readonly url: string;
  /** Base URL for HTTP clients, `http://HOST:PORT/v1`. */
  readonly httpUrl: string;
  readonly port: number;
  readonly journal: Journal;
  readonly store: ResponseStore;
  readonly settings: Settings;
  /** Open WebSocket connections. */
  connections(): number;
  /** Changes timing, switches, faults or the script for what comes next. Throws `InvalidSimulatorInput`. */
  configure(change: SettingsChange): void;
  /** Drops every WebSocket without a close frame, as a network failure does. Returns how many. */
  cutConnections(): number;
  /** Closes every WebSocket with a close frame (1012 by default, a restart). Returns how many. */
  closeConnections(code?: number, reason?: string): number;
  /** Stops listening and drops all connections. */
  close(): Promise<void>;
}

/** Starts a simulator. Pass the `store` of an earlier one to keep its stored responses over the restart. */
export async function startSimulator(
  options: SimulatorOptions = {},
  store = new ResponseStore(),
): Promise<Simulator> {
  const resolved = parseOptions(options);
  const endpoint = new Endpoint(resolved, store);
  await endpoint.listen();
  return endpoint;
}

class Endpoint implements Simulator {
  readonly journal: Journal;
  readonly store: ResponseStore;
  readonly #options: ResolvedOptions;
  readonly #world: World;
  readonly #server: Server;
  readonly #connections = new Set<Connection>();
  readonly #sockets = new Set<Socket>();
  #attempts = 0;
  #accepted = 0;
  #acceptor: { maxPayload: number; compression: boolean; server: WebSocketServer } | undefined;

  constructor(options: ResolvedOptions, store: ResponseStore) {
    this.#options = options;
    this.journal = new Journal(options.journal);
    this.store = store;
    const { timing, switches, faults, script } = options;
    this.#world = {
      settings: { timing, switches, faults, script },
      store,
      journal: this.journal,
      faults: new FaultPlan(options.seed),
      background: new BackgroundLogs(),
      requestsSeen: 0,
    };
    this.#world.faults.set(faults);
    this.#server = options.tls === undefined ? createServer() : createTlsServer(options.tls);
    this.#server.keepAliveTimeout = KEEP_ALIVE_MS;
    this.#server.on('request', (request, response) => {
      const path = apiPath(request);
      if (!this.#isAuthorized(request)) sendError(response, invalidApiKey(), this.#world.settings.switches);
      else {
        const query = new URL(request.url ?? '', 'http://localhost').searchParams;
        const keyTag = this.#keyTag(request);
        void handleHttp(this.#world, request, response, path ?? request.url ?? '', keyTag, query);
      }
    });
    this.#server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo | null)?.port ?? 0;
  }

  get url(): string {
    return `${this.#options.tls === undefined ? 'ws' : 'wss'}://${this.#authority()}/v1`;
  }

  get httpUrl(): string {
    return `${this.#options.tls === undefined ? 'http' : 'https'}://${this.#authority()}/v1`;
  }

  get settings(): Settings {
    return this.#world.settings;
  }

  async listen(): Promise<void> {
    const { host, port } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
  }

  connections(): number {
    return this.#connections.size;
  }

  configure(change: SettingsChange): void {
    this.#world.settings = mergeSettings(this.#world.settings, change);
    if (change.faults !== undefined) this.#world.faults.set(this.#world.settings.faults);
  }

  cutConnections(): number {
    const count = this.#connections.size;
    for (const connection of this.#connections) connection.cut();
    return count;
  }

  closeConnections(code = 1012, reason = ''): number {
    const count = this.#connections.size;
    for (const connection of this.#connections) connection.close(code, reason);
    return count;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const connection of this.#connections) connection.terminate();
    for (const socket of this.#sockets) socket.destroy();
    this.#server.closeAllConnections();
    await closed;
  }

  #authority(): string {
    const { host } = this.#options;
    return `${host.includes(':') ? `[${host}]` : host}:${this.port}`;
  }

  #isAuthorized(request: IncomingMessage): boolean {
    const { apiKeys } = this.#options;
    if (apiKeys === undefined) return true;
    const [scheme, key] = (request.headers.authorization ?? '').split(' ');
    return scheme?.toLowerCase() === 'bearer' && key !== undefined && apiKeys.includes(key);
  }

  #keyTag(request: IncomingMessage): string {
    return keyTagOf(request.headers.authorization);
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const { switches, timing } = this.#world.settings;
    socket.on('error', () => socket.destroy());
    const faults = this.#world.faults.handshake(++this.#attempts);
    let waitMs = timing.handshakeMs;
    let refusal: ApiError | undefined = this.#refusal(request);
    for (const fault of faults) {
      this.journal.counters.faultsApplied += 1;
      if (fault.kind === 'delay-handshake') waitMs += fault.ms;
      else {
        const { status, code, message, retryAfterSeconds } = fault;
        const headers =
          retryAfterSeconds === undefined ? undefined : { 'retry-after': String(retryAfterSeconds) };
        refusal ??= new ApiError({ status, code, message, headers });
      }
    }
    const answer = (): void => {
      if (socket.destroyed) return;
      if (refusal === undefined) this.#accept(request, socket, head, switches);
      else this.#refuse(socket, refusal);
    };
    if (waitMs > 0) setTimeout(answer, waitMs);
    else answer();
  }

  #refusal(request: IncomingMessage): ApiError | undefined {
    const { switches } = this.#world.settings;
    if (apiPath(request) !== '/responses') {
      return new ApiError({ status: 404, message: `Invalid URL (GET ${request.url ?? ''})` });
    }
    if (!this.#isAuthorized(request)) return invalidApiKey();
    if (!switches.websocket) {
      return new ApiError({
        status: switches.websocketRefusalStatus,
        message: 'WebSocket mode is not available on this endpoint.',
      });
    }
    if (switches.maxConnections > 0 && this.#connections.size >= switches.maxConnections) {
      return new ApiError({
        status: 429,
        code: 'rate_limit_exceeded',
        message: 'Too many open connections.',
        headers: { 'retry-after': '1' },
      });
    }
    return undefined;
  }

  #refuse(socket: Duplex, error: ApiError): void {
    this.journal.counters.connectionsRefused += 1;
    const body = JSON.stringify(errorResponseBody(error));
    const headers = {
      connection: 'close',
      'content-type': 'application/json',
      'content-length': String(Buffer.byteLength(body)),
      ...error.headers,
    };
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.end(
      `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status] ?? 'Error'}\r\n${lines.join('')}\r\n${body}`,
    );
    this.journal.notify();
  }

  #accept(request: IncomingMessage, socket: Duplex, head: Buffer, switches: Switches): void {
    const { maxMessageBytes: maxPayload, compression } = switches;
    if (this.#acceptor?.maxPayload !== maxPayload || this.#acceptor.compression !== compression) {
      const server = new WebSocketServer({
        noServer: true,
        // None is documented for this API; `ws` would take the first one offered.
        handleProtocols: () => false,
        clientTracking: false,
        perMessageDeflate: compression,
        maxPayload,
      });
      this.#acceptor = { maxPayload, compression, server };
    }
    this.#acceptor.server.handleUpgrade(request, socket, head, (webSocket) => {
      const { counters } = this.journal;
      const connection = new Connection({
        number: ++this.#accepted,
        world: this.#world,
        socket: webSocket,
        stream: socket,
        keyTag: this.#keyTag(request),
        isMultiAgent: asksFor(request, 'responses_multi_agent=v1'),
        onClosed: () => {
          this.#connections.delete(connection);
          counters.connectionsOpen -= 1;
        },
      });
      this.#connections.add(connection);
      counters.connectionsAccepted += 1;
      counters.connectionsOpen += 1;
      this.journal.notify();
    });
  }
}

/** The path after `/v1` (or Azure's `/openai/v1`), without the query; null for anything else. */
function apiPath(request: IncomingMessage): string | null {
  const path = (request.url ?? '').split('?')[0] ?? '';
  return /^(?:\/openai)?\/v1(\/.*)$/.exec(path)?.[1] ?? null;
}

/** Betas share one header, separated by commas (upstream.md#request-headers). */
function asksFor(request: IncomingMessage, beta: string): boolean {
  const given = String(request.headers['openai-beta'] ?? '').split(',');
  return given.some((each) => each.trim() === beta);
}

/** Longer than any gap inside a test or benchmark, so that HTTP clients keep their connections. */
const KEEP_ALIVE_MS = 65_000;
