import { LoopLimitError } from './errors.ts';
import type { FunctionCall, InputItem } from './gen/responses/gateway/v1/items_pb.ts';
import type { Tool } from './gen/responses/gateway/v1/tools_pb.ts';
import type { Lane } from './lane.ts';
import type { LaneState } from './lanes.ts';
import { callOutput, type TurnRequest } from './request.ts';
import { Accumulator, addUsage, NO_USAGE, type Result, type Usage } from './result.ts';
import type { SessionCore } from './session-core.ts';
import type { FunctionTool } from './tools.ts';
import { inToolSpan } from './trace.ts';
import { Turn } from './turn.ts';
import type { Bound, TurnState } from './turn-state.ts';

/** A model that still calls tools after so many turns is most likely going in circles. */
export const DEFAULT_MAX_TURNS = 32;
/** Of what the gateway takes in one message; the rest is for instructions and tools. */
const SHARE_OF_RESULTS = 0.75;

/** A call that was answered. */
export interface ToolCall {
  readonly name: string;
  readonly callId: string;
  /** JSON, as the model wrote it. */
  readonly arguments: string;
  /** What the model is told. */
  readonly output: string;
  /** What went wrong, if anything. */
  readonly error?: unknown;
  readonly durationMs: number;
}

/** Functions, limits and hooks of a tool loop. A limit that is reached throws LoopLimitError. */
export interface ToolLoop {
  readonly functions: readonly FunctionTool[];
  /** Default: {@link DEFAULT_MAX_TURNS}. */
  readonly maxTurns?: number;
  /** From the first start on. */
  readonly maxTimeMs?: number;
  /** Of all turns together. */
  readonly maxTokens?: number;
  /** Of all turns together, in the unit of `price`. */
  readonly maxCost?: number;
  readonly price?: (usage: Usage) => number;
  /** What one call may take; then its result is an error, and its signal is aborted. */
  readonly toolTimeoutMs?: number;
  /** Calls that run at the same time. Default: all of a turn. */
  readonly maxConcurrency?: number;
  /** Asked before each call: true lets it be made; false or a reason refuses it, and the model is told. */
  readonly approve?: (call: FunctionCall) => boolean | string | Promise<boolean | string>;
  /** Is told each call that was answered. */
  readonly onCall?: (call: ToolCall) => unknown;
  /** Ends the loop with the signal's reason: the turn that runs is cancelled. It is handed to the functions. */
  readonly signal?: AbortSignal;
}

/** Runs turns until the model answers without calling a function. */
export async function runTools(
  session: SessionCore,
  lane: Lane,
  state: LaneState,
  request: TurnRequest,
  loop: ToolLoop,
): Promise<Result> {
  let last: Turn | undefined;
  for await (const turn of toolTurns(session, lane, state, request, loop)) {
    last = turn;
    await turn.final(loop.signal ? { signal: loop.signal } : {});
  }
  if (!last) throw new Error('a tool loop has at least one turn');
  return last.result;
}

export async function* toolTurns(
  session: SessionCore,
  lane: Lane,
  state: LaneState,
  request: TurnRequest,
  loop: ToolLoop,
): AsyncGenerator<Turn, void, undefined> {
  const { functions, signal } = loop;
  const wait = signal ? { signal } : {};
  const budget = new Budget(loop);
  const over = new AbortController();
  let running: TurnState | undefined;
  let next: TurnRequest = {
    ...request,
    tools: [
      ...(request.tools ?? request.create?.tools ?? []),
      ...functions.map(({ spec }) => spec),
    ] as Tool[],
  };
  let answers = false;
  try {
    for (;;) {
      running = await startInTime(session, state, next, budget, loop.signal, answers);
      const turn = new Turn(session, lane, running);
      yield turn;
      const result = await turn.final(wait);
      // Calls of a turn that broke off are not made: their arguments may be cut.
      const calls = result.outcome === 'completed' ? result.functionCalls : [];
      budget.spend(result, calls);
      if (calls.length === 0) return;
      const outputs = await answersOf(session, state, loop, calls, budget, over.signal);
      next = continued(next, outputs);
      answers = true;
    }
  } finally {
    // Nobody wants what still runs, and nobody else could stop it.
    over.abort(new Error('the tool loop is over'));
    if (running) {
      session.cancelTurn(running);
      running.leave();
    }
  }
}

