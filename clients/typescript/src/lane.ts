import type { InputItem } from './gen/responses/gateway/v1/items_pb.ts';
import type { WaitOptions } from './options.ts';
import { type TurnRequest, warmUp } from './request.ts';
import type { Result } from './result.ts';
import type { SessionCore } from './session-core.ts';
import { runTools, type ToolLoop, toolTurns } from './tools.ts';
import { Turn } from './turn.ts';
import type { LaneState } from './turn-state.ts';

/**
 * One line of conversation in a session: its turns run one after the other, lanes run side by side. It costs nothing
 * until its first turn. An upstream connection carries some 32 named lanes in its life; the gateway opens more as
 * needed.
 */
export class Lane {
  /** Empty is the default lane. */
  readonly id: string;
  readonly #session: SessionCore;
  readonly #state: LaneState;

  /** Lanes come from `Session.lane`. */
  constructor(session: SessionCore, state: LaneState) {
    this.id = state.id;
    this.#session = session;
    this.#state = state;
  }

  /**
   * Starts a turn and resolves when it is queued for sending; waits while too much is queued. Turns of one lane run in
   * the order of their starts. The current OpenTelemetry span becomes the turn's parent.
   * @throws TurnError with replay `safe`; the signal's reason.
   */
  async start(request: TurnRequest, options: WaitOptions = {}): Promise<Turn> {
    return new Turn(this.#session, this, await this.#session.start(this.#state, request, options.signal));
  }

  /**
   * Prepares instructions, tools and input upstream without producing output, so that the next turn answers sooner.
   * Where the upstream cannot, the turn fails with reason NOT_SUPPORTED_BY_UPSTREAM.
   */
  warmUp(request: TurnRequest, options: WaitOptions = {}): Promise<Turn> {
    return this.start(warmUp(request), options);
  }

  /** Adds user input to whatever turn runs on the lane. See `Turn.steer`. */
  steer(input: string | readonly InputItem[]): void {
    this.#session.steer(this.id, '', input);
  }

  /**
   * The lane `id`, whose first turn continues from the last response of this lane as it is now. Both then go their own
   * ways.
   */
  fork(id: string): Lane {
    const state = this.#session.lane(id);
    state.forkFrom = this.#state.lastResponseId || undefined;
    return new Lane(this.#session, state);
  }

  /** The response that the lane's next turn continues from, as far as the client has heard; empty if none. */
  get lastResponseId(): string {
    return this.#state.lastResponseId;
  }

  /**
   * Runs turns until the model answers without calling a function. See {@link ToolLoop}.
   * @throws TurnLimitError; what `start` and `final` throw.
   */
  runTools(request: TurnRequest, loop: ToolLoop): Promise<Result> {
    return runTools(this, request, loop);
  }

  /** `runTools` turn by turn: each turn may be read before the next one is asked for. */
  toolTurns(request: TurnRequest, loop: ToolLoop): AsyncGenerator<Turn, void, undefined> {
    return toolTurns(this, request, loop);
  }
}
