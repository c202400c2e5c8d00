/**
 * Dials of one upstream that are on their way at the same time. When a replica dies or a network comes back, all sessions
 * dial in the same moment: begun together, each handshake would take as long as all of them, and time out.
 */
export class DialGate {
  readonly #size: number;
  readonly #inFlight = new Map<string, number>();
  readonly #waiting = new Map<string, (() => void)[]>();

  constructor(size: number) {
    this.#size = size;
  }

  /** Whether the next dial has to wait. */
  isFull(upstream: string): boolean {
    return (this.#inFlight.get(upstream) ?? 0) >= this.#size;
  }

  /** Resolves in the order of calls, with what gives the place back; calling that again does nothing. */
  async enter(upstream: string): Promise<() => void> {
    if (this.isFull(upstream)) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const waiting = this.#waiting.get(upstream) ?? [];
      waiting.push(resolve);
      this.#waiting.set(upstream, waiting);
      await promise;
    } else this.#inFlight.set(upstream, (this.#inFlight.get(upstream) ?? 0) + 1);
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#leave(upstream);
    };
  }

  /** The place goes to the next one. */
  #leave(upstream: string): void {
    const next = this.#waiting.get(upstream)?.shift();
    if (next !== undefined) return next();
    const left = (this.#inFlight.get(upstream) ?? 1) - 1;
    if (left > 0) this.#inFlight.set(upstream, left);
    else this.#inFlight.delete(upstream);
  }
}
