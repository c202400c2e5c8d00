export interface SendWindowOptions {
  /** Sends a ping with this payload. */
  readonly ping: (payload: string) => void;
  /** More may be sent. */
  readonly onOpen: () => void;
  /** A peer that answers no ping for so long is not measured any more. */
  readonly pongTimeoutMs: number;
}

/** At 50 KB a second, the slowest upload that is worth a thought, this much is on its way for ten seconds. */
const START_BYTES = 512 * 1024;
const MIN_BYTES = 64 * 1024;
/** Enough for 40 MB a second over 100 ms. */
const MAX_BYTES = 4 * 1024 * 1024;
/** Answers later than the quickest by less show a path with room, by more a queue on it. */
const ROOM_MS = 200;
const QUEUE_MS = 1_000;
/** Pings in a window. */
const PINGS = 4;

interface Mark {
  readonly total: number;
  readonly sentAt: number;
}

/**
 * Bounds what is under way. The system and every box on the path buffer megabytes, and our answer to a ping of the
 * upstream waits behind all of it: on a slow path longer than the 20 s after which the upstream closes
 * (upstream.md#liveness). Node has no hand on those buffers, so pings of our own among the data tell how much has arrived, and the
 * time they take decides how much may follow.
 */
export class SendWindow {
  readonly #options: SendWindowOptions;
  #bytes = START_BYTES;
  #sent = 0;
  #arrived = 0;
  #pinged = 0;
  #marks: Mark[] = [];
  #quickestMs = Number.POSITIVE_INFINITY;
  /** Marks up to here were sent before the last change and tell nothing about it. */
  #changedAt = 0;
  #waiting: NodeJS.Timeout | undefined;
  #state: 'measuring' | 'suspended' | 'given up' = 'measuring';

  constructor(options: SendWindowOptions) {
    this.#options = options;
  }

  /** Whether a piece may be sent now; if not, `onOpen` follows. */
  isOpen(): boolean {
    if (this.#state !== 'measuring' || this.#sent - this.#arrived < this.#bytes) return true;
    this.#waiting ??= setTimeout(() => this.#giveUp(), this.#options.pongTimeoutMs);
    return false;
  }

  sent(bytes: number): void {
    this.#sent += bytes;
    if (this.#state !== 'measuring' || this.#sent - this.#pinged < this.#bytes / PINGS) return;
    this.#pinged = this.#sent;
    this.#marks.push({ total: this.#sent, sentAt: performance.now() });
    this.#options.ping(PREFIX + this.#sent);
  }

  /** Every pong of the link. A peer may answer only the last of several pings (RFC 6455, 5.5.3). */
  pong(payload: string): void {
    if (this.#state !== 'measuring' || !payload.startsWith(PREFIX)) return;
    const total = Number(payload.slice(PREFIX.length));
    const mark = this.#marks.find((each) => each.total === total);
    if (mark === undefined) return;
    this.#marks = this.#marks.filter((each) => each.total > total);
    this.#arrived = total;
    this.#adapt(mark, performance.now() - mark.sentAt);
    this.#reopen();
  }

  /** Nobody reads the answers now; the window stands open. */
  suspend(): void {
    if (this.#state !== 'measuring') return;
    this.#state = 'suspended';
    this.#reopen();
  }

  /** Begins anew: what was sent meanwhile counts as arrived. */
  resume(): void {
    if (this.#state !== 'suspended') return;
    this.#state = 'measuring';
    this.#marks = [];
    this.#arrived = this.#sent;
    this.#pinged = this.#sent;
  }

  stop(): void {
    clearTimeout(this.#waiting);
    this.#state = 'given up';
  }

  #adapt({ total }: Mark, rttMs: number): void {
    this.#quickestMs = Math.min(this.#quickestMs, rttMs);
    if (total <= this.#changedAt) return;
    const lateMs = rttMs - this.#quickestMs;
    if (lateMs >= ROOM_MS && lateMs <= QUEUE_MS) return;
    this.#bytes =
      lateMs < ROOM_MS ? Math.min(MAX_BYTES, this.#bytes * 2) : Math.max(MIN_BYTES, this.#bytes / 2);
    this.#changedAt = this.#sent;
  }

  #giveUp(): void {
    this.#state = 'given up';
    this.#reopen();
  }

  #reopen(): void {
    clearTimeout(this.#waiting);
    this.#waiting = undefined;
    this.#options.onOpen();
  }
}

const PREFIX = 'sent:';
