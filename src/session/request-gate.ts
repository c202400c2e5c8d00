import type { Reservation } from '../access/types.ts';
import { memoryOfRequest } from '../core/turn.ts';
import type { CancelTurn, InjectTurn, Input, StartTurn, SteerTurn } from '../core/types.ts';
import { GatewayError } from '../errors.ts';

/**
 * Memory of requests of one stream that may wait for their session's room: two of the upstream's largest. Behind them are
 * the cancels and acknowledgements that make the room, so the stream is read on until then. What waits, here and in the
 * session, costs three times its size while it is read.
 */
const MAX_PARKED_BYTES = 32 * 1024 * 1024;
const MAX_PARKED_REQUESTS = 64;

/**
 * A stream that has used it up is held back by HTTP/2. When nothing has moved for this long its requests are refused,
 * until the session has room: the cancel that would make some may be behind them, where nobody can see it.
 */
const STALLED_MS = 30_000;

type Request = StartTurn | SteerTurn | InjectTurn;

interface Received {
  readonly request: Request;
  /** Of a turn. */
  readonly reservation: Reservation | undefined;
}

interface Parked extends Received {
  readonly bytes: number;
}

/** The part of a session's driver that the gate uses. */
export interface GatedSession {
  /** More requests would be too much. */
  readonly inputBlocked: boolean;
  inputReady(signal: AbortSignal): Promise<void>;
  startTurn(turn: StartTurn, reservation?: Reservation): void;
  addInput(request: SteerTurn | InjectTurn): void;
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

  constructor(options: RequestGateOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', () => this.#empty(), { once: true });
  }

  request(request: Request, reservation?: Reservation): void {
    const { session, signal, overload } = this.#options;
    if (signal.aborted) return reservation?.release();
    if (this.#parked.length === 0 && !session.inputBlocked) {
      this.#refusing = false;
      return this.#run({ request, reservation });
    }
    // What runs is looked at by its admission; what waits would fill the memory without it.
    const refusal = this.#refusing ? tooMuchWaits() : overload();
    if (refusal !== undefined) return this.#refuse({ request, reservation }, refusal);
    const bytes = memoryOfRequest(request);
    this.#parked.push({ request, bytes, reservation });
    this.#parkedBytes += bytes;
    if (this.#isFull) this.#stalled ??= setTimeout(() => this.#refuseAll(), STALLED_MS);
    if (!this.#releasing) void this.#release();
  }

  cancel(cancel: CancelTurn): void {
    const earlier = this.#parked.filter(({ request }) => isFor(cancel, request));
    for (const parked of earlier) {
      this.#remove(parked);
      this.#run(parked);
    }
    this.#options.session.feed(cancel);
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
        this.#remove(next);
        this.#run(next);
      }
    } catch (error) {
      onError(error);
    } finally {
      this.#releasing = false;
    }
  }

  #run({ request, reservation }: Received): void {
    const { session } = this.#options;
    if (request.kind === 'startTurn') session.startTurn(request, reservation);
    else session.addInput(request);
  }

  #refuseAll(): void {
    this.#refusing = true;
    for (const parked of [...this.#parked]) {
      this.#remove(parked);
      this.#refuse(parked, tooMuchWaits());
    }
  }

  #refuse({ request, reservation }: Received, error: GatewayError): void {
    reservation?.release();
    const { laneId, turnId = '' } = request;
    const kind = request.kind === 'startTurn' ? 'refuse' : 'reject';
    this.#options.session.feed({ kind, laneId, turnId, error });
  }

  #remove(parked: Parked): void {
    this.#parked.splice(this.#parked.indexOf(parked), 1);
    this.#parkedBytes -= parked.bytes;
    this.#moved();
  }

  #empty(): void {
    for (const { reservation } of this.#parked) reservation?.release();
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
function isFor({ laneId, turnId }: CancelTurn, request: Request): boolean {
  if (request.laneId !== laneId) return false;
  return request.turnId === turnId || (request.kind !== 'startTurn' && request.turnId === undefined);
}

function tooMuchWaits(): GatewayError {
  return new GatewayError('LIMIT_EXCEEDED', 'the session holds as much input as it may', {
    metadata: { limit: 'held_input_bytes', scope: 'session' },
    retryAfterMs: 1_000,
  });
}
