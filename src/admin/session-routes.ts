import { percentileMs } from '../history/latency.ts';
import type { Sample } from '../history/samples.ts';
import {
  type BoardView,
  type Overview,
  overviewQuerySchema,
  type SampleView,
  type SessionPage,
  sessionQuerySchema,
  turnQuerySchema,
} from './api.ts';
import { json, problem, problemOf, type Reply } from './reply.ts';
import type { SessionKey, SessionSource } from './source.ts';

export async function listSessions(source: SessionSource, query: URLSearchParams): Promise<Reply> {
  const given = Object.fromEntries(query);
  const parsed = sessionQuerySchema.safeParse(given);
  if (!parsed.success) return problemOf(parsed.error, given, sessionQuerySchema);
  const { offset, limit, order } = parsed.data;
  const { keys, silentProcesses } = await source.keys(parsed.data);
  const sorted = keys.toSorted(order === 'asc' ? ascending : (one, other) => ascending(other, one));
  const ids = sorted.slice(offset, offset + limit).map(([, id]) => id);
  const page: SessionPage = {
    sessions: [...(await source.rows(ids))],
    total: keys.length,
    offset,
    limit,
    silentProcesses,
  };
  return json(200, page);
}

export async function showSession(source: SessionSource, id: string, query: URLSearchParams): Promise<Reply> {
  const [extra] = query.keys();
  if (extra !== undefined) return problem(400, 'this path takes no parameters', extra.slice(0, 64));
  const session = await source.session(id);
  if (session === 'noAnswer') return silentProcess();
  return session === undefined ? unknownSession() : json(200, session);
}

export async function listTurns(source: SessionSource, id: string, query: URLSearchParams): Promise<Reply> {
  const given = Object.fromEntries(query);
  const parsed = turnQuerySchema.safeParse(given);
  if (!parsed.success) return problemOf(parsed.error, given, turnQuerySchema);
  const page = await source.turns(id, parsed.data);
  if (page === 'noAnswer') return silentProcess();
  return page === undefined ? unknownSession() : json(200, page);
}

export function unknownSession(): Reply {
  return problem(404, 'no session of this id is here, nor among those that ended lately', 'id');
}

function silentProcess(): Reply {
  return problem(504, 'a worker, which may have the session, did not answer in time', 'id');
}

/** What belongs to the replica itself. */
export interface BoardFacts {
  readonly source: SessionSource;
  readonly notReady: () => Promise<readonly string[]>;
  readonly replica: () => BoardView['replica'];
}

export async function board({ source, notReady, replica }: BoardFacts): Promise<BoardView> {
  const [{ sample, links, usage, upstreams, silentProcesses }, reasons] = await Promise.all([
    source.board(),
    notReady(),
  ]);
  return {
    sample: sample && sampleView(sample),
    links: [...links],
    usage: [...usage],
    upstreams: [...upstreams],
    notReady: [...reasons],
    silentProcesses,
    replica: replica(),
  };
}

export async function showOverview(facts: BoardFacts, query: URLSearchParams): Promise<Reply> {
  const given = Object.fromEntries(query);
  const parsed = overviewQuerySchema.safeParse(given);
  if (!parsed.success) return problemOf(parsed.error, given, overviewQuerySchema);
  const { step, seconds } = parsed.data;
  const [now, past] = await Promise.all([board(facts), facts.source.past(step, seconds)]);
  const overview: Overview = { ...now, past: past.map(sampleView) };
  return json(200, overview);
}

function sampleView({ firstToken, queue, ...sample }: Sample): SampleView {
  return {
    ...sample,
    firstTokenP50Ms: percentileMs(firstToken, 0.5),
    firstTokenP95Ms: percentileMs(firstToken, 0.95),
    queueP50Ms: percentileMs(queue, 0.5),
    queueP95Ms: percentileMs(queue, 0.95),
  };
}

/** Ids tell apart what is equal otherwise, so that pages do not overlap. */
function ascending([one, oneId]: SessionKey, [other, otherId]: SessionKey): number {
  if (one !== other) return one < other ? -1 : 1;
  return oneId < otherId ? -1 : oneId > otherId ? 1 : 0;
}
