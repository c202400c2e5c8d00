import type { WebSocket } from 'ws';
import type { Switches } from './options.ts';

export interface LivenessHost {
  /** The age limit has come. */
  aged(): void;
  /** The peer is silent: no pong, or no request for too long. */
  expired(code: number, reason: string): void;
}

/** The clocks of one connection: server pings, idle timeout, age limit. */
export class Liveness {
  readonly #socket: WebSocket;
  readonly #host: LivenessHost;
  readonly #timers: NodeJS.Timeout[] = [];
  #pongDue: NodeJS.Timeout | undefined;
  #idle: NodeJS.Timeout | undefined;
  readonly #idleTimeoutMs: number;
  #isBusy = false;

  constructor(socket: WebSocket, switches: Switches, host: LivenessHost) {
    this.#socket = socket;
    this.#host = host;
    this.#idleTimeoutMs = switches.idleTimeoutMs;
    const { pingIntervalMs, pingTimeoutMs, connectionAgeMs } = switches;
    if (pingIntervalMs > 0) {
      socket.on('pong', () => {
        clearTimeout(this.#pongDue);
        this.#pongDue = undefined;
      });
      this.#timers.push(setInterval(() => this.#ping(pingTimeoutMs), pingIntervalMs));
    }
    if (connectionAgeMs > 0) this.#timers.push(setTimeout(() => host.aged(), connectionAgeMs));
    this.#armIdle();
  }

  heard(): void {
    this.#armIdle();
  }

  /** A connection with work in hand is not idle. */
  busy(isBusy: boolean): void {
    this.#isBusy = isBusy;
    this.#armIdle();
  }

  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    clearTimeout(this.#pongDue);
    clearTimeout(this.#idle);
    this.#isBusy = true;
  }

  #ping(timeoutMs: number): void {
    if (this.#socket.readyState !== this.#socket.OPEN || this.#pongDue !== undefined) return;
    this.#socket.ping();
    // The text is that of the Python `websockets` library, which the live service shows.
    this.#pongDue = setTimeout(() => this.#host.expired(1011, 'keepalive ping timeout'), timeoutMs);
  }

  #armIdle(): void {
    if (this.#idleTimeoutMs === 0) return;
    clearTimeout(this.#idle);
    if (!this.#isBusy)
      this.#idle = setTimeout(() => this.#host.expired(1001, 'idle timeout'), this.#idleTimeoutMs);
  }
}
