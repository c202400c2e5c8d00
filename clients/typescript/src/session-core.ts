import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import type { Call, Received } from './call.ts';
import type { Connection } from './connections.ts';
import { durationMs, type GatewayError, inferred, StreamError, TurnError } from './errors.ts';
import { Event } from './event.ts';
import { type Event as EventMessage, TurnOutcome, TurnPhase } from './gen/responses/gateway/v1/event_pb.ts';
import {
  type ActiveTurn,
  type GoAway,
  GoAwayReason,
  InputMode,
  type Opened,
  ResumeOutcome,
  type StartTurn,
  StartTurnSchema,
} from './gen/responses/gateway/v1/session_pb.ts';
import { Heartbeat } from './heartbeat.ts';
import { type LaneState, Lanes } from './lanes.ts';
import type { Log } from './log.ts';
import {
  ackMessage,
  cancelMessage,
  heartbeatMessage,
  openMessage,
  type Receiving,
  startMessage,
  steerMessage,
} from './messages.ts';
import type { Accepted, Opener } from './opening.ts';
import {
  DEFAULT_CLOSE_TIMEOUT_MS,
  DEFAULT_CONNECT_TIMEOUT_MS,
  DEFAULT_MAX_BUFFERED_BYTES,
  DEFAULT_MAX_QUEUED_BYTES,
  type SessionOptions,
} from './options.ts';
import { Outbox, type Outgoing } from './outbox.ts';
import { type Input, inputItems, startTurn, type TurnRequest } from './request.ts';
import { Resumption } from './resume.ts';
import type { Limits, Stats } from './session.ts';
import type { Steering } from './turn.ts';
import { type Bound, TurnState } from './turn-state.ts';
import { Unread } from './unread.ts';

/** Often enough to keep the gateway's resume buffer (2 MiB) small, rarely enough to cost nothing. */
const ACK_EVENTS = 512;
const ACK_BYTES = 256 * 1024;
/** Grace time if the gateway names none. */
const DEFAULT_GRACE_MS = 60_000;
/** A start that was lost so often in a row never gets through: something on the way does not take its size. */
const MAX_LOSSES = 4;
/** More than a gateway allows in a session's life by default. */
const MAX_REMEMBERED_LANES = 8_192;

/** Of these, RECOVERED came from the record of another gateway. */
const GOES_ON: ReadonlySet<ResumeOutcome> = new Set([
  ResumeOutcome.RESUMED,
  ResumeOutcome.PARTIAL,
  ResumeOutcome.RECOVERED,
]);

type Phase =
  | { readonly kind: 'open' }
  /** The gateway goes down: running turns may finish. */
  | { readonly kind: 'draining'; readonly untilMs: number }
  | { readonly kind: 'closing'; readonly error: StreamError }
  | { readonly kind: 'over'; readonly error: StreamError };

/** What a tool loop adds to the start of a turn. */
export interface LoopStart {
  readonly bound: Bound;
  /** Whether the input has the results of the calls of the lane's last response. */
  readonly answers: boolean;
}

/** The session behind `Session`, `Lane` and `Turn`: one stream after the other, until it is over. */
export class SessionCore implements Steering {
  readonly closed: Promise<GatewayError | undefined>;
  readonly #opener: Opener;
  readonly #affinity: string;
  readonly #options: SessionOptions;
  readonly #log: Log;
  readonly #receiving: Receiving;
  readonly #unread: Unread;
  readonly #outbox: Outbox;
  readonly #lanes = new Lanes();
  readonly #resumption = new Resumption();
  /** Turns without an outcome, in the order of their starts. */
  readonly #turns = new Map<string, TurnState>();
  /** Aborted when nothing may be opened any more. */
  readonly #lifetime = new AbortController();
  readonly #resolveClosed: (error: GatewayError | undefined) => void;

  #phase: Phase = { kind: 'open' };
  #opened: Opened;
  #token: string;
  #call: Call | undefined;
  #writing = false;
  #paused = false;
  #heartbeat: Heartbeat | undefined;
  /** Waits to be sent. */
  #beat: Outgoing | undefined;
  #closeTimer: NodeJS.Timeout | undefined;
  #started = 0;
  #resumes = 0;
  #lastSeq = 0;
  #lastCommit = 0n;
  #connection: Connection;
  /** The session is to go on at another gateway once nothing runs: starts wait. */
  #moving = false;
  #unackedEvents = 0;
  #unackedBytes = 0;

