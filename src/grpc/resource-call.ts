import { randomUUID } from 'node:crypto';
import type { Principal, SessionLease, TurnAdmission, TurnLease } from '../access/types.ts';
import type { TraceContext, TurnRecord, Usage } from '../core/types.ts';
import { asObject, own, parseObject } from '../dialect/json.ts';
import { neverRan } from '../dialect/refusal.ts';
import { readUsage } from '../dialect/usage.ts';
import { GatewayError, type Reason, type StatusCode } from '../errors.ts';
import { comparedResponses } from '../session/admission.ts';
import { MAX_TIMER_MS } from '../session/clock.ts';
import type { SessionTelemetry } from '../telemetry/types.ts';
import type { CallMethod, CallRequest } from '../translate/index.ts';
import type { DialRequest } from '../upstream/types.ts';
import type { RpcCall } from './call.ts';
import { traceContextOf } from './caller.ts';
import { admit, LARGE_REQUEST_BYTES, leaseFor, refuse } from './connect.ts';
import { readRequest } from './create-response.ts';
import type { Edge } from './edge.ts';
import { doneWith } from './message-decoder.ts';

/** Where there are no heartbeats: under the shortest patience of a proxy's, 15 s. */
const HEADERS_AFTER_MS = 10_000;

/** One HTTP call beside the links; limits, permissions and ownership as for a turn. */
export function serveCall(method: CallMethod): (call: RpcCall, edge: Edge) => Promise<void> {
  return async (call, edge) => {
    let principal: Principal | undefined;
    const progress: Progress = { asked: false };
    try {
      principal = await admit(call, edge);
      const received = await readRequest(call, edge);
      if (received === undefined) return;
      const work = run(method, call, edge, principal, received.bytes, progress);
      edge.calls.add(work);
      await work;
    } catch (error) {
      refuse(call, edge, withVerdict(error, method, progress), principal);
    }
  };
}

interface Progress {
  /** The upstream may have heard of it. */
  asked: boolean;
}

/** Says whether the call may be sent again without being done twice. */
function withVerdict(given: unknown, method: CallMethod, { asked }: Progress): unknown {
  const error = method === 'CompactResponse' ? given : inOptions(given);
  if (!(error instanceof GatewayError)) return error;
  const { reason, message, metadata, retryAfterMs, upstream, cause } = error;
  const replay = !asked || CHANGES_NOTHING.has(method) || neverRan(error) ? 'safe' : 'unknown';
  return new GatewayError(reason, message, {
    metadata: { replay, ...metadata },
    cause,
    ...(retryAfterMs !== undefined && { retryAfterMs }),
    ...(upstream !== undefined && { upstream }),
  });
}

/** What is wrong with the choice of an upstream, as calls have it that take `CallOptions`. */
export function inOptions(error: unknown): unknown {
  if (!(error instanceof GatewayError) || error.metadata['field'] !== 'upstream') return error;
  const { reason, message, metadata, cause } = error;
  return new GatewayError(reason, message.replace(/^upstream:/, 'options.upstream:'), {
    metadata: { ...metadata, field: 'options.upstream' },
    cause,
  });
}

const CHANGES_NOTHING: ReadonlySet<CallMethod> = new Set([
  'GetResponse',
  'ListInputItems',
  'CountInputTokens',
  'ListModels',
]);

