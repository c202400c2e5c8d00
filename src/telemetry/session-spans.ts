import {
  type Attributes,
  type Context,
  type HrTime,
  type Link,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  type SpanOptions,
  SpanStatusCode,
  TraceFlags,
  trace,
} from '@opentelemetry/api';
import type { Fact, LinkRoute, StartTurn, TraceContext, TurnRecord } from '../core/types.ts';
import type { StatusCode } from '../errors.ts';
import type { FewMap } from '../ground/few-map.ts';
import { ATTR, OPERATION_CHAT } from './genai-names.ts';
import { withEntry, without } from './optional-map.ts';
import type { TelemetrySettings } from './options.ts';
import { OWN } from './own-names.ts';
import type { ReturnedCalls } from './tool-times.ts';
import { outgoingContext, parseTraceparent, remoteContext, type TraceIds, type Tracing } from './tracing.ts';
import { acceptedAttributes, endedAttributes, labelAttributes, routeAttributes } from './turn-attributes.ts';
import { requestAttributes, type TurnRequest, turnRequest } from './turn-request.ts';
import type { TurnSpan } from './turn-span.ts';
import type { TurnSplit } from './turn-split.ts';
import type { SessionStart } from './types.ts';

/** The spans of one session. */
export interface SessionSpans {
  /** What a turn asks for; it is accepted next, or not at all. */
  requested(turn: StartTurn, returned: ReturnedCalls | undefined): void;
  /** Every fact but the end of a turn, which comes with its times worked out. */
  fact(fact: Fact): void;
  turnEnded(record: TurnRecord, split: TurnSplit, content: Attributes | undefined): void;
  event(name: string, attributes?: Attributes): void;
  outgoing(turnId: string | undefined): TraceContext | undefined;
  /** Of a running turn, else of the session. */
  ids(turnId: string | undefined): TraceIds | undefined;
  end(status: StatusCode | 'OK'): void;
}

/** Without a tracer it only carries the callers' trace ids on, for logs and upstream. */
export function createSessionSpans(
  tracing: Tracing | undefined,
  start: SessionStart,
  settings: TelemetrySettings,
): SessionSpans {
  return tracing === undefined
    ? new CarriedTrace(start, settings.traces)
    : new TracedSession(tracing, start, settings);
}

type Accepted = Extract<Fact, { kind: 'turnAccepted' }>;
type TraceSettings = TelemetrySettings['traces'];

interface CarriedTurn {
  readonly ids: TraceIds;
  readonly carried: TraceContext | undefined;
}

class CarriedTrace implements SessionSpans {
  readonly #settings: TraceSettings;
  readonly #carried: TraceContext | undefined;
  readonly #caller: TraceIds | undefined;
  /** Only those that came with a trace of their own. */
  #turns: FewMap<string, CarriedTurn> | undefined;

  constructor({ traceContext }: SessionStart, settings: TraceSettings) {
    this.#settings = settings;
    this.#carried = traceContext;
    this.#caller = callerIds(traceContext, settings);
  }

  requested(): void {}

  fact(fact: Fact): void {
    if (fact.kind !== 'turnAccepted') return;
    const ids = callerIds(fact.traceContext, this.#settings);
    if (ids === undefined) return;
    this.#turns = withEntry(this.#turns, fact.turnId, { ids, carried: fact.traceContext });
  }

  turnEnded({ turnId }: TurnRecord): void {
    this.#turns = without(this.#turns, turnId);
  }

  event(): void {}

  outgoing(turnId: string | undefined): TraceContext | undefined {
    const carried = this.#turn(turnId)?.carried ?? this.#carried;
    return outgoingContext(this.ids(turnId), carried, this.#settings.propagate);
  }

  ids(turnId: string | undefined): TraceIds | undefined {
    return this.#turn(turnId)?.ids ?? this.#caller;
  }

  end(): void {
    this.#turns = undefined;
  }

  #turn(turnId: string | undefined): CarriedTurn | undefined {
    return turnId === undefined ? undefined : this.#turns?.get(turnId);
  }
}

interface RunningTurn {
  readonly span: TurnSpan;
  /** Where the caller traces the turn: the server's end of it, so that service graphs have an edge. */
  readonly call: TurnSpan | undefined;
  /** Of the caller. */
  readonly parent: Context;
  readonly carried: TraceContext | undefined;
  readonly accepted: Accepted;
  readonly request: TurnRequest | undefined;
  /** Of the longest of the calls whose outputs it brought. */
  readonly toolSeconds: number | undefined;
  /** Of the lane, when the turn was sent. */
  lastResponseId: string | undefined;
  sent: boolean;
  toolEvents: number;
}

// More says nothing more, and the SDK drops and complains above 128.
const MAX_TOOL_EVENTS = 64;
const MAX_SESSION_EVENTS = 96;
/** gRPC codes that are the server's failure by the RPC conventions; the others leave a server span's status unset. */
const SERVER_ERRORS: ReadonlySet<string> = new Set([
  'UNKNOWN',
  'DEADLINE_EXCEEDED',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
]);

class TracedSession implements SessionSpans {
  readonly #tracing: Tracing;
  readonly #start: SessionStart;
  readonly #settings: TelemetrySettings;
  readonly #labels: Attributes;
  /** Of the caller. */
  readonly #parent: Context;
  readonly #session: Span;
  readonly #links: Link[];
  #turns: FewMap<string, RunningTurn> | undefined;
  #request: TurnRequest | undefined;
  #returned: ReturnedCalls | undefined;
  /** By lane. */
  #lastResponses: FewMap<string, string> | undefined;
  #dials: FewMap<number, Span> | undefined;
  #events = 0;
  #lastRoute: LinkRoute | undefined;

