import { setTimeout as delay } from 'node:timers/promises';
import { refusedProofOf } from '../access/auth/authenticate.ts';
import type { Principal, Reservation, SessionLease } from '../access/types.ts';
import type { Session } from '../core/session.ts';
import type { InjectTurn, SessionEvent, StartTurn, SteerTurn } from '../core/types.ts';
import { GatewayError, invalidField, type Reason } from '../errors.ts';
import type { ClientStream } from '../session/driver.ts';
import { readToken } from '../session/registry.ts';
import { RequestGate } from '../session/request-gate.ts';
import {
  type EdgeSessionHandle,
  openSession,
  recordTokens,
  type TakenSession,
  takeSession,
} from '../session/sessions.ts';
import {
  type ActiveTurn,
  type ClientMessage,
  KnownHistories,
  type OpenedFacts,
  type OpenRequest,
} from '../translate/index.ts';
import { type BoundedFormat, boundedMessages } from './bounded-events.ts';
import type { Received, ReceivedMessage, RpcCall } from './call.ts';
import { callerFacts, traceContextOf } from './caller.ts';
import type { Edge } from './edge.ts';
import { grantedIntervalMs, Heartbeat } from './heartbeat.ts';
import { doneWith } from './message-decoder.ts';

/** Serves one Connect stream, from its first message to its status. */
export async function serveConnect(call: RpcCall, edge: Edge): Promise<void> {
  let principal: Principal | undefined;
  try {
    principal = await admit(call, edge);
    const first = await readOpen(call, edge);
    if (first === undefined) return;
    await edge.fairShare.wait(call.connection);
    if (call.over) return;
    const { open, bytes } = first;
    const entered = await enter(call, edge, principal, open, bytes);
    if (entered === undefined) return;
    await new ConnectStream(call, edge, entered.session, open).run(entered);
  } catch (error) {
    refuse(call, edge, error, principal);
  }
}

/** Serves the stream of a client that another process has let in. */
export async function serveCarried(call: RpcCall, edge: Edge): Promise<void> {
  try {
    const overload = edge.access.overload();
    if (overload !== undefined) throw overload;
    const first = await readOpen(call, edge);
    if (first === undefined) return;
    const { open, bytes } = first;
    const hop = edge.peers?.accept(call, bytes);
    if (hop === undefined) throw new GatewayError('UNAUTHENTICATED', 'not a process of this gateway');
    if (await edge.peers?.forward(call, hop, bytes, 'local')) return;
    await edge.fairShare.wait(call.connection);
    if (call.over) return;
    const session = claim(edge, hop.principal, open);
    // The process that the client reached opens the new one: it has the caller's own metadata.
    if (session === undefined)
      throw new GatewayError('SESSION_EXPIRED', 'this process does not have the session');
    const resume = open.resume as Resume;
    await new ConnectStream(call, edge, session, open).run({ kind: 'found', session, resume });
  } catch (error) {
    call.end(explain(error, edge));
  }
}

type Resume = NonNullable<OpenRequest['resume']>;

/** Which session a stream is for. */
type Entered =
  | { readonly kind: 'new'; readonly session: EdgeSessionHandle }
  | { readonly kind: 'gone'; readonly session: EdgeSessionHandle; readonly reason: Reason }
  | {
      readonly kind: 'found';
      readonly session: EdgeSessionHandle;
      readonly resume: Resume;
      /** Written down already; undefined: a token is to be issued. */
      readonly nextToken?: string;
    };

/** Undefined: another process has the stream, or the client has left. */
async function enter(
  call: RpcCall,
  edge: Edge,
  principal: Principal,
  open: OpenRequest,
  bytes: Uint8Array,
): Promise<Entered | undefined> {
  const { resume } = open;
  if (resume === undefined) {
    const session = await begin(call, edge, principal, open);
    return session && { kind: 'new', session };
  }
  const found = claim(edge, principal, open);
  if (found !== undefined) return { kind: 'found', session: found, resume };
  if (await handOver(call, edge, principal, open, bytes)) return undefined;
  const recovered = await recover(call, edge, principal, { ...open, resume }, bytes);
  if (recovered === undefined || 'session' in recovered) return recovered;
  const session = await begin(call, edge, principal, open);
  return session && { kind: 'gone', session, reason: recovered.reason };
}

