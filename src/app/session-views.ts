import type { LinkView, MarkView, TurnView } from '../admin/api.ts';
import { byTokens } from '../history/attribution.ts';
import type { LinkEntry, Mark, TurnEntry } from '../history/entries.ts';
import type { SessionHistory } from '../history/session-history.ts';

/** `before`: the turn that it goes on from, if that is remembered. */
export function turnView(
  turn: TurnEntry,
  before: TurnEntry | undefined,
  traceUrl: string | undefined,
  sessionId: string,
): TurnView {
  const { end } = turn;
  return {
    turnId: turn.turnId,
    laneId: turn.laneId,
    state: end !== undefined ? 'ended' : turn.sentAtMs === undefined ? 'queued' : 'running',
    model: turn.model,
    linkId: turn.linkId,
    fromResponseId: turn.fromResponseId,
    responseIds: [turn.responseIds ?? []].flat(),
    tools: [...(turn.tools ?? [])],
    acceptedAtMs: turn.acceptedAtMs,
    sentAtMs: turn.sentAtMs,
    firstOutputAtMs: turn.firstOutputAtMs,
    endedAtMs: turn.endedAtMs,
    toolsMs: toolsMs(turn, before),
    ...(end !== undefined && {
      responseModel: end.responseModel,
      serviceTier: word(end.serviceTier),
      upstream: end.upstream,
      queueMs: end.queueMs,
      rebuildMs: end.rebuildMs,
      upstreamMs: end.upstreamMs,
      addedUpMs: end.addedUpMs,
      addedDownMs: end.addedDownMs,
      outcome: end.outcome,
      failure: end.failure,
      finishReason: word(end.finishReason),
      usage: end.usage,
      cost: end.cost,
      attribution: end.attribution && byTokens(end.attribution),
      bytesUp: end.bytesUp,
      bytesDown: end.bytesDown,
      bytesSaved: Math.max(0, end.fullContextBytes - end.bytesUp),
      events: end.events,
      toolCalls: end.toolCalls,
      sends: end.sends,
      replays: end.replays,
      warmUp: end.warmUp,
      traceUrl: turnTraceUrl(traceUrl, sessionId, end.traceId, end.spanId),
    }),
  };
}

/** Of a short list that the upstream has; what is no such word may be anything that it was sent. */
function word(text: string | undefined): string | undefined {
  return text !== undefined && /^[A-Za-z]\w{0,63}$/.test(text) ? text : undefined;
}

/** Tools run from the end of the turn that called them until the next brings what they said. */
function toolsMs(turn: TurnEntry, before: TurnEntry | undefined): number | undefined {
  if (before?.endedAtMs === undefined || !(before.end?.toolCalls ?? 0)) return undefined;
  return Math.max(0, turn.acceptedAtMs - before.endedAtMs);
}

export function linkView(link: LinkEntry): LinkView {
  return { ...link };
}

export function markView(mark: Mark): MarkView {
  return { ...mark };
}

function turnTraceUrl(
  template: string | undefined,
  sessionId: string,
  traceId: string | undefined,
  spanId: string | undefined,
): string | undefined {
  if (template === undefined || traceId === undefined) return undefined;
  return filled(template, { trace_id: traceId, span_id: spanId ?? '', session_id: sessionId });
}

/** Of its newest turn that has one. */
export function sessionTraceUrl(
  { turns, start }: SessionHistory,
  template: string | undefined,
): string | undefined {
  const end = turns.findLast((turn) => turn.end?.traceId !== undefined)?.end;
  return turnTraceUrl(template, start.sessionId, end?.traceId, end?.spanId);
}

function filled(template: string, values: Readonly<Record<string, string>>): string {
  return template.replaceAll(/\{(\w+)\}/g, (whole, name: string) =>
    values[name] === undefined ? whole : encodeURIComponent(values[name]),
  );
}
