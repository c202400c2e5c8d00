import type { RpcCall } from './call.ts';

/** Intervals without a byte from the client after which it is taken for gone. */
const SILENT_INTERVALS = 3;
/** However small a client's offer: answering is work. */
const MIN_INTERVAL_MS = 1_000;

/** What a client is told to keep to; undefined: no heartbeats. */
export function grantedIntervalMs(
  offeredMs: number | undefined,
  longestMs: number | undefined,
): number | undefined {
  if (offeredMs === undefined || longestMs === undefined) return undefined;
  return Math.min(longestMs, Math.max(offeredMs, MIN_INTERVAL_MS));
}

export interface HeartbeatOptions {
  readonly call: RpcCall;
  readonly intervalMs: number;
  readonly now: () => number;
  /** The answer, encoded. */
  readonly message: Uint8Array;
  /** Nothing came for three intervals in which the stream was read. */
  readonly onSilent: () => void;
}

/** Answers a client's heartbeats, and notices when they stop: what lies between may hide that the client is gone. */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  readonly #timer: NodeJS.Timeout;
  #silentIntervals = 0;
  #answeredAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#tick(), options.intervalMs);
  }

  /** Events on their way say the same as an answer. More than were agreed on are passed over. */
  received(): void {
    const { call, intervalMs, message, now } = this.#options;
    const atMs = now();
    if (!call.hasRoom || atMs - this.#answeredAtMs < intervalMs / 2) return;
    this.#answeredAtMs = atMs;
    call.write(message);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** A process that stood still has missed one tick, however long that was. */
  #tick(): void {
    const { call, onSilent } = this.#options;
    // What is not read cannot be heard.
    this.#silentIntervals = call.takeHeard() || !call.isReading ? 0 : this.#silentIntervals + 1;
    if (this.#silentIntervals < SILENT_INTERVALS) return;
    this.stop();
    onSilent();
  }
}
