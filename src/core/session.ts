import { GatewayError } from '../errors.ts';
import { endSilent, nextSilenceMs, stopTurn } from './cancel.ts';
import { forgetCarried } from './carry.ts';
import {
  type Core,
  cutSlowClient,
  emitNotice,
  emitOwn,
  emitRejected,
  isMoving,
  type Life,
  resumeLinks,
  tell,
} from './core.ts';
import { Deadlines, type Timer } from './deadlines.ts';
import { Fingerprints } from './fingerprint.ts';
import {
  gateExpired,
  handleJournalBack,
  handleJournaled,
  handleJournalLost,
  hasBegun,
  hasRecord,
  heard,
  isDurable,
  isRecordAway,
  leaveJournal,
  newJournal,
  openAllGates,
  openGatesForClient,
  recordOutbox,
} from './gates.ts';
import { wake } from './home.ts';
import { Homeless } from './homeless.ts';
import { submitInject } from './inject.ts';
import type { SavedState } from './journal.ts';
import { isLaneId, type Lane, newLane } from './lane.ts';
import { upOf } from './link-slot.ts';
import { handleLinkUp, reroute } from './link-up.ts';
import { Outbox, type ResumePoint } from './outbox.ts';
import { REFUSED, RecentIds } from './recent-ids.ts';
import { RecentSettings } from './recent-settings.ts';
import { ReplayForms } from './replay.ts';
import { type Heard, restore } from './restore.ts';
import { advanceRotations, retireLink, startRotation, warmUpExpired } from './rotation.ts';
import { dial, dialNow, enqueue, pump, unqueue } from './scheduler.ts';
import { submitSteer } from './steering.ts';
import { Transcript } from './transcript.ts';
import { newTurn, phaseOf, verdictByPhase } from './turn.ts';
import { failTurn } from './turn-end.ts';
import type {
  CancelTurn,
  Input,
  Output,
  SessionEvent,
  SessionOptions,
  StartTurn,
  TurnPhase,
  UpstreamFrame,
} from './types.ts';
import { handleFrame, steerSettleExpired } from './upstream-events.ts';
import { handleLinkDown, refusalsExpired } from './upstream-failures.ts';

/** Ended turns whose ids are still known as used. */
const REMEMBERED_TURNS = 4096;
/** The lanes of two links with 20 KB of instructions and tools each, twice over. */
const REMEMBERED_SETTINGS_BYTES = 3 * 1024 * 1024;
/**
 * Each owner numbers its commits out of reach of the others. Should the store forget a takeover, what the owner before
 * goes on to write is behind what the client has heard, and nobody goes on from it.
 */
const COMMITS_PER_FENCE = 2 ** 20;
const NO_OUTPUTS: readonly Output[] = [];
const TURN_ID = /^[\x21-\x7e]{1,256}$/;

/**
 * Theory of operation. Three machines, each the only writer of its state, with its table of legal steps: the turn
 * (turn.ts) is what the client was told, the stream (stream.ts) what a link's upstream does for a lane, the link
 * (link-slot.ts) a connection. A client's message goes to its turn or lane; a frame to its stream, which asks whose
 * response it is, and through it to the turn that listens; a timer to whoever set it. Joint states that exist:
 *
 *   turn queued             its lane has no stream busy for it, or waits for one
 *   turn sent               stream `turn`, no response named; link open, rotating or retiring
 *   turn running, settling  stream `turn`, response named; the same links
 *   turn ended              stream idle, or `abandoned` until the upstream has finished what it was asked for
 *   no turn                 stream idle, `warmUp` on the successor of a rotating link, or a stray that nobody asked for
 *
 * A lane has at most one written turn and lives on at most one link; streams of links that it has left may still be
 * abandoned. Whatever may have made a step possible sets `pumpDue`; the step itself is taken after the input, or for
 * frames at the end of the tick.
 *
 * A session as a pure state machine. Feed it with `handle`, then drain `takeOutputs` and `takeEvents`, then arm
 * one timer for `nextDeadline` and call `handle({ kind: 'time' })` when it is due. Nothing else wakes it.
 * Time must not go back. An assertion that fails ends this session only, with INTERNAL.
 */
