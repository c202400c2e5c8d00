import type { Reservation } from '../access/types.ts';
import type {
  Fact,
  InjectTurn,
  Input,
  LinkRoute,
  Output,
  SessionEvent,
  StartTurn,
  SteerTurn,
} from '../core/types.ts';
import { GatewayError, type StatusCode } from '../errors.ts';
import type { BesideFact, SessionTelemetry } from '../telemetry/types.ts';
import type { Dialer, DialRequest, Link, LinkListener } from '../upstream/types.ts';
import type { Admission } from './admission.ts';
import { MAX_TIMER_MS } from './clock.ts';
import type { FairShare } from './fair-share.ts';
import type { Flushable, FlushQueue } from './flush.ts';
import type { JournalWriter } from './journal-writer.ts';
import { TurnTimes } from './turn-times.ts';

/** Events of one message to the client. A batch has no meaning; these keep a message and its encoding short. */
const MAX_BATCH_EVENTS = 256;
const MAX_BATCH_BYTES = 256 * 1024;

/** What an ended session may still take to hand its last events to a client that reads slowly. */
const LAST_EVENTS_TIMEOUT_MS = 10_000;

/**
 * Memory of turns that wait or run, and of their steers, above which requests have to wait: a frame of the upstream's
 * largest size, and half of one, so that the next can come while it runs. A turn that runs counts, because it may have to
 * be written once more.
 */
const MAX_HELD_INPUT_BYTES = 24 * 1024 * 1024;

/**
 * All sessions' deadlines are one of those that take turns: the sessions of a client that is gone end in the same
 * moment, and a thousand of them would keep everybody else waiting for a quarter of a second.
 */
const TIMERS = {};

/** The part of the core's session that a driver uses. */
export interface SessionCore {
  handle(input: Input, nowMs: number): void;
  takeOutputs(): readonly Output[];
  takeEvents(maxEvents: number, maxBytes: number): readonly SessionEvent[];
  readonly pendingEvents: number;
  /** Memory of turns that were taken and have not ended, and of steers that are undecided. */
  readonly heldInputBytes: number;
  /** Bytes of events that wait for the client's stream. */
  readonly waitingEventBytes: number;
  nextDeadline(): number | undefined;
  /** Frames have made a step possible that is taken at the end of the tick. */
  readonly pumpDue: boolean;
}

/** Where a session's events go: one client stream. */
export interface ClientStream {
  readonly hasRoom: boolean;
  deliver(events: readonly SessionEvent[]): void;
  goAway(reason: 'draining' | 'maxAge', timeLeftMs: number, movable: boolean): void;
  /** Memory is short: what it keeps to read the next request faster is given up. */
  forgetHistories?(): void;
  readonly keepsHistories?: boolean;
  /** Not called again after this. */
  end(error: GatewayError | undefined): void;
}

export interface SessionDriverOptions {
  readonly core: SessionCore;
  readonly dialer: Dialer;
  readonly dial: Pick<
    DialRequest,
    'upstream' | 'allowed' | 'tenantId' | 'credential' | 'accountScope' | 'overHttp'
  >;
  readonly model: string | undefined;
  /** The upstream where the session lived at another process. */
  readonly current?: string | undefined;
  /** Undefined: nothing is written down. */
  readonly journal?: Pick<JournalWriter, 'write'> | undefined;
  readonly admission: Admission;
  readonly telemetry: SessionTelemetry;
  readonly flushQueue: FlushQueue;
  readonly fairShare: Pick<FairShare, 'run'>;
  readonly clock: () => number;
  /** Bytes of events waiting for the client above which nothing more is read from it: what it sends makes more. */
  readonly maxUnreadBytes: number;
  /** A bug of ours, for the log; the session that it struck is over. */
  readonly onBug: (error: unknown) => void;
  /** Once, when nothing more will come. */
  readonly onClosed: (status: StatusCode | 'OK', record: 'end' | 'release' | 'leave') => void;
}

type Ending = { readonly stream: ClientStream; readonly error: GatewayError | undefined };

