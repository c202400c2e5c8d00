import {
  type Attributes,
  type Context,
  type HrTime,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import type { Fact, LinkRoute, TraceContext, TurnRecord } from '../core/types.ts';
import type { StatusCode } from '../errors.ts';
import { ATTR, OPERATION_CHAT, providerName } from './genai-names.ts';
import { errorType } from './labels.ts';
import type { TelemetrySettings } from './options.ts';
import { OWN, OWN_LABEL_PREFIX } from './own-names.ts';
import { outgoingContext, parseTraceparent, type TraceIds } from './tracing.ts';
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

interface RunningTurn {
  readonly span: Span | undefined;
  /** Of the caller. */
  readonly parent: Context;
  readonly ids: TraceIds | undefined;
  readonly carried: TraceContext | undefined;
  /** Known when the span began, and set there. */
  readonly route: LinkRoute | undefined;
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
  tracer: Tracer | undefined,
  start: SessionStart,
  settings: SpanSettings,
): SessionSpans {
  const caller = settings.acceptsCallers ? parseTraceparent(start.traceContext) : undefined;
  const session = tracer?.startSpan(start.method, sessionSpanOptions(start), caller?.context ?? ROOT_CONTEXT);
  const sessionContext = session === undefined ? ROOT_CONTEXT : trace.setSpan(ROOT_CONTEXT, session);
  const sessionIds = session === undefined ? caller : idsOf(session);
  const turns = new Map<string, RunningTurn>();
  const dials = new Map<number, Span>();
  const labels = labelAttributes(start);
  let sessionEvents = 0;
  let lastRoute: LinkRoute | undefined;

  // A span is exported at its end, and this one may last for hours: a short child shows the session at once.
  tracer?.startSpan('session open', { attributes: { 'session.id': start.sessionId } }, sessionContext).end();

  function sessionEvent(name: string, attributes: Attributes | undefined, atMs?: number): void {
    if (session === undefined || sessionEvents >= MAX_SESSION_EVENTS) return;
    sessionEvents += 1;
    session.addEvent(name, attributes, atMs === undefined ? undefined : hrTime(atMs));
  }

  function turnAccepted(fact: Extract<Fact, { kind: 'turnAccepted' }>): void {
    const own = settings.acceptsCallers ? parseTraceparent(fact.traceContext) : undefined;
    const parent = own ?? caller;
    const carried = own === undefined ? start.traceContext : fact.traceContext;
    const context = parent?.context ?? ROOT_CONTEXT;
    const span = tracer?.startSpan(
      fact.model === undefined ? OPERATION_CHAT : `${OPERATION_CHAT} ${fact.model}`,
      {
        kind: SpanKind.CLIENT,
        startTime: hrTime(fact.atMs),
        attributes: {
          [ATTR.operation]: OPERATION_CHAT,
          [ATTR.requestModel]: fact.model,
          [ATTR.requestStream]: true,
          [ATTR.apiType]: 'responses',
          // Samplers see what is known at the start; the route of the turn itself is set at its end.
          ...(lastRoute !== undefined && routeAttributes(lastRoute)),
          ...labels,
          [ATTR.conversationId]: conversationId(start.sessionId, fact.laneId),
          ...(fact.laneId !== '' && { [OWN.laneId]: fact.laneId }),
          [OWN.turnId]: fact.turnId,
        },
        ...(session !== undefined && {
          links: [{ context: session.spanContext() }],
        }),
      },
      context,
    );
    turns.set(fact.turnId, {
      span,
      parent: context,
      ids: span === undefined ? parent : idsOf(span),
      carried,
      route: lastRoute,
      sent: false,
      toolEvents: 0,
    });
  }

  function turnEnded(record: TurnRecord, split: TurnSplit, content: Attributes | undefined): void {
    const turn = turns.get(record.turnId);
    turns.delete(record.turnId);
    const span = turn?.span;
    if (turn === undefined || span === undefined) return;
    if (span.isRecording()) {
      span.setAttributes(turnAttributes(record, split, settings.semconv));
      if (record.route !== undefined && record.route !== turn.route) {
        span.setAttributes(routeAttributes(record.route));
      }
      if (content !== undefined) span.setAttributes(content);
      if (record.outcome === 'FAILED' || record.outcome === 'DEADLINE_EXCEEDED') {
        // Codes only: the upstream's own text may quote the prompt.
        span.setStatus({
          code: SpanStatusCode.ERROR,
          message: record.failed?.error.reason ?? record.outcome,
        });
      }
    }
    span.end(hrTime(record.endedAtMs));
  }

  /** The first send is told by the length of the queue; one more is worth an event. */
  function turnSent(fact: Extract<Fact, { kind: 'turnSent' }>): void {
    const turn = turns.get(fact.turnId);
    if (turn === undefined) return;
    if (turn.sent) turn.span?.addEvent('sent again', { [OWN.linkId]: fact.linkId }, hrTime(fact.atMs));
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
        turn?.span === undefined ? sessionContext : trace.setSpan(turn.parent, turn.span),
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
          return void turns.get(fact.turnId)?.span?.addEvent('first token', hrTime(fact.atMs));
        case 'toolCalled': {
          const turn = turns.get(fact.turnId);
          if (turn?.span === undefined || turn.toolEvents >= MAX_TOOL_EVENTS) return;
          turn.toolEvents += 1;
          turn.span.addEvent('tool call', { [ATTR.toolName]: fact.name }, hrTime(fact.atMs));
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
      for (const turn of turns.values()) turn.span?.setAttribute('error.type', 'INTERNAL').end();
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

function sessionSpanOptions(start: SessionStart) {
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
      ...labelAttributes(start),
    },
  };
}

/** The client's own labels, as its `Open` gave them: bounded there in number and length. */
function labelAttributes(start: SessionStart): Attributes {
  const attributes: Attributes = {};
  for (const [name, value] of start.labels ?? []) attributes[`${OWN_LABEL_PREFIX}${name}`] = value;
  return attributes;
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

/** A lane is the conversation: real, and the same over all its turns. */
function conversationId(sessionId: string, laneId: string): string {
  return laneId === '' ? sessionId : `${sessionId}/${laneId}`;
}

function turnAttributes(record: TurnRecord, split: TurnSplit, semconv: SpanSettings['semconv']): Attributes {
  const { usage, failed } = record;
  const attributes: Attributes = {
    [ATTR.responseId]: record.responseId,
    [ATTR.responseModel]: record.responseModel,
    [ATTR.serviceTier]: record.serviceTier,
    [OWN.outcome]: record.outcome,
    [OWN.queueDuration]: split.queueSeconds,
    [OWN.upstreamDuration]: split.upstreamSeconds,
  };
  if (record.responseId !== undefined || failed !== undefined) {
    // A reason that was due and never came is told as `error`, not left out.
    attributes[ATTR.finishReasons] = [record.finishReason ?? 'error'];
  }
  if (split.firstOutputSeconds !== undefined) attributes[ATTR.timeToFirstChunk] = split.firstOutputSeconds;
  // What most turns have none of is left out: an attribute costs at every hop to the collector's disk.
  if (split.gatewaySeconds > 0) attributes[OWN.rebuildDuration] = split.gatewaySeconds;
  if (record.toolCalls > 0) attributes[OWN.toolCalls] = record.toolCalls;
  if (record.sends > 1) attributes[OWN.sends] = record.sends;
  if (record.replays > 0) attributes[OWN.replays] = record.replays;
  if (record.warmUp) attributes[OWN.warmUp] = true;
  if (usage !== undefined) {
    attributes[ATTR.inputTokens] = usage.inputTokens;
    attributes[ATTR.outputTokens] = usage.outputTokens;
    attributes[ATTR.cachedInputTokens] = usage.cachedInputTokens;
    attributes[ATTR.reasoningTokens] = usage.reasoningTokens;
    if (usage.cacheWriteTokens > 0) {
      if (semconv !== 'next') attributes[ATTR.cacheCreationTokens] = usage.cacheWriteTokens;
      if (semconv !== '1.41') attributes[ATTR.cacheWriteTokens] = usage.cacheWriteTokens;
    }
  }
  if (failed !== undefined) {
    attributes['error.type'] = errorType(failed.error.reason, failed.error.upstream?.code);
    attributes[OWN.replay] = failed.replay;
    attributes[OWN.phase] = failed.phase;
  }
  return attributes;
}

function routeAttributes(route: LinkRoute): Attributes {
  return {
    [ATTR.provider]: providerName(route.provider),
    'server.address': route.serverAddress,
    'server.port': route.serverPort,
  };
}

function idsOf(span: Span): TraceIds {
  const { traceId, spanId, traceFlags } = span.spanContext();
  return { traceId, spanId, sampled: (traceFlags & 1) !== 0 };
}

/** The SDK takes small numbers for offsets from the start of the process; pairs are always seconds and nanoseconds. */
function hrTime(atMs: number): HrTime {
  const seconds = Math.trunc(atMs / 1_000);
  return [seconds, Math.round((atMs - seconds * 1_000) * 1e6)];
}
