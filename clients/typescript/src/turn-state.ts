import { inferred, type Replay, TurnBusyError, type TurnError } from './errors.ts';
import { Event } from './event.ts';
import type { Event as EventMessage } from './gen/responses/gateway/v1/event_pb.ts';
import type { Response } from './gen/responses/gateway/v1/response_pb.ts';
import type { Beginning, LaneState } from './lanes.ts';
import { Accumulator, type Result } from './result.ts';
import type { Unread } from './unread.ts';

/** The time that a tool loop has, and what its end is. */
export interface Bound {
  leftMs(): number | undefined;
  expired(result: Result): Error;
  /** The result with what the loop cost before. */
  total(result: Result): Result;
}

/** A turn as its session sees it, and the queue between the session and the turn's reader. */
export class TurnState {
  readonly id: string;
  readonly lane: LaneState;
  readonly order: number;
  /** A tool loop's: the calls that it leaves open are its lane's to answer. */
  readonly bound: Bound | undefined;
  /** The StartTurn, kept until the gateway is known to have it. */
  start: Uint8Array | undefined;
  /** Set before the start is handed to the transport: afterwards nobody could say that it was not sent. */
  sent = false;
  /** Whether an event of it has come. */
  seen = false;
  cancelRequested = false;
  /** The start is on the stream that stands. */
  onStream = false;
  /** Streams in a row that were lost with the start on them. */
  losses = 0;
  /** Since when its reader has waited for an event; `performance.now()`. */
  waitingSinceMs: number | undefined;
  queuedBytes = 0;

  readonly #unread: Unread;
  readonly #accumulator = new Accumulator();
  readonly #openCalls: string[] = [];
  #queue: { readonly event: EventMessage; readonly bytes: number }[] = [];
  #next = 0;
  #end: TurnEnd = { kind: 'running' };
  /** Its events are dropped as its reader held up others; the result goes on. */
  #folded = false;
  /** Whoever reads; and whether it waits for an event. */
  #reader: object | undefined;
  #readerWaits = false;
  #wake: (() => void) | undefined;
  /** Where the lane stood before; undefined once that is past. */
  #beginning: Beginning | undefined;
  #superseded = false;

  constructor(unread: Unread, lane: LaneState, id: string, order: number, bound: Bound | undefined) {
    this.#unread = unread;
    this.lane = lane;
    this.id = id;
    this.order = order;
    this.bound = bound;
  }

  /** What the replay verdict is if the turn's end is never heard. */
  get replay(): Replay {
    if (this.seen) return 'unsafe';
    return this.sent ? 'unknown' : 'safe';
  }

  get result(): Result {
    const result = this.#accumulator.result(this);
    return this.bound?.total(result) ?? result;
  }

  started(beginning: Beginning): void {
    this.#beginning = beginning;
  }

  /** Nobody wants it any more, and nobody knows how it ends: the lane's next turn begins from before it. */
  leave(): void {
    this.close();
    const beginning = this.#beginning;
    if (!beginning) return;
    this.lane.left = {
      goesBackTo: beginning.goesBackTo(),
      answers: beginning.answers,
      supersede: () => {
        this.#superseded = true;
        this.#beginning = undefined;
      },
    };
  }