/**
 * Moves things between one core session and the world: inputs in, outputs out, events to the client, one timer.
 * All decisions are the core's.
 */
export class SessionDriver implements Flushable {
  readonly #options: SessionDriverOptions;
  readonly #core: SessionCore;
  readonly #links = new Map<number, Link>();
  readonly #blockedLinks = new Set<number>();
  #stream: ClientStream | undefined;
  /** The core has let go of the stream; it still gets what was said before. */
  #ending: Ending | undefined;
  #endingTimer: NodeJS.Timeout | undefined;
  #timer: NodeJS.Timeout | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  /** Frames read in one turn of the event loop came together: the clock is asked once for all of them. */
  #nowMs = 0;
  #model: string | undefined;
  /** A turn has been taken. */
  #started = false;
  #route: LinkRoute | undefined;
  #waitingToFlush = false;
  /** Of frames since the last flush. */
  #unflushedBytes = 0;
  #drainingOutputs = false;
  readonly #times = new TurnTimes();
  #closed = false;
  /** Accepted and not ended. */
  #turns = 0;
  #turnsTaken = 0;
  #idleSinceMs: number;
  #status: StatusCode | 'OK' = 'OK';
  #waiters: { readonly until: () => boolean; readonly wake: () => void }[] = [];

  constructor(options: SessionDriverOptions) {
    this.#options = options;
    this.#core = options.core;
    this.#model = options.model;
    this.#idleSinceMs = options.clock();
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Milliseconds of the clock since when no turn runs or waits; undefined: one does. */
  get idleSinceMs(): number | undefined {
    return this.#turns === 0 ? this.#idleSinceMs : undefined;
  }

  /** Accepted, ended or not. */
  get turnsTaken(): number {
    return this.#turnsTaken;
  }

  get attached(): boolean {
    return this.#stream !== undefined;
  }

  /** Gives the core an input and does what it asks for at once; events follow at the end of the tick. */
  feed(input: Input): void {
    if (this.#closed) return;
    this.#guard(() => {
      this.#nowMs = this.#options.clock();
      this.#core.handle(input, this.#nowMs);
      this.#drainOutputs();
    });
    this.#scheduleFlush();
  }

  /** Whether full histories are remembered, to read or admit the next one faster. */
  get keepsHistories(): boolean {
    return this.#options.admission.keepsHistories || this.#stream?.keepsHistories === true;
  }

  /** Memory is short: an idle session gives up what it keeps for a faster or a safer time. */
  shed(what: 'transcript' | 'keptEvents'): void {
    if (what === 'transcript') {
      this.#options.admission.forgetHistories();
      this.#stream?.forgetHistories?.();
    }
    this.feed({ kind: 'shed', what });
  }

  /** To be gone through before a large request is given to the session: admitting it then takes no time. */
  lookSteps(request: StartTurn | SteerTurn | InjectTurn): Generator<undefined, void> {
    return this.#options.admission.lookSteps(request);
  }

  /** Asks other processes for a place for the turn; undefined: nobody has to be asked. To be given to `startTurn`. */
  reserveTurn(turn: StartTurn): Reservation | Promise<Reservation> | undefined {
    return this.#closed ? undefined : this.#options.admission.reserve(turn);
  }

  /** A turn of the client. One that may not run becomes a failure of that turn alone. */
  startTurn(turn: StartTurn, reservation?: Reservation): void {
    if (this.#closed) return reservation?.release();
    this.#options.telemetry.turn?.(turn);
    this.#times.received(turn);
    try {
      this.#options.admission.around(
        turn,
        () => {
          this.#goBy(turn.create.model);
          this.feed(turn);
        },
        reservation,
      );
    } catch (cause) {
      if (!(cause instanceof GatewayError)) this.#options.onBug(cause);
      const error = GatewayError.from(cause);
      this.feed({ kind: 'refuse', laneId: turn.laneId, turnId: turn.turnId, error });
    } finally {
      reservation?.release();
    }
  }