export class Session {
  readonly #core: Core;
  #resumePoint: ResumePoint | undefined;
  #recovered: 'RECOVERED' | 'PARTIAL' | undefined;

  /**
   * A new session dials its first link at once, so that the first turn does not wait for it. One that is restored dials
   * when a turn needs it: when a process dies all of its sessions move, and few of them have a turn to run.
   */
  constructor(options: SessionOptions, nowMs: number, restored?: Restored) {
    const { limits, random, transcriptBudget, journal, account } = options;
    this.#core = {
      limits,
      random,
      outbox: new Outbox(limits.maxResumeBytes, (restored?.heard.lastSeq ?? 0) + 1),
      transcript: new Transcript(limits.maxTranscriptBytes, transcriptBudget),
      deadlines: new Deadlines(),
      lanes: new Map(),
      links: new Map(),
      turns: new Map(),
      endedTurns: new RecentIds(REMEMBERED_TURNS),
      fingerprints: new Fingerprints(),
      replayForms: new ReplayForms(),
      recentSettings: new RecentSettings(REMEMBERED_SETTINGS_BYTES),
      homeless: new Homeless(),
      budget: transcriptBudget,
      carriedBytes: 0,
      pumpDue: false,
      roomVersion: 0,
      roomSeen: 0,
      fullAt: -1,
      outputs: [],
      nowMs,
      life: { t: 'open' },
      attached: true,
      paused: false,
      heldInputBytes: 0,
      nextLinkId: 1,
      lastCapabilities: undefined,
      lastUpstream: undefined,
      unrecovered: undefined,
      journal: journal && newJournal(journal),
      account,
      spent: restored?.state.spent,
      drainDeadlineMs: undefined,
    };
    if (restored === undefined) dial(this.#core, 'session', 0, 0, undefined);
    else this.#restore(restored);
  }

  /** Goes on with a session that another process held. The client that asked for it attaches next. */
  static restore(restored: Restored, options: SessionOptions, nowMs: number): Session {
    return new Session(options, nowMs, restored);
  }

  get closed(): boolean {
    return this.#core.life.t === 'closed';
  }

  /** Events that wait for the client's stream. */
  get pendingEvents(): number {
    return this.#core.outbox.ready;
  }

  /** Memory of what the client asked for and has no answer to yet; above its own bound a driver takes no more. */
  get heldInputBytes(): number {
    return this.#core.heldInputBytes;
  }

  /** Bytes of the events that wait for the client's stream. */
  get waitingEventBytes(): number {
    return this.#core.outbox.waitingBytes;
  }

  /** What `shed` would free. */
  get transcriptBytes(): number {
    return this.#core.transcript.bytes;
  }

  get keptEventBytes(): number {
    return this.#core.outbox.keptBytes;
  }

  get nextSeq(): number {
    return this.#core.outbox.nextSeq;
  }