/** Starts a turn. It may have to wait while too much is queued, which the limits of the loop bound as well. */
async function startInTime(
  session: SessionCore,
  state: LaneState,
  request: TurnRequest,
  budget: Budget,
  signal: AbortSignal | undefined,
  answers: boolean,
): Promise<TurnState> {
  const loopStart = { bound: budget.ofTurn(), answers };
  const leftMs = budget.leftMs();
  if (leftMs === undefined) return session.start(state, request, signal, loopStart);
  const waiting = new AbortController();
  const late = () => {
    const error = budget.outOfTime(budget.last ?? new Accumulator().result({ id: '', lane: state }), []);
    waiting.abort(error);
    return error;
  };
  const onAbort = () => waiting.abort(signal?.reason);
  if (signal?.aborted) onAbort();
  signal?.addEventListener('abort', onAbort, { once: true });
  return raced(session.start(state, request, waiting.signal, loopStart), undefined, leftMs, late).finally(
    () => signal?.removeEventListener('abort', onAbort),
  );
}

/** What a loop may still spend. */
class Budget {
  readonly #loop: ToolLoop;
  readonly #deadlineMs: number | undefined;
  #turns = 0;
  #usage: Usage = NO_USAGE;

  constructor(loop: ToolLoop) {
    this.#loop = loop;
    this.#deadlineMs = loop.maxTimeMs === undefined ? undefined : performance.now() + loop.maxTimeMs;
  }

  leftMs(): number | undefined {
    return this.#deadlineMs === undefined ? undefined : this.#deadlineMs - performance.now();
  }

  /** What a turn knows of its loop. */
  ofTurn(): Bound {
    const before = this.#usage;
    return {
      leftMs: () => this.leftMs(),
      expired: (result) => this.outOfTime(result, []),
      total: (result) => ({ ...result, usage: addUsage(before, result.usage) }),
    };
  }

  outOfTime(result: Result, calls: readonly FunctionCall[]): LoopLimitError {
    return limit('DEADLINE_EXCEEDED', 'LOOP_TIME_LIMIT', 'the tool loop had its time', result, calls);
  }

  /** Takes a turn's result, which has the usage of all turns, into account. Throws if there are calls and no more turns. */
  spend(result: Result, calls: readonly FunctionCall[]): void {
    this.#turns += 1;
    this.#usage = result.usage;
    if (calls.length === 0) return;
    const { maxTurns = DEFAULT_MAX_TURNS, maxTokens, maxCost, price } = this.#loop;
    const { totalTokens } = result.usage;
    if (this.#turns >= maxTurns) {
      const said = `the model still calls functions after ${this.#turns} turns`;
      throw limit('CANCELLED', 'LOOP_TURN_LIMIT', said, result, calls);
    }
    if (maxTokens !== undefined && totalTokens >= maxTokens) {
      const said = `the model still calls functions after ${totalTokens} tokens`;
      throw limit('RESOURCE_EXHAUSTED', 'LOOP_TOKEN_LIMIT', said, result, calls);
    }
    const cost = price?.(result.usage);
    if (maxCost !== undefined && cost !== undefined && cost >= maxCost) {
      const said = `the model still calls functions after a cost of ${cost}`;
      throw limit('RESOURCE_EXHAUSTED', 'LOOP_COST_LIMIT', said, result, calls);
    }
    this.last = result;
  }

  last: Result | undefined;
}

/** Makes the calls side by side, within the loop's limits, and returns their results in order. */
async function answersOf(
  session: SessionCore,
  lane: LaneState,
  loop: ToolLoop,
  calls: readonly FunctionCall[],
  budget: Budget,
  over: AbortSignal,
): Promise<readonly InputItem[]> {
  const { maxMessageBytes, maxFrameBytes } = session.limits;
  const takes = Math.min(
    maxMessageBytes || Number.POSITIVE_INFINITY,
    maxFrameBytes || Number.POSITIVE_INFINITY,
  );
  const mostBytes = (takes * SHARE_OF_RESULTS) / calls.length;
  const outputs = new Map<string, string>();
  const waiting = [...calls];
  const work = async () => {
    for (let call = waiting.shift(); call && !over.aborted; call = waiting.shift()) {
      const output = fitting(await outputOf(session, loop, call, over), mostBytes);
      outputs.set(call.callId, output);
      // In case the loop ends before it can bring the result.
      lane.answer(call.callId, output);
    }
  };
  const workers = Array.from({ length: Math.min(loop.maxConcurrency ?? calls.length, calls.length) }, work);
  const leftMs = budget.leftMs();
  await raced(Promise.all(workers), loop.signal, leftMs, () => {
    const open = calls.filter(({ callId }) => !outputs.has(callId));
    return budget.outOfTime(budget.last as Result, open);
  });
  return calls.map(({ callId }) => callOutput(callId, outputs.get(callId) ?? ''));
}