/** Takes over a session whose process is gone. */
async function recover(
  call: RpcCall,
  edge: Edge,
  principal: Principal,
  open: OpenRequest & { readonly resume: Resume },
  bytes: Uint8Array,
): Promise<Entered | { readonly reason: Reason } | undefined> {
  const { durability, peers } = edge;
  const { resume } = open;
  const { token, lastCommit, lastSeq } = resume;
  const names = readToken(token);
  if (durability === undefined || names === undefined) return { reason: 'SESSION_EXPIRED' };
  // A process that goes takes nothing on.
  refuseWhileDraining(edge);
  const sinceMs = edge.clock();
  // Whoever issued the token was asked.
  const gone = new Set([names.process ?? '']);
  const { token: nextToken, digest } = edge.registry.makeToken(names.sessionId, principal);
  const next = { digest, issuedAtSeq: lastSeq + 1 };
  for (;;) {
    const recovery = await durability.recover({ token, principal, lastCommit, next, gone }, (taken) =>
      take(call, edge, principal, { ...taken, id: names.sessionId, heard: resume, sinceMs }),
    );
    switch (recovery.kind) {
      case 'taken':
        return { kind: 'found', session: recovery.adopted, resume, nextToken };
      case 'here': {
        const session = claim(edge, principal, open);
        return session === undefined ? { reason: 'SESSION_EXPIRED' } : { kind: 'found', session, resume };
      }
      case 'gone':
        return { reason: recovery.reason };
      case 'elsewhere':
        if (await peers?.forward(call, { principal, to: recovery.process }, bytes)) return undefined;
        gone.add(recovery.process);
    }
  }
}

function take(call: RpcCall, edge: Edge, principal: Principal, taken: TakenSession): EdgeSessionHandle {
  const { upstreamKey } = callerFacts(call);
  // The place that it had elsewhere is its own still, whoever counts it.
  const lease = edge.access.admitSession(principal, { upstream: taken.record.opening.upstream, upstreamKey });
  const traceContext = traceContextOf(call.metadata);
  return takeSession(edge, { principal, lease, authority: call.authority, traceContext }, taken);
}

/** Whether another process has taken the stream. */
async function handOver(
  call: RpcCall,
  { peers }: Edge,
  principal: Principal,
  open: OpenRequest,
  bytes: Uint8Array,
): Promise<boolean> {
  const to = open.resume === undefined ? undefined : peers?.otherOwnerOf(open.resume.token);
  if (peers === undefined || to === undefined) return false;
  return peers.forward(call, { principal, to }, bytes);
}

/** Lets a call in: nothing is done for one that has not passed here. */
export async function admit(call: RpcCall, edge: Edge): Promise<Principal> {
  const overload = edge.access.overload();
  if (overload !== undefined) throw overload;
  try {
    return await edge.access.authenticate(callerFacts(call));
  } finally {
    // Failures are told after a while, and those of one burst at the same time.
    await edge.fairShare.wait(call.connection);
  }
}

export function refuseWhileDraining(edge: Edge): void {
  if (edge.drainDeadlineMs === undefined) return;
  throw new GatewayError('DRAINING', 'the gateway is shutting down', { retryAfterMs: 0 });
}

/** Ends a call that has not come to a session or an answer. */
export function refuse(call: RpcCall, edge: Edge, cause: unknown, principal: Principal | undefined): void {
  const error = explain(cause, edge);
  if (!HAPPENED_UPSTREAM.test(error.reason) && error.reason !== 'INTERNAL') {
    const proof = refusedProofOf(error);
    const { method } = call;
    const limit = error.metadata['limit'];
    edge.telemetry.callRefused({ method, reason: error.reason, limit, tenantId: principal?.tenantId, proof });
  }
  call.end(error);
}