  constructor(tracing: Tracing, start: SessionStart, settings: TelemetrySettings) {
    this.#tracing = tracing;
    this.#start = start;
    this.#settings = settings;
    this.#labels = labelAttributes(start);
    this.#parent = remoteContext(callerIds(start.traceContext, settings.traces));
    this.#session = tracing.tracer.startSpan(
      start.method,
      sessionSpanOptions(start, this.#labels),
      this.#parent,
    );
    this.#links = [{ context: this.#session.spanContext() }];
    // A span is exported at its end, and this one may last for hours: a short child shows the session at once.
    const attributes = { 'session.id': start.sessionId };
    this.#child('session open', { attributes }).end();
    const { takenOverSinceMs } = start;
    if (takenOverSinceMs !== undefined)
      this.#child('takeover', { attributes, startTime: hrTime(takenOverSinceMs) }).end();
  }

  requested(turn: StartTurn, returned: ReturnedCalls | undefined): void {
    this.#request = turnRequest(turn);
    this.#returned = returned;
  }

  fact(fact: Fact): void {
    switch (fact.kind) {
      case 'turnAccepted':
        return this.#turnAccepted(fact);
      case 'laneClosed':
        this.#lastResponses = without(this.#lastResponses, fact.laneId);
        return;
      case 'turnSent':
        return this.#turnSent(fact);
      case 'firstOutput':
        return this.#turns?.get(fact.turnId)?.span.event('first token', hrTime(fact.atMs));
      case 'toolCalled': {
        const turn = this.#turns?.get(fact.turnId);
        if (turn === undefined || turn.toolEvents >= MAX_TOOL_EVENTS) return;
        turn.toolEvents += 1;
        turn.span.event('tool call', hrTime(fact.atMs), { [ATTR.toolName]: fact.name });
        return;
      }
      case 'linkDialing': {
        const dial = this.#child('connect', {
          kind: SpanKind.CLIENT,
          startTime: hrTime(fact.atMs),
          attributes: { [OWN.purpose]: fact.purpose, [OWN.linkId]: fact.linkId },
        });
        this.#dials = withEntry(this.#dials, fact.linkId, dial);
        return;
      }
      case 'linkUp':
        return this.#linkUp(fact);
      case 'linkDown':
        return this.#linkDown(fact);
      case 'recovered':
      case 'rotated':
      case 'replayed':
        return this.#rebuilt(fact);
      case 'paused':
      case 'unpaused':
        return this.event(fact.kind, { [OWN.bufferBytes]: fact.bufferedBytes }, fact.atMs);
      case 'turnEnded':
      case 'responseCreated':
      case 'lateUsage':
      case 'itemDone':
      case 'refused':
      case 'laneOpened':
      case 'strayFrame':
      case 'lanesProven':
      case 'lanesRefuted':
        return;
    }
  }

  turnEnded(record: TurnRecord, split: TurnSplit, content: Attributes | undefined): void {
    const turn = this.#turns?.get(record.turnId);
    this.#turns = without(this.#turns, record.turnId);
    if (record.responseId !== undefined && record.finishReason !== undefined)
      this.#lastResponses = withEntry(this.#lastResponses, record.laneId, record.responseId);
    if (turn === undefined) return;
    const route = record.route ?? this.#lastRoute;
    const { genaiSemconv } = this.#settings;
    const failed = record.outcome === 'FAILED' || record.outcome === 'DEADLINE_EXCEEDED';
    turn.span.end(
      hrTime(record.endedAtMs),
      () => ({
        ...acceptedAttributes(turn.accepted, this.#start.sessionId, this.#labels),
        ...endedAttributes(record, split, route, genaiSemconv),
        ...(turn.toolSeconds !== undefined && { [OWN.toolDuration]: turn.toolSeconds }),
        ...(turn.request !== undefined &&
          requestAttributes(
            turn.request,
            record.replays > 0 ? undefined : turn.lastResponseId,
            genaiSemconv,
          )),
        ...content,
      }),
      failed ? (record.failed?.error.reason ?? record.outcome) : undefined,
    );
    if (turn.call !== undefined) this.#endCall(turn.call, record);
  }

  event(name: string, attributes: Attributes | undefined, atMs?: number): void {
    if (this.#events >= MAX_SESSION_EVENTS) return;
    this.#events += 1;
    this.#session.addEvent(name, attributes, atMs === undefined ? undefined : hrTime(atMs));
  }

  outgoing(turnId: string | undefined): TraceContext | undefined {
    const carried = this.#turn(turnId)?.carried ?? this.#start.traceContext;
    return outgoingContext(this.ids(turnId), carried, this.#settings.traces.propagate);
  }

  ids(turnId: string | undefined): TraceIds {
    return idsOf(this.#turn(turnId)?.span.context ?? this.#session.spanContext());
  }

  end(status: StatusCode | 'OK'): void {
    // The core ends every turn and link before; what is left here is the trace of a defect, not to be leaked.
    const failed = { 'error.type': 'INTERNAL' };
    for (const { span, call, accepted } of this.#turns?.values() ?? []) {
      const attributes = {
        ...acceptedAttributes(accepted, this.#start.sessionId, this.#labels),
        ...failed,
      };
      for (const each of [span, call]) each?.end(hrTime(Date.now()), () => ({ ...attributes }));
    }
    for (const dial of this.#dials?.values() ?? []) dial.setAttribute('error.type', 'CANCELLED').end();
    this.#turns = undefined;
    this.#dials = undefined;
    this.#session.setAttribute('rpc.status_code', status);
    if (SERVER_ERRORS.has(status)) {
      this.#session.setAttribute('error.type', status).setStatus({ code: SpanStatusCode.ERROR });
    }
    this.#session.end();
  }

  /** By the RPC conventions, as if the turn were a call of its own. */
  #endCall(call: TurnSpan, { turnId, outcome, failed, endedAtMs }: TurnRecord): void {
    const code = failed?.error.code ?? (outcome === 'COMPLETED' || outcome === 'INCOMPLETE' ? 'OK' : outcome);
    const isOurs = SERVER_ERRORS.has(code);
    call.end(
      hrTime(endedAtMs),
      () => ({
        'rpc.system.name': 'grpc',
        'rpc.method': this.#start.method,
        'rpc.status_code': code,
        'session.id': this.#start.sessionId,
        [OWN.turnId]: turnId,
        ...(isOurs && { 'error.type': code }),
      }),
      isOurs ? failed?.error.reason : undefined,
    );
  }

  #turnAccepted(fact: Accepted): void {
    const own = callerIds(fact.traceContext, this.#settings.traces);
    const caller = own === undefined ? this.#parent : remoteContext(own);
    const call = own === undefined ? undefined : this.#tracing.callSpan('turn', hrTime(fact.atMs), caller);
    const parent = call === undefined ? caller : trace.setSpanContext(caller, call.context);
    const request = this.#request?.turnId === fact.turnId ? this.#request : undefined;
    const returned = request === undefined ? undefined : this.#returned;
    this.#request = undefined;
    this.#returned = undefined;
    const name = fact.model === undefined ? OPERATION_CHAT : `${OPERATION_CHAT} ${fact.model}`;
    this.#turns = withEntry(this.#turns, fact.turnId, {
      span: this.#tracing.turnSpan(name, hrTime(fact.atMs), parent, linksWith(this.#links, returned)),
      call,
      parent,
      carried: own === undefined ? this.#start.traceContext : fact.traceContext,
      accepted: fact,
      request,
      toolSeconds: returned?.seconds,
      lastResponseId: undefined,
      sent: false,
      toolEvents: 0,
    });
  }

  /** The first send is told by the length of the queue; one more is worth an event. */
  #turnSent(fact: Extract<Fact, { kind: 'turnSent' }>): void {
    const turn = this.#turns?.get(fact.turnId);
    if (turn === undefined) return;
    if (turn.sent) turn.span.event('sent again', hrTime(fact.atMs), { [OWN.linkId]: fact.linkId });
    else if (turn.request?.previous.kind === 'lane')
      turn.lastResponseId = this.#lastResponses?.get(turn.accepted.laneId);
    turn.sent = true;
  }

  #linkUp(fact: Extract<Fact, { kind: 'linkUp' }>): void {
    const { route } = fact;
    this.#lastRoute = route;
    const attributes = {
      ...routeAttributes(route),
      [OWN.upstream]: route.upstream,
      [OWN.linkPooled]: route.pooled,
      [OWN.linkId]: fact.linkId,
    };
    const dial = this.#dials?.get(fact.linkId);
    this.#dials = without(this.#dials, fact.linkId);
    if (dial === undefined) this.event('link up', attributes, fact.atMs);
    else dial.setAttributes(attributes).updateName(`connect ${route.serverAddress}`).end(hrTime(fact.atMs));
  }

  #linkDown(fact: Extract<Fact, { kind: 'linkDown' }>): void {
    const attributes = {
      [OWN.reason]: fact.reason,
      [OWN.linkId]: fact.linkId,
      [OWN.linkCloseCode]: fact.closeCode,
    };
    const dial = this.#dials?.get(fact.linkId);
    this.#dials = without(this.#dials, fact.linkId);
    if (dial === undefined) {
      this.event('link down', attributes, fact.atMs);
      return;
    }
    dial.setAttributes(attributes);
    // A dial that the session gave up for another upstream has not failed.
    if (fact.reason !== 'rerouted') {
      dial.setAttribute('error.type', fact.reason);
      dial.setStatus({ code: SpanStatusCode.ERROR, message: fact.reason });
    }
    dial.end(hrTime(fact.atMs));
  }

  #rebuilt(fact: Extract<Fact, { startedAtMs: number }>): void {
    const turn = this.#turn(fact.turnId);
    const options = {
      startTime: hrTime(fact.startedAtMs),
      attributes: { [OWN.reason]: fact.reason, [OWN.linkId]: fact.linkId, [OWN.bytes]: fact.bytes },
    };
    const context = turn === undefined ? undefined : trace.setSpanContext(turn.parent, turn.span.context);
    this.#child(REBUILD_NAMES[fact.kind], options, context).end(hrTime(fact.endedAtMs));
  }

  #turn(turnId: string | undefined): RunningTurn | undefined {
    return turnId === undefined ? undefined : this.#turns?.get(turnId);
  }

  #child(name: string, options: SpanOptions, context = trace.setSpan(ROOT_CONTEXT, this.#session)): Span {
    return this.#tracing.tracer.startSpan(name, options, context);
  }
}

