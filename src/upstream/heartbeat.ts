export interface HeartbeatOptions {
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly ping: () => void;
  /** Grows with every byte that came in or went out; while it grows the connection lives. */
  readonly activity: () => number;
  readonly onLost: () => void;
  readonly onRtt: (ms: number) => void;
}

/** Shorter than the idle time-outs of common proxies and NATs, which start at 30 s. */
export const DEFAULT_PING_INTERVAL_MS = 20_000;

/** Pings in a steady rhythm; anything that moves counts as an answer, so that a busy link costs nothing. */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  #timer: NodeJS.Timeout;
  #pingedAt: number | undefined;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
    this.#timer = this.#later(() => this.#ping(), options.intervalMs);
  }

  pong(): void {
    if (this.#pingedAt === undefined) return;
    this.#options.onRtt(performance.now() - this.#pingedAt);
    this.#rest();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#pingedAt = undefined;
  }

  #ping(): void {
    this.#pingedAt = performance.now();
    const before = this.#options.activity();
    this.#timer = this.#later(() => this.#check(before), this.#options.timeoutMs);
    this.#options.ping();
  }

  #check(before: number): void {
    if (this.#options.activity() !== before) return this.#rest();
    // After a stall of this process timers fire before sockets are read: the answer may be waiting.
    const pingedAt = this.#pingedAt;
    setImmediate(() => {
      if (pingedAt === undefined || this.#pingedAt !== pingedAt) return;
      if (this.#options.activity() === before) this.#options.onLost();
      else this.#rest();
    });
  }

  #rest(): void {
    clearTimeout(this.#timer);
    this.#pingedAt = undefined;
    this.#timer = this.#later(() => this.#ping(), this.#options.intervalMs);
  }

  #later(run: () => void, ms: number): NodeJS.Timeout {
    return setTimeout(run, ms);
  }
}
