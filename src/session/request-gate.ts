import type { CancelTurn, Input } from '../core/types.ts';
import { GatewayError } from '../errors.ts';

/**
 * Requests of one stream that may wait for their session's room: two of the upstream's largest, and some. Behind them are
 * the cancels and acknowledgements that make the room, so the stream is read on until then.
 */
const MAX_PARKED_BYTES = 32 * 1024 * 1024;
const MAX_PARKED_REQUESTS = 64;

/**
 * A stream that has used it up is held back by HTTP/2. When nothing has moved for this long its requests are refused,
 * until the session has room: the cancel that would make some may be behind them, where nobody can see it.
 */
const STALLED_MS = 30_000;

/** A request as it came: decoded, it takes several times its memory for a moment, so that is left for when it may run. */
export interface WaitingRequest {
  readonly kind: 'startTurn' | 'steerTurn' | 'injectTurn';
  readonly laneId: string;
  readonly turnId: string | undefined;
  /** Memory that it takes. */
  readonly bytes: number;
  /** Decodes it and gives it to the session. Called once at most, and by one request of the gate at a time. */
  run(): Promise<void>;
}

interface Parked {
  readonly request: WaitingRequest;
  /** It is given to the session. */
  run: Promise<void> | undefined;
}

/** The part of a session's driver that the gate uses. */
export interface GatedSession {
  /** More requests would be too much. */
  readonly inputBlocked: boolean;
  inputReady(signal: AbortSignal): Promise<void>;
  feed(input: Input): void;
}

export interface RequestGateOptions {
  readonly session: GatedSession;
  /** Aborts when the stream is over; what is parked then was never taken, and its client sends it again. */
  readonly signal: AbortSignal;
  /** Asked for before each request that goes on. */
  readonly turn: () => Promise<void> | undefined;
  /** Why nothing more may wait; undefined: it may. */
  readonly overload: () => GatewayError | undefined;
  /** What a request throws is the stream's end. */
  readonly onError: (error: unknown) => void;
}

/**
 * Between a client's stream and its session: requests wait here, in their order, while the session has as much as it
 * may hold. Cancels go past them, and take with them what was sent before for the same turn.
 */
export class RequestGate {
  readonly #options: RequestGateOptions;
  readonly #parked: Parked[] = [];
  #parkedBytes = 0;
  #releasing = false;
  #refusing = false;
  #stalled: NodeJS.Timeout | undefined;
  #waiters: (() => void)[] = [];
  /** The run that began last. */
  #lastRun: Promise<unknown> = Promise.resolve();

  constructor(options: RequestGateOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', () => this.#empty(), { once: true });
  }

  /** Whether a request may go to the session now, past nobody. */
  admits(): boolean {
    if (this.#parked.length > 0 || this.#options.session.inputBlocked) return false;
    this.#refusing = false;
    return true;
  }

  /** For a request that is not admitted. */
  wait(request: WaitingRequest): void {
    const { signal, overload } = this.#options;
    if (signal.aborted) return;
    // What runs is looked at by its admission; what waits would fill the memory without it.
    const refusal = this.#refusing ? tooMuchWaits() : overload();
    if (refusal !== undefined) return this.#refuse(request, refusal);
    this.#parked.push({ request, run: undefined });
    this.#parkedBytes += request.bytes;
    if (this.#isFull) this.#stalled ??= setTimeout(() => this.#refuseAll(), STALLED_MS);
    if (!this.#releasing) void this.#release();
  }

  /** Undefined: done. Otherwise nothing more may be read until it is: what it takes with it has to be decoded. */
  cancel(cancel: CancelTurn): Promise<void> | undefined {
    const earlier = this.#parked.filter(({ request }) => isFor(cancel, request));
    if (earlier.length > 0) return this.#cancelBehind(earlier, cancel);
    this.#options.session.feed(cancel);
    return undefined;
  }

  /** Resolves when the stream may be read. Undefined: now. */
  room(): Promise<void> | undefined {
    return this.#isFull ? this.#wait(() => !this.#isFull) : undefined;
  }

  /** Resolves when nothing is parked. Undefined: now. */
  empty(): Promise<void> | undefined {
    return this.#parked.length > 0 ? this.#wait(() => this.#parked.length === 0) : undefined;
  }

  get #isFull(): boolean {
    return this.#parkedBytes >= MAX_PARKED_BYTES || this.#parked.length >= MAX_PARKED_REQUESTS;
  }

  async #release(): Promise<void> {
    const { session, signal, turn, onError } = this.#options;
    this.#releasing = true;
    try {
      while (this.#parked.length > 0) {
        await session.inputReady(signal);
        await turn();
        const [next] = this.#parked;
        // Cancelled, refused or over meanwhile; or somebody else's input has used the room.
        if (next === undefined || session.inputBlocked) continue;
        await this.#run(next);
      }
    } catch (error) {
      onError(error);
    } finally {
      this.#releasing = false;
    }
  }

  async #cancelBehind(earlier: readonly Parked[], cancel: CancelTurn): Promise<void> {
    const { session, signal } = this.#options;
    for (const parked of earlier) await this.#run(parked);
    if (!signal.aborted) session.feed(cancel);
  }

  /** It keeps its place until the session has it: what comes meanwhile waits behind. One runs after the other. */
  #run(parked: Parked): Promise<void> {
    parked.run ??= this.#runAfter(this.#lastRun, parked);
    this.#lastRun = parked.run.catch(() => undefined);
    return parked.run;
  }

  async #runAfter(before: Promise<unknown>, parked: Parked): Promise<void> {
    await before;
    try {
      if (!this.#options.signal.aborted) await parked.request.run();
    } finally {
      this.#remove(parked);
    }
  }

  #refuseAll(): void {
    this.#refusing = true;
    for (const parked of this.#parked.filter(({ run }) => run === undefined)) {
      this.#remove(parked);
      this.#refuse(parked.request, tooMuchWaits());
    }
  }

  #refuse({ kind, laneId, turnId = '' }: WaitingRequest, error: GatewayError): void {
    const refusal = kind === 'startTurn' ? 'refuse' : 'reject';
    this.#options.session.feed({ kind: refusal, laneId, turnId, error });
  }

  #remove(parked: Parked): void {
    const at = this.#parked.indexOf(parked);
    if (at < 0) return;
    this.#parked.splice(at, 1);
    this.#parkedBytes -= parked.request.bytes;
    this.#moved();
  }

  #empty(): void {
    this.#parked.length = 0;
    this.#parkedBytes = 0;
    this.#moved();
  }

  #moved(): void {
    if (!this.#isFull) {
      clearTimeout(this.#stalled);
      this.#stalled = undefined;
    }
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  async #wait(until: () => boolean): Promise<void> {
    while (!until()) await new Promise<void>((resolve) => this.#waiters.push(resolve));
  }
}

/** Whether a request that was sent before the cancel is about the turn that it cancels. */
function isFor({ laneId, turnId }: CancelTurn, request: WaitingRequest): boolean {
  if (request.laneId !== laneId) return false;
  return request.turnId === turnId || (request.kind !== 'startTurn' && request.turnId === undefined);
}

function tooMuchWaits(): GatewayError {
  return new GatewayError('LIMIT_EXCEEDED', 'the session holds as much input as it may', {
    metadata: { limit: 'held_input_bytes', scope: 'session' },
    retryAfterMs: 1_000,
  });
}
