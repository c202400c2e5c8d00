import type { Duplex } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import { errorOf, privateDone, responseEvents } from './engine.ts';
import {
  ApiError,
  codelessPreviousResponseInvalid,
  connectionLimitReached,
  errorFrame,
  invalidRequest,
  previousResponseNotFound,
  toApiError,
} from './errors.ts';
import type { EventFault, FaultSite } from './faults.ts';
import { DeflatingWriter, FrameWriter } from './frames.ts';
import { judgeInject } from './injecting.ts';
import type { JournalEntry } from './journal.ts';
import { isObject, type JsonObject } from './json.ts';
import { type Lane, LaneTable, laneNameOf } from './lanes.ts';
import { Liveness } from './liveness.ts';
import { spelled } from './odd.ts';
import { Pump } from './pump.ts';
import { parseCreate } from './request.ts';
import { SteerFlow } from './steer-flow.ts';
import { steeredInput } from './steering.ts';
import type { ResponseRecord } from './store.ts';
import { attribution, type ErrorStyle, type StrikeTarget, strike } from './strikes.ts';
import { abandonTurn, finishTurn, newId, type Run, startTurn, type TurnStart, type World } from './turn.ts';

/** A create that waits for its lane or for one of the 16 places; nothing is told to the client meanwhile. */
interface Waiting {
  readonly lane: Lane;
  readonly frame: JsonObject;
  readonly entry: JournalEntry;
  readonly site: FaultSite;
}

/**
 * One WebSocket of the upstream: its lanes, its cache, its queue. `open` takes frames; `draining` (age limit) takes none
 * and starts none, but lets running responses finish; `closing` has sent its close frame.
 */
export class Connection {
  readonly number: number;
  readonly #world: World;
  readonly #socket: WebSocket;
  readonly #stream: Duplex;
  readonly #keyTag: string;
  /** The handshake asked for agents that run side by side. */
  readonly #isMultiAgent: boolean;
  readonly #onClosed: () => void;
  readonly #frames: FrameWriter | DeflatingWriter;
  readonly #pump: Pump;
  readonly #liveness: Liveness;
  readonly #steers: SteerFlow;
  readonly #lanes = new LaneTable();
  readonly #active = new Map<string, Run>();
  #queue: Waiting[] = [];
  #requests = 0;
  #state: 'open' | 'draining' | 'closing' | 'closed' = 'open';