  /** Whether another process could go on with the session should this one end now. */
  get durable(): boolean {
    return isDurable(this.#core);
  }

  /** Whether another process is to go on with the session, as this one goes. */
  get moving(): boolean {
    return isMoving(this.#core);
  }

  /** The process goes, and the session waits for its store before it says so. */
  get waitsForStore(): boolean {
    return this.#core.drainDeadlineMs !== undefined;
  }

  /** What the last `attach` with a `lastSeq` found. */
  get resumePoint(): ResumePoint | undefined {
    return this.#resumePoint;
  }

  /** Once, for the client that had the session moved: what it has to know of that. */
  takeRecovery(): 'RECOVERED' | 'PARTIAL' | undefined {
    const recovered = this.#recovered;
    this.#recovered = undefined;
    return recovered;
  }

  handle(input: Input, nowMs: number): void {
    const core = this.#core;
    if (core.life.t === 'closed') return;
    core.nowMs = nowMs;
    try {
      if (input.kind === 'frame') {
        const link = core.links.get(input.linkId);
        if (link === undefined || !handleFrame(core, link, input.frame)) return;
        // What came with this frame is read first: an upstream that says its end twice, or goes on behind it, has done so
        // before the next turn of the lane is written, and is not taken for its answer.
        core.pumpDue = true;
      } else {
        this.#apply(input);
        this.#pump();
      }
      this.#finishIfDone();
    } catch (cause) {
      this.#terminate(new GatewayError('INTERNAL', 'internal error', { cause }));
    }
  }

  /** Moves on whatever the last inputs have made possible. */
  #pump(): void {
    const core = this.#core;
    advanceRotations(core);
    pump(core);
    core.pumpDue = false;
  }

  takeOutputs(): readonly Output[] {
    const { outputs } = this.#core;
    // Asked several times for each event; mostly there is nothing.
    if (outputs.length === 0) return NO_OUTPUTS;
    this.#core.outputs = [];
    return outputs;
  }

  /** In seq order; what is taken stays for a resume until it is acknowledged or pushed out. */
  takeEvents(maxEvents: number, maxBytes: number): readonly SessionEvent[] {
    const core = this.#core;
    const events = core.outbox.take(maxEvents, maxBytes);
    if (core.paused && core.outbox.waitingBytes <= core.limits.maxBufferedBytes / 2) resumeLinks(core);
    if (core.outbox.waiting === 0) this.#finishIfDone();
    if (core.pumpDue) this.handle({ kind: 'time' }, core.nowMs);
    return events;
  }

  /** Frames have made a step possible: the next input that is no frame takes it. */
  get pumpDue(): boolean {
    return this.#core.pumpDue && this.#core.life.t !== 'closed';
  }

  nextDeadline(): number | undefined {
    const { pumpDue, nowMs, deadlines, life } = this.#core;
    return pumpDue && life.t !== 'closed' ? nowMs : deadlines.next();
  }

  /** For the admin page: sizes and states, no content. */
  inspect(): SessionSnapshot {
    const core = this.#core;
    return {
      life: core.life.t,
      attached: core.attached,
      lanes: core.lanes.size,
      turns: [...core.turns.values()].map((turn) => ({
        turnId: turn.id,
        laneId: turn.laneId,
        state: turn.state.t,
        phase: phaseOf(turn),
        ageMs: core.nowMs - turn.acceptedAtMs,
      })),
      links: [...core.links.values()].map((link) => ({
        linkId: link.id,
        state: link.state.t,
        upstream: upOf(link)?.route.upstream,
        transport: upOf(link)?.capabilities.transport,
        inFlight: link.inFlight,
        lanes: link.lanes.size,
        ageMs: core.nowMs - (upOf(link)?.upAtMs ?? link.askedAtMs),
      })),
      bufferedBytes: core.outbox.waitingBytes,
      resumeBytes: core.outbox.keptBytes,
      transcriptBytes: core.transcript.bytes,
      heldInputBytes: core.heldInputBytes,
      nextSeq: core.outbox.nextSeq,
    };
  }

  #apply(input: Exclude<Input, { kind: 'frame' }>): void {
    const core = this.#core;
    switch (input.kind) {
      case 'startTurn':
        return this.#startTurn(input);
      case 'refuse':
        return this.#refuse(input.laneId, input.turnId, input.error);
      case 'reject':
        return emitRejected(core, input.laneId, input.turnId, input.error);
      case 'steerTurn':
        return submitSteer(core, input);
      case 'injectTurn':
        return submitInject(core, input);
      case 'cancelTurn':
        return this.#cancelTurn(input);
      case 'ack':
        heard(core, input.seq);
        return core.outbox.acknowledge(input.seq);
      case 'attach':
        return this.#attach(input.lastSeq);
      case 'detach':
        return this.#detach();
      case 'halfClose':
        if (core.life.t === 'open') core.life = { t: 'finishing' };
        return;
      case 'linkUp':
        return handleLinkUp(core, input.linkId, input.capabilities, input.route);
      case 'linkDown': {
        const link = core.links.get(input.linkId);
        if (link !== undefined) handleLinkDown(core, link, input.down);
        return;
      }
      case 'linkBlocked':
      case 'linkWritable': {
        const link = core.links.get(input.linkId);
        if (link !== undefined) link.blocked = input.kind === 'linkBlocked';
        return;
      }
      case 'reroute':
        return reroute(core);
      case 'notify':
        return emitNotice(core, '', '', input.notice);
      case 'shed':
        if (input.what === 'keptEvents') core.outbox.dropKept();
        else this.#shedTranscript();
        return;
      case 'drain':
        return this.#drain(input.deadlineMs);
      case 'terminate':
        return this.#terminate(input.error);
      case 'journaled':
        return handleJournaled(core, input.n);
      case 'journalLost':
        return handleJournalLost(core);
      case 'journalBack':
        handleJournalBack(core);
        if (core.drainDeadlineMs !== undefined) this.#goAway(core.drainDeadlineMs);
        return;
      case 'fenced':
        return this.#fenced();
      case 'time':
        for (const timer of core.deadlines.expire(core.nowMs)) this.#expired(timer);
        return;
    }
  }

