import { TurnError } from './errors.ts';
import type { LaneState } from './lanes.ts';
import { runTools, type ToolLoop, toolTurns } from './loop.ts';
import type { WaitOptions } from './options.ts';
import { type Input, type TurnRequest, warmUp } from './request.ts';
import { type Parsed, parseResult, type Result } from './result.ts';
import { pause, retryWaitMs } from './resume.ts';
import type { Schema } from './schema.ts';
import type { SessionCore } from './session-core.ts';
import { Turn } from './turn.ts';

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

  /**
   * Starts a turn and reads it to its end. A turn that certainly did not run is started again, up to `attempts` times in
   * all (default: 3), after the time that the gateway told or growing waits.
   * @throws as `start` and `final`.
   */
  async run(
    request: TurnRequest,
    options: WaitOptions & { readonly attempts?: number } = {},
  ): Promise<Result> {
    const { attempts = 3, signal } = options;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await (await this.start(request, options)).final(options);
      } catch (error) {
        if (!(error instanceof TurnError) || error.replay !== 'safe') throw error;
        if (attempt >= attempts || !mayHelp(error)) throw error;
        await pause(retryWaitMs(attempt, error.retryAfterMs), signal);
        signal?.throwIfAborted();
      }
    }
  }

  /** Runs a turn whose answer has the form of `schema`, a Standard Schema of an object. */
  async parse<T>(request: TurnRequest, schema: Schema<T>, options: WaitOptions = {}): Promise<Parsed<T>> {
    return parseResult(await this.run({ ...request, textFormat: schema }, options), schema);
  }

  /** Adds user input to whatever turn runs on the lane. See `Turn.steer`. */
  steer(input: Input, options: WaitOptions = {}): Promise<void> {
    return this.#session.steer(this.id, '', input, options.signal);
  }

  /**
   * The lane `id`, whose first turn continues from the last response of this lane as it is now. Both then go their own
   * ways.
   */
  fork(id: string): Lane {
    return new Lane(this.#session, this.#session.fork(this.#state, id));
  }

  /** The response that the lane's next turn continues from, as far as the client has heard; empty if none. */
  get lastResponseId(): string {
    return this.#state.lastResponseId;
  }

  /**
   * Runs turns until the model answers without calling a function. See {@link ToolLoop}.
   * The result's usage is that of all turns.
   * @throws LoopLimitError; what `start` and `final` throw.
   */
  runTools(request: TurnRequest, loop: ToolLoop): Promise<Result> {
    return runTools(this.#session, this, this.#state, request, loop);
  }

  /**
   * `runTools` turn by turn: each turn may be read before the next one is asked for. A turn that runs when the loop is
   * left is cancelled.
   */
  toolTurns(request: TurnRequest, loop: ToolLoop): AsyncGenerator<Turn, void, undefined> {
    return toolTurns(this.#session, this, this.#state, request, loop);
  }
}

/** Whether the same turn may do better a little later, on the same session. */
function mayHelp({ retryAfterMs, code, inferred, reason }: TurnError): boolean {
  if (inferred || reason === 'DRAINING') return false;
  return retryAfterMs !== undefined || code === 'UNAVAILABLE' || reason === 'UPSTREAM_RATE_LIMITED';
}
