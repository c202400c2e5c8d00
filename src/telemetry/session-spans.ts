import {
  type Attributes,
  type Context,
  type HrTime,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import type { Fact, LinkRoute, TraceContext, TurnRecord } from '../core/types.ts';
import type { StatusCode } from '../errors.ts';
import { ATTR, OPERATION_CHAT } from './genai-names.ts';
import type { TelemetrySettings } from './options.ts';
import { OWN } from './own-names.ts';
import { outgoingContext, parseTraceparent, type TraceIds, type Tracing } from './tracing.ts';
import { acceptedAttributes, endedAttributes, labelAttributes, routeAttributes } from './turn-attributes.ts';
import type { TurnSpan } from './turn-span.ts';
import type { TurnSplit } from './turn-split.ts';
import type { SessionStart } from './types.ts';

/** The spans of one session. Without a tracer it only carries the callers' trace ids on, for logs and upstream. */
export interface SessionSpans {
  /** Every fact but the end of a turn, which comes with its times worked out. */
  fact(fact: Fact): void;
  turnEnded(record: TurnRecord, split: TurnSplit, content: Attributes | undefined): void;
  event(name: string, attributes?: Attributes): void;
  outgoing(turnId: string | undefined): TraceContext | undefined;
  /** Of a running turn, else of the session. */
  ids(turnId: string | undefined): TraceIds | undefined;
  end(status: StatusCode | 'OK'): void;
}

export interface SpanSettings {
  readonly propagate: TelemetrySettings['traces']['propagate'];
  readonly acceptsCallers: boolean;
  readonly semconv: TelemetrySettings['genaiSemconv'];
}

type Accepted = Extract<Fact, { kind: 'turnAccepted' }>;

interface RunningTurn {
  readonly span: TurnSpan | undefined;
  /** Of the caller. */
  readonly parent: Context;
  readonly ids: TraceIds | undefined;
  readonly carried: TraceContext | undefined;
  readonly accepted: Accepted;
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

export function createSessionSpans(
  tracing: Tracing | undefined,
  start: SessionStart,
  settings: SpanSettings,
): SessionSpans {
  const tracer = tracing?.tracer;
  const caller = settings.acceptsCallers ? parseTraceparent(start.traceContext) : undefined;
  const labels = labelAttributes(start);
  const session = tracer?.startSpan(
    start.method,
    sessionSpanOptions(start, labels),
    caller?.context ?? ROOT_CONTEXT,
  );
  const sessionContext = session === undefined ? ROOT_CONTEXT : trace.setSpan(ROOT_CONTEXT, session);
  const sessionIds = session === undefined ? caller : idsOf(session.spanContext());
  const sessionLinks = session === undefined ? [] : [{ context: session.spanContext() }];
  const turns = new Map<string, RunningTurn>();
  const dials = new Map<number, Span>();
  let sessionEvents = 0;
  let lastRoute: LinkRoute | undefined;

  // A span is exported at its end, and this one may last for hours: a short child shows the session at once.
  tracer?.startSpan('session open', { attributes: { 'session.id': start.sessionId } }, sessionContext).end();

  function sessionEvent(name: string, attributes: Attributes | undefined, atMs?: number): void {
    if (session === undefined || sessionEvents >= MAX_SESSION_EVENTS) return;
    sessionEvents += 1;
    session.addEvent(name, attributes, atMs === undefined ? undefined : hrTime(atMs));
  }

  function turnAccepted(fact: Accepted): void {
    const own = settings.acceptsCallers ? parseTraceparent(fact.traceContext) : undefined;
    const parent = own ?? caller;
    const carried = own === undefined ? start.traceContext : fact.traceContext;
    const context = parent?.context ?? ROOT_CONTEXT;
    const name = fact.model === undefined ? OPERATION_CHAT : `${OPERATION_CHAT} ${fact.model}`;
    const span = tracing?.turnSpan(name, hrTime(fact.atMs), context, sessionLinks);
    turns.set(fact.turnId, {
      span,
      parent: context,
      ids: span === undefined ? parent : idsOf(span.context),
      carried,
      accepted: fact,
      sent: false,
      toolEvents: 0,
    });
  }

  function turnEnded(record: TurnRecord, split: TurnSplit, content: Attributes | undefined): void {
    const turn = turns.get(record.turnId);
    turns.delete(record.turnId);
    if (turn?.span === undefined) return;
    const route = record.route ?? lastRoute;
    const failed = record.outcome === 'FAILED' || record.outcome === 'DEADLINE_EXCEEDED';
    turn.span.end(
      hrTime(record.endedAtMs),
      () => ({
        ...acceptedAttributes(turn.accepted, start.sessionId, labels),
        ...endedAttributes(record, split, route, settings.semconv),
        ...content,
      }),
      failed ? (record.failed?.error.reason ?? record.outcome) : undefined,
    );
  }

  /** The first send is told by the length of the queue; one more is worth an event. */
  function turnSent(fact: Extract<Fact, { kind: 'turnSent' }>): void {
    const turn = turns.get(fact.turnId);
    if (turn === undefined) return;
    if (turn.sent) turn.span?.event('sent again', hrTime(fact.atMs), { [OWN.linkId]: fact.linkId });
    turn.sent = true;
  }

  function linkUp(fact: Extract<Fact, { kind: 'linkUp' }>): void {
    const { route } = fact;
    lastRoute = route;
    const attributes = {
      ...routeAttributes(route),
      [OWN.upstream]: route.upstream,
      [OWN.linkPooled]: route.pooled,
      [OWN.linkId]: fact.linkId,
    };
    const dial = dials.get(fact.linkId);
    dials.delete(fact.linkId);
    if (dial === undefined) sessionEvent('link up', attributes, fact.atMs);
    else dial.setAttributes(attributes).updateName(`connect ${route.serverAddress}`).end(hrTime(fact.atMs));
  }

  function linkDown(fact: Extract<Fact, { kind: 'linkDown' }>): void {
    const attributes = {
      [OWN.reason]: fact.reason,
      [OWN.linkId]: fact.linkId,
      [OWN.linkCloseCode]: fact.closeCode,
    };
    const dial = dials.get(fact.linkId);
    dials.delete(fact.linkId);
    if (dial === undefined) {
      sessionEvent('link down', attributes, fact.atMs);
      return;
    }
    dial
      .setAttributes({ ...attributes, 'error.type': fact.reason })
      .setStatus({ code: SpanStatusCode.ERROR, message: fact.reason })
      .end(hrTime(fact.atMs));
  }

  function rebuilt(fact: Extract<Fact, { startedAtMs: number }>): void {
    const turn = fact.turnId === undefined ? undefined : turns.get(fact.turnId);
    tracer
      ?.startSpan(
        REBUILD_NAMES[fact.kind],
        {
          startTime: hrTime(fact.startedAtMs),
          attributes: {
            [OWN.reason]: fact.reason,
            [OWN.linkId]: fact.linkId,
            [OWN.bytes]: fact.bytes,
          },
        },
        turn?.span === undefined ? sessionContext : trace.setSpanContext(turn.parent, turn.span.context),
      )
      .end(hrTime(fact.endedAtMs));
  }

  return {
    fact(fact) {
      switch (fact.kind) {
        case 'turnAccepted':
          return turnAccepted(fact);
        case 'turnSent':
          return turnSent(fact);
        case 'firstOutput':
          return void turns.get(fact.turnId)?.span?.event('first token', hrTime(fact.atMs));
        case 'toolCalled': {
          const turn = turns.get(fact.turnId);
          if (turn?.span === undefined || turn.toolEvents >= MAX_TOOL_EVENTS) return;
          turn.toolEvents += 1;
          turn.span.event('tool call', hrTime(fact.atMs), { [ATTR.toolName]: fact.name });
          return;
        }
        case 'linkDialing': {
          const dial = tracer?.startSpan(
            'connect',
            {
              kind: SpanKind.CLIENT,
              startTime: hrTime(fact.atMs),
              attributes: { [OWN.purpose]: fact.purpose, [OWN.linkId]: fact.linkId },
            },
            sessionContext,
          );
          if (dial !== undefined) dials.set(fact.linkId, dial);
          return;
        }
        case 'linkUp':
          return linkUp(fact);
        case 'linkDown':
          return linkDown(fact);
        case 'recovered':
        case 'rotated':
        case 'replayed':
          return rebuilt(fact);
        case 'paused':
        case 'unpaused':
          return sessionEvent(fact.kind, { [OWN.bufferBytes]: fact.bufferedBytes }, fact.atMs);
        case 'turnEnded':
        case 'responseCreated':
        case 'lateUsage':
        case 'laneOpened':
        case 'laneClosed':
          return;
      }
    },
    turnEnded,
    event: sessionEvent,
    outgoing(turnId) {
      const turn = turnId === undefined ? undefined : turns.get(turnId);
      return outgoingContext(
        turn?.ids ?? sessionIds,
        turn?.carried ?? start.traceContext,
        settings.propagate,
      );
    },
    ids: (turnId) => (turnId === undefined ? undefined : turns.get(turnId)?.ids) ?? sessionIds,
    end(status) {
      // The core ends every turn and link before; what is left here is the trace of a defect, not to be leaked.
      const failed = { 'error.type': 'INTERNAL' };
      for (const { span, accepted } of turns.values()) {
        span?.end(hrTime(Date.now()), () => ({
          ...acceptedAttributes(accepted, start.sessionId, labels),
          ...failed,
        }));
      }
      for (const dial of dials.values()) dial.setAttribute('error.type', 'CANCELLED').end();
      turns.clear();
      dials.clear();
      if (session === undefined) return;
      session.setAttribute('rpc.status_code', status);
      if (SERVER_ERRORS.has(status)) {
        session.setAttribute('error.type', status).setStatus({ code: SpanStatusCode.ERROR });
      }
      session.end();
    },
  };
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

function idsOf({ traceId, spanId, traceFlags }: SpanContext): TraceIds {
  return { traceId, spanId, sampled: (traceFlags & 1) !== 0 };
}

/** The SDK takes small numbers for offsets from the start of the process; pairs are always seconds and nanoseconds. */
function hrTime(atMs: number): HrTime {
  const seconds = Math.trunc(atMs / 1_000);
  return [seconds, Math.round((atMs - seconds * 1_000) * 1e6)];
}