  /** Input for a running turn; refused, the turn goes on without it. */
  addInput(request: SteerTurn | InjectTurn): void {
    if (this.#closed) return;
    try {
      this.#options.admission.addInput(request);
    } catch (cause) {
      const { laneId, turnId = '' } = request;
      return this.feed({ kind: 'reject', laneId, turnId, error: GatewayError.from(cause) });
    }
    if (request.kind === 'steerTurn') this.#options.telemetry.steered(request);
    this.feed(request);
  }

  /**
   * The stream gets everything after `lastSeq`. An earlier stream ends: there is one listener at a time. Throws
   * SESSION_EXPIRED when the session ended while its client came to it.
   */
  attach(stream: ClientStream, lastSeq: number | undefined): void {
    if (this.#closed) throw new GatewayError('SESSION_EXPIRED', 'the session has just ended');
    this.#supersede();
    this.#stream = stream;
    this.feed({ kind: 'attach', lastSeq });
  }

  /** The stream is gone. Does nothing when another has taken its place. */
  detach(stream: ClientStream): void {
    if (this.#ending?.stream === stream) this.#dropEnding();
    if (this.#stream !== stream) return;
    this.#stream = undefined;
    this.feed({ kind: 'detach' });
  }

  /** The stream's client sends no more. */
  halfClose(stream: ClientStream): void {
    if (this.#stream === stream) this.feed({ kind: 'halfClose' });
  }

  /** The stream can be written to again. */
  room(): void {
    this.#scheduleFlush();
  }

  /** Whether requests of the client should wait. What frees room, its cancels and acknowledgements, should not. */
  get inputBlocked(): boolean {
    return this.#blockedLinks.size > 0 || this.#core.heldInputBytes > MAX_HELD_INPUT_BYTES;
  }

  /** Resolves when requests may go on. */
  inputReady(signal: AbortSignal): Promise<void> {
    return this.#wait(() => !this.inputBlocked, signal);
  }

  /** Whether the client leaves so much unread that nothing of what it sends should be read, whatever it is. */
  get eventsUnread(): boolean {
    return this.#core.waitingEventBytes > this.#options.maxUnreadBytes;
  }

  /** Resolves when the client has read enough to be read itself. */
  eventsRead(signal: AbortSignal): Promise<void> {
    return this.#wait(() => !this.eventsUnread, signal);
  }

  flush(): void {
    this.#waitingToFlush = false;
    this.#flushNow();
  }

  #flushNow(): void {
    this.#unflushedBytes = 0;
    this.#guard(() => {
      // The client first: what the end of a turn has to do for telemetry takes longer than the events themselves.
      this.#deliver();
      this.#drainOutputs();
      // What the frames of this tick have freed is written now, at its end.
      if (this.#core.pumpDue) {
        this.#core.handle({ kind: 'time' }, this.#nowMs);
        this.#drainOutputs();
      }
      this.#deliver();
      this.#drainOutputs();
    });
    this.#finishEnding();
    this.#wake();
    this.#arm();
  }

  #scheduleFlush(): void {
    if (this.#waitingToFlush) return;
    this.#waitingToFlush = true;
    this.#nowMs = this.#options.clock();
    this.#options.flushQueue.add(this);
  }

  #deliver(): void {
    const stream = this.#ending?.stream ?? this.#stream;
    if (stream === undefined) return;
    while (stream.hasRoom && this.#core.pendingEvents > 0) {
      const events = this.#core.takeEvents(MAX_BATCH_EVENTS, MAX_BATCH_BYTES);
      if (events.length === 0) return;
      stream.deliver(events);
    }
  }

  #drainOutputs(): void {
    // A link may report `blocked` from within `send`: its outputs are taken by the loop that runs already.
    if (this.#drainingOutputs) return;
    this.#drainingOutputs = true;
    try {
      for (let outputs = this.#core.takeOutputs(); outputs.length > 0; outputs = this.#core.takeOutputs()) {
        for (const output of outputs) this.#perform(output);
      }
    } finally {
      this.#drainingOutputs = false;
    }
  }

  #perform(output: Output): void {
    switch (output.kind) {
      case 'dial':
        return this.#dial(output);
      case 'send':
        this.#links.get(output.linkId)?.send(output.frame, this.#options.telemetry.outgoing(output.turnId));
        return this.#times.written(output.turnId, this.#options.clock);
      case 'abort':
        return this.#links.get(output.linkId)?.abort?.(output.streamId);
      case 'closeLink':
        this.#links.get(output.linkId)?.close(output.code, output.reason);
        return this.#forget(output.linkId);
      case 'pauseLink':
        return this.#links.get(output.linkId)?.pause();
      case 'resumeLink':
        return this.#links.get(output.linkId)?.resume();
      case 'goAway':
        return this.#stream?.goAway(output.reason, output.timeLeftMs, output.movable);
      case 'journal':
        return this.#options.journal?.write(output.n, output.entry);
      case 'endStream':
        return this.#beginEnding(output.error, output.resumable);
      case 'closed':
        return this.#close(output.record);
      case 'fact':
        this.#learnLanes(output.fact);
        this.#countTurns(output.fact);
        return this.#tell(output.fact);
    }
  }

