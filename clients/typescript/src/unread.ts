import type { TurnState } from './turn-state.ts';

/** How long unread events may hold up the readers of other turns. */
const STALL_AFTER_MS = 1_000;
const CHECK_EVERY_MS = 250;

/** The events of all turns of a session that wait for their readers, bounded in bytes. */
export class Unread {
  readonly #maxBytes: number;
  readonly #onRoom: () => void;
  readonly #turns: () => Iterable<TurnState>;
  readonly #onFold: (turn: TurnState) => void;
  readonly #holders = new Set<TurnState>();
  #bytes = 0;
  #mostBytes = 0;
  #fullSinceMs: number | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** `onRoom` is called when there is room again, `turns` are those that may have waiting readers. */
  constructor(
    maxBytes: number,
    onRoom: () => void,
    turns: () => Iterable<TurnState>,
    onFold: (turn: TurnState) => void,
  ) {
    this.#maxBytes = maxBytes;
    this.#onRoom = onRoom;
    this.#turns = turns;
    this.#onFold = onFold;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get mostBytes(): number {
    return this.#mostBytes;
  }

  get isFull(): boolean {
    return this.#bytes >= this.#maxBytes;
  }

  add(turn: TurnState, bytes: number): void {
    // It stays until it is over: events come and go one by one.
    if (turn.queuedBytes === bytes) this.#holders.add(turn);
    this.#bytes += bytes;
    if (this.#bytes > this.#mostBytes) this.#mostBytes = this.#bytes;
    if (!this.isFull || this.#fullSinceMs !== undefined) return;
    this.#fullSinceMs = performance.now();
    this.#timer = setInterval(() => this.#relieve(), CHECK_EVERY_MS).unref();
  }

  /** The turn holds nothing, and never will again. */
  forget(turn: TurnState): void {
    this.#holders.delete(turn);
  }

  release(bytes: number): void {
    this.#bytes -= bytes;
    if (this.#bytes < this.#maxBytes / 2) this.end();
    if (!this.isFull) this.#onRoom();
  }

  /** Looks no longer after stalls. */
  end(): void {
    this.#fullSinceMs = undefined;
    clearInterval(this.#timer);
  }

  /** Folds unread turns if they have held up the readers of others for long. */
  #relieve(): void {
    const long = performance.now() - STALL_AFTER_MS;
    if (this.#fullSinceMs === undefined || this.#fullSinceMs > long) return;
    if (
      ![...this.#turns()].some(({ waitingSinceMs }) => waitingSinceMs !== undefined && waitingSinceMs <= long)
    )
      return;
    for (const turn of [...this.#holders].sort((a, b) => b.queuedBytes - a.queuedBytes)) {
      if (this.#bytes < this.#maxBytes / 2) return;
      this.#onFold(turn);
      turn.fold();
    }
  }
}
