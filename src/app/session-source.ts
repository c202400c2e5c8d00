import type { SessionDetail, SessionQuery, SessionRow, SessionSort, TurnQuery } from '../admin/api.ts';
import type { SessionKey, SessionSource } from '../admin/source.ts';
import { toolRows } from '../history/attribution.ts';
import type { TurnEntry } from '../history/entries.ts';
import type { History } from '../history/history.ts';
import type { SessionHistory } from '../history/session-history.ts';
import type { SessionRegistry } from '../session/registry.ts';
import type { EdgeSessionHandle } from '../session/sessions.ts';
import type { GatewayTelemetry } from '../telemetry/types.ts';
import { matches } from './session-search.ts';
import { linkView, markView, sessionTraceUrl, turnView } from './session-views.ts';

export interface SessionSourceOptions {
  readonly history: History;
  readonly registry: SessionRegistry;
  readonly telemetry: Pick<GatewayTelemetry, 'linkCounts'>;
  readonly clock: () => number;
  /** With {trace_id}, {span_id} and {session_id}; undefined: no links to traces. */
  readonly traceUrl: string | undefined;
  readonly drainTimeoutMs: number;
}

/** The sessions of this process. */
export function sessionSource(options: SessionSourceOptions): SessionSource {
  const { history, registry, telemetry, clock, traceUrl } = options;
  return {
    board: async () => ({
      sample: history.lastSample(),
      links: telemetry.linkCounts(),
      usage: history.usage(),
      upstreams: history.upstreams(),
      silentProcesses: 0,
    }),
    past: async (stepS, seconds) => history.past(stepS, seconds),
    keys: async (query) => ({ keys: keys(history, query, clock()), silentProcesses: 0 }),
    rows: async (ids) =>
      ids.flatMap((id) => {
        const session = history.get(id);
        return session === undefined ? [] : [row(session, registry.get(id))];
      }),
    session: async (id) => {
      const session = history.get(id);
      return session && detail(session, registry.get(id), traceUrl, clock());
    },
    turns: async (id, query) => {
      const session = history.get(id);
      return session && turnPage(session, query, traceUrl);
    },
    cancelTurn: async (id, turnId) => {
      const session = registry.get(id);
      if (session === undefined) return 'unknownSession';
      const turn = session.core.inspect().turns.find((one) => one.turnId === turnId);
      if (turn === undefined) return 'unknownTurn';
      session.driver.feed({ kind: 'cancelTurn', laneId: turn.laneId, turnId });
      return 'done';
    },
    drainSession: async (id) => {
      const session = registry.get(id);
      if (session === undefined) return 'unknownSession';
      session.driver.feed({ kind: 'drain', deadlineMs: clock() + options.drainTimeoutMs });
      return 'done';
    },
  };
}

function keys(history: History, query: SessionQuery, nowMs: number): readonly SessionKey[] {
  const found: SessionKey[] = [];
  const key = SORT_KEYS[query.sort];
  for (const session of history.sessions()) {
    if (matches(session, query)) found.push([key(session, nowMs), session.start.sessionId]);
  }
  return found;
}

const SORT_KEYS: Readonly<Record<SessionSort, (session: SessionHistory, nowMs: number) => number | string>> =
  {
    started: ({ startedAtMs }) => startedAtMs,
    active: ({ activeAtMs }) => activeAtMs,
    duration: ({ startedAtMs, endedAtMs }, nowMs) => (endedAtMs ?? nowMs) - startedAtMs,
    tenant: ({ start }) => start.tenantId,
    client: ({ start }) => start.clientName ?? '',
    running: ({ running }) => running,
    turns: ({ turnsTotal }) => turnsTotal,
    failures: ({ failures }) => failures,
    tokens: ({ inputTokens, outputTokens }) => inputTokens + outputTokens,
    saved: ({ bytesSaved }) => bytesSaved,
  };

function row(session: SessionHistory, live: EdgeSessionHandle | undefined): SessionRow {
  const { start } = session;
  const snapshot = live?.core.inspect();
  const byState: Record<string, number> = {};
  for (const { state } of snapshot?.turns ?? []) byState[state] = (byState[state] ?? 0) + 1;
  return {
    id: start.sessionId,
    tenant: start.tenantId,
    pid: process.pid,
    method: start.method,
    client: start.clientName || undefined,
    clientVersion: start.clientVersion || undefined,
    labels: Object.fromEntries(start.labels ?? []),
    state: session.state,
    status: session.status,
    startedAtMs: session.startedAtMs,
    activeAtMs: session.activeAtMs,
    endedAtMs: session.endedAtMs,
    model: session.lastModel,
    upstream: session.links.findLast(({ upstream }) => upstream !== undefined)?.upstream,
    lanes: snapshot?.lanes ?? laneIds(session).length,
    turns: byState,
    turnsRunning: session.running,
    turnsTotal: session.turnsTotal,
    failures: session.failures,
    inputTokens: session.inputTokens,
    cachedInputTokens: session.cachedInputTokens,
    outputTokens: session.outputTokens,
    bytesUp: session.bytesUp,
    cost: session.cost,
    bytesSaved: session.bytesSaved,
    ...(snapshot !== undefined && {
      life: snapshot.life,
      attached: snapshot.attached,
      durable: live?.core.durable === true,
      links: [...snapshot.links],
      bufferedBytes: snapshot.bufferedBytes,
      resumeBytes: snapshot.resumeBytes,
      transcriptBytes: snapshot.transcriptBytes,
      heldInputBytes: snapshot.heldInputBytes,
      nextSeq: snapshot.nextSeq,
    }),
  };
}

function detail(
  session: SessionHistory,
  live: EdgeSessionHandle | undefined,
  traceUrl: string | undefined,
  nowMs: number,
): SessionDetail {
  return {
    session: row(session, live),
    laneIds: laneIds(session),
    tools: session.tools === undefined ? [] : toolRows(session.tools),
    links: session.links.map(linkView),
    marks: session.marks.map(markView),
    turnsKept: session.turns.length,
    dropped: session.dropped,
    traceUrl: sessionTraceUrl(session, traceUrl),
    nowMs,
  };
}

/** Those of turns that are remembered, and those that are open without one. */
function laneIds({ turns, lanes }: SessionHistory): string[] {
  return [...new Set([...turns.map(({ laneId }) => laneId), ...(lanes ?? [])])];
}

function turnPage(session: SessionHistory, { lane, offset, limit }: TurnQuery, traceUrl: string | undefined) {
  const all = session.turns;
  const chosen = lane === undefined ? all : all.filter(({ laneId }) => laneId === lane);
  const before = turnsBefore(all);
  return {
    turns: chosen
      .slice(offset, offset + limit)
      .map((turn) => turnView(turn, before.get(turn), traceUrl, session.start.sessionId)),
    total: chosen.length,
    offset,
    limit,
  };
}

/** The turn that each goes on from: the one of the response that it names, else the last of its lane. */
function turnsBefore(turns: readonly TurnEntry[]): ReadonlyMap<TurnEntry, TurnEntry> {
  const before = new Map<TurnEntry, TurnEntry>();
  const byResponse = new Map<string, TurnEntry>();
  const byLane = new Map<string, TurnEntry>();
  for (const turn of turns) {
    const parent =
      turn.fromResponseId === undefined ? byLane.get(turn.laneId) : byResponse.get(turn.fromResponseId);
    if (parent !== undefined) before.set(turn, parent);
    for (const id of [turn.responseIds ?? []].flat()) byResponse.set(id, turn);
    byLane.set(turn.laneId, turn);
  }
  return before;
}
