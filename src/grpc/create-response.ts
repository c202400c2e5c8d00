import { createHash } from 'node:crypto';
import type { Principal } from '../access/types.ts';
import type { SessionEvent, TurnFailed } from '../core/types.ts';
import { GatewayError } from '../errors.ts';
import type { ClientStream } from '../session/driver.ts';
import { createSession, type EdgeSessionHandle } from '../session/sessions.ts';
import type { CreateResponseRequest } from '../translate/index.ts';
import { type BoundedFormat, boundedMessages } from './bounded-events.ts';
import type { ReceivedMessage, RpcCall } from './call.ts';
import { callerFacts, traceContextOf } from './caller.ts';
import { admit, LARGE_REQUEST_BYTES, leaseFor, readFirst, refuse, refuseWhileDraining } from './connect.ts';
import type { Edge } from './edge.ts';
import type { KeyedRun } from './idempotency.ts';
import { KeepAlive } from './keep-alive.ts';
import { enterKeyed, firstDidNotRun, type KeyedTurn } from './keyed-calls.ts';
import { doneWith } from './message-decoder.ts';

/** The only turn of its session needs no better name. */
const TURN_ID = 'turn';

/** One turn, no session for the client: a session of one lane that ends with its turn. */
export async function serveCreateResponse(call: RpcCall, edge: Edge): Promise<void> {
  let principal: Principal | undefined;
  try {
    principal = await admit(call, edge);
    const received = await readRequest(call, edge);
    if (received === undefined) return;
    const steps = edge.wire.createResponseSteps(received.bytes, TURN_ID);
    const request = await edge.fairShare.through(call.connection, steps);
    doneWith(received.bytes);
    if (call.over) return;
    const keyed = await enter(call, edge, principal.tenantId, request);
    if (keyed !== undefined && 'listenTo' in keyed) return await listen(call, edge, request, keyed.listenTo);
    const turn = { ...request.turn, receivedAtMs: received.beganAtMs };
    const isLarge = received.bytes.length >= LARGE_REQUEST_BYTES;
    try {
      const session = await begin(call, edge, principal, request);
      if (session === undefined) keyed?.turn.end(firstDidNotRun(), false);
      else await run(call, edge, session, { ...request, turn }, isLarge, keyed?.turn);
    } catch (error) {
      keyed?.turn.end(GatewayError.from(error), false);
      throw error;
    }
  } catch (error) {
    refuse(call, edge, error, principal);
  }
}

/** Undefined: the call has no key. */
async function enter(
  call: RpcCall,
  edge: Edge,
  tenantId: string,
  request: CreateResponseRequest,
): Promise<{ readonly listenTo: KeyedRun } | { readonly turn: KeyedTurn } | undefined> {
  const { idempotencyKey: key, format } = request;
  if (key === undefined) return undefined;
  const fingerprint = fingerprintOf(request, callerFacts(call).upstreamKey);
  const lost = (error: GatewayError) => edge.wire.createResponse([lostEvent(error)], format);
  return enterKeyed(edge, { tenantId, key, fingerprint }, lost);
}

/** Undefined: the caller has left. */
async function begin(
  call: RpcCall,
  edge: Edge,
  principal: Principal,
  { turn, upstream }: CreateResponseRequest,
): Promise<EdgeSessionHandle | undefined> {
  const lease = await leaseFor(call, edge, principal, upstream);
  if (lease === undefined) return undefined;
  return createSession(edge, {
    principal,
    lease,
    method: call.method,
    authority: call.authority,
    model: turn.create.model,
    recovery: true,
    maxLanes: 1,
    traceContext: turn.traceContext ?? traceContextOf(call.metadata),
    labels: new Map(),
    clientName: undefined,
    clientVersion: undefined,
    namedUpstream: upstream,
    overHttp: turn.create.fields.get('background') === 'true',
  });
}

function callerLeft(): GatewayError {
  return new GatewayError('TURN_CANCELLED', 'the caller has left');
}

/** The end of a turn whose process is gone. */
function lostEvent(error: GatewayError): SessionEvent {
  return {
    seq: 1,
    laneId: '',
    turnId: TURN_ID,
    type: 'gateway.turn.failed',
    outcome: 'FAILED',
    frame: undefined,
    turnFailed: { error, replay: 'UNKNOWN', phase: 'SENT' },
    notice: undefined,
    commit: undefined,
    byteLength: 0,
  };
}

