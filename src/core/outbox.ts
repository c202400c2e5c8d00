import type { SessionEvent } from './types.ts';

export interface ResumePoint {
  readonly outcome: 'RESUMED' | 'PARTIAL';
  /** The first seq that will be sent again. */
  readonly oldestSeq: number;
}

/** Entries before the window are dropped in strides, so that taking one event never moves the array. */
const COMPACT_STRIDE = 1024;

/**
 * The session's events in order: kept ones (taken by a stream, not yet acknowledged), then waiting ones.
 * Kept events are a ring bounded in bytes; waiting events are never dropped, the links pause instead.
 */
export class Outbox {
  readonly #maxKeptBytes: number;
  #events: SessionEvent[] = [];
  /** Index of the first kept event; everything before is gone. */
  #head = 0;
  /** Index of the first waiting event. */
  #cursor = 0;
  #nextSeq: number;
  /** The first event that may not be taken yet. */
  #heldFromSeq: number | undefined;
  #waitingBytes = 0;
  #keptBytes = 0;
  /** The same with no event counting for more than half the limit. */
  #keptCost = 0;

  constructor(maxKeptBytes: number, nextSeq = 1) {
    this.#maxKeptBytes = maxKeptBytes;
    this.#nextSeq = nextSeq;
  }

  get nextSeq(): number {
    return this.#nextSeq;
  }

  get waiting(): number {
    return this.#events.length - this.#cursor;
  }

  /** Of the waiting ones, those that may be taken. */
  get ready(): number {
    return this.#end() - this.#cursor;
  }

  get newest(): SessionEvent | undefined {
    return this.#events.at(-1);
  }

  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  get keptBytes(): number {
    return this.#keptBytes;
  }

  append(event: SessionEvent): void {
    this.#events.push(event);
    this.#nextSeq = event.seq + 1;
    this.#waitingBytes += event.byteLength;
  }

  /** At least one event when any waits, however large it is. */
  take(maxEvents: number, maxBytes: number): readonly SessionEvent[] {
    const from = this.#cursor;
    let bytes = 0;
    const end = Math.min(this.#end(), from + maxEvents);
    let to = from;
    while (to < end) {
      const event = this.#events[to] as SessionEvent;
      if (to > from && bytes + event.byteLength > maxBytes) break;
      bytes += event.byteLength;
      to += 1;
    }
    const taken = this.#events.slice(from, to);
    this.#cursor = to;
    this.#waitingBytes -= bytes;
    this.#keptBytes += bytes;
    for (const event of taken) this.#keptCost += this.#costOf(event);
    this.#trim();
    return taken;
  }

  /** What is kept and what waits, in order. */
  get unacknowledged(): readonly SessionEvent[] {
    return this.#events.slice(this.#head);
  }

  /** Nothing from `seq` on is taken; undefined: everything may be. */
  holdFrom(seq: number | undefined): void {
    this.#heldFromSeq = seq;
  }

  /** Nobody will take what waits. */
  discard(): void {
    this.#events = [];
    this.#head = 0;
    this.#cursor = 0;
    this.#waitingBytes = 0;
    this.#keptBytes = 0;
    this.#keptCost = 0;
  }

  /** Frees what the client has confirmed. Seqs it cannot have seen yet are left alone. */
  acknowledge(seq: number): void {
    while (this.#head < this.#cursor && (this.#events[this.#head] as SessionEvent).seq <= seq)
      this.#dropHead();
    this.#compact();
  }

  /** A resume finds nothing of what was taken so far. */
  dropKept(): void {
    while (this.#head < this.#cursor) this.#dropHead();
    this.#compact();
  }

  /** Makes everything after `lastSeq` wait again. */
  rewind(lastSeq: number): ResumePoint {
    this.acknowledge(lastSeq);
    while (this.#cursor > this.#head) {
      this.#cursor -= 1;
      const { byteLength } = this.#events[this.#cursor] as SessionEvent;
      this.#keptBytes -= byteLength;
      this.#waitingBytes += byteLength;
    }
    this.#keptCost = 0;
    const oldestSeq = this.#events[this.#cursor]?.seq ?? this.#nextSeq;
    return { outcome: oldestSeq > lastSeq + 1 ? 'PARTIAL' : 'RESUMED', oldestSeq };
  }

  /**
   * What was taken may not have left. However large the newest event is, it stays, and half the limit of what went
   * before it, which is what a stream has in flight when it takes more.
   */
  #costOf({ byteLength }: SessionEvent): number {
    return Math.min(byteLength, Math.max(this.#maxKeptBytes / 2, 1));
  }

  /** Seqs follow each other, so the place of one tells that of another. */
  #end(): number {
    if (this.#heldFromSeq === undefined) return this.#events.length;
    return Math.max(this.#cursor, this.#events.length - (this.#nextSeq - this.#heldFromSeq));
  }

  #trim(): void {
    while (this.#keptCost > this.#maxKeptBytes && this.#head < this.#cursor) this.#dropHead();
    this.#compact();
  }

  #dropHead(): void {
    const event = this.#events[this.#head] as SessionEvent;
    this.#keptBytes -= event.byteLength;
    this.#keptCost -= this.#costOf(event);
    // The array keeps its slots until the next stride; the frame's bytes must not stay alive with them.
    this.#events[this.#head] = DROPPED;
    this.#head += 1;
  }

  #compact(): void {
    if (this.#head < COMPACT_STRIDE && this.#head < this.#events.length) return;
    this.#events = this.#events.slice(this.#head);
    this.#cursor -= this.#head;
    this.#head = 0;
  }
}

const DROPPED: SessionEvent = Object.freeze({
  seq: 0,
  laneId: '',
  turnId: '',
  type: '',
  outcome: undefined,
  frame: undefined,
  turnFailed: undefined,
  notice: undefined,
  commit: undefined,
  byteLength: 0,
});