/** Ends of work that had begun. */
const HAPPENED_UPSTREAM = /^(?:UPSTREAM_(?!NOT_ALLOWED)|TURN_|CHAIN_LOST|RESPONSE_FAILED)/;

/** An error that is nobody's doing is a bug, and somebody should hear of it. */
export function explain(error: unknown, edge: Edge): GatewayError {
  if (!(error instanceof GatewayError)) edge.onBug(error);
  return GatewayError.from(error);
}

/** Undefined: the client left, or the time ran out and the call is over. */
async function readOpen(
  call: RpcCall,
  edge: Edge,
): Promise<{ readonly open: OpenRequest; readonly bytes: Uint8Array } | undefined> {
  const received = await readFirst(call, edge, 'Open');
  if (received.kind === 'gone') return undefined;
  const bytes = received.kind === 'message' ? received.bytes : undefined;
  const message = bytes === undefined ? undefined : edge.wire.readConnect(bytes);
  if (bytes !== undefined && message?.kind === 'open') return { open: checked(message.open), bytes };
  throw new GatewayError('OPEN_REQUIRED', 'the first message of a stream is Open');
}

/** The first message of a call, which ends when it does not come in time. */
export async function readFirst(call: RpcCall, edge: Edge, wanted: string): Promise<Received> {
  const timer = setTimeout(() => {
    const error = new GatewayError('OPEN_TIMEOUT', `no ${wanted} within ${edge.openTimeoutMs} ms`);
    edge.fairShare.run(call.connection, () => call.end(error));
  }, edge.openTimeoutMs);
  try {
    return await call.read();
  } finally {
    clearTimeout(timer);
  }
}

// As the contract of Open says: labels end up in traces and logs.
const MAX_LABELS = 16;
const MAX_LABEL_KEY = 64;
const MAX_LABEL_VALUE = 512;

function checked(open: OpenRequest): OpenRequest {
  const { labels } = open;
  if (labels.size > MAX_LABELS)
    throw invalidField('open.metadata', `${labels.size} entries`, `${MAX_LABELS}`);
  for (const [key, value] of labels) {
    if (key.length <= MAX_LABEL_KEY && value.length <= MAX_LABEL_VALUE) continue;
    const found = `an entry of ${key.length} and ${value.length} characters`;
    throw invalidField('open.metadata', found, `${MAX_LABEL_KEY} and ${MAX_LABEL_VALUE}`);
  }
  return open;
}

/** A new session, also for a client whose old one is gone, so that it can go on. Undefined: the client has left. */
async function begin(
  call: RpcCall,
  edge: Edge,
  principal: Principal,
  open: OpenRequest,
): Promise<EdgeSessionHandle | undefined> {
  edge.durability?.checkOpen();
  const lease = await leaseFor(call, edge, principal, open.upstream);
  if (lease === undefined) return undefined;
  if (open.budget?.money !== undefined && lease.currency === undefined) {
    lease.release();
    throw invalidField('open.budget.money', 'an amount', 'tokens or turns: this gateway has no price table');
  }
  return openSession(edge, {
    principal,
    lease,
    method: call.method,
    authority: call.authority,
    model: open.model,
    recovery: open.recovery,
    maxLanes: edge.limits.maxLanes,
    traceContext: traceContextOf(call.metadata),
    labels: open.labels,
    clientName: open.clientName,
    clientVersion: open.clientVersion,
    namedUpstream: open.upstream,
    budget: open.budget,
  });
}

/** Rejects with GatewayError when the caller may not have another session. Undefined: the client has left. */
export async function leaseFor(
  call: RpcCall,
  edge: Edge,
  principal: Principal,
  upstream: string | undefined,
): Promise<SessionLease | undefined> {
  const reservation = await edge.access.reserveSession(principal);
  try {
    if (call.over) return undefined;
    refuseWhileDraining(edge);
    const { upstreamKey } = callerFacts(call);
    return edge.access.admitSession(principal, { upstream, upstreamKey }, reservation);
  } finally {
    reservation?.release();
  }
}

