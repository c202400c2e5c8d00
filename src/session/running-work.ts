/** Work beside the sessions that a drain waits for. */
export class RunningWork {
  readonly #running = new Set<Promise<unknown>>();

  add(work: Promise<unknown>): void {
    const over = work.finally(() => this.#running.delete(over)).catch(() => {});
    this.#running.add(over);
  }

  /** Resolves when nothing runs, what began meanwhile included, or after `timeoutMs`. */
  async whenIdle(timeoutMs: number): Promise<void> {
    const { promise: timeout, resolve } = Promise.withResolvers<void>();
    let timeLeft = true;
    const timer = setTimeout(() => {
      timeLeft = false;
      resolve();
    }, timeoutMs);
    while (timeLeft && this.#running.size > 0) await Promise.race([timeout, Promise.all(this.#running)]);
    clearTimeout(timer);
  }
}
