import type { SessionRow } from '../admin/api.ts';
import type { ActResult, Board, SessionKey, SessionSource } from '../admin/source.ts';
import { addSamples, type Sample } from '../history/samples.ts';
import { addUpstreams } from '../history/upstream-board.ts';
import { addUsage } from '../history/usage-board.ts';
import type { LinkCount } from '../telemetry/types.ts';
import type { SourceQuestion } from './cluster-messages.ts';

type Method = keyof SessionSource;
type Answer<M extends Method> = Awaited<ReturnType<SessionSource[M]>>;

/** The sessions of several processes as one. A session is in one of them; the others do not know it. */
export function mergedSessions(
  askAll: (question: SourceQuestion) => Promise<readonly unknown[]>,
): SessionSource {
  const ask = <M extends Method>(method: M, ...args: Parameters<SessionSource[M]>) =>
    askAll({ what: 'sessions', method, args } as SourceQuestion) as Promise<readonly Answer<M>[]>;
  return {
    board: async () => addBoards(await ask('board')),
    past: async (stepS, seconds) => addPast(await ask('past', stepS, seconds)),
    keys: async (query) => once((await ask('keys', query)).flat()),
    rows: async (ids) => inOrder(ids, (await ask('rows', ids)).flat()),
    session: async (id) => known(await ask('session', id)),
    turns: async (id, query) => known(await ask('turns', id, query)),
    cancelTurn: async (id, turnId) => bestResult(await ask('cancelTurn', id, turnId)),
    drainSession: async (id) => bestResult(await ask('drainSession', id)),
  };
}

/** What a process says to a question about its sessions. */
export function answerOf(source: SessionSource, { method, args }: SourceQuestion): Promise<unknown> {
  const call = source[method] as (...args: readonly unknown[]) => Promise<unknown>;
  return call(...args);
}

function addBoards(boards: readonly Board[]): Board {
  return {
    sample: addSamples(boards.flatMap(({ sample }) => sample ?? [])),
    links: addLinks(boards.map(({ links }) => links)),
    usage: addUsage(boards.map(({ usage }) => usage)),
    upstreams: addUpstreams(boards.map(({ upstreams }) => upstreams)),
  };
}

function addLinks(all: readonly (readonly LinkCount[])[]): readonly LinkCount[] {
  const sums = new Map<string, LinkCount>();
  for (const count of all.flat()) {
    const key = `${count.state} ${count.age}`;
    sums.set(key, { ...count, links: count.links + (sums.get(key)?.links ?? 0) });
  }
  return [...sums.values()];
}

function addPast(all: readonly (readonly Sample[])[]): readonly Sample[] {
  const byTime = new Map<number, Sample[]>();
  for (const sample of all.flat()) {
    const together = byTime.get(sample.atS) ?? [];
    together.push(sample);
    byTime.set(sample.atS, together);
  }
  return [...byTime.keys()]
    .sort((one, other) => one - other)
    .flatMap((at) => addSamples(byTime.get(at) ?? []) ?? []);
}

/** A session that moved from one process to another is remembered by both: the one where it lives comes first. */
function known<T extends object>(answers: readonly (T | undefined | null)[]): T | undefined {
  const found = answers.filter((answer) => answer !== undefined && answer !== null);
  return found.find((answer) => !hasEnded(answer)) ?? found[0];
}

function hasEnded(answer: object): boolean {
  return 'session' in answer && (answer.session as { readonly state?: string }).state === 'ended';
}

function once(keys: readonly SessionKey[]): readonly SessionKey[] {
  return [...new Map(keys.map((key) => [key[1], key])).values()];
}

function inOrder(ids: readonly string[], rows: readonly SessionRow[]): readonly SessionRow[] {
  const byId = new Map<string, SessionRow>();
  for (const row of rows) if (row.state !== 'ended' || !byId.has(row.id)) byId.set(row.id, row);
  return ids.flatMap((id) => byId.get(id) ?? []);
}

const WORTH = { unknownSession: 0, unknownTurn: 1, done: 2 } as const satisfies Record<ActResult, number>;

function bestResult(results: readonly ActResult[]): ActResult {
  return results.reduce((best, result) => (WORTH[result] > WORTH[best] ? result : best), 'unknownSession');
}