/** The caller's session of this process that the stream resumes. */
function claim(edge: Edge, principal: Principal, { resume }: OpenRequest): EdgeSessionHandle | undefined {
  const session = resume === undefined ? undefined : edge.registry.claim(resume.token, principal);
  session?.lease.renew(principal);
  return session;
}

/** Read in one go: whatever is in it, others do not notice. */
const SHORT_MESSAGE_BYTES = 4 * 1024;
/** From here on a request is looked at in pieces before it is admitted. */
export const LARGE_REQUEST_BYTES = 64 * 1024;

class ConnectStream implements ClientStream {
  readonly #call: RpcCall;
  readonly #edge: Edge;
  readonly #session: EdgeSessionHandle;
  readonly #format: BoundedFormat;
  readonly #heartbeatIntervalMs: number | undefined;
  #heartbeat: Heartbeat | undefined;
  /** Opened is the first message. */
  #opened = false;
  readonly #histories = new KnownHistories();
  #lastSeq = 0;
  /** A message came in whole. */
  #heard = false;
  #ackedSeq = 0;
  #goneAway = false;
  #ageTimer: NodeJS.Timeout | undefined;

  constructor(call: RpcCall, edge: Edge, session: EdgeSessionHandle, open: OpenRequest) {
    this.#call = call;
    this.#edge = edge;
    this.#session = session;
    const { wire } = edge;
    const { format, maxMessageBytes } = open;
    this.#format = { wire, format, maxMessageBytes, encode: wire.events };
    this.#heartbeatIntervalMs = grantedIntervalMs(open.heartbeatIntervalMs, edge.heartbeatIntervalMs);
  }

