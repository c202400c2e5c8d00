import { performance } from 'node:perf_hooks';
import type { EventFault } from './faults.ts';
import type { Settings } from './options.ts';
import type { Run } from './turn.ts';

/** Where the events of runs go: a WebSocket, an event stream, or nowhere (plain HTTP). */
export interface Sink {
  write(run: Run, json: string): void;
  /** Bytes accepted and not yet taken by the kernel. */
  pendingBytes(): number;
  cork(): void;
  uncork(): void;
}

export interface PumpHost {
  settings(): Settings;
  /** A fault that the pump cannot apply itself has come up. Returns false when the run must not go on. */
  strike(run: Run, fault: EventFault): boolean;
  /** The terminal event has been written. */
  ended(run: Run): void;
  /** Generating failed, as it does when a text outgrows the longest string. */
  crashed(run: Run, error: unknown): void;
}

/**
 * Moves events from the generators of any number of runs into one sink: in turns, so that lanes interleave; in slices,
 * so that other sockets and pings are served; not faster than the reader takes them; and at the configured pace.
 */
export class Pump {
  readonly #sink: Sink;
  readonly #host: PumpHost;
  readonly #ready: Slot[] = [];
  readonly #sleeping = new Set<Slot>();
  #turn = 0;
  #state: 'idle' | 'scheduled' | 'running' | 'blocked' | 'stopped' = 'idle';
  #timer: NodeJS.Timeout | undefined;
  #timerDue = Number.POSITIVE_INFINITY;

  constructor(sink: Sink, host: PumpHost) {
    this.#sink = sink;
    this.#host = host;
  }

  start(run: Run, events: Iterator<string, void>): void {
    this.#ready.push({ run, events, dueMs: 0 });
    this.#schedule();
  }

