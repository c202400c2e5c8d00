import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';

/** What a peer may take to close its side before the socket is taken from it. */
const CLOSE_MS = 1_000;
const MAX_SWEEP_MS = 30_000;

/** Open for as long as the caller likes, without a credential: a connection is no less idle for them. */
const HOLDS_NOTHING: ReadonlySet<unknown> = new Set([
  '/grpc.health.v1.Health/Watch',
  '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
  '/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo',
  '/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics',
]);

export interface ConnectionsOptions {
  /** Each one is a file descriptor. */
  readonly max: number;
  /** How long one may be without a stream. */
  readonly idleMs: number;
  readonly now: () => number;
  readonly onEnded: (reason: 'limit' | 'idle') => void;
}

interface Connection {
  readonly socket: Socket;
  session: ServerHttp2Session | undefined;
  streams: number;
  idleSinceMs: number;
}

/**
 * The clients' connections of a process. Those without a stream end after a while, and give their place to a new one
 * where there is none left; with a stream on every one a new connection is refused. Unix sockets, which only other
 * processes of the gateway can reach, do not count.
 */
export class Connections {
  readonly max: number;
  readonly #options: ConnectionsOptions;
  readonly #all = new Map<string, Connection>();
  /** In the order in which they became idle. */
  readonly #idle = new Set<Connection>();
  readonly #sweeper: NodeJS.Timeout;

  constructor(options: ConnectionsOptions) {
    this.max = options.max;
    this.#options = options;
    this.#sweeper = setInterval(
      () => this.#sweep(),
      Math.min(MAX_SWEEP_MS, Math.max(10, options.idleMs / 4)),
    );
    this.#sweeper.unref();
  }

  get open(): number {
    return this.#all.size;
  }

  /** Whether the next connection will be refused. */
  get full(): boolean {
    return this.#all.size >= this.max && this.#idle.size === 0;
  }

  /** False: there was no place, and the socket is closed. */
  arrived(socket: Socket): boolean {
    const key = keyOf(socket);
    if (key === undefined) return true;
    if (this.#all.size >= this.max && !this.#endOldestIdle()) {
      socket.destroy();
      this.#options.onEnded('limit');
      return false;
    }
    const connection = { socket, session: undefined, streams: 0, idleSinceMs: this.#options.now() };
    this.#all.set(key, connection);
    this.#idle.add(connection);
    socket.once('close', () => {
      if (this.#all.get(key) === connection) this.#all.delete(key);
      this.#idle.delete(connection);
    });
    return true;
  }

  /** HTTP/2 has begun on a connection that arrived before. */
  opened(session: ServerHttp2Session): void {
    const key = keyOf(session.socket);
    const connection = key === undefined ? undefined : this.#all.get(key);
    if (connection === undefined) return;
    connection.session = session;
    session.on('stream', (stream, headers) => {
      if (!HOLDS_NOTHING.has(headers[':path'])) this.#hold(connection, stream);
    });
  }

  /** The timer stops; connections stay. */
  close(): void {
    clearInterval(this.#sweeper);
  }

  #hold(connection: Connection, stream: ServerHttp2Stream): void {
    if (stream.destroyed) return;
    connection.streams += 1;
    this.#idle.delete(connection);
    stream.once('close', () => {
      connection.streams -= 1;
      if (connection.streams > 0 || connection.socket.destroyed) return;
      connection.idleSinceMs = this.#options.now();
      this.#idle.add(connection);
    });
  }

  #sweep(): void {
    const { idleMs, now } = this.#options;
    const before = now() - idleMs;
    for (const connection of this.#idle) {
      if (connection.idleSinceMs > before) return;
      this.#end(connection);
    }
  }

  #endOldestIdle(): boolean {
    const [oldest] = this.#idle;
    if (oldest === undefined) return false;
    this.#end(oldest);
    return true;
  }

  #end(connection: Connection): void {
    const { session, socket } = connection;
    this.#idle.delete(connection);
    this.#options.onEnded('idle');
    if (session === undefined || session.destroyed) {
      socket.destroy();
      return;
    }
    // Says GOAWAY: whoever was about to use it connects again, and has lost nothing.
    session.destroy();
    const timer = setTimeout(() => socket.destroy(), CLOSE_MS);
    socket.once('close', () => clearTimeout(timer));
  }
}

/** TLS and HTTP/2 wrap the socket, and have its ends. */
function keyOf({ remoteAddress, remotePort, localPort }: Partial<Socket>): string | undefined {
  return remoteAddress === undefined ? undefined : `${remoteAddress} ${remotePort} ${localPort}`;
}
