import { afterAwakeMs } from '../ground/awake-timer.ts';

/**
 * Dials of one upstream that are on their way at the same time. When a replica dies or a network comes back, all sessions
 * dial in the same moment: begun together, each handshake would take as long as all of them, and time out.
 */
export class DialGate {
  readonly #size: number;
  readonly #inFlight = new Map<string, number>();
  readonly #waiting = new Map<string, Set<() => void>>();

  constructor(size: number) {
    this.#size = size;
  }

  /** Whether the next dial has to wait. */
  isFull(upstream: string): boolean {
    return (this.#inFlight.get(upstream) ?? 0) >= this.#size;
  }

  /**
   * Resolves in the order of calls, with what gives the place back; calling that again does nothing. Undefined: there was
   * no place within `timeoutMs`.
   */
  async enter(upstream: string, timeoutMs: number): Promise<(() => void) | undefined> {
    if (!this.isFull(upstream)) this.#inFlight.set(upstream, (this.#inFlight.get(upstream) ?? 0) + 1);
    else if (!(await this.#waitFor(upstream, timeoutMs))) return undefined;
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#leave(upstream);
    };
  }

  /** False: in vain. */
  #waitFor(upstream: string, timeoutMs: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const waiting = this.#waiting.get(upstream) ?? new Set();
    this.#waiting.set(upstream, waiting);
    const stopTimer = afterAwakeMs(timeoutMs, () => {
      waiting.delete(enter);
      resolve(false);
    });
    const enter = () => {
      stopTimer();
      waiting.delete(enter);
      resolve(true);
    };
    waiting.add(enter);
    return promise;
  }

  /** The place goes to the next one. */
  #leave(upstream: string): void {
    for (const next of this.#waiting.get(upstream) ?? []) return next();
    const left = (this.#inFlight.get(upstream) ?? 1) - 1;
    if (left > 0) this.#inFlight.set(upstream, left);
    else this.#inFlight.delete(upstream);
  }
}