async function run(
  method: CallMethod,
  call: RpcCall,
  edge: Edge,
  principal: Principal,
  bytes: Uint8Array,
  progress: Progress,
): Promise<void> {
  const request = await edge.fairShare.through(call.connection, edge.wire.callSteps(method, bytes));
  doneWith(bytes);
  if (call.over) return;
  const lease = await leaseFor(call, edge, principal, request.upstream);
  if (lease === undefined) return;
  const telemetry = telemetryOf(call, edge, principal, request.traceContext);
  let status: StatusCode | 'OK' = 'OK';
  // Proxies wait for headers, and not for long. Not at once: a call whose headers have come is not tried again by gRPC.
  const headersDue = setTimeout(() => call.sendHeaders(), edge.heartbeatIntervalMs ?? HEADERS_AFTER_MS);
  try {
    const wanted = admissionOf(request, lease);
    const look =
      bytes.length < LARGE_REQUEST_BYTES
        ? undefined
        : await edge.fairShare.through(call.connection, lease.lookSteps(wanted));
    const turn = await admitted(lease, { ...wanted, look });
    const json = await settled(turn, request, edge, () => {
      progress.asked = true;
      return ask(call, edge, principal, lease, request, telemetry.outgoing(undefined));
    });
    call.write(edge.wire.answer(method, answerOf(method, json, lease), request.format));
    call.end();
  } catch (error) {
    status = GatewayError.from(error).code;
    throw error;
  } finally {
    clearTimeout(headersDue);
    lease.release();
    telemetry.end(status);
  }
}

/** A call without a session is told as a session of its own. */
export function telemetryOf(
  call: RpcCall,
  edge: Edge,
  principal: Principal,
  traceContext: TraceContext | undefined,
): SessionTelemetry {
  return edge.telemetry.session({
    sessionId: randomUUID(),
    tenantId: principal.tenantId,
    method: call.method,
    traceContext: traceContext ?? traceContextOf(call.metadata),
    captureContent: false,
    serverAddress: call.authority || undefined,
  });
}

function admissionOf(request: CallRequest, lease: SessionLease): TurnAdmission {
  const { runsModel } = request;
  return {
    model: request.model,
    upstream: lease.upstream,
    inputBytes: Buffer.byteLength(request.resource.body ?? ''),
    maxOutputTokens: runsModel ? undefined : 0,
    responseIds: [...request.responseIds, ...comparedResponses(request.fields)],
    conversation: request.usesConversation,
    input: request.input,
    fields: request.fields,
    // What names no model and runs none is nobody's model to allow.
    modelless: !runsModel && request.model === undefined,
    runsModel,
  };
}

async function ask(
  call: RpcCall,
  edge: Edge,
  principal: Principal,
  lease: SessionLease,
  request: CallRequest,
  traceContext: TraceContext | undefined,
): Promise<Uint8Array> {
  const timeout =
    request.timeoutMs === undefined ? undefined : AbortSignal.timeout(timerMs(request.timeoutMs));
  const signal = timeout === undefined ? call.signal : AbortSignal.any([call.signal, timeout]);
  try {
    return await edge.dialer.call(dialFor(principal, lease, request, traceContext), request.resource, signal);
  } catch (error) {
    if (timeout?.aborted !== true) throw error;
    throw new GatewayError('TURN_TIMEOUT', `no answer within ${request.timeoutMs} ms`);
  }
}

/** Where the call goes: as the first turn of a session would. */
export function dialFor(
  principal: Principal,
  lease: SessionLease,
  { model }: Pick<CallRequest, 'model'>,
  traceContext: TraceContext | undefined,
): DialRequest {
  return {
    purpose: 'session',
    attempt: 0,
    upstream: lease.upstream,
    allowed: lease.allowedUpstreams,
    model,
    tenantId: principal.tenantId,
    credential: lease.credential,
    traceContext,
  };
}

/** Takes out what is not the tenant's, and remembers what it may name from now on. */
function answerOf(method: CallMethod, json: Uint8Array, lease: SessionLease): Uint8Array {
  if (method === 'ListModels') return allowedModels(json, lease);
  if (method !== 'GetResponse' && method !== 'ListInputItems') return json;
  const body = parseObject(new TextDecoder().decode(json));
  const items = own(body, method === 'GetResponse' ? 'output' : 'data');
  for (const item of Array.isArray(items) ? items : []) {
    const id = own(asObject(item), 'id');
    if (typeof id === 'string') lease.ownItem(id);
  }
  return json;
}

