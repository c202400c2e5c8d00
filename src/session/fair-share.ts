/**
 * What clients may cause in one turn of the event loop before the others get theirs. A burst of calls or messages
 * comes in one piece from the socket, and its work would be done in one piece; a neighbour's message waits behind it.
 */
const MIN_SLICE_MS = 1;
/** Of what the rest of the event loop's turn took: beside much output a millisecond would let nothing begin. */
const SLICE_SHARE = 0.25;

type Work = () => void;

/**
 * Gives connections their turns. Work runs at once as long as the event loop's turn is young; after that it waits in
 * its connection's queue, and each connection in turn does one piece, until the next slice is over.
 */
export class FairShare {
  readonly #now: () => number;
  /** In the order of their next turns. */
  readonly #queues = new Map<object, Work[]>();
  #sliceEndsAtMs: number | undefined;
  /** When a slice was last asked for time: what passed since then was others'. */
  #askedAtMs = 0;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** Runs `work` now or later. What throws in it is the caller's to catch. */
  run(connection: object, work: Work): void {
    if (this.#queues.size === 0 && this.#hasTime()) work();
    else this.#enqueue(connection, work);
  }

  /** Undefined: go on at once. */
  wait(connection: object): Promise<void> | undefined {
    if (this.#queues.size === 0 && this.#hasTime()) return undefined;
    return new Promise((resolve) => this.#enqueue(connection, resolve));
  }

  /** Works through steps, with a pause between two of them where the others are to have their turn. */
  async through<T>(connection: object, steps: Generator<undefined, T>): Promise<T> {
    for (;;) {
      const step = steps.next();
      if (step.done === true) return step.value;
      const turn = this.wait(connection);
      if (turn !== undefined) await turn;
    }
  }

  #enqueue(connection: object, work: Work): void {
    const queue = this.#queues.get(connection);
    if (queue === undefined) this.#queues.set(connection, [work]);
    else queue.push(work);
  }

  #hasTime(sliceMs = MIN_SLICE_MS): boolean {
    const nowMs = this.#now();
    this.#askedAtMs = nowMs;
    if (this.#sliceEndsAtMs === undefined) {
      this.#sliceEndsAtMs = nowMs + sliceMs;
      setImmediate(() => void this.#nextSlice());
    }
    return nowMs < this.#sliceEndsAtMs;
  }

  async #nextSlice(): Promise<void> {
    this.#sliceEndsAtMs = undefined;
    const othersMs = this.#now() - this.#askedAtMs;
    const sliceMs = Math.max(MIN_SLICE_MS, othersMs * SLICE_SHARE);
    while (this.#queues.size > 0 && this.#hasTime(sliceMs)) {
      const [next] = this.#queues;
      if (next === undefined) return;
      const [connection, queue] = next;
      const work = queue.shift();
      this.#queues.delete(connection);
      if (queue.length > 0) this.#queues.set(connection, queue);
      work?.();
      // What the work goes on with after its first `await` belongs to its time.
      await undefined;
    }
  }
}