/** The one request of a call that is not a session. Undefined: the call is over. */
export async function readRequest(call: RpcCall, edge: Edge): Promise<ReceivedMessage | undefined> {
  refuseWhileDraining(edge);
  const received = await readFirst(call, edge, 'request');
  if (received.kind === 'gone') return undefined;
  // A drain that began while the message was on its way does not wait for what would begin now.
  refuseWhileDraining(edge);
  if (received.kind === 'message') return received;
  throw new GatewayError('EMPTY_MESSAGE', 'the call has no request message');
}

async function run(
  call: RpcCall,
  edge: Edge,
  session: EdgeSessionHandle,
  request: CreateResponseRequest,
  isLarge: boolean,
  keyed: KeyedTurn | undefined,
): Promise<void> {
  const { driver } = session;
  const { turn } = request;
  const stream = new OneTurnStream(call, edge, session, request, keyed);
  call.onRoom = () => driver.room();
  call.onEnd = () => stream.stop();
  call.onGone = () => {
    // Whoever has the key may come back for it.
    if (keyed !== undefined) return driver.room();
    // Nobody can come back to this session: what still runs is given up.
    driver.feed({ kind: 'terminate', error: callerLeft() });
  };
  driver.attach(stream, undefined);
  if (isLarge) await edge.fairShare.through(call.connection, driver.lookSteps(turn));
  driver.startTurn(turn, await driver.reserveTurn(turn));
  driver.feed({ kind: 'halfClose' });
}

/** The events of the first call with the same key, once more. */
function listen(call: RpcCall, edge: Edge, request: CreateResponseRequest, run: KeyedRun): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const keepAlive = keepAliveOf(call, edge, request);
  call.onEnd = () => keepAlive.stop();
  const listening = run.listen({
    get hasRoom() {
      return call.hasRoom;
    },
    message: (bytes) => {
      keepAlive.delivered();
      call.write(bytes);
    },
    end: (error) => {
      call.end(error);
      resolve();
    },
  });
  call.onRoom = () => listening.more();
  call.onGone = () => {
    listening.stop();
    resolve();
  };
  return promise;
}

function keepAliveOf(call: RpcCall, edge: Edge, { format }: CreateResponseRequest): KeepAlive {
  return new KeepAlive(call, edge.heartbeatIntervalMs, edge.wire.createResponse([], format));
}

/**
 * The trace and the time limit may differ from one try to the next. A provider key is part of it: whoever has another one
 * asks another account.
 */
function fingerprintOf(
  { turn, upstream, format }: CreateResponseRequest,
  upstreamKey: string | undefined,
): string {
  const { create, chain, waitOnRateLimit } = turn;
  const request = [
    [...create.fields],
    create.input,
    chain,
    waitOnRateLimit,
    upstream ?? '',
    format,
    upstreamKey ?? '',
  ];
  return createHash('sha256').update(JSON.stringify(request)).digest('base64');
}

class OneTurnStream implements ClientStream {
  readonly #call: RpcCall;
  readonly #session: EdgeSessionHandle;
  readonly #format: BoundedFormat;
  readonly #keyed: KeyedTurn | undefined;
  readonly #keepAlive: KeepAlive;
  #failed: TurnFailed | undefined;

  constructor(
    call: RpcCall,
    edge: Edge,
    session: EdgeSessionHandle,
    request: CreateResponseRequest,
    keyed: KeyedTurn | undefined,
  ) {
    this.#keyed = keyed;
    const { wire } = edge;
    const { format, maxMessageBytes } = request;
    this.#call = call;
    this.#session = session;
    this.#format = { wire, format, maxMessageBytes, encode: wire.createResponse };
    this.#keepAlive = keepAliveOf(call, edge, request);
  }

  stop(): void {
    this.#keepAlive.stop();
  }

  get hasRoom(): boolean {
    return this.#call.hasRoom || (this.#keyed !== undefined && this.#call.over);
  }

  deliver(events: readonly SessionEvent[]): void {
    this.#keepAlive.delivered();
    let bytes = 0;
    for (const message of boundedMessages(events, this.#format)) {
      this.#call.write(message);
      this.#keyed?.run.message(Uint8Array.from(message));
      bytes += message.length;
    }
    this.#session.telemetry.batch(events.length, bytes);
    this.#failed = events.findLast((event) => event.turnFailed !== undefined)?.turnFailed ?? this.#failed;
  }

  goAway(): void {}

  /** The turn's failure is told twice: as its last event, and as the status that a simple caller looks at. */
  end(error: GatewayError | undefined): void {
    const failure = error ?? this.#failed?.error;
    this.#keyed?.end(failure, this.#failed?.replay !== 'SAFE');
    this.#call.end(failure);
  }
}