  static async connect(
    opener: Opener,
    options: SessionOptions,
    log: Log,
    receiving: Receiving,
    signal: AbortSignal,
  ): Promise<SessionCore> {
    const affinity = randomUUID();
    const accepted = await opener.open({
      open: openMessage(options, receiving, undefined),
      affinity,
      waitForReady: false,
      timeoutMs: options.timeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
      signal,
    });
    return new SessionCore(opener, options, log, receiving, affinity, accepted);
  }

  private constructor(
    opener: Opener,
    options: SessionOptions,
    log: Log,
    receiving: Receiving,
    affinity: string,
    { call, opened, connection }: Accepted,
  ) {
    this.#opener = opener;
    this.#affinity = affinity;
    this.#connection = connection;
    this.#options = options;
    this.#log = log;
    this.#receiving = receiving;
    this.#unread = new Unread(
      options.maxBufferedBytes ?? DEFAULT_MAX_BUFFERED_BYTES,
      () => this.#continue(),
      () => this.#turns.values(),
      ({ id }) =>
        log('warn', `responses-gateway: the reader of turn ${id} is too slow; its events are dropped`),
    );
    this.#outbox = new Outbox(options.maxQueuedBytes ?? DEFAULT_MAX_QUEUED_BYTES, () => this.#write());
    this.#opened = opened;
    this.#token = opened.resumeToken;
    const { promise, resolve } = Promise.withResolvers<GatewayError | undefined>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    this.#attach(call);
  }

  get id(): string {
    return this.#opened.sessionId;
  }

  get durable(): boolean {
    return this.#opened.durable;
  }

  get limits(): Limits {
    const { limits } = this.#opened;
    return {
      maxMessageBytes: Number(limits?.maxMessageBytes ?? 0n),
      maxFrameBytes: Number(limits?.maxFrameBytes ?? 0n),
      maxBufferedBytes: Number(limits?.maxBufferedBytes ?? 0n),
      maxResumeBytes: Number(limits?.maxResumeBytes ?? 0n),
      maxLanes: limits?.maxLanes ?? 0,
      maxTurnsInFlight: limits?.maxTurnsInFlight ?? 0,
      maxQueuedTurnsPerLane: limits?.maxQueuedTurnsPerLane ?? 0,
      resumeGraceMs: this.#graceMs,
    };
  }

  get stats(): Stats {
    return {
      resumes: this.#resumes,
      bufferedBytes: this.#unread.bytes,
      maxBufferedBytes: this.#unread.mostBytes,
      queuedBytes: this.#outbox.bytes,
      runningTurns: this.#turns.size,
      lastSeq: this.#lastSeq,
    };
  }

  lane(id: string): LaneState {
    return this.#lanes.get(id);
  }

  fork(from: LaneState, id: string): LaneState {
    const lane = this.#lanes.get(id);
    from.forkTo(lane);
    this.#lanes.remember(lane, this.#mostLanes);
    return lane;
  }

  async start(
    lane: LaneState,
    request: TurnRequest,
    signal: AbortSignal | undefined,
    loop?: LoopStart,
  ): Promise<TurnState> {
    signal?.throwIfAborted();
    // Made now, so that the span that is current now becomes the parent.
    const start = startTurn(request, lane.id, '');
    return this.#whenRoom(signal, () => this.#enqueue(lane, start, request.turnId, loop));
  }

  steer(laneId: string, turnId: string, input: Input, signal: AbortSignal | undefined): Promise<void> {
    const steered = this.#whenRoom(signal, () => {
      // While the gateway drains, running turns may be steered.
      const problem = this.#phase.kind === 'draining' ? undefined : this.#unusable();
      if (problem) throw problem;
      const message = steerMessage(laneId, turnId, inputItems(input));
      const tooLarge = this.#tooLarge(message);
      if (tooLarge) throw tooLarge;
      this.#outbox.add({ message, about: this.#target(laneId, turnId) });
    });
    // Whoever does not wait for it does not want to hear of it: it must not end the process.
    steered.catch(() => undefined);
    return steered;
  }

  /** The turn that a steer is for, as far as the session knows it. */
  #target(laneId: string, turnId: string): TurnState | undefined {
    if (turnId) return this.#turns.get(turnId);
    for (const turn of this.#turns.values()) if (turn.lane.id === laneId) return turn;
    return undefined;
  }

  cancelTurn(turn: TurnState): void {
    if (this.#turns.get(turn.id) !== turn || turn.cancelRequested) return;
    turn.cancelRequested = true;
    this.#outbox.add({ message: cancelMessage(turn), about: turn });
  }

  /** Tells a callback of the program's own; what it throws is reported and stops nothing. */
  tell<T>(callback: ((argument: T) => unknown) | undefined, argument: T): void {
    if (!callback) return;
    try {
      Promise.resolve(callback(argument)).catch((error: unknown) => this.report(error));
    } catch (error) {
      this.report(error);
    }
  }

  report(error: unknown): void {
    this.#log('error', 'responses-gateway: a callback threw', error);
    try {
      this.#options.onError?.(error);
    } catch (worse) {
      this.#log('error', 'responses-gateway: onError threw', worse);
    }
  }

  /** Turns fail at once with `error`; the session is over when the gateway has ended the stream, or its time is up. */
  close(error = inferred('CANCELLED', 'SESSION_CLOSED', 'the session was closed')): Promise<unknown> {
    if (this.#phase.kind === 'open' || this.#phase.kind === 'draining') {
      this.#phase = { kind: 'closing', error };
      this.#outbox.clear();
      for (const turn of this.#turns.values()) {
        if (turn.sent) this.#outbox.add({ message: cancelMessage(turn), about: turn });
        turn.fail(error.forTurn(turn, turn.replay));
      }
      this.#turns.clear();
      this.#outbox.add({ message: undefined });
      this.#lifetime.abort(error);
      if (this.#call) {
        this.#closeTimer = setTimeout(
          () => this.#finish(error),
          this.#options.closeTimeoutMs ?? DEFAULT_CLOSE_TIMEOUT_MS,
        );
        // Nobody reads any more: what still comes is dropped.
        this.#call.resume();
      } else {
        this.#finish(error);
      }
    }
    return this.closed;
  }

  /** Runs `enter` when there is room to send, in the order of the calls. */
  #whenRoom<T>(signal: AbortSignal | undefined, enter: () => T): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    if (signal?.aborted) return Promise.reject(signal.reason);
    const leave = this.#outbox.whenRoom(() => {
      try {
        resolve(enter());
      } catch (error) {
        reject(error);
      }
    });
    if (!leave || !signal) return promise;
    const onAbort = () => {
      leave();
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    return promise.finally(() => signal.removeEventListener('abort', onAbort));
  }

  #enqueue(
    lane: LaneState,
    start: StartTurn,
    chosenId: string | undefined,
    loop: LoopStart | undefined,
  ): TurnState {
    const id = chosenId ?? `turn-${this.#started + 1}`;
    const turn = new TurnState(this.#unread, lane, id, this.#started + 1, loop?.bound);
    const problem = this.#unusable();
    if (problem) throw problem.forTurn(turn, 'safe');
    if (this.#turns.has(turn.id)) {
      throw new TurnError({
        code: 'FAILED_PRECONDITION',
        reason: 'TURN_ID_REUSED',
        message: 'a turn of this id is running',
        inferred: true,
        replay: 'safe',
        laneId: lane.id,
        turnId: turn.id,
      });
    }
    start.turnId = turn.id;
    const left = start.chain.case === undefined ? lane.left : undefined;
    if (start.chain.case === undefined) this.#chain(start, lane, loop?.answers ?? false);
    const message = startMessage(start);
    const tooLarge = this.#tooLarge(message);
    if (tooLarge) throw tooLarge.forTurn(turn, 'safe');
    this.#started += 1;
    turn.started(lane.begin());
    left?.supersede();
    if (left) lane.left = undefined;
    this.#lanes.remember(lane, this.#mostLanes);
    turn.start = message;
    this.#turns.set(turn.id, turn);
    this.#outbox.add({ message, turn });
    return turn;
  }

  /** What a turn continues from that names nothing itself, and the calls that it has to answer before its own input. */
  #chain(start: StartTurn, lane: LaneState, answered: boolean): void {
    const { left } = lane;
    const isHistory = start.inputMode === InputMode.FULL_HISTORY;
    const owed = answered || isHistory ? [] : (left?.answers ?? lane.owed());
    start.create?.input.unshift(...owed);
    if (left && !isHistory) {
      // Nobody knows yet whether a cancelled turn came to a response with calls.
      const { goesBackTo } = left;
      start.chain = goesBackTo
        ? { case: 'previousResponseId', value: goesBackTo }
        : create(StartTurnSchema, { chain: { case: 'newConversation', value: {} } }).chain;
    } else if (lane.forkFrom) {
      start.chain = { case: 'previousResponseId', value: lane.forkFrom };
    }
  }

  #unusable(): StreamError | undefined {
    switch (this.#phase.kind) {
      case 'open':
        return undefined;
      case 'draining':
        return inferred('UNAVAILABLE', 'DRAINING', 'the gateway shuts down; open a new session');
      case 'closing':
      case 'over':
        return this.#phase.error;
    }
  }

  #tooLarge(message: Uint8Array): StreamError | undefined {
    const limit = Number(this.#opened.limits?.maxMessageBytes ?? 0n);
    if (limit === 0 || message.length <= limit) return undefined;
    return inferred(
      'RESOURCE_EXHAUSTED',
      'MESSAGE_TOO_LARGE',
      `a message of ${message.length} bytes; the gateway takes ${limit}`,
    );
  }

  #attach(call: Call): void {
    this.#call = call;
    this.#writing = false;
    this.#paused = false;
    call.listen(
      (received) => {
        if (this.#call !== call) return;
        this.#heartbeat?.heard();
        this.#receive(received);
      },
      (error) => {
        if (this.#call === call) this.#lost(error, error === undefined);
      },
    );
    if (this.#unread.isFull) this.#pause();
    this.#beginToBeat();
    this.#write();
  }

  #beginToBeat(): void {
    this.#heartbeat?.stop();
    const { heartbeatInterval } = this.#opened;
    const intervalMs = heartbeatInterval ? durationMs(heartbeatInterval) : 0;
    if (intervalMs <= 0) return;
    this.#heartbeat = new Heartbeat({
      intervalMs,
      isPaused: () => this.#paused,
      send: () => {
        // One at a time: where nothing is taken, more would only pile up.
        if (this.#beat || this.#phase.kind === 'closing') return;
        this.#beat = { message: heartbeatMessage() };
        this.#outbox.addFirst([this.#beat]);
      },
      onSilent: () => {
        this.#call?.cancel();
        // What is dead may be the whole connection.
        this.#connection.retired = true;
        const message = `nothing was heard for three heartbeats of ${intervalMs} ms`;
        this.#lost(inferred('UNAVAILABLE', 'STREAM_LOST', message), false);
      },
    });
  }

  #detach(): void {
    this.#heartbeat?.stop();
    this.#call = undefined;
  }

  /** One message at a time: what is handed to the transport but not sent is bounded by one. */
  #write(): void {
    const call = this.#call;
    if (!call || this.#writing) return;
    // Before something is taken: that lets in starts that waited, which write, too.
    this.#writing = true;
    const outgoing = this.#outbox.take(!this.#moving);
    this.#writing = outgoing?.message !== undefined;
    if (!outgoing) return;
    if (outgoing === this.#beat) this.#beat = undefined;
    if (!outgoing.message) return call.halfClose();
    if (outgoing.turn) {
      outgoing.turn.sent = true;
      outgoing.turn.onStream = true;
    }
    call.write(outgoing.message, () => {
      if (this.#call !== call) return;
      this.#writing = false;
      this.#write();
    });
  }

  #pause(): void {
    this.#paused = true;
    this.#call?.pause();
  }

  #continue(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#heartbeat?.heard();
    this.#call?.resume();
  }

  #receive({ response: { message }, byteLength }: Received): void {
    if (message.case === 'events') this.#takeEvents(message.value.events, byteLength);
    else if (message.case === 'goAway') this.#takeGoAway(message.value);
  }

  #takeEvents(events: readonly EventMessage[], byteLength: number): void {
    const share = Math.ceil(byteLength / events.length);
    for (const event of events) {
      const seq = Number(event.seq);
      if (seq !== this.#lastSeq + 1) {
        this.#call?.cancel();
        this.#lost(inferred('INTERNAL', 'PROTOCOL', `event ${seq} came after ${this.#lastSeq}`), false);
        return;
      }
      this.#resumption.progress();
      this.#lastSeq = seq;
      if (event.commit > this.#lastCommit) this.#lastCommit = event.commit;
      this.#route(event, share);
    }
    this.#unackedEvents += events.length;
    this.#unackedBytes += byteLength;
    if (this.#unackedEvents >= ACK_EVENTS || this.#unackedBytes >= ACK_BYTES) {
      this.#unackedEvents = 0;
      this.#unackedBytes = 0;
      if (this.#phase.kind !== 'closing') this.#outbox.add({ message: ackMessage(this.#lastSeq) });
    }
    if (this.#unread.isFull && this.#phase.kind !== 'closing') this.#pause();
    this.#moveIfIdle();
  }

  #route(event: EventMessage, bytes: number): void {
    const turn = event.turnId === '' ? undefined : this.#turns.get(event.turnId);
    if (!turn) {
      if (this.#phase.kind !== 'closing') this.tell(this.#options.onEvent, new Event(event));
      return;
    }
    turn.seen = true;
    turn.start = undefined;
    const { payload } = event;
    // A refused start is answered without an outcome: the turn of that id is another one.
    const refused = payload.case === 'turnFailed' && payload.value.reason === 'TURN_ID_REUSED';
    if (event.outcome !== TurnOutcome.UNSPECIFIED || refused) this.#turns.delete(turn.id);
    turn.push(event, bytes);
  }

  #takeGoAway(message: GoAway): void {
    const draining = message.reason !== GoAwayReason.MAX_AGE;
    const timeLeftMs = message.timeLeft ? durationMs(message.timeLeft) : 0;
    if (message.resumeToken) this.#token = message.resumeToken;
    const movable = message.movable && this.#options.resume !== false && this.#phase.kind === 'open';
    // Nothing new is opened at a gateway that goes down.
    if (draining) this.#connection.retired = true;
    if (draining && movable) this.#moving = true;
    else if (draining && this.#phase.kind === 'open') {
      this.#phase = { kind: 'draining', untilMs: Date.now() + timeLeftMs };
    }
    this.tell(this.#options.onGoAway, { draining, timeLeftMs, movable });
    if (movable) return this.#moveIfIdle();
    if (draining || this.#phase.kind !== 'open' || this.#options.resume === false) return;
    // The stream has grown old: replace it.
    this.#resumption.progress();
    this.#replace();
  }

  /** Goes on at another gateway once nothing runs here any more. */
  #moveIfIdle(): void {
    if (!this.#moving || this.#phase.kind !== 'open' || !this.#call) return;
    for (const { sent } of this.#turns.values()) if (sent) return;
    this.#replace();
  }

  #replace(): void {
    const old = this.#call;
    this.#detach();
    old?.cancel();
    void this.#resume(undefined);
  }

  #lost(error: StreamError | undefined, planned: boolean): void {
    this.#detach();
    const failure = this.#verdict(error, planned);
    if (failure) return this.#finish(failure);
    for (const turn of this.#turns.values()) {
      if (turn.onStream && !turn.seen) turn.losses += 1;
      turn.onStream = false;
    }
    void this.#resume(error);
  }

  /** Undefined if the session should be resumed. */
  #verdict(error: StreamError | undefined, planned: boolean): StreamError | undefined {
    if (this.#phase.kind === 'closing') return this.#phase.error;
    if (planned && this.#phase.kind === 'draining')
      return inferred('UNAVAILABLE', 'DRAINING', 'the gateway shut down');
    const failure = error ?? inferred('UNAVAILABLE', 'STREAM_LOST', 'the stream ended');
    if (!failure.resumable && !this.#moving) return failure;
    return this.#options.resume !== false && this.#token !== '' ? undefined : failure;
  }

  async #resume(lost: StreamError | undefined): Promise<void> {
    this.#log('info', `responses-gateway: resuming session ${this.id}`, lost);
    const place = { token: this.#token, lastSeq: this.#lastSeq, lastCommit: this.#lastCommit };
    const stream = { open: openMessage(this.#options, this.#receiving, place), affinity: this.#affinity };
    const untilMs = this.#phase.kind === 'draining' ? this.#phase.untilMs : Number.POSITIVE_INFINITY;
    const elsewhere = this.#moving || this.durable;
    const limits = { graceMs: this.#graceMs, untilMs, lost, elsewhere };
    const outcome = await this.#resumption.run(this.#opener, stream, limits, this.#lifetime.signal);
    if (this.#phase.kind === 'over') {
      if (!(outcome instanceof StreamError)) outcome.call.cancel();
      return;
    }
    if (outcome instanceof StreamError) return this.#finish(outcome);
    const failure = this.#reconcile(outcome.opened);
    if (failure) {
      outcome.call.cancel();
      return this.#finish(failure);
    }
    this.#connection = outcome.connection;
    this.#attach(outcome.call);
  }

  /** Brings turns and outbox in line with what the gateway says after a resume. */
  #reconcile(opened: Opened): StreamError | undefined {
    const { resumeOutcome } = opened;
    if (!GOES_ON.has(resumeOutcome)) {
      // The new session that the gateway offers instead has none of the lanes' conversations: a turn sent there
      // would silently begin a new one.
      const message = 'the gateway no longer has the session';
      if (opened.goneReason !== 'ENGINE_LOST_DATA') return inferred('NOT_FOUND', 'SESSION_EXPIRED', message);
      return inferred('DATA_LOSS', 'ENGINE_LOST_DATA', message);
    }
    this.#moving = false;
    this.#resumes += 1;
    this.#opened = opened;
    if (opened.resumeToken) this.#token = opened.resumeToken;
    const active = new Map(opened.activeTurns.map((turn) => [turn.turnId, turn]));
    if (resumeOutcome === ResumeOutcome.PARTIAL) {
      this.#loseEvents(active);
      this.#lastSeq = Number(opened.oldestSeq) - 1;
    }
    this.#giveUpUndelivered(active);
    // What nobody here knows is of turns that were given up.
    for (const { turnId, laneId } of opened.activeTurns) {
      if (this.#turns.has(turnId)) continue;
      this.#outbox.add({ message: cancelMessage({ id: turnId, lane: { id: laneId } }) });
    }
    // What was on its way may have got lost. Repeating a start is safe: the gateway knows its turn ids.
    const again: Outgoing[] = [];
    const sent = [...this.#turns.values()].filter((turn) => turn.sent);
    for (const turn of sent)
      if (turn.start && !active.has(turn.id)) again.push({ turn, message: turn.start });
    for (const turn of sent) if (turn.cancelRequested) again.push({ message: cancelMessage(turn) });
    this.#outbox.addFirst(again);
    this.#unackedEvents = 0;
    this.#unackedBytes = 0;
    return undefined;
  }

  /** Fails the first turn whose start never gets through; those behind it never had a chance. */
  #giveUpUndelivered(active: ReadonlyMap<string, ActiveTurn>): void {
    for (const turn of this.#turns.values()) if (turn.seen || active.has(turn.id)) turn.losses = 0;
    const lost = [...this.#turns.values()].find(({ losses }) => losses >= MAX_LOSSES);
    if (!lost) return;
    this.#turns.delete(lost.id);
    const [bytes, attempts] = [lost.start?.length ?? 0, lost.losses];
    lost.fail(
      new TurnError({
        code: 'UNAVAILABLE',
        reason: 'TURN_UNDELIVERED',
        message: `${attempts} streams were lost with the turn's start of ${bytes} bytes on them`,
        metadata: { bytes: String(bytes), attempts: String(attempts) },
        inferred: true,
        replay: lost.replay,
        laneId: lost.lane.id,
        turnId: lost.id,
      }),
    );
    for (const turn of this.#turns.values()) turn.losses = 0;
  }

  /** Fails the turns that have a hole. */
  #loseEvents(active: ReadonlyMap<string, ActiveTurn>): void {
    for (const turn of this.#turns.values()) {
      const running = active.get(turn.id);
      const untouched = !turn.sent || (running && !turn.seen && running.phase <= TurnPhase.SENT);
      if (untouched) continue;
      this.#turns.delete(turn.id);
      if (running) this.#outbox.add({ message: cancelMessage(turn), about: turn });
      turn.fail(
        inferred('DATA_LOSS', 'EVENTS_LOST', 'events of the turn are gone').forTurn(turn, turn.replay),
      );
    }
  }

  /** Ends the session for good. */
  #finish(error: StreamError): void {
    if (this.#phase.kind === 'over') return;
    const wanted = this.#phase.kind === 'closing' && this.#phase.error.reason === 'SESSION_CLOSED';
    this.#phase = { kind: 'over', error };
    clearTimeout(this.#closeTimer);
    const call = this.#call;
    this.#detach();
    call?.cancel();
    this.#lifetime.abort(error);
    for (const turn of this.#turns.values()) turn.fail(error.forTurn(turn, turn.replay));
    this.#turns.clear();
    this.#outbox.clear();
    this.#unread.end();
    this.#resolveClosed(wanted ? undefined : error);
  }

  get #mostLanes(): number {
    return this.#opened.limits?.maxLanes || MAX_REMEMBERED_LANES;
  }

  get #graceMs(): number {
    const grace = this.#opened.resumeGrace ? durationMs(this.#opened.resumeGrace) : 0;
    return grace > 0 ? grace : DEFAULT_GRACE_MS;
  }
}
