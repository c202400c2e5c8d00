import type { Event } from './event.ts';
import type { Lane } from './lane.ts';
import type { WaitOptions } from './options.ts';
import type { Input } from './request.ts';
import type { Result } from './result.ts';
import type { TurnState } from './turn-state.ts';

/** What a turn needs of its session. */
export interface Steering {
  steer(laneId: string, turnId: string, input: Input, signal: AbortSignal | undefined): Promise<void>;
  cancelTurn(turn: TurnState): void;
}

/**
 * One response and everything until its end. It has one reader at a time, who either iterates over the events or takes
 * the `final` result; `final` after some events takes what is left into account.
 */
export class Turn implements AsyncIterable<Event> {
  readonly id: string;
  readonly lane: Lane;
  readonly #state: TurnState;
  readonly #session: Steering;

  /** Turns come from `start`. */
  constructor(session: Steering, lane: Lane, state: TurnState) {
    this.id = state.id;
    this.lane = lane;
    this.#state = state;
    this.#session = session;
  }

  /**
   * The turn's events, up to the one with an `outcome`. A loop that was left can be gone on with.
   * @throws TurnError after the last event of a turn that failed; TurnBusyError; the signal's reason.
   */
  events(options: WaitOptions = {}): AsyncGenerator<Event, void, undefined> {
    return this.#state.events(options.signal);
  }

  [Symbol.asyncIterator](): AsyncGenerator<Event, void, undefined> {
    return this.events();
  }

  /**
   * Reads the turn to its end and returns its result. An incomplete response is no error: see `Result.outcome`.
   * @throws as {@link events}; {@link result} then holds what there is.
   */
  final(options: WaitOptions = {}): Promise<Result> {
    return this.#state.final(options.signal);
  }

  /** What has been read so far. */
  get result(): Result {
    return this.#state.result;
  }

  /**
   * Adds user input to the running turn. Acceptance (`response.steer.accepted`) and refusal arrive as events of the
   * turn. A steer that is on its way when the stream breaks may be lost; it is never sent twice. Resolves when it is
   * queued for sending; waits while too much is queued.
   * @throws StreamError when the session takes nothing more; the signal's reason.
   */
  steer(input: Input, options: WaitOptions = {}): Promise<void> {
    return this.#session.steer(this.lane.id, this.id, input, options.signal);
  }

  /** Gives the turn up. Its last event arrives at once. Cancelling a turn that has ended does nothing. */
  cancel(): void {
    this.#session.cancelTurn(this.#state);
  }

  /** Stops listening: further events are dropped. It does not cancel the turn. */
  close(): void {
    this.#state.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
