import type { WebSocket } from 'ws';
import type { Switches } from './options.ts';

/** The clocks of one connection: server pings, idle timeout, age limit. */
export class Liveness {
  readonly #socket: WebSocket;
  readonly #timers: NodeJS.Timeout[] = [];
  #pongDue: NodeJS.Timeout | undefined;
  #idle: NodeJS.Timeout | undefined;
  readonly #idleTimeoutMs: number;
  #isBusy = false;

  constructor(socket: WebSocket, switches: Switches, onAge: () => void) {
    this.#socket = socket;
    this.#idleTimeoutMs = switches.idleTimeoutMs;
    const { pingIntervalMs, pingTimeoutMs, connectionAgeMs } = switches;
    if (pingIntervalMs > 0) {
      socket.on('pong', () => {
        clearTimeout(this.#pongDue);
        this.#pongDue = undefined;
      });
      this.#timers.push(setInterval(() => this.#ping(pingTimeoutMs), pingIntervalMs));
    }
    if (connectionAgeMs > 0) this.#timers.push(setTimeout(onAge, connectionAgeMs));
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
    this.#pongDue = setTimeout(() => this.#socket.close(1011, 'keepalive ping timeout'), timeoutMs);
  }

  #armIdle(): void {
    if (this.#idleTimeoutMs === 0) return;
    clearTimeout(this.#idle);
    if (!this.#isBusy)
      this.#idle = setTimeout(() => this.#socket.close(1001, 'idle timeout'), this.#idleTimeoutMs);
  }
}