  #shedTranscript(): void {
    const core = this.#core;
    if (core.turns.size > 0) return;
    core.fingerprints.forget();
    if (core.journal !== undefined) return this.#shedSession();
    const losing = [...core.lanes.values()].filter(
      ({ id, headId, droppedTold }) =>
        headId !== undefined &&
        !droppedTold &&
        core.transcript.get(headId, id)?.stored === false &&
        core.transcript.isComplete(headId, id),
    );
    core.transcript.dropItems();
    for (const lane of losing) {
      lane.droppedTold = true;
      emitNotice(core, lane.id, '', { kind: 'transcript_dropped', reason: 'memory_short' });
    }
  }

  /**
   * A record is written from what is in memory, so that a session with one gives up nothing or everything: whoever resumes
   * it reads it back. With its client there that would be at once.
   */
  #shedSession(): void {
    const core = this.#core;
    if (core.life.t === 'open' && !core.attached && isDurable(core)) this.#end(undefined, 'release');
  }

  #startTurn(request: StartTurn): void {
    const core = this.#core;
    const used = core.turns.get(request.turnId);
    const before =
      used === undefined ? core.endedTurns.get(request.turnId) : core.fingerprints.of(used.request);
    if (before !== undefined) {
      // The same request again: its first copy arrived, the client just could not know.
      if (before === core.fingerprints.of(request)) return;
      emitRejected(core, request.laneId, request.turnId, turnIdReused());
      return;
    }
    // Its client asks for it again where the session goes.
    if (isMoving(core)) return;
    const refusal = this.#refusalOf(request);
    if (refusal !== undefined) return this.#refuse(request.laneId, request.turnId, refusal);

    const { defaultTurnTimeoutMs } = core.limits;
    const timeoutMs = request.timeoutMs ?? defaultTurnTimeoutMs;
    const turn = newTurn({ ...request, timeoutMs }, core.nowMs);
    core.turns.set(turn.id, turn);
    core.heldInputBytes += turn.requestBytes;
    this.#announceTurn(request);
    if (turn.deadlineMs !== undefined) core.deadlines.set({ kind: 'turn', turnId: turn.id }, turn.deadlineMs);
    enqueue(core, this.#lane(request.laneId), turn, 'last');
  }

  #refusalOf(request: StartTurn): GatewayError | undefined {
    const core = this.#core;
    const { laneId, turnId } = request;
    if (!isLaneId(laneId))
      return badId('INVALID_LANE_ID', 'start_turn.lane_id', 'empty, or 1 to 256 of A-Z a-z 0-9 _ . -');
    if (!TURN_ID.test(turnId))
      return badId('INVALID_TURN_ID', 'start_turn.turn_id', '1 to 256 visible ASCII characters');
    if (core.life.t === 'draining')
      return new GatewayError('DRAINING', 'the gateway is going down; open a new session', {
        retryAfterMs: 0,
      });
    if (core.life.t !== 'open')
      return new GatewayError('DRAINING', 'the stream was half-closed by its client');
    const lane = core.lanes.get(laneId);
    const { maxQueuedTurnsPerLane, maxLanes } = core.limits;
    if (lane === undefined && core.lanes.size >= maxLanes)
      return overLimit('LIMIT_EXCEEDED', 'lanes_per_session', maxLanes);
    if (lane !== undefined && lane.queue.length >= maxQueuedTurnsPerLane) {
      return overLimit('TOO_MANY_QUEUED_TURNS', 'queued_turns_per_lane', maxQueuedTurnsPerLane);
    }
    return undefined;
  }

  /** A turn that was never accepted still gets its one last event. */
  #refuse(laneId: string, turnId: string, error: GatewayError): void {
    const core = this.#core;
    const failed = { error, replay: 'SAFE', phase: 'NOT_SENT' } as const;
    if (core.turns.has(turnId) || core.endedTurns.get(turnId) !== undefined) {
      emitRejected(core, laneId, turnId, turnIdReused());
      return;
    }
    if (TURN_ID.test(turnId)) core.endedTurns.add(turnId, REFUSED);
    tell(core, { kind: 'refused', request: 'turn', error });
    emitOwn(core, laneId, turnId, { type: 'gateway.turn.failed', outcome: 'FAILED', turnFailed: failed });
  }

  #announceTurn(request: StartTurn): void {
    tell(this.#core, {
      kind: 'turnAccepted',
      laneId: request.laneId,
      turnId: request.turnId,
      model: request.create.model,
      traceContext: request.traceContext,
      atMs: this.#core.nowMs,
    });
  }

  #lane(id: string): Lane {
    const { lanes, nowMs } = this.#core;
    const known = lanes.get(id);
    if (known !== undefined) return known;
    const lane = newLane(id, nowMs);
    lanes.set(id, lane);
    tell(this.#core, { kind: 'laneOpened', laneId: id });
    return lane;
  }

  #cancelTurn({ laneId, turnId }: CancelTurn): void {
    const core = this.#core;
    const turn = core.turns.get(turnId);
    if (turn === undefined || turn.laneId !== laneId) {
      if (!core.lanes.has(laneId))
        return emitRejected(
          core,
          laneId,
          turnId,
          badId('UNKNOWN_LANE', 'cancel_turn.lane_id', 'a lane of this session'),
        );
      // The turn may have ended while the cancel was on its way: that is what the client wanted.
      if (core.endedTurns.get(turnId) === undefined)
        emitRejected(
          core,
          laneId,
          turnId,
          badId('UNKNOWN_TURN', 'cancel_turn.turn_id', 'a turn of this lane'),
        );
      return;
    }
    stopTurn(core, turn, 'CANCELLED', new GatewayError('TURN_CANCELLED', 'cancelled by the client'));
  }

  #attach(lastSeq: number | undefined): void {
    const core = this.#core;
    core.attached = true;
    core.deadlines.clear({ kind: 'grace' });
    if (lastSeq !== undefined) heard(core, lastSeq);
    this.#resumePoint = lastSeq === undefined ? undefined : core.outbox.rewind(lastSeq);
    openGatesForClient(core);
    if (core.paused) core.deadlines.set({ kind: 'slowClient' }, core.nowMs + core.limits.slowClientTimeoutMs);
  }

  #detach(): void {
    const core = this.#core;
    core.attached = false;
    core.deadlines.clear({ kind: 'slowClient' });
    core.deadlines.set({ kind: 'grace' }, core.nowMs + core.limits.resumeGraceMs);
  }

  /**
   * A session whose store is away can go nowhere. It waits for it for half of its time, as if it had not been told, and is
   * gone only then.
   */
  #drain(deadlineMs: number): void {
    const core = this.#core;
    if (core.life.t === 'draining') return;
    if (!isRecordAway(core)) return this.#goAway(deadlineMs);
    core.drainDeadlineMs = Math.min(core.drainDeadlineMs ?? deadlineMs, deadlineMs);
    core.deadlines.set({ kind: 'drainWait' }, core.nowMs + (core.drainDeadlineMs - core.nowMs) / 2);
  }

  #goAway(deadlineMs: number): void {
    const core = this.#core;
    core.drainDeadlineMs = undefined;
    core.deadlines.clear({ kind: 'drainWait' });
    const moves = hasRecord(core);
    core.life = { t: 'draining', deadlineMs, moves };
    core.deadlines.set({ kind: 'drain' }, deadlineMs);
    core.outputs.push({
      kind: 'goAway',
      reason: 'draining',
      timeLeftMs: Math.max(0, deadlineMs - core.nowMs),
      movable: moves,
    });
  }

  #expired(timer: Timer): void {
    const core = this.#core;
    switch (timer.kind) {
      case 'turn': {
        const turn = core.turns.get(timer.turnId);
        if (turn !== undefined)
          stopTurn(
            core,
            turn,
            'DEADLINE_EXCEEDED',
            new GatewayError('TURN_TIMEOUT', "the turn's timeout has passed"),
          );
        return;
      }
      case 'steerSettle':
        return steerSettleExpired(core, timer.laneId, timer.linkId);
      case 'lane': {
        const lane = core.lanes.get(timer.laneId);
        if (lane === undefined) return;
        lane.notBeforeMs = undefined;
        return wake(core, lane);
      }
      case 'silence':
        return this.#listenForSilence();
      case 'warmUp':
        return warmUpExpired(core, timer.laneId, timer.linkId);
      case 'grace':
        return this.#terminate(new GatewayError('SESSION_EXPIRED', 'the client did not come back in time'));
      case 'slowClient':
        return cutSlowClient(core);
      case 'drain':
        return this.#terminate(
          new GatewayError('DRAINING', 'the gateway went down before the turn ended', { retryAfterMs: 0 }),
        );
      case 'drainWait':
        return this.#goAway(core.drainDeadlineMs ?? core.nowMs);
      case 'journal':
        return gateExpired(core);
      default: {
        const link = core.links.get(timer.linkId);
        if (link === undefined) return;
        if (timer.kind === 'redial') dialNow(core, link);
        else if (timer.kind === 'rotate') startRotation(core, link);
        else if (timer.kind === 'refusals') refusalsExpired(core, link);
        else retireLink(link);
      }
    }
  }

  /** Ends what its upstream has said nothing of for too long, unless it is us who do not read. */
  #listenForSilence(): void {
    const core = this.#core;
    const { silentTurnTimeoutMs } = core.limits;
    if (silentTurnTimeoutMs === undefined) return;
    if (!core.paused)
      endSilent(
        core,
        core.nowMs - silentTurnTimeoutMs,
        () => new GatewayError('UPSTREAM_SILENT', 'the upstream said nothing of the turn for too long'),
      );
    const atMs = core.paused ? core.nowMs + silentTurnTimeoutMs : nextSilenceMs(core, silentTurnTimeoutMs);
    if (atMs !== undefined) core.deadlines.set({ kind: 'silence' }, atMs);
  }

  #terminate(error: GatewayError): void {
    const core = this.#core;
    // A process that goes leaves the session to another, with what has not begun here.
    const leaves = error.reason === 'DRAINING' && hasRecord(core);
    for (const turn of [...core.turns.values()]) {
      if (leaves && !hasBegun(core, turn.id)) continue;
      const lane = core.lanes.get(turn.laneId);
      if (lane !== undefined) unqueue(core, lane, turn);
      failTurn(core, turn, error, verdictByPhase(phaseOf(turn)));
    }
    this.#end(error, leaves ? 'release' : 'end');
  }

  /** Whatever runs here is another process's to report; nothing is told any more. */
  #fenced(): void {
    const core = this.#core;
    leaveJournal(core);
    const error = new GatewayError('SESSION_SUPERSEDED', 'another process has taken the session over');
    for (const turn of [...core.turns.values()]) {
      const lane = core.lanes.get(turn.laneId);
      if (lane !== undefined) unqueue(core, lane, turn);
      failTurn(core, turn, error, verdictByPhase(phaseOf(turn)));
    }
    core.outbox.discard();
    this.#end(error, 'leave');
  }

  #restore({ state, heard: client, fence, frameOf }: Restored): void {
    const { journal } = this.#core;
    if (journal !== undefined) {
      journal.commit = Math.max(state.commit, fence * COMMITS_PER_FENCE);
      journal.heardSeq = client.lastSeq;
    }
    restore(this.#core, state, client, frameOf);
    const lastCommit = client.lastCommit ?? Number.POSITIVE_INFINITY;
    this.#recovered = state.lostCommit > lastCommit ? 'PARTIAL' : 'RECOVERED';
  }

  #finishIfDone(): void {
    const core = this.#core;
    if (core.life.t !== 'finishing' && core.life.t !== 'draining') return;
    if (isMoving(core)) {
      // Turns that have not begun are the next process's.
      for (const id of core.turns.keys()) if (hasBegun(core, id)) return;
    } else if (core.turns.size > 0) return;
    // A process that goes does not wait for a client that is not there.
    const abandoned = core.life.t === 'draining' && !core.attached;
    if (core.outbox.waiting === 0 || abandoned) this.#end(undefined, isMoving(core) ? 'release' : 'end');
  }

  #end(error: GatewayError | undefined, record: 'end' | 'release' | 'leave' = 'end'): void {
    const core = this.#core;
    if (core.life.t === 'closed') return;
    const closed: Life = { t: 'closed' };
    core.life = closed;
    if (record === 'release') recordOutbox(core);
    openAllGates(core);
    for (const link of core.links.values()) {
      core.outputs.push({ kind: 'closeLink', linkId: link.id, code: 1000, reason: 'session ended' });
    }
    core.links.clear();
    core.homeless.clear();
    forgetCarried(core);
    core.deadlines.clearAll();
    core.transcript.clear();
    for (const laneId of core.lanes.keys()) tell(core, { kind: 'laneClosed', laneId });
    core.outputs.push({ kind: 'endStream', error, resumable: false }, { kind: 'closed', record });
  }
}

