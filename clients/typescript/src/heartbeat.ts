/** Intervals without a message after which nothing is expected any more. */
const SILENT_INTERVALS = 3;

export interface HeartbeatOptions {
  readonly intervalMs: number;
  /** Receiving is stopped: what is not read cannot be heard. */
  readonly isPaused: () => boolean;
  readonly send: () => void;
  readonly onSilent: () => void;
}

/** Says to everything on the way that the client is there, and notices when nothing comes back. */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  #heardAtMs = performance.now();
  #sendAtMs: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
    this.#sendAtMs = this.#heardAtMs + options.intervalMs;
    this.#arm();
  }

  /** A message has come. */
  heard(): void {
    this.#heardAtMs = performance.now();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  get #silentAtMs(): number {
    return this.#heardAtMs + SILENT_INTERVALS * this.#options.intervalMs;
  }

  #arm(): void {
    const dueAtMs = Math.min(this.#sendAtMs, this.#silentAtMs);
    this.#timer = setTimeout(() => this.#look(dueAtMs), Math.max(0, dueAtMs - performance.now()));
    this.#timer.unref();
  }

  #look(dueAtMs: number): void {
    const { intervalMs, isPaused, send, onSilent } = this.#options;
    const nowMs = performance.now();
    // A process that stood still has heard nothing because of itself.
    if (isPaused() || nowMs - dueAtMs > intervalMs) this.#heardAtMs = nowMs;
    if (nowMs >= this.#silentAtMs) return onSilent();
    if (nowMs >= this.#sendAtMs) {
      this.#sendAtMs = nowMs + intervalMs;
      send();
    }
    this.#arm();
  }
}
