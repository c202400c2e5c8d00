import type { TurnState } from './turn-state.ts';

/** A message that waits to be sent. */
export interface Outgoing {
  /** Undefined: half-close. */
  readonly message: Uint8Array | undefined;
  /** The turn whose start it is. */
  readonly turn?: TurnState;
  /** The turn that it cancels or steers: it must not come before its start. */
  readonly about?: TurnState | undefined;
}

/** The queue of messages for the gateway, bounded in bytes. It outlives streams. */
export class Outbox {
  readonly #maxBytes: number;
  readonly #send: () => void;
  #queue: Outgoing[] = [];
  #waiting: (() => void)[] = [];
  #bytes = 0;

  /** `send` is called whenever something was added. */
  constructor(maxBytes: number, send: () => void) {
    this.#maxBytes = maxBytes;
    this.#send = send;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(outgoing: Outgoing): void {
    this.#queue.push(outgoing);
    this.#bytes += outgoing.message?.length ?? 0;
    this.#send();
  }

  /** Queues messages before all others. */
  addFirst(first: readonly Outgoing[]): void {
    this.#queue.unshift(...first);
    for (const { message } of first) this.#bytes += message?.length ?? 0;
    this.#send();
  }

  /** The next one; without `starts`, the next that begins no turn and concerns none that waits. */
  take(starts: boolean): Outgoing | undefined {
    const index = starts ? 0 : this.#queue.findIndex(({ turn, about }) => !turn && about?.sent !== false);
    const outgoing =
      index <= 0 ? (index === 0 ? this.#queue.shift() : undefined) : this.#queue.splice(index, 1)[0];
    if (outgoing) {
      this.#bytes -= outgoing.message?.length ?? 0;
      this.#admit();
    }
    return outgoing;
  }

  clear(): void {
    this.#queue = [];
    this.#bytes = 0;
    this.#admit();
  }

  /**
   * Calls `enter` when there is room, which one message always has; in the order of the calls. Returns what takes the
   * caller out of the queue, undefined if it got in at once.
   */
  whenRoom(enter: () => void): (() => void) | undefined {
    if (this.#waiting.length === 0 && this.#bytes < this.#maxBytes) {
      enter();
      return undefined;
    }
    this.#waiting.push(enter);
    return () => {
      this.#waiting = this.#waiting.filter((other) => other !== enter);
    };
  }

  #admit(): void {
    while (this.#bytes < this.#maxBytes) {
      const enter = this.#waiting.shift();
      if (!enter) return;
      enter();
    }
  }
}