/** A session's record, and the client that comes back to it. */
export interface Restored {
  readonly state: SavedState;
  /** The new owner's: greater than those before it, and nobody else's. */
  readonly fence: number;
  readonly heard: Heard;
  /** The upstream's frame from its JSON. */
  readonly frameOf: (json: string) => UpstreamFrame;
}

export interface SessionSnapshot {
  readonly life: Life['t'];
  readonly attached: boolean;
  readonly lanes: number;
  readonly turns: readonly {
    turnId: string;
    laneId: string;
    state: string;
    phase: TurnPhase;
    ageMs: number;
  }[];
  readonly links: readonly {
    linkId: number;
    state: string;
    upstream: string | undefined;
    transport: string | undefined;
    inFlight: number;
    lanes: number;
    ageMs: number;
  }[];
  readonly bufferedBytes: number;
  readonly resumeBytes: number;
  readonly transcriptBytes: number;
  readonly heldInputBytes: number;
  readonly nextSeq: number;
}

function turnIdReused(): GatewayError {
  return new GatewayError('TURN_ID_REUSED', 'this turn id was used for another request of this session', {
    metadata: { field: 'start_turn.turn_id' },
  });
}

function badId(
  reason: 'INVALID_LANE_ID' | 'INVALID_TURN_ID' | 'UNKNOWN_LANE' | 'UNKNOWN_TURN',
  field: string,
  allowed: string,
): GatewayError {
  return new GatewayError(reason, `${field} is not ${allowed}`, { metadata: { field } });
}

function overLimit(
  reason: 'LIMIT_EXCEEDED' | 'TOO_MANY_QUEUED_TURNS',
  limit: string,
  value: number,
): GatewayError {
  return new GatewayError(reason, `${limit} is ${value}`, { metadata: { limit, value: String(value) } });
}