  #tell(fact: Fact): void {
    const late = this.#options.admission.fact(fact);
    const added = late === undefined ? this.#beside(fact) : { cost: late.cost, unpriced: late.unpriced };
    this.#options.telemetry.fact(fact, added);
  }

  #beside(fact: Fact): BesideFact | undefined {
    const times = this.#times.fact(fact, this.#options.clock);
    const attributed =
      fact.kind === 'turnEnded' ? this.#options.admission.attributed(fact.record) : undefined;
    return attributed === undefined ? times : { ...times, attributed };
  }

  /** What a session has seen of its upstream spares the next one the probe. */
  #learnLanes(fact: Fact): void {
    if (fact.kind === 'lanesProven') this.#links.get(fact.linkId)?.lanes?.(true);
    else if (fact.kind === 'lanesRefuted') this.#links.get(fact.linkId)?.lanes?.(false);
  }

  #countTurns({ kind }: Fact): void {
    if (kind === 'turnAccepted') {
      this.#turns += 1;
      this.#turnsTaken += 1;
    }
    if (kind !== 'turnEnded') return;
    // A session that came from another process may have had turns there.
    this.#turns = Math.max(0, this.#turns - 1);
    this.#idleSinceMs = this.#nowMs;
  }

  /** The session was dialled before its first turn told the model, which may be another upstream's. */
  #goBy(model: string | undefined): void {
    const dialedFor = this.#model;
    const first = !this.#started;
    this.#started = true;
    this.#model = model ?? dialedFor;
    const { dial, dialer } = this.#options;
    if (!first || dial.upstream !== undefined || this.#model === dialedFor) return;
    if (dialer.route(this.#model) === dialer.route(dialedFor)) return;
    this.#route = undefined;
    this.feed({ kind: 'reroute' });
  }

  #dial({ linkId, purpose, attempt }: Extract<Output, { kind: 'dial' }>): void {
    const request: DialRequest = {
      ...this.#options.dial,
      purpose,
      attempt,
      caller: this,
      current: this.#route?.upstream ?? this.#options.current,
      model: this.#model,
      traceContext: this.#options.telemetry.outgoing(undefined),
    };
    this.#links.set(linkId, this.#options.dialer.dial(request, this.#listen(linkId)));
  }

  #listen(linkId: number): LinkListener {
    return {
      onUp: (capabilities, route) => {
        this.#route = route;
        this.#report(linkId, { kind: 'linkUp', linkId, capabilities, route });
      },
      onFrame: (frame) => {
        if (this.#closed || !this.#links.has(linkId)) return;
        // The hot path: nothing but this and the flush that is due anyway.
        this.#options.telemetry.capture?.frame(linkId, frame);
        this.#scheduleFlush();
        try {
          this.#core.handle({ kind: 'frame', linkId, frame }, this.#nowMs);
        } catch (error) {
          this.#crash(error);
        }
        // Node reads up to 2 MiB of a socket before the tick ends; the core's wish to pause must not wait for that.
        this.#unflushedBytes += frame.byteLength;
        if (this.#unflushedBytes >= MAX_BATCH_BYTES) this.#flushNow();
      },
      onBlocked: () => {
        this.#blockedLinks.add(linkId);
        this.#report(linkId, { kind: 'linkBlocked', linkId });
      },
      onWritable: () => {
        this.#blockedLinks.delete(linkId);
        this.#report(linkId, { kind: 'linkWritable', linkId });
      },
      onDown: (down) => {
        this.#report(linkId, { kind: 'linkDown', linkId, down });
        this.#forget(linkId);
      },
    };
  }

  /** What a link that was given up still says is of no interest. */
  #report(linkId: number, input: Input): void {
    if (this.#links.has(linkId)) this.feed(input);
  }

  #forget(linkId: number): void {
    this.#links.delete(linkId);
    this.#blockedLinks.delete(linkId);
    this.#options.telemetry.capture?.linkGone(linkId);
    this.#scheduleFlush();
  }

  #supersede(): void {
    this.#dropEnding();
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.end(new GatewayError('SESSION_SUPERSEDED', 'another stream has resumed this session'));
  }

  #beginEnding(error: GatewayError | undefined, resumable: boolean): void {
    if (error?.reason === 'INTERNAL') this.#options.onBug(error.cause ?? error);
    const stream = this.#stream;
    this.#stream = undefined;
    // What no call was told is not how one ended.
    if (stream === undefined) return;
    this.#status = error?.code ?? 'OK';
    if (resumable) {
      // The session keeps its events for the resume; the client that was too slow gets none of them now.
      stream.end(error);
      return this.feed({ kind: 'detach' });
    }
    this.#ending = { stream, error };
    this.#endingTimer = setTimeout(() => this.#endNow(), LAST_EVENTS_TIMEOUT_MS);
  }

  #finishEnding(): void {
    if (this.#ending !== undefined && this.#core.pendingEvents === 0) this.#endNow();
  }

  #endNow(): void {
    const ending = this.#ending;
    this.#dropEnding();
    ending?.stream.end(ending.error);
  }

  #dropEnding(): void {
    clearTimeout(this.#endingTimer);
    this.#ending = undefined;
  }

  #close(record: 'end' | 'release' | 'leave'): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    for (const link of this.#links.values()) link.close(1000, 'session closed');
    this.#links.clear();
    this.#blockedLinks.clear();
    this.#options.admission.release();
    this.#options.onClosed(this.#status, record);
  }

  /** A bug of ours ends this session and no other. */
  #guard(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#crash(error);
    }
  }

  #crash(cause: unknown): void {
    this.#options.onBug(cause);
    const error = GatewayError.from(cause);
    this.#status = error.code;
    const stream = this.#ending?.stream ?? this.#stream;
    this.#dropEnding();
    this.#stream = undefined;
    stream?.end(error);
    this.#close('end');
  }

  #wait(until: () => boolean, signal: AbortSignal): Promise<void> {
    if (until() || this.#closed || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        signal.removeEventListener('abort', wake);
        resolve();
      };
      signal.addEventListener('abort', wake, { once: true });
      this.#waiters.push({ until, wake });
    });
  }

  #wake(): void {
    if (this.#waiters.length === 0) return;
    const ready = this.#waiters.filter(({ until }) => this.#closed || until());
    if (ready.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => !ready.includes(waiter));
    for (const { wake } of ready) wake();
  }

  #arm(): void {
    if (this.#closed) return;
    const atMs = this.#core.nextDeadline();
    // A timer that fires too early costs one look; moving it at every event would cost more.
    if (atMs === undefined || atMs >= this.#timerAtMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    // A deadline beyond a timer's longest delay is armed again when this one fires.
    const delayMs = Math.ceil(Math.min(Math.max(atMs - this.#options.clock(), 0), MAX_TIMER_MS));
    this.#timer = setTimeout(() => this.#options.fairShare.run(TIMERS, () => this.#timeUp()), delayMs);
  }

  #timeUp(): void {
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    this.feed({ kind: 'time' });
  }
}
