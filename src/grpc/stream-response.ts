import type { Principal, SessionLease } from '../access/types.ts';
import type { SessionEvent, TraceContext, TurnFailed, TurnOutcome, UpstreamFrame } from '../core/types.ts';
import { type Ending, endingOf } from '../dialect/events.ts';
import { asObject, own } from '../dialect/json.ts';
import { readErrorFrame, readFailedResponse, toGatewayError } from '../dialect/upstream-error.ts';
import { GatewayError, type StatusCode } from '../errors.ts';
import type { FollowResponseRequest } from '../translate/index.ts';
import type { Followed } from '../upstream/types.ts';
import { boundedMessages } from './bounded-events.ts';
import type { RpcCall } from './call.ts';
import { admit, leaseFor, refuse } from './connect.ts';
import { readRequest } from './create-response.ts';
import type { Edge } from './edge.ts';
import { KeepAlive } from './keep-alive.ts';
import { doneWith } from './message-decoder.ts';
import { admitted, dialFor, idleRecord, inOptions, telemetryOf, timerMs } from './resource-call.ts';

/** The events of a background response from one of them on. Its caller may leave and come back; the response goes on. */
export async function serveStreamResponse(call: RpcCall, edge: Edge): Promise<void> {
  let principal: Principal | undefined;
  try {
    principal = await admit(call, edge);
    const received = await readRequest(call, edge);
    if (received === undefined) return;
    const request = edge.wire.readStreamResponse(received.bytes);
    doneWith(received.bytes);
    const lease = await leaseFor(call, edge, principal, request.upstream);
    if (lease === undefined) return;
    const work = follow(call, edge, principal, lease, request);
    edge.calls.add(work);
    await work;
  } catch (error) {
    refuse(call, edge, inOptions(error), principal);
  }
}

async function follow(
  call: RpcCall,
  edge: Edge,
  principal: Principal,
  lease: SessionLease,
  request: FollowResponseRequest,
): Promise<void> {
  const startedAtMs = edge.clock();
  const telemetry = telemetryOf(call, edge, principal, request.traceContext);
  let status: StatusCode | 'OK' = 'OK';
  try {
    const turn = await admitted(lease, {
      model: undefined,
      upstream: lease.upstream,
      inputBytes: 0,
      maxOutputTokens: 0,
      responseIds: [request.responseId],
      conversation: false,
      modelless: true,
      runsModel: false,
    });
    try {
      const failed = await pass(call, edge, principal, lease, request, telemetry.outgoing(undefined));
      status = failed?.code ?? 'OK';
      call.end(failed);
    } finally {
      turn.settle(idleRecord(startedAtMs, edge.clock()));
    }
  } catch (error) {
    status = GatewayError.from(error).code;
    throw error;
  } finally {
    lease.release();
    telemetry.end(status);
  }
}

/** Resolves when the last event is written, with what went wrong, or the call is over. */
function pass(
  call: RpcCall,
  edge: Edge,
  principal: Principal,
  lease: SessionLease,
  request: FollowResponseRequest,
  traceContext: TraceContext | undefined,
): Promise<GatewayError | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<GatewayError | undefined>();
  let seq = 0;
  let paused = false;
  const { timeoutMs, format, maxMessageBytes } = request;
  const { wire } = edge;
  const stream: Followed = edge.dialer.follow(
    { ...dialFor(principal, lease, { model: undefined }, traceContext), overHttp: true },
    {
      responseId: request.responseId,
      after: request.startingAfter,
      query: request.query,
      onFrame: (frame) => {
        seq += 1;
        const event = eventOf(frame, seq);
        ownItems(frame, lease);
        keepAlive.delivered();
        const bounds = { wire, format, maxMessageBytes, encode: wire.createResponse };
        for (const message of boundedMessages([event], bounds)) call.write(message);
        if (event.outcome !== undefined) resolve(event.turnFailed?.error);
        else if (!call.hasRoom) {
          paused = true;
          stream.pause();
        }
      },
    },
  );
  const keepAlive = new KeepAlive(call, edge.heartbeatIntervalMs, wire.createResponse([], format));
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(
          () => reject(new GatewayError('TURN_TIMEOUT', `the response did not end within ${timeoutMs} ms`)),
          timerMs(timeoutMs),
        );
  call.onRoom = () => {
    if (!paused) return;
    paused = false;
    stream.resume();
  };
  call.onGone = () => resolve(undefined);
  if (call.over) resolve(undefined);
  return promise.finally(() => {
    clearTimeout(timer);
    keepAlive.stop();
    stream.abort();
  });
}

const OUTCOMES: Readonly<Record<Ending, TurnOutcome>> = {
  completed: 'COMPLETED',
  incomplete: 'INCOMPLETE',
  failed: 'FAILED',
  cancelled: 'CANCELLED',
};

function eventOf(frame: UpstreamFrame, seq: number): SessionEvent {
  const { outcome, failed } = endOf(frame);
  return {
    seq,
    laneId: '',
    turnId: '',
    type: frame.type,
    outcome,
    frame,
    turnFailed: failed,
    notice: undefined,
    commit: undefined,
    byteLength: frame.byteLength,
  };
}

function endOf(frame: UpstreamFrame): { outcome: TurnOutcome | undefined; failed: TurnFailed | undefined } {
  const isError = frame.type === 'error';
  const ending = isError ? 'failed' : endingOf(frame.type, statusOf(frame));
  if (ending === undefined) return { outcome: undefined, failed: undefined };
  if (ending !== 'failed') return { outcome: OUTCOMES[ending], failed: undefined };
  const said = isError ? readErrorFrame(frame, Date.now()) : readFailedResponse(frame, Date.now());
  // Reading runs nothing: it may be asked for again.
  const replay = isError ? 'SAFE' : 'UNSAFE';
  return { outcome: 'FAILED', failed: { error: toGatewayError(said, false), replay, phase: 'CREATED' } };
}

function statusOf(frame: UpstreamFrame): unknown {
  return frame.type === 'response.done' ? own(asObject(own(frame.json(), 'response')), 'status') : undefined;
}

function ownItems(frame: UpstreamFrame, lease: SessionLease): void {
  if (frame.type !== 'response.output_item.done') return;
  const id = own(asObject(own(frame.json(), 'item')), 'id');
  if (typeof id === 'string') lease.ownItem(id);
}
