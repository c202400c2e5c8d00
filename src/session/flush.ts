/** Something that gathers work during a tick and does it once. */
export interface Flushable {
  flush(): void;
}

/**
 * One `setImmediate` for all sessions: it runs after all sockets of this turn of the event loop were read, so a
 * burst of frames becomes one batch, and nothing waits for a batch to fill.
 */
export class FlushQueue {
  #waiting: Flushable[] = [];
  readonly #run = () => {
    const batch = this.#waiting;
    this.#waiting = [];
    for (const one of batch) one.flush();
  };

  /** The caller remembers that it is waiting, and asks once. */
  add(one: Flushable): void {
    if (this.#waiting.push(one) === 1) setImmediate(this.#run);
  }
}
