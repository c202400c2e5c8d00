import { inferred, type Replay, TurnBusyError, type TurnError } from './errors.ts';
import { Event } from './event.ts';
import type { Event as EventMessage } from './gen/responses/gateway/v1/event_pb.ts';
import { Accumulator, type Result } from './result.ts';
import type { Steering } from './turn.ts';

/** A turn as its session sees it, and the queue between the session and the turn's reader. */
export class TurnState {
  readonly id: string;
  readonly lane: LaneState;
  readonly order: number;
  /** The StartTurn, kept until the gateway is known to have it. */
  start: Uint8Array | undefined;
  /** Set before the start is handed to the transport: afterwards nobody could say that it was not sent. */
  sent = false;
  /** Whether an event of it has come. */
  seen = false;
  cancelRequested = false;

  readonly #session: Steering;
  readonly #accumulator = new Accumulator();
  #queue: { readonly event: EventMessage; readonly bytes: number }[] = [];
  #next = 0;
  #end: TurnEnd = { kind: 'running' };
  #reading = false;
  #wake: (() => void) | undefined;

  constructor(session: Steering, lane: LaneState, id: string, order: number) {
    this.#session = session;
    this.lane = lane;
    this.id = id;
    this.order = order;
  }

  /** What the replay verdict is if the turn's end is never heard. */
  get replay(): Replay {
    if (this.seen) return 'unsafe';
    return this.sent ? 'unknown' : 'safe';
  }

  get result(): Result {
    return this.#accumulator.result(this);
  }

  /** Hands an event to the reader; false if nobody will read it. */
  push(event: EventMessage, bytes: number): boolean {
    if (this.#end.kind !== 'running') return false;
    this.#queue.push({ event, bytes });
    this.#signal();
    return true;
  }

  /** Ends the turn without a last event; what is queued can still be read. */
  fail(error: TurnError): void {
    if (this.#end.kind !== 'running') return;
    this.#end = { kind: 'failing', error };
    this.#signal();
  }

  close(): void {
    if (this.#end.kind === 'over') return;
    let dropped = 0;
    for (const { bytes } of this.#queue.slice(this.#next)) dropped += bytes;
    this.#queue = [];
    this.#next = 0;
    this.#end = {
      kind: 'over',
      error: inferred('CANCELLED', 'TURN_CLOSED', 'the turn was closed').forTurn(this, 'unknown'),
    };
    this.#session.release(dropped);
    this.#signal();
  }

  async *events(signal: AbortSignal | undefined): AsyncGenerator<Event, void, undefined> {
    if (this.#reading) throw new TurnBusyError();
    this.#reading = true;
    try {
      for (;;) {
        const event = this.#take();
        if (event) {
          yield new Event(event);
          continue;
        }
        const end = this.#end;
        if (end.kind === 'over') {
          if (end.error) throw end.error;
          return;
        }
        if (end.kind === 'failing') {
          this.#end = { kind: 'over', error: end.error };
          continue;
        }
        await this.#something(signal);
      }
    } finally {
      this.#reading = false;
    }
  }

  async final(signal: AbortSignal | undefined): Promise<Result> {
    for await (const _ of this.events(signal)) {
      // The accumulator has seen it.
    }
    return this.result;
  }

  #take(): EventMessage | undefined {
    const queued = this.#queue[this.#next];
    if (!queued) return undefined;
    this.#next += 1;
    if (this.#next === this.#queue.length) {
      this.#queue = [];
      this.#next = 0;
    } else if (this.#next >= COMPACT_AFTER) {
      this.#queue = this.#queue.slice(this.#next);
      this.#next = 0;
    }
    this.#session.release(queued.bytes);
    this.#accumulator.add(queued.event);
    this.#settle(queued.event);
    return queued.event;
  }

  #settle(message: EventMessage): void {
    const event = new Event(message);
    switch (event.outcome) {
      case undefined:
        // A refused start is answered without an outcome: the turn of that id is another one.
        if (event.failure?.reason === 'TURN_ID_REUSED') this.#end = { kind: 'over', error: event.failure };
        return;
      case 'completed':
      case 'incomplete':
        this.#end = { kind: 'over', error: undefined };
        return;
      default:
        this.#end = {
          kind: 'over',
          error:
            event.failure ??
            inferred('UNKNOWN', 'PROTOCOL', 'the turn failed without a reason').forTurn(this, 'unknown'),
        };
    }
  }

  #something(signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#wake = resolve;
    if (!signal) return promise;
    const onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    return promise.finally(() => signal.removeEventListener('abort', onAbort));
  }

  #signal(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

export interface LaneState {
  readonly id: string;
  /** Response that the next turn continues from, if not the lane's own last one. */
  forkFrom: string | undefined;
  /** Last response of the lane as far as the client has heard; empty if there is none. */
  lastResponseId: string;
}

type TurnEnd =
  | { readonly kind: 'running' }
  /** Over for the session; the reader still has events to read. */
  | { readonly kind: 'failing'; readonly error: TurnError }
  /** The reader has come to the end. */
  | { readonly kind: 'over'; readonly error: TurnError | undefined };

/** Taken entries are let go of after so many, so that a reader that is always behind frees memory. */
const COMPACT_AFTER = 256;