  constructor(fields: {
    number: number;
    world: World;
    socket: WebSocket;
    stream: Duplex;
    keyTag: string;
    isMultiAgent: boolean;
    onClosed: () => void;
  }) {
    this.number = fields.number;
    this.#world = fields.world;
    this.#socket = fields.socket;
    this.#stream = fields.stream;
    this.#frames =
      fields.socket.extensions === ''
        ? new FrameWriter(fields.stream)
        : new DeflatingWriter(fields.socket, () => this.#pump.drained());
    this.#keyTag = fields.keyTag;
    this.#isMultiAgent = fields.isMultiAgent;
    this.#onClosed = fields.onClosed;
    this.#pump = new Pump(
      {
        write: (_run, json) => this.#send(json),
        pendingBytes: () => this.#frames.pendingBytes(),
        cork: () => this.#frames.cork(),
        uncork: () => this.#frames.uncork(),
      },
      {
        settings: () => this.#world.settings,
        strike: (run, fault) => this.#strike(run, fault),
        ended: (run) => this.#finish(run),
        crashed: (run, error) => this.#failRun(run, toApiError(error), { streamId: attribution('own', run) }),
      },
    );
    this.#liveness = new Liveness(fields.socket, fields.world.settings.switches, {
      aged: () => this.#reachAgeLimit(),
      expired: (code, reason) => this.close(code, reason),
    });
    this.#steers = new SteerFlow({
      send: (json) => this.#send(json),
      switches: () => this.#world.settings.switches,
      active: (id) => this.#active.get(id),
      nextParent: (lane) => this.#queue.find((waiting) => waiting.lane === lane)?.frame.previous_response_id,
      startSuccessor: (lane, target, parent) => this.#startSuccessor(lane, target, parent),
    });
    this.#socket.on('message', (data, isBinary) => this.#receive(data, isBinary));
    this.#socket.on('close', () => this.#close());
    // `ws` closes with the right code by itself (1009, 1007, 1002); an unheard 'error' would end the process.
    this.#socket.on('error', () => {});
    this.#stream.on('drain', () => this.#pump.drained());
  }

  /** Drops the TCP connection without a close frame. */
  cut(): void {
    this.#stream.destroy();
  }

  /** Starts the closing handshake; nothing of any run is sent or taken after it. */
  close(code: number, reason = ''): void {
    if (this.#state === 'closed' || this.#state === 'closing') return;
    this.#state = 'closing';
    this.#pump.pause();
    this.#frames.flush();
    this.#socket.close(code, reason);
  }

  terminate(): void {
    this.#socket.terminate();
  }

  #send(json: string): void {
    // A peer that has begun to close reads nothing any more.
    if (this.#state === 'closed' || this.#socket.readyState !== this.#socket.OPEN) return;
    const { counters } = this.#world.journal;
    counters.framesSent += 1;
    counters.bytesSent += this.#frames.write(json);
  }

  #receive(data: RawData, isBinary: boolean): void {
    if (this.#state !== 'open') return;
    this.#liveness.heard();
    const bytes = Buffer.isBuffer(data)
      ? data
      : Array.isArray(data)
        ? Buffer.concat(data)
        : Buffer.from(data);
    const { counters } = this.#world.journal;
    counters.framesReceived += 1;
    counters.bytesReceived += bytes.length;
    try {
      if (isBinary) throw invalidRequest('Binary messages are not supported.', null);
      this.#dispatch(parseFrame(bytes), bytes.length);
    } catch (error) {
      this.#refuse(toApiError(error), undefined);
      if (this.#world.settings.switches.badFrameCloses) this.close(1008, 'invalid message');
    }
  }

  #dispatch(frame: JsonObject, bytes: number): void {
    switch (frame.type) {
      case 'response.create':
        this.#create(frame, bytes);
        return;
      case 'response.steer':
        this.#world.journal.counters.steers += 1;
        this.#steers.submit(frame);
        return;
      case 'response.inject':
        if (!this.#isMultiAgent) break;
        this.#world.journal.counters.injects += 1;
        this.#inject(frame);
        return;
      case undefined:
        throw invalidRequest("Missing required parameter: 'type'.", 'type', 'missing_required_parameter');
    }
    const known = this.#isMultiAgent
      ? "'response.create', 'response.steer', and 'response.inject'"
      : "'response.create' and 'response.steer'";
    throw invalidRequest(
      `Invalid value: '${String(frame.type).slice(0, 64)}'. Supported values are: ${known}.`,
      'type',
      'invalid_value',
    );
  }

  #inject(frame: JsonObject): void {
    const id = String(frame.response_id);
    const verdict = judgeInject(frame, this.#active.get(id), this.#steers.ended(id));
    if (verdict.kind === 'malformed') {
      this.#refuse(toApiError(verdict.problem), undefined);
      this.close(1008, 'invalid message');
      return;
    }
    this.#send(verdict.frame);
    if (verdict.kind === 'taken') this.#pump.wake(verdict.run);
  }

  #create(frame: JsonObject, bytes: number): void {
    const { switches } = this.#world.settings;
    const name = laneNameOf(frame.stream_id, switches);
    if (typeof name !== 'string') throw name;
    const limit = this.#lanes.limitError(name, switches.maxLanes);
    if (limit !== null) {
      this.#refuse(limit, name);
      return;
    }
    if (this.#lanes.get(name) === undefined && !switches.rejectedCreateUsesLaneName) {
      try {
        parseCreate(frame, { transport: 'ws', unknownFields: switches.unknownFields });
      } catch (error) {
        this.#refuse(toApiError(error), name);
        return;
      }
    }
    const lane = this.#lanes.open(name);
    if (this.#queue.length >= switches.maxQueued && !this.#canStart(lane)) {
      const error = new ApiError({
        status: 429,
        code: 'rate_limit_exceeded',
        message: 'Too many requests are waiting on this connection.',
      });
      this.#refuse(error, name);
      return;
    }
    this.#requests += 1;
    this.#world.requestsSeen += 1;
    const entry = this.#world.journal.open({
      connection: this.number,
      transport: 'ws',
      lane: name,
      bytesReceived: bytes,
      request: frame,
      successorOf: null,
    });
    const site = this.#site(name);
    this.#queue.push({ lane, frame, entry, site });
    this.#startWaiting();
  }

  #canStart(lane: Lane): boolean {
    return (
      this.#state === 'open' &&
      lane.run === null &&
      this.#active.size < this.#world.settings.switches.maxInFlight
    );
  }

  /** Starts whatever may start, in order of arrival; a busy lane holds back only its own creates. */
  #startWaiting(): void {
    const held = new Set<Lane>();
    const left: Waiting[] = [];
    const queue = this.#queue;
    this.#queue = left;
    for (const waiting of queue) {
      if (!held.has(waiting.lane) && this.#canStart(waiting.lane)) {
        this.#startCreate(waiting);
      } else {
        held.add(waiting.lane);
        left.push(waiting);
      }
    }
    this.#liveness.busy(this.#active.size > 0 || left.length > 0);
  }

  #startCreate({ lane, frame, entry, site }: Waiting): void {
    const parentId = typeof frame.previous_response_id === 'string' ? frame.previous_response_id : null;
    const steered = lane.waiting !== null && lane.waiting.targetId === parentId ? lane.waiting : null;
    try {
      const { switches } = this.#world.settings;
      const request = parseCreate(frame, { transport: 'ws', unknownFields: switches.unknownFields });
      const parent = parentId === null ? null : this.#findParent(parentId, site);
      this.#start(lane, {
        request,
        parent,
        entry,
        steered: steered === null ? [] : steeredInput(steered.steers),
        faults: this.#world.faults.events(site),
      });
    } catch (error) {
      const apiError = toApiError(error);
      this.#evict(lane, parentId);
      this.#refuse(apiError, lane.name);
      entry.status = 'error';
      entry.errorCode = apiError.code ?? apiError.type;
      this.#world.journal.notify();
      if (steered !== null && lane.cached?.id !== parentId) this.#steers.abandonWaiting(lane);
      return;
    }
    if (steered !== null) lane.waiting = null;
    else this.#steers.abandonWaiting(lane);
  }

  #start(lane: Lane, fields: Pick<TurnStart, 'request' | 'parent' | 'entry' | 'steered' | 'faults'>): void {
    const run = startTurn(this.#world, {
      ...fields,
      lane: lane.name,
      parentIsCached: fields.parent !== null && this.#lanes.cached(fields.parent.id) !== undefined,
      prefixes: this.#lanes.prefixes,
      keyTag: this.#keyTag,
    });
    lane.run = run;
    this.#active.set(run.id, run);
    this.#pump.start(
      run,
      responseEvents(run, () => this.#world.settings),
    );
  }

  #findParent(id: string, site: FaultSite): ResponseRecord {
    const fault = this.#world.faults.request(site, 'previous-response-not-found');
    if (fault?.kind === 'previous-response-not-found') {
      this.#world.journal.counters.faultsApplied += 1;
      throw fault.codeless ? codelessPreviousResponseInvalid() : previousResponseNotFound(id);
    }
    const cached = this.#lanes.cached(id);
    if (cached !== undefined) return cached;
    const stored = this.#world.settings.switches.hydrateStored ? this.#world.store.get(id) : undefined;
    if (stored === undefined || !stored.isUsable) throw previousResponseNotFound(id);
    return stored;
  }

  #evict(lane: Lane, parentId: string | null): void {
    this.#lanes.evict(lane, parentId, this.#world.settings.switches.evictOnError);
  }

  #finish(run: Run): void {
    const lane = this.#lanes.get(run.lane);
    if (lane === undefined || run.outcome === null) return;
    const { failureTold, doneAfterTerminal } = this.#world.settings.switches;
    if (run.outcome.status === 'failed' && failureTold === 'failed-first')
      this.#send(errorOf(run, run.outcome, this.#world.settings));
    if (doneAfterTerminal) this.#send(privateDone(run));
    const record = finishTurn(this.#world, run);
    this.#release(lane, run);
    if (record.isUsable) this.#lanes.remember(lane, record);
    else if (this.#world.settings.switches.failedResponseEvicts) this.#evict(lane, run.parentId);
    this.#steers.targetEnded(lane, run, record);
    this.#afterRelease();
  }

  /** Frees the run's lane and place. */
  #release(lane: Lane, run: Run): void {
    lane.run = null;
    this.#active.delete(run.id);
  }

  #afterRelease(): void {
    if (this.#state === 'draining' && this.#active.size === 0) this.#endOfAge();
    else this.#startWaiting();
  }

  #startSuccessor(lane: Lane, target: Run, parent: ResponseRecord): boolean {
    if (this.#state !== 'open') return false;
    const site = this.#site(lane.name);
    if (this.#world.faults.request(site, 'successor-fails') !== undefined) {
      this.#world.journal.counters.faultsApplied += 1;
      return false;
    }
    const entry = this.#world.journal.open({
      connection: this.number,
      transport: 'ws',
      lane: lane.name,
      bytesReceived: 0,
      request: null,
      successorOf: target.id,
    });
    try {
      // The settings of the target hold for its successor; only the input is new.
      const request = { ...target.request, input: [], previousResponseId: target.id };
      const steered = steeredInput(target.steers);
      this.#start(lane, { request, parent, entry, steered, faults: this.#world.faults.events(site) });
      return true;
    } catch (error) {
      entry.status = 'error';
      entry.errorCode = toApiError(error).code;
      this.#world.journal.notify();
      return false;
    }
  }

  /** Ends a run by an error frame: a request-level failure, after which the lane goes on. */
  #failRun(run: Run, error: ApiError, style: ErrorStyle): void {
    const lane = this.#lanes.get(run.lane);
    if (lane === undefined) return;
    const { switches } = this.#world.settings;
    this.#send(
      errorFrame(spelled(error, switches), {
        shape: style.shape ?? switches.errorShape,
        headersPlace: switches.errorHeaders,
        streamId: style.streamId,
        sequenceNumber: run.events === 0 ? undefined : run.sequence++,
      }),
    );
    abandonTurn(this.#world, run, 'error', error.code);
    this.#release(lane, run);
    this.#evict(lane, run.parentId);
    this.#steers.targetEnded(lane, run, null);
    if (style.thenClose === undefined) this.#afterRelease();
    else this.close(style.thenClose);
  }

  #strike(run: Run, fault: EventFault): boolean {
    this.#world.journal.counters.faultsApplied += 1;
    const target: StrikeTarget = {
      settings: () => this.#world.settings,
      send: (json) => this.#send(json),
      sendBinary: (bytes) => {
        this.#frames.flush();
        this.#socket.send(bytes);
      },
      hangUp: () => {
        this.#frames.flush(() => this.#stream.end(() => this.#stream.destroy()));
        // A peer that does not read must not keep the line up.
        setTimeout(() => this.#stream.destroy(), HANG_UP_MS).unref();
        this.#close();
      },
      close: (code, reason) => this.close(code, reason),
      reachConnectionLimit: () => this.#endOfAge(),
      failRun: (failed, error, style) => this.#failRun(failed, error, style),
      finish: (finished) => this.#finish(finished),
    };
    return strike(target, run, fault);
  }

  #refuse(error: ApiError, lane: string | undefined): void {
    const { switches } = this.#world.settings;
    const { errorShape, errorHeaders, echoLanes, refusalsNameLane } = switches;
    const isNamed = lane !== '' && echoLanes && refusalsNameLane;
    const streamId = isNamed ? lane : undefined;
    if (error.code === 'previous_response_not_found' && switches.parentNotFound === 'failed')
      this.#send(failedFrame(error, streamId));
    else
      this.#send(
        errorFrame(spelled(error, switches), { shape: errorShape, headersPlace: errorHeaders, streamId }),
      );
  }

  #reachAgeLimit(): void {
    if (this.#state !== 'open') return;
    const { ageLimit } = this.#world.settings.switches;
    if (ageLimit === 'cut' || this.#active.size === 0) this.#endOfAge();
    else this.#state = 'draining';
  }

  #endOfAge(): void {
    const { connectionAgeMs, ageCloseCode } = this.#world.settings.switches;
    this.#refuse(connectionLimitReached(connectionAgeMs || DEFAULT_AGE_MS), undefined);
    this.close(ageCloseCode);
  }

  #site(lane: string): FaultSite {
    return {
      transport: 'ws',
      connection: this.number,
      request: this.#requests,
      totalRequest: this.#world.requestsSeen,
      lane,
    };
  }

  #close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#liveness.stop();
    this.#pump.pause();
    const goesOn = this.#world.settings.switches.onDisconnect === 'finish';
    for (const run of this.#active.values()) {
      if (goesOn && this.#pump.exhaust(run)) finishTurn(this.#world, run);
      else abandonTurn(this.#world, run, 'aborted', null);
    }
    this.#pump.stop();
    for (const { entry } of this.#queue) entry.status = 'aborted';
    this.#queue = [];
    this.#active.clear();
    this.#lanes.clear();
    this.#onClosed();
    this.#world.journal.notify();
  }
}

/** A refusal as a response that failed before it began. */
function failedFrame({ code, message }: ApiError, streamId: string | undefined): string {
  const response = {
    id: newId('resp'),
    object: 'response',
    status: 'failed',
    output: [],
    error: { code, message },
  };
  const lane = streamId === undefined ? {} : { stream_id: streamId };
  return JSON.stringify({ type: 'response.failed', sequence_number: 0, ...lane, response });
}

function parseFrame(bytes: Buffer): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    throw invalidRequest('We could not parse the JSON body of your request.', null, 'invalid_json');
  }
  if (isObject(value)) return value;
  throw invalidRequest('Each message must be a JSON object.', null, 'invalid_type');
}

/** Enough for what was written to leave on a loopback, short enough for a test. */
const HANG_UP_MS = 1000;
/** For the text of a forced limit when no limit is set. */
const DEFAULT_AGE_MS = 3_600_000;