async function outputOf(
  session: SessionCore,
  loop: ToolLoop,
  call: FunctionCall,
  over: AbortSignal,
): Promise<string> {
  const { callId, name } = call;
  const controller = new AbortController();
  const onOver = () => controller.abort(loop.signal?.aborted ? loop.signal.reason : over.reason);
  over.addEventListener('abort', onOver, { once: true });
  loop.signal?.addEventListener('abort', onOver, { once: true });
  const startedMs = performance.now();
  let output: string;
  let failure: { readonly error: unknown } | undefined;
  try {
    const late = () => {
      const error = new Error('the call took too long');
      controller.abort(error);
      return error;
    };
    output = await raced(invoke(loop, call, controller.signal), undefined, loop.toolTimeoutMs, late);
  } catch (error) {
    failure = { error };
    output = errorResult(error instanceof Error ? error.message : String(error));
  } finally {
    over.removeEventListener('abort', onOver);
    loop.signal?.removeEventListener('abort', onOver);
  }
  const durationMs = performance.now() - startedMs;
  session.tell(loop.onCall, { name, callId, arguments: call.arguments, output, ...failure, durationMs });
  return output;
}

async function invoke(loop: ToolLoop, call: FunctionCall, signal: AbortSignal): Promise<string> {
  const { name, callId } = call;
  const found = loop.functions.find((candidate) => candidate.name === name);
  if (!found) throw new Error(`there is no function ${name}`);
  const approval = (await loop.approve?.(call)) ?? true;
  if (approval !== true) throw new Error(`the call was denied${approval === false ? '' : `: ${approval}`}`);
  return inToolSpan(name, callId, () => found.call(call.arguments, { callId, signal }));
}

/** What `work` comes to, unless the signal is aborted or the time is over before. */
async function raced<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined,
  leftMs: number | undefined,
  late: () => Error,
): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal?.reason);
  if (signal?.aborted) onAbort();
  signal?.addEventListener('abort', onAbort, { once: true });
  const timer = leftMs === undefined ? undefined : setTimeout(() => reject(late()), Math.max(0, leftMs));
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

function limit(
  code: 'CANCELLED' | 'DEADLINE_EXCEEDED' | 'RESOURCE_EXHAUSTED',
  reason: 'LOOP_TURN_LIMIT' | 'LOOP_TIME_LIMIT' | 'LOOP_TOKEN_LIMIT' | 'LOOP_COST_LIMIT',
  said: string,
  result: Result,
  calls: readonly FunctionCall[],
): LoopLimitError {
  const names = calls.map(({ name }) => name).join(', ');
  const open = names ? `; ${names}: answered with an error by the lane's next turn` : '';
  return new LoopLimitError(code, reason, `${said}${open}`, result, calls);
}

function fitting(output: string, mostBytes: number): string {
  if (output.length * 6 <= mostBytes) return output;
  const bytes = Buffer.byteLength(JSON.stringify(output));
  if (bytes <= mostBytes) return output;
  return errorResult(
    `the result of ${bytes} bytes is more than the gateway takes (${Math.floor(mostBytes)})`,
  );
}

function errorResult(message: string): string {
  return JSON.stringify({ error: message });
}

/** The next request of the loop: the same settings, the results as input. */
function continued(request: TurnRequest, input: readonly InputItem[]): TurnRequest {
  // A forced tool choice would force the call again and again.
  const {
    turnId: _,
    from: __,
    newConversation: ___,
    fullHistory: ____,
    toolChoice: _____,
    ...rest
  } = request;
  if (!rest.create) return { ...rest, input };
  const { toolChoice: ______, previousResponseId: _______, ...body } = rest.create;
  return { ...rest, create: body as NonNullable<TurnRequest['create']>, input };
}