function allowedModels(json: Uint8Array, lease: SessionLease): Uint8Array {
  const body = parseObject(new TextDecoder().decode(json));
  const models = own(body, 'data');
  if (body === undefined || !Array.isArray(models)) throw notJson();
  const data = models.filter((model) => {
    const id = own(asObject(model), 'id');
    return typeof id === 'string' && lease.allowsModel(id);
  });
  return data.length === models.length ? json : Buffer.from(JSON.stringify({ ...body, data }));
}

export async function admitted(lease: SessionLease, turn: TurnAdmission): Promise<TurnLease> {
  const reservation = await lease.reserveTurn(() => turn, false);
  try {
    return lease.admitTurn(turn, reservation);
  } finally {
    reservation?.release();
  }
}

/** AbortSignal.timeout throws on fractions, and a longer one ends at once. */
export function timerMs(timeoutMs: number): number {
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
  request: CallRequest,
  edge: Edge,
  work: () => Promise<Uint8Array>,
): Promise<Uint8Array> {
  const startedAtMs = edge.clock();
  let json: Uint8Array;
  try {
    json = await work();
  } catch (cause) {
    if (request.runsModel && MAY_HAVE_RUN.includes(GatewayError.from(cause).reason)) {
      lease.settle(record(request, undefined, startedAtMs, edge.clock()));
    } else lease.abandon();
    throw cause;
  }
  lease.settle(record(request, json, startedAtMs, edge.clock()));
  return json;
}

function record(
  request: CallRequest,
  json: Uint8Array | undefined,
  startedAtMs: number,
  endedAtMs: number,
): TurnRecord {
  const facts = {
    bytesUp: Buffer.byteLength(request.resource.body ?? ''),
    bytesDown: json?.length ?? 0,
    requestModel: request.model,
    usage: usageOf(request, json),
  };
  const outcome = json === undefined ? 'FAILED' : 'COMPLETED';
  return { ...recordOf(startedAtMs, endedAtMs, facts), outcome };
}

function recordOf(
  startedAtMs: number,
  endedAtMs: number,
  facts: Pick<TurnRecord, 'bytesUp' | 'bytesDown' | 'requestModel' | 'usage'>,
): Omit<TurnRecord, 'outcome'> {
  return {
    ...facts,
    laneId: '',
    turnId: '',
    failed: undefined,
    acceptedAtMs: startedAtMs,
    sentAtMs: startedAtMs,
    createdAtMs: undefined,
    firstOutputAtMs: undefined,
    lastOutputAtMs: undefined,
    endedAtMs,
    outputEvents: 0,
    events: 0,
    responseModel: undefined,
    responseId: undefined,
    serviceTier: undefined,
    finishReason: undefined,
    fullContextBytes: facts.bytesUp,
    toolCalls: 0,
    replays: 0,
    sends: 1,
    route: undefined,
    warmUp: false,
  };
}

function usageOf({ runsModel }: CallRequest, json: Uint8Array | undefined): Usage | undefined {
  if (json === undefined) return undefined;
  if (!runsModel) return NO_USAGE;
  const body = parseObject(new TextDecoder().decode(json));
  if (body === undefined) throw notJson();
  return readUsage(own(body, 'usage'));
}

const NO_USAGE: Usage = {
  inputTokens: 0,
  cachedInputTokens: 0,
  cacheWriteTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
};

/** Of a call for which nothing ran. */
export function idleRecord(startedAtMs: number, endedAtMs: number): TurnRecord {
  const facts = { bytesUp: 0, bytesDown: 0, requestModel: undefined, usage: NO_USAGE };
  return { ...recordOf(startedAtMs, endedAtMs, facts), outcome: 'COMPLETED' };
}

function notJson(): GatewayError {
  return new GatewayError(
    'UPSTREAM_PROTOCOL',
    'the upstream answered with something else than was asked for',
  );
}
