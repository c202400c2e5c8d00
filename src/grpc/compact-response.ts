import type { Principal, SessionLease, TurnAdmission, TurnLease } from '../access/types.ts';
import type { TurnRecord, Usage } from '../core/types.ts';
import { own, parseObject } from '../dialect/json.ts';
import { readUsage } from '../dialect/usage.ts';
import { GatewayError, type Reason } from '../errors.ts';
import { comparedResponses } from '../session/admission.ts';
import { MAX_TIMER_MS } from '../session/clock.ts';
import type { CompactRequest } from '../translate/index.ts';
import type { RpcCall } from './call.ts';
import { traceContextOf } from './caller.ts';
import { admit, leaseFor, refuse } from './connect.ts';
import { readRequest } from './create-response.ts';
import type { Edge } from './edge.ts';
import { doneWith } from './message-decoder.ts';

/** One HTTP call beside the links; limits, permissions and ownership as for a turn. */
export async function serveCompactResponse(call: RpcCall, edge: Edge): Promise<void> {
  let principal: Principal | undefined;
  try {
    principal = await admit(call, edge);
    const received = await readRequest(call, edge);
    if (received === undefined) return;
    const work = compact(call, edge, principal, received.bytes);
    edge.compactions.add(work);
    await work;
  } catch (error) {
    refuse(call, edge, error, principal);
  }
}

async function compact(call: RpcCall, edge: Edge, principal: Principal, bytes: Uint8Array): Promise<void> {
  const request = await edge.fairShare.through(call.connection, edge.wire.compactSteps(bytes));
  doneWith(bytes);
  if (call.over) return;
  const lease = await leaseFor(call, edge, principal, request.upstream);
  if (lease === undefined) return;
  try {
    const turn = await admitted(lease, {
      model: request.model,
      upstream: lease.upstream,
      inputBytes: Buffer.byteLength(request.body),
      maxOutputTokens: undefined,
      responseIds: [
        ...(request.previousResponseId === undefined ? [] : [request.previousResponseId]),
        ...comparedResponses(request.fields),
      ],
      conversation: request.usesConversation,
      input: request.input,
      fields: request.fields,
    });
    const startedAtMs = edge.clock();
    const timeout =
      request.timeoutMs === undefined ? undefined : AbortSignal.timeout(timerMs(request.timeoutMs));
    const json = await settled(turn, request, edge, startedAtMs, () =>
      edge.dialer.compact(
        {
          purpose: 'session',
          attempt: 0,
          upstream: lease.upstream,
          allowed: lease.allowedUpstreams,
          model: request.model,
          tenantId: principal.tenantId,
          credential: lease.credential,
          traceContext: request.traceContext ?? traceContextOf(call.metadata),
        },
        request.body,
        timeout === undefined ? call.signal : AbortSignal.any([call.signal, timeout]),
      ),
    ).catch((error: unknown) => {
      if (timeout?.aborted !== true) throw error;
      throw new GatewayError('TURN_TIMEOUT', `not compacted within ${request.timeoutMs} ms`);
    });
    call.write(edge.wire.compactResponse(json, request.format));
    call.end();
  } finally {
    lease.release();
  }
}

async function admitted(lease: SessionLease, turn: TurnAdmission): Promise<TurnLease> {
  const reservation = await lease.reserveTurn(() => turn, false);
  try {
    return lease.admitTurn(turn, reservation);
  } finally {
    reservation?.release();
  }
}

/** AbortSignal.timeout throws on fractions, and a longer one ends at once. */
function timerMs(timeoutMs: number): number {
  return Math.min(Math.ceil(timeoutMs), MAX_TIMER_MS);
}

/** Failures after which the upstream may have done the work, and charged for it; the caller may even want that. */
const MAY_HAVE_RUN: readonly Reason[] = [
  'TURN_CANCELLED',
  'UPSTREAM_LINK_LOST',
  'UPSTREAM_PROTOCOL',
  'INTERNAL',
];

/** Accounts what the call used, or gives its place back. */
async function settled(
  lease: TurnLease,
  request: CompactRequest,
  edge: Edge,
  startedAtMs: number,
  work: () => Promise<Uint8Array>,
): Promise<Uint8Array> {
  let json: Uint8Array;
  try {
    json = await work();
  } catch (cause) {
    if (MAY_HAVE_RUN.includes(GatewayError.from(cause).reason)) {
      lease.settle(record(request, undefined, startedAtMs, edge.clock()));
    } else lease.abandon();
    throw cause;
  }
  lease.settle(record(request, json, startedAtMs, edge.clock()));
  return json;
}

function record(
  request: CompactRequest,
  json: Uint8Array | undefined,
  startedAtMs: number,
  endedAtMs: number,
): TurnRecord {
  const bytesUp = Buffer.byteLength(request.body);
  return {
    laneId: '',
    turnId: '',
    outcome: json === undefined ? 'FAILED' : 'COMPLETED',
    failed: undefined,
    acceptedAtMs: startedAtMs,
    sentAtMs: startedAtMs,
    createdAtMs: undefined,
    firstOutputAtMs: undefined,
    lastOutputAtMs: undefined,
    endedAtMs,
    outputEvents: 0,
    events: 0,
    requestModel: request.model,
    responseModel: undefined,
    responseId: undefined,
    serviceTier: undefined,
    finishReason: undefined,
    usage: json === undefined ? undefined : usageOf(json),
    bytesUp,
    fullContextBytes: bytesUp,
    bytesDown: json?.length ?? 0,
    toolCalls: 0,
    replays: 0,
    sends: 1,
    route: undefined,
    warmUp: false,
  };
}

function usageOf(json: Uint8Array): Usage | undefined {
  const body = parseObject(new TextDecoder().decode(json));
  if (body === undefined)
    throw new GatewayError('UPSTREAM_PROTOCOL', 'the upstream answered with something that is not JSON');
  return readUsage(own(body, 'usage'));
}