  /** Forgets a run; nothing more of it is written. */
  drop(run: Run): void {
    const at = this.#ready.findIndex((slot) => slot.run === run);
    if (at >= 0) this.#ready.splice(at, 1);
    for (const slot of this.#sleeping) if (slot.run === run) this.#sleeping.delete(slot);
  }

  /** Something has come that a sleeping run may wait for. */
  wake(run: Run): void {
    for (const slot of this.#sleeping) {
      if (slot.run !== run) continue;
      this.#sleeping.delete(slot);
      this.#ready.push(slot);
    }
    this.#schedule();
  }

  /** The sink has room again. */
  drained(): void {
    if (this.#state !== 'blocked') return;
    this.#state = 'idle';
    this.#schedule();
  }

  /** Writes nothing more, but keeps the runs for `exhaust`. */
  pause(): void {
    this.#state = 'stopped';
    clearTimeout(this.#timer);
  }

  /** Generates the rest of a run without writing it. Returns false when it would never end. */
  exhaust(run: Run): boolean {
    const slot = [...this.#ready, ...this.#sleeping].find((candidate) => candidate.run === run);
    while (slot !== undefined && run.outcome === null && slot.events.next().done !== true) run.events += 1;
    return run.outcome !== null;
  }

  stop(): void {
    this.#state = 'stopped';
    this.#ready.length = 0;
    this.#sleeping.clear();
    clearTimeout(this.#timer);
  }

  #schedule(): void {
    if (this.#state !== 'idle' || this.#ready.length === 0) return;
    this.#state = 'scheduled';
    setImmediate(() => {
      if (this.#state === 'scheduled') this.#slice();
    });
  }

  #slice(): void {
    this.#state = 'running';
    const until = performance.now() + SLICE_MS;
    this.#sink.cork();
    let isFull = false;
    while (this.#ready.length > 0 && this.#isRunning() && performance.now() < until) {
      if (this.#turn >= this.#ready.length) this.#turn = 0;
      const slot = this.#ready[this.#turn];
      if (slot === undefined) break;
      if (this.#serve(slot)) this.#turn += 1;
      isFull = this.#sink.pendingBytes() > MAX_PENDING_BYTES;
      if (isFull) break;
    }
    this.#sink.uncork();
    if (!this.#isRunning()) return;
    this.#state = isFull ? 'blocked' : 'idle';
    this.#schedule();
    this.#armTimer();
  }

  #isRunning(): boolean {
    return this.#state === 'running';
  }

  /** Gives a run its share of a slice. Returns whether it is still ready for more. */
  #serve(slot: Slot): boolean {
    const { run } = slot;
    const { tokensPerSecond } = this.#host.settings().timing;
    const pace = run.plan.tokensPerSecond ?? tokensPerSecond;
    for (let n = 0; n < EVENTS_PER_TURN; n += 1) {
      const act = run.faults.length === 0 ? 'send' : this.#faultBefore(slot);
      if (act === 'gone') return false;
      if (act === 'sleep') return this.#sleep(slot);
      const next = this.#next(slot);
      if (next === null) return false;
      if (next.done === true) return this.#remove(slot);
      if (next.value !== '' && act !== 'drop') {
        this.#sink.write(run, next.value);
        if (act === 'repeat') this.#sink.write(run, next.value);
      }
      run.events += 1;
      if (run.outcome !== null) {
        this.#remove(slot);
        this.#host.ended(run);
        return false;
      }
      if (run.waitMs > 0) {
        slot.dueMs = performance.now() + run.waitMs;
        run.waitMs = 0;
        return this.#sleep(slot);
      }
      if (pace > 0 && run.wasDelta) {
        // Counted from the time the last token was due, not sent: the average stays right over coarse timers.
        const now = performance.now();
        slot.dueMs = (slot.dueMs === 0 ? now : slot.dueMs) + 1000 / pace;
        if (slot.dueMs > now) return this.#sleep(slot);
      }
      if (next.value.length > LARGE_EVENT) return true;
    }
    return true;
  }

  #next(slot: Slot): IteratorResult<string, void> | null {
    try {
      return slot.events.next();
    } catch (error) {
      this.#remove(slot);
      this.#host.crashed(slot.run, error);
      return null;
    }
  }

  #faultBefore(slot: Slot): 'send' | 'drop' | 'repeat' | 'sleep' | 'gone' {
    const { run } = slot;
    let act: 'send' | 'drop' | 'repeat' = 'send';
    for (;;) {
      const fault = run.faults[0];
      if (fault === undefined || fault.atEvent > run.events) return act;
      run.faults.shift();
      switch (fault.kind) {
        case 'sequence':
          run.sequence += fault.add;
          break;
        case 'drop-event':
          act = 'drop';
          break;
        case 'repeat-event':
          act = 'repeat';
          break;
        case 'hang':
          slot.dueMs = Number.POSITIVE_INFINITY;
          return 'sleep';
        case 'stall':
          slot.dueMs = performance.now() + fault.ms;
          return 'sleep';
        default:
          if (!this.#host.strike(run, fault)) {
            this.#remove(slot);
            return 'gone';
          }
      }
    }
  }

  #remove(slot: Slot): false {
    const at = this.#ready.indexOf(slot);
    if (at >= 0) this.#ready.splice(at, 1);
    return false;
  }

  #sleep(slot: Slot): false {
    this.#remove(slot);
    if (slot.dueMs !== Number.POSITIVE_INFINITY) this.#sleeping.add(slot);
    return false;
  }

  #armTimer(): void {
    let due = Number.POSITIVE_INFINITY;
    for (const slot of this.#sleeping) due = Math.min(due, slot.dueMs);
    if (due === Number.POSITIVE_INFINITY || due === this.#timerDue) return;
    clearTimeout(this.#timer);
    this.#timerDue = due;
    this.#timer = setTimeout(() => this.#wake(), Math.max(1, due - performance.now()));
  }

  #wake(): void {
    this.#timerDue = Number.POSITIVE_INFINITY;
    // A timer may fire a fraction of a millisecond early.
    const now = performance.now() + 0.5;
    for (const slot of this.#sleeping) {
      if (slot.dueMs > now) continue;
      this.#sleeping.delete(slot);
      this.#ready.push(slot);
    }
    if (this.#ready.length > 0) this.#schedule();
    else this.#armTimer();
  }
}

interface Slot {
  readonly run: Run;
  readonly events: Iterator<string, void>;
  dueMs: number;
}

/** Long enough to be cheap, short enough that a ping or another connection waits unnoticeably. */
const SLICE_MS = 4;
/** One lane's share before the next lane's turn. */
const EVENTS_PER_TURN = 32;
/** An event of this many characters ends a turn by itself. */
const LARGE_EVENT = 64 * 1024;
/** A slow reader holds back its own output at this point; one event may exceed it. */
const MAX_PENDING_BYTES = 1024 * 1024;