  async run(entered: Entered): Promise<void> {
    const { id, driver } = this.#session;
    const openedAtMs = this.#edge.clock();
    this.#edge.telemetry.streamOpened(id);
    this.#call.onEnd = (status, isCut) => {
      this.#stopTimers();
      this.#edge.resumePacing.ended(this.#session, {
        isCut,
        heard: this.#heard,
        ackedSeq: this.#ackedSeq,
      });
      this.#edge.telemetry.streamClosed(id, status, this.#edge.clock() - openedAtMs);
    };
    this.#call.onRoom = () => driver.room();
    this.#call.onGone = () => this.#left();
    try {
      if (entered.kind === 'found') await this.#holdBack(entered.resume.lastSeq);
      if (this.#call.over) {
        // No stream has ever left this session: nothing else lets its time begin.
        if (!driver.attached) driver.feed({ kind: 'detach' });
        return;
      }
      driver.attach(this, entered.kind === 'found' ? entered.resume.lastSeq : undefined);
      await this.#sayOpened(entered);
      driver.room();
      this.#limitAge();
      this.#beat();
      await this.#readAll();
    } catch (error) {
      this.#call.end(explain(error, this.#edge));
      this.#left();
    }
  }

  /** A client that does nothing but come back is let in more and more slowly, and one with a message that never comes not for ever. */
  async #holdBack(lastSeq: number): Promise<void> {
    const { telemetry, resumePacing } = this.#edge;
    const { id: sessionId, principal } = this.#session;
    const pace = resumePacing.resumed(this.#session, lastSeq);
    if (pace.kind === 'free') return;
    telemetry.resumeHeldBack({
      sessionId,
      tenantId: principal.tenantId,
      result: pace.kind,
      isFirst: pace.isFirst,
    });
    if (pace.kind === 'refused') throw cutTooOften(pace.cuts);
    await delay(pace.waitMs, undefined, { signal: this.#call.signal }).catch(() => undefined);
  }

  get hasRoom(): boolean {
    return this.#opened && this.#call.hasRoom;
  }

  deliver(events: readonly SessionEvent[]): void {
    this.#lastSeq = events.at(-1)?.seq ?? this.#lastSeq;
    let bytes = 0;
    for (const message of boundedMessages(events, this.#format)) {
      this.#call.write(message);
      bytes += message.length;
    }
    this.#session.telemetry.batch(events.length, bytes);
  }

  goAway(reason: 'draining' | 'maxAge', timeLeftMs: number, movable: boolean): void {
    if (!this.#opened) return;
    // A token has to be written down before it is given out, and the one that the client has is as good.
    const token =
      this.#session.journal === undefined
        ? this.#edge.registry.issueToken(this.#session.id, this.#lastSeq + 1)
        : '';
    this.#sayGoAway(reason, timeLeftMs, token, movable);
  }

  get keepsHistories(): boolean {
    return this.#histories.size > 0;
  }

  forgetHistories(): void {
    this.#histories.clear();
  }

  end(error: GatewayError | undefined): void {
    this.#stopTimers();
    // The client did what GoAway told it to: no reason to count an error.
    const expected = this.#goneAway && error?.reason === 'SESSION_SUPERSEDED';
    this.#call.end(expected ? undefined : error);
  }

  #stopTimers(): void {
    clearTimeout(this.#ageTimer);
    this.#heartbeat?.stop();
  }

  #left(): void {
    this.#stopTimers();
    this.#session.driver.detach(this);
  }

  async #sayOpened(entered: Entered): Promise<void> {
    const { id, core, driver, telemetry } = this.#session;
    const { drainDeadlineMs, clock } = this.#edge;
    const point = entered.kind === 'found' ? core.resumePoint : undefined;
    const nextSeq = point?.oldestSeq ?? 1;
    this.#lastSeq = nextSeq - 1;
    const outcome = this.#outcomeOf(entered);
    if (outcome !== 'NEW') telemetry.resumed(outcome);
    const resumeToken = await this.#tokenFor(entered, nextSeq);
    if (this.#call.over) return;
    this.#opened = true;
    this.#call.write(
      this.#edge.wire.opened({
        sessionId: id,
        resumeToken,
        resumeOutcome: outcome,
        oldestSeq: nextSeq,
        nextSeq,
        maxMessageBytes: this.#edge.maxMessageBytes,
        maxTurnsInFlight: this.#edge.maxTurnsInFlight,
        limits: this.#edge.limits,
        activeTurns: entered.kind === 'found' ? activeTurns(core) : [],
        durable: core.durable,
        goneReason: entered.kind === 'gone' ? entered.reason : undefined,
        heartbeatIntervalMs: this.#heartbeatIntervalMs,
      }),
    );
    // The session was told while no stream listened.
    if (drainDeadlineMs === undefined || driver.closed || core.waitsForStore) return;
    this.#sayGoAway('draining', Math.max(0, drainDeadlineMs - clock()), resumeToken, core.moving);
  }

  async #tokenFor(entered: Entered, nextSeq: number): Promise<string> {
    if (entered.kind === 'found' && entered.nextToken !== undefined) return entered.nextToken;
    const token = this.#edge.registry.issueToken(this.#session.id, nextSeq);
    await recordTokens(this.#edge, this.#session);
    return token;
  }

  #outcomeOf(entered: Entered): OpenedFacts['resumeOutcome'] {
    if (entered.kind !== 'found') return entered.kind === 'new' ? 'NEW' : 'GONE';
    const { core } = this.#session;
    const recovery = core.takeRecovery();
    if (recovery === undefined) return core.resumePoint?.outcome ?? 'RESUMED';
    // Others take it for one that they cannot go on from.
    return entered.resume.lastCommit === undefined && recovery === 'RECOVERED' ? 'RESUMED' : recovery;
  }

  #sayGoAway(reason: 'draining' | 'maxAge', timeLeftMs: number, resumeToken: string, movable: boolean): void {
    this.#goneAway = true;
    this.#call.write(this.#edge.wire.goAway({ reason, timeLeftMs, resumeToken, movable }));
  }

  #beat(): void {
    const intervalMs = this.#heartbeatIntervalMs;
    if (intervalMs === undefined || this.#call.over) return;
    const { clock, fairShare, wire } = this.#edge;
    this.#heartbeat = new Heartbeat({
      call: this.#call,
      intervalMs,
      now: clock,
      message: wire.heartbeat(),
      onSilent: () => fairShare.run(this.#call.connection, () => this.#silent(intervalMs)),
    });
  }

  /** As for a stream that broke: the session waits for its client to come back. */
  #silent(intervalMs: number): void {
    this.#session.driver.detach(this);
    this.end(
      new GatewayError('CLIENT_SILENT', `no heartbeat of the client for three times ${intervalMs} ms`),
    );
  }

  /** A stream ends before its connection does, and the client is told in time. */
  #limitAge(): void {
    const { maxStreamAgeMs, streamAgeGraceMs } = this.#edge;
    if (maxStreamAgeMs === undefined) return;
    this.#ageTimer = setTimeout(() => {
      this.goAway('maxAge', streamAgeGraceMs, false);
      this.#ageTimer = setTimeout(() => {
        this.#session.driver.detach(this);
        this.end(undefined);
      }, streamAgeGraceMs);
    }, maxStreamAgeMs);
  }

  async #readAll(): Promise<void> {
    const { driver } = this.#session;
    const { connection, signal } = this.#call;
    const gate = new RequestGate({
      session: driver,
      signal,
      turn: () => this.#edge.fairShare.wait(connection),
      overload: () => this.#edge.access.overload(),
      onError: (error) => this.#call.end(explain(error, this.#edge)),
    });
    while (await this.#readOne(gate)) {
      // A request that is done with must not stay in a variable while the next one is waited for: it may be large.
    }
  }

  /** False: nothing more is read. */
  async #readOne(gate: RequestGate): Promise<boolean> {
    const { driver } = this.#session;
    const { connection, signal } = this.#call;
    // Waiting for nothing takes a turn of the microtasks all the same.
    const room = gate.room();
    if (room !== undefined) await room;
    if (driver.eventsUnread) await driver.eventsRead(signal);
    const received = await this.#call.read();
    if (received.kind === 'gone') return false;
    if (received.kind === 'halfClose') {
      await gate.empty();
      if (!(await this.#call.halfCloseHolds())) return false;
      await this.#edge.fairShare.wait(connection);
      driver.halfClose(this);
      return false;
    }
    // What has arrived comes without a pause in between: a flood on one stream would be all that happens.
    const share = this.#edge.fairShare.wait(connection);
    if (share !== undefined) await share;
    this.#heard = true;
    if (!gate.admits() && this.#isParked(received, gate)) return !this.#call.over;
    const decoded = this.#decode(received.bytes);
    const message = decoded instanceof Promise ? await decoded : decoded;
    // Its place may be another stream's by now.
    if (this.#call.over) return false;
    const taken = this.#take(message, received, gate);
    if (taken !== undefined) await taken;
    return true;
  }

  #decode(bytes: Uint8Array): ClientMessage | Promise<ClientMessage> {
    if (bytes.length > SHORT_MESSAGE_BYTES) return this.#decodeInSteps(bytes);
    const message = this.#edge.wire.readConnect(bytes, this.#histories);
    doneWith(bytes);
    return message;
  }

  async #decodeInSteps(bytes: Uint8Array): Promise<ClientMessage> {
    const { wire, fairShare } = this.#edge;
    const steps = wire.connectSteps(bytes, this.#histories);
    const message = await fairShare.through(this.#call.connection, steps);
    doneWith(bytes);
    return message;
  }

  /** Whether the message is a request, which waits then. */
  #isParked({ bytes, beganAtMs }: ReceivedMessage, gate: RequestGate): boolean {
    const head = this.#edge.wire.requestHead(bytes);
    if (head === undefined) return false;
    // Its place may be twice as large, and other messages want it.
    const own = Buffer.from(bytes);
    doneWith(bytes);
    const run = async () => {
      const message = await this.#decode(own);
      if (!this.#call.over) await this.#take(message, { bytes: own, beganAtMs }, gate);
    };
    gate.wait({ ...head, bytes: own.length, run });
    return true;
  }

  #take(
    message: ClientMessage,
    { bytes, beganAtMs }: Pick<ReceivedMessage, 'bytes' | 'beganAtMs'>,
    gate: RequestGate,
  ): Promise<void> | undefined {
    const { driver, defaultModel } = this.#session;
    const isLarge = bytes.length >= LARGE_REQUEST_BYTES;
    switch (message.kind) {
      case 'open':
        throw new GatewayError('ALREADY_OPEN', 'Open comes once, as the first message of a stream');
      case 'startTurn':
        return this.#startTurn(
          { ...withModel(message.turn, defaultModel), receivedAtMs: beganAtMs },
          isLarge,
        );
      case 'heartbeat':
        this.#heartbeat?.received();
        return undefined;
      case 'refused':
        driver.feed({
          kind: message.request === 'startTurn' ? 'refuse' : 'reject',
          laneId: message.laneId,
          turnId: message.turnId,
          error: message.error,
        });
        return undefined;
      case 'input':
        if (message.input.kind === 'ack') this.#acknowledged(message.input.seq);
        if (message.input.kind === 'cancelTurn') return gate.cancel(message.input);
        if (message.input.kind === 'steerTurn' || message.input.kind === 'injectTurn')
          return this.#addInput(message.input, isLarge);
        driver.feed(message.input);
        return undefined;
    }
  }

  #acknowledged(seq: number): void {
    this.#ackedSeq = Math.max(this.#ackedSeq, Math.min(seq, this.#lastSeq));
    this.#edge.registry.acknowledged(this.#session.id, seq);
  }

  #addInput(request: SteerTurn | InjectTurn, isLarge: boolean): Promise<void> | undefined {
    const { driver } = this.#session;
    if (!isLarge) return void driver.addInput(request);
    return this.#lookAt(request).then(() => {
      if (!this.#call.over) driver.addInput(request);
    });
  }

  #lookAt(request: StartTurn | SteerTurn | InjectTurn): Promise<void> {
    return this.#edge.fairShare.through(this.#call.connection, this.#session.driver.lookSteps(request));
  }

  #startTurn(turn: StartTurn, isLarge: boolean): Promise<void> | undefined {
    if (isLarge) return this.#lookAt(turn).then(() => this.#reserve(turn));
    return this.#reserve(turn);
  }

  #reserve(turn: StartTurn): Promise<void> | undefined {
    const reserved = this.#session.driver.reserveTurn(turn);
    if (reserved instanceof Promise) return reserved.then((place) => this.#begin(turn, place));
    this.#begin(turn, reserved);
    return undefined;
  }

  /** Whose client has left meanwhile was never taken, and its client sends it again. */
  #begin(turn: StartTurn, place: Reservation | undefined): void {
    if (this.#call.over) place?.release();
    else this.#session.driver.startTurn(turn, place);
  }
}

function cutTooOften(cuts: number): GatewayError {
  const found = `the last ${cuts} streams of the session ended in the middle of a message`;
  return new GatewayError(
    'LIMIT_EXCEEDED',
    `${found}: it is too large, or something on the way does not carry it`,
    { metadata: { limit: 'cut_streams', value: String(cuts), scope: 'session' } },
  );
}

function activeTurns(core: Session): readonly ActiveTurn[] {
  return core.inspect().turns.map(({ laneId, turnId, phase }) => ({ laneId, turnId, phase }));
}

function withModel(turn: StartTurn, model: string | undefined): StartTurn {
  if (model === undefined || turn.create.model !== undefined) return turn;
  const fields = new Map([['model', JSON.stringify(model)], ...turn.create.fields]);
  return { ...turn, create: { ...turn.create, fields, model } };
}