/** A turn that brings outputs points to the one that called. */
function linksWith(links: Link[], returned: ReturnedCalls | undefined): Link[] {
  if (returned?.caller === undefined) return links;
  const { traceId, spanId, sampled } = returned.caller;
  const context = { traceId, spanId, traceFlags: sampled ? TraceFlags.SAMPLED : TraceFlags.NONE };
  const names = [...new Set(returned.calls.map(({ name }) => name))];
  return [...links, { context, attributes: { [OWN.link]: 'tool_call', [OWN.toolNames]: names } }];
}

const REBUILD_NAMES = { recovered: 'recovery', rotated: 'rotation', replayed: 'replay' } as const;

function sessionSpanOptions(start: SessionStart, labels: Attributes) {
  const { host, port } = splitAuthority(start.serverAddress);
  return {
    kind: SpanKind.SERVER,
    attributes: {
      'rpc.system.name': 'grpc',
      'rpc.method': start.method,
      'server.address': host,
      'server.port': port,
      'session.id': start.sessionId,
      [OWN.clientName]: start.clientName,
      [OWN.clientVersion]: start.clientVersion,
      ...labels,
    },
  };
}

/** `:authority` is host[:port], with an IPv6 host in brackets. */
function splitAuthority(authority: string | undefined): {
  host: string | undefined;
  port: number | undefined;
} {
  const match = /^(\[[^\]]+\]|[^:]+)(?::(\d{1,5}))?$/.exec(authority ?? '');
  return {
    host: match?.[1]?.replaceAll(/^\[|\]$/g, ''),
    port: match?.[2] === undefined ? undefined : Number(match[2]),
  };
}

/** Undefined where callers are not listened to. */
function callerIds(carried: TraceContext | undefined, settings: TraceSettings): TraceIds | undefined {
  return settings.acceptsCallers ? parseTraceparent(carried) : undefined;
}

function idsOf({ traceId, spanId, traceFlags }: SpanContext): TraceIds {
  return { traceId, spanId, sampled: (traceFlags & 1) !== 0 };
}

/** The SDK takes small numbers for offsets from the start of the process; pairs are always seconds and nanoseconds. */
function hrTime(atMs: number): HrTime {
  const seconds = Math.trunc(atMs / 1_000);
  return [seconds, Math.round((atMs - seconds * 1_000) * 1e6)];
}
