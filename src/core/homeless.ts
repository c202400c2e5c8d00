import type { Lane } from './lane.ts';

/** Where a lane waits for a link. */
export interface Seat {
  readonly lane: Lane;
  before: Seat | undefined;
  after: Seat | undefined;
}

/**
 * Lanes with a turn that could be written if they had a link, in the order they began to wait. Linked by hand: a Set of
 * thousands whose members leave and come back keeps what they left behind, and takes microseconds for each.
 */
export class Homeless {
  #first: Seat | undefined;
  #last: Seat | undefined;
  #size = 0;
  readonly #newcomers: Lane[] = [];

  get size(): number {
    return this.#size;
  }

  get first(): Lane | undefined {
    return this.#first?.lane;
  }

  get hasNewcomers(): boolean {
    return this.#newcomers.length > 0;
  }

  /** A lane that is in it already keeps its place. */
  add(lane: Lane): void {
    if (lane.seat !== undefined) return;
    this.#append(lane);
    this.#newcomers.push(lane);
  }

  delete(lane: Lane): void {
    const { seat } = lane;
    if (seat === undefined) return;
    lane.seat = undefined;
    if (seat.before === undefined) this.#first = seat.after;
    else seat.before.after = seat.after;
    if (seat.after === undefined) this.#last = seat.before;
    else seat.after.before = seat.before;
    this.#size -= 1;
  }

  /** Whoever could not be helped now does not keep others from being looked at next time. */
  moveToEnd(lane: Lane): void {
    this.delete(lane);
    this.#append(lane);
  }

  /** Those that came since the last visit and still wait, in order; also those that come meanwhile. */
  visitNewcomers(visit: (lane: Lane) => void): void {
    const newcomers = this.#newcomers;
    for (let n = 0; n < newcomers.length; n += 1) {
      const lane = newcomers[n] as Lane;
      if (lane.seat !== undefined) visit(lane);
    }
    newcomers.length = 0;
  }

  clear(): void {
    while (this.#first !== undefined) this.delete(this.#first.lane);
    this.#newcomers.length = 0;
  }

  #append(lane: Lane): void {
    const seat: Seat = { lane, before: this.#last, after: undefined };
    if (this.#last === undefined) this.#first = seat;
    else this.#last.after = seat;
    this.#last = seat;
    lane.seat = seat;
    this.#size += 1;
  }
}
