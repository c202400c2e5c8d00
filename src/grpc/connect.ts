import type { Principal, SessionLease } from '../access/types.ts';
import type { Session } from '../core/session.ts';
import type { SessionEvent, StartTurn } from '../core/types.ts';
import { GatewayError, invalidField } from '../errors.ts';
import type { ClientStream } from '../session/driver.ts';
import { RequestGate } from '../session/request-gate.ts';
import { createSession, type EdgeSessionHandle } from '../session/sessions.ts';
import type { ActiveTurn, ClientMessage, EventFormat, OpenRequest } from '../translate/index.ts';
import type { Received, RpcCall } from './call.ts';
import { callerFacts, traceContextOf } from './caller.ts';
import type { Edge } from './edge.ts';

/** Serves one Connect stream, from its first message to its status. */
export async function serveConnect(call: RpcCall, edge: Edge): Promise<void> {
  try {
    const principal = await admit(call, edge);
    const first = await readOpen(call, edge);
    if (first === undefined) return;
    await edge.fairShare.wait(call.connection);
    if (call.over) return;
    const { open, bytes } = first;
    const found = claim(edge, principal, open);
    if (found === undefined && (await handOver(call, edge, principal, open, bytes))) return;
    const session = found ?? (await openSession(call, edge, principal, open));
    if (session === undefined) return;
    const entry = found !== undefined ? 'found' : open.resume === undefined ? 'NEW' : 'GONE';
    await new ConnectStream(call, edge, session, open.format).run(entry, open.resume?.lastSeq);
  } catch (error) {
    call.end(explain(error, edge));
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
    await new ConnectStream(call, edge, session, open.format).run('found', open.resume?.lastSeq);
  } catch (error) {
    call.end(explain(error, edge));
  }
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
async function openSession(
  call: RpcCall,
  edge: Edge,
  principal: Principal,
  open: OpenRequest,
): Promise<EdgeSessionHandle | undefined> {
  const lease = await leaseFor(call, edge, principal, open.upstream);
  if (lease === undefined) return undefined;
  return createSession(edge, {
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

class ConnectStream implements ClientStream {
  readonly #call: RpcCall;
  readonly #edge: Edge;
  readonly #session: EdgeSessionHandle;
  readonly #format: EventFormat;
  #lastSeq = 0;
  #goneAway = false;
  #ageTimer: NodeJS.Timeout | undefined;

  constructor(call: RpcCall, edge: Edge, session: EdgeSessionHandle, format: EventFormat) {
    this.#call = call;
    this.#edge = edge;
    this.#session = session;
    this.#format = format;
  }

  async run(entry: 'NEW' | 'GONE' | 'found', lastSeq: number | undefined): Promise<void> {
    const { id, driver } = this.#session;
    const openedAtMs = this.#edge.clock();
    this.#edge.telemetry.streamOpened(id);
    this.#call.onEnd = (status) => {
      this.#edge.telemetry.streamClosed(id, status, this.#edge.clock() - openedAtMs);
    };
    this.#call.onRoom = () => driver.room();
    this.#call.onGone = () => this.#left();
    try {
      driver.attach(this, entry === 'found' ? (lastSeq ?? 0) : undefined);
      this.#sayOpened(entry);
      this.#limitAge();
      await this.#readAll();
    } catch (error) {
      this.#call.end(explain(error, this.#edge));
      this.#left();
    }
  }

  get hasRoom(): boolean {
    return this.#call.hasRoom;
  }

  deliver(events: readonly SessionEvent[]): void {
    this.#lastSeq = events.at(-1)?.seq ?? this.#lastSeq;
    const message = this.#edge.wire.events(events, this.#format);
    this.#call.write(message);
    this.#session.telemetry.batch(events.length, message.length);
  }

  goAway(reason: 'draining' | 'maxAge', timeLeftMs: number): void {
    this.#sayGoAway(reason, timeLeftMs, this.#edge.registry.issueToken(this.#session.id, this.#lastSeq + 1));
  }

  end(error: GatewayError | undefined): void {
    clearTimeout(this.#ageTimer);
    // The client did what GoAway told it to: no reason to count an error.
    const expected = this.#goneAway && error?.reason === 'SESSION_SUPERSEDED';
    this.#call.end(expected ? undefined : error);
  }

  #left(): void {
    clearTimeout(this.#ageTimer);
    this.#session.driver.detach(this);
  }

  #sayOpened(entry: 'NEW' | 'GONE' | 'found'): void {
    const { id, core, driver, telemetry } = this.#session;
    const { drainDeadlineMs, clock } = this.#edge;
    const point = entry === 'found' ? core.resumePoint : undefined;
    const nextSeq = point?.oldestSeq ?? 1;
    this.#lastSeq = nextSeq - 1;
    const outcome = entry === 'found' ? (point?.outcome ?? 'RESUMED') : entry;
    if (outcome !== 'NEW') telemetry.resumed(outcome);
    const resumeToken = this.#edge.registry.issueToken(id, nextSeq);
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
        activeTurns: entry === 'found' ? activeTurns(core) : [],
        durable: false,
        goneReason: outcome === 'GONE' ? 'SESSION_EXPIRED' : undefined,
      }),
    );
    // The session was told while no stream listened.
    if (drainDeadlineMs === undefined || driver.closed) return;
    this.#sayGoAway('draining', Math.max(0, drainDeadlineMs - clock()), resumeToken);
  }

  #sayGoAway(reason: 'draining' | 'maxAge', timeLeftMs: number, token: string): void {
    this.#goneAway = true;
    this.#call.write(this.#edge.wire.goAway({ reason, timeLeftMs, resumeToken: token, movable: false }));
  }

  /** A stream ends before its connection does, and the client is told in time. */
  #limitAge(): void {
    const { maxStreamAgeMs, streamAgeGraceMs } = this.#edge;
    if (maxStreamAgeMs === undefined) return;
    this.#ageTimer = setTimeout(() => {
      this.goAway('maxAge', streamAgeGraceMs);
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
      onError: (error) => this.#call.end(explain(error, this.#edge)),
    });
    for (;;) {
      await gate.room();
      if (driver.eventsUnread) await driver.eventsRead(signal);
      const received = await this.#call.read();
      if (received.kind === 'gone') return;
      if (received.kind === 'halfClose') {
        await gate.empty();
        if (!(await this.#call.halfCloseHolds())) return;
        await this.#edge.fairShare.wait(connection);
        return driver.halfClose(this);
      }
      // What has arrived comes without a pause in between: a flood on one stream would be all that happens.
      await this.#edge.fairShare.wait(connection);
      // Its place may be another stream's by now.
      if (this.#call.over) return;
      // What comes after a turn may be for that turn.
      await this.#take(this.#edge.wire.readConnect(received.bytes), received.bytes.length, gate);
    }
  }

  #take(message: ClientMessage, bytes: number, gate: RequestGate): Promise<void> | undefined {
    const { id, driver, defaultModel } = this.#session;
    switch (message.kind) {
      case 'open':
        throw new GatewayError('ALREADY_OPEN', 'Open comes once, as the first message of a stream');
      case 'startTurn':
        return this.#startTurn(withModel(message.turn, defaultModel), bytes, gate);
      case 'refused':
        driver.feed({
          kind: message.request === 'startTurn' ? 'refuse' : 'reject',
          laneId: message.laneId,
          turnId: message.turnId,
          error: message.error,
        });
        return undefined;
      case 'input':
        if (message.input.kind === 'ack') this.#edge.registry.acknowledged(id, message.input.seq);
        if (message.input.kind === 'steerTurn') gate.request(message.input, bytes);
        else if (message.input.kind === 'cancelTurn') gate.cancel(message.input);
        else driver.feed(message.input);
        return undefined;
    }
  }

  #startTurn(turn: StartTurn, bytes: number, gate: RequestGate): Promise<void> | undefined {
    const reserved = this.#session.driver.reserveTurn(turn);
    if (reserved instanceof Promise) return reserved.then((place) => gate.request(turn, bytes, place));
    gate.request(turn, bytes, reserved);
    return undefined;
  }
}

function activeTurns(core: Session): readonly ActiveTurn[] {
  return core.snapshot().turns.map(({ laneId, turnId, phase }) => ({ laneId, turnId, phase }));
}

function withModel(turn: StartTurn, model: string | undefined): StartTurn {
  if (model === undefined || turn.create.model !== undefined) return turn;
  const fields = new Map([['model', JSON.stringify(model)], ...turn.create.fields]);
  return { ...turn, create: { ...turn.create, fields, model } };
}