  /** Keeps what later turns of the lane have to know of an event, and hands it to the reader. */
  push(event: EventMessage, bytes: number): void {
    this.#note(event);
    if (this.#end.kind !== 'running') return;
    if (this.#folded) this.#consume(event);
    else {
      this.#queue.push({ event, bytes });
      this.queuedBytes += bytes;
      this.#unread.add(this, bytes);
    }
    this.#signal();
  }

  /** Ends the turn without a last event; what is queued can still be read. */
  fail(error: TurnError): void {
    this.#ended(true);
    if (this.#end.kind !== 'running') return;
    this.#end = { kind: 'failing', error };
    this.#signal();
  }

  close(): void {
    if (this.#end.kind === 'over') return;
    this.#drop();
    const error = inferred('CANCELLED', 'TURN_CLOSED', 'the turn was closed').forTurn(this, this.replay);
    this.#end = { kind: 'over', error };
    this.#signal();
  }

  /** Makes the queued events, and all that come, a part of the result only. */
  fold(): void {
    for (const { event } of this.#queue.slice(this.#next)) this.#consume(event);
    this.#drop();
    this.#folded = true;
    this.#signal();
  }

  async *events(signal: AbortSignal | undefined): AsyncGenerator<Event, void, undefined> {
    if (this.#reader) throw new TurnBusyError();
    const reader = {};
    this.#reader = reader;
    try {
      for (;;) {
        // Somebody may take, or have taken, the result since the last event.
        if (this.#reader !== reader && this.#end.kind !== 'over') throw new TurnBusyError();
        this.#readerWaits = false;
        const event = this.#take();
        if (event) yield new Event(event);
        else if (this.#folded) throw this.#tooSlow();
        else if (this.#isOver()) return;
        else await this.#something(signal);
      }
    } finally {
      this.#leave(reader);
    }
  }

  async final(signal: AbortSignal | undefined): Promise<Result> {
    // An iterator that waits for nothing may have been dropped: nobody can tell, so it does not keep the result from anyone.
    if (this.#reader && this.#readerWaits) throw new TurnBusyError();
    const reader = {};
    this.#reader = reader;
    try {
      for (;;) {
        if (this.#take()) continue;
        if (this.#isOver()) return this.result;
        await this.#something(signal);
      }
    } finally {
      this.#leave(reader);
    }
  }

  #leave(reader: object): void {
    if (this.#reader !== reader) return;
    this.#reader = undefined;
    this.#readerWaits = false;
  }

  /** Throws if the turn failed. */
  #isOver(): boolean {
    const end = this.#end;
    if (end.kind === 'running') return false;
    this.#end = { kind: 'over', error: end.error };
    if (!end.error) return true;
    end.error.result = this.result;
    throw end.error;
  }

  #tooSlow(): TurnError {
    const said = 'unread events of the turn held up other lanes';
    const error = inferred('RESOURCE_EXHAUSTED', 'READER_TOO_SLOW', said).forTurn(this, this.replay);
    error.result = this.result;
    return error;
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
    this.queuedBytes -= queued.bytes;
    this.#unread.release(queued.bytes);
    this.#consume(queued.event);
    return queued.event;
  }

  #drop(): void {
    this.#queue = [];
    this.#next = 0;
    const bytes = this.queuedBytes;
    this.queuedBytes = 0;
    this.#unread.forget(this);
    this.#unread.release(bytes);
  }

  /** Makes an event a part of the result. */
  #consume(message: EventMessage): void {
    this.#accumulator.add(message);
    const event = new Event(message);
    switch (event.outcome) {
      case undefined:
        // A refused start is answered without an outcome: the turn of that id is another one.
        if (event.failure?.reason === 'TURN_ID_REUSED') this.#end = { kind: 'over', error: event.failure };
        return;
      case 'completed':
      case 'incomplete':
        this.#end = { kind: 'over', error: undefined };
        return this.#unread.forget(this);
      default:
        this.#unread.forget(this);
        this.#end = {
          kind: 'over',
          error:
            event.failure ??
            inferred('UNKNOWN', 'PROTOCOL', 'the turn failed without a reason').forTurn(this, 'unknown'),
        };
    }
  }

  #note({ payload, outcome }: EventMessage): void {
    switch (payload.case) {
      case 'outputItemDone': {
        const kind = payload.value.item?.kind;
        if (this.bound && kind?.case === 'functionCall') this.#openCalls.push(kind.value.callId);
        return;
      }
      case 'responseCompleted':
      case 'responseIncomplete':
        if (payload.value.response && !this.#superseded) this.#continueFrom(payload.value.response);
        return this.#ended(false);
      default:
        if (outcome !== 0) this.#ended(true);
    }
  }

  /** Its lane is where it was, if the turn came to no response. */
  #ended(undo: boolean): void {
    if (!this.#superseded && this.#beginning) {
      this.lane.left = undefined;
      if (undo) this.#beginning.undo();
    }
    this.#beginning = undefined;
  }

  #continueFrom({ id, output }: Response): void {
    if (id) this.lane.lastResponseId = id;
    if (!this.bound) return;
    // Whatever becomes of the loop: until it brings results, the lane's next turn has to answer these calls.
    const listed = output.flatMap(({ kind }) => (kind.case === 'functionCall' ? [kind.value.callId] : []));
    this.lane.owe(listed.length >= this.#openCalls.length ? listed : this.#openCalls);
  }

  #something(signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    this.#readerWaits = true;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#wake = resolve;
    this.waitingSinceMs = performance.now();
    const leftMs = this.bound?.leftMs();
    if (!signal && leftMs === undefined) return promise;
    const late =
      leftMs === undefined
        ? undefined
        : setTimeout(() => reject(this.bound?.expired(this.result)), Math.max(0, leftMs));
    const onAbort = () => reject(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    return promise.finally(() => {
      this.waitingSinceMs = undefined;
      clearTimeout(late);
      signal?.removeEventListener('abort', onAbort);
    });
  }

  #signal(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    this.waitingSinceMs = undefined;
    wake?.();
  }
}

type TurnEnd =
  | { readonly kind: 'running' }
  /** Over for the session; the reader still has events to read. */
  | { readonly kind: 'failing'; readonly error: TurnError }
  /** The reader has come to the end. */
  | { readonly kind: 'over'; readonly error: TurnError | undefined };

/** Taken entries are let go of after so many, so that a reader that is always behind frees memory. */
const COMPACT_AFTER = 256;
