import type { SessionDetail, SessionRow, TurnPage, TurnQuery } from '../admin/api.ts';
import type { ActResult, Board, SessionKey, SessionSource } from '../admin/source.ts';
import { addSamples, type Sample } from '../history/samples.ts';
import { addUpstreams } from '../history/upstream-board.ts';
import { addUsage } from '../history/usage-board.ts';
import type { LinkCount } from '../telemetry/types.ts';
import type { SourceQuestion } from './cluster-messages.ts';

type Method = keyof SessionSource;
type Answer<M extends Method> = Awaited<ReturnType<SessionSource[M]>>;

/** In the place of an answer: the process gave none in time. It may still do what it was asked for. */
export const NO_ANSWER: unique symbol = Symbol('no answer');

export function heard(answers: readonly unknown[]): readonly unknown[] {
  return answers.filter((answer) => answer !== NO_ANSWER && answer !== undefined);
}

/**
 * The sessions of several processes as one. A session runs in one of them; another where it ran before may remember it.
 * `askAll` has one answer for each process.
 */
export function mergedSessions(
  askAll: (question: SourceQuestion) => Promise<readonly unknown[]>,
): SessionSource {
  const question = <M extends Method>(method: M, args: Parameters<SessionSource[M]>) =>
    ({ what: 'sessions', method, args }) as SourceQuestion;
  const askWhole = async <M extends Method>(method: M, ...args: Parameters<SessionSource[M]>) => {
    const answers = await askAll(question(method, args));
    const silentProcesses = answers.filter((answer) => answer === NO_ANSWER).length;
    return {
      answers: heard(answers) as readonly Exclude<Answer<M>, 'noAnswer' | undefined>[],
      silentProcesses,
    };
  };
  const ask = async <M extends Method>(method: M, ...args: Parameters<SessionSource[M]>) =>
    (await askWhole(method, ...args)).answers;
  return {
    board: async () => {
      const { answers, silentProcesses } = await askWhole('board');
      return { ...addBoards(answers), silentProcesses };
    },
    past: async (stepS, seconds) => addPast(await ask('past', stepS, seconds)),
    keys: async (query) => {
      const { answers, silentProcesses } = await askWhole('keys', query);
      return { keys: once(answers.flatMap(({ keys }) => keys)), silentProcesses };
    },
    rows: async (ids) => inOrder(ids, (await ask('rows', ids)).flat()),
    session: async (id) => {
      const { answers, silentProcesses } = await askWhole('session', id);
      return known(answers) ?? (silentProcesses > 0 ? 'noAnswer' : undefined);
    },
    turns: async (id, query) => {
      const whole = { ...query, offset: 0, limit: query.offset + query.limit };
      const { answers, silentProcesses } = await askWhole('turns', id, whole);
      return addTurns(answers, query) ?? (silentProcesses > 0 ? 'noAnswer' : undefined);
    },
    cancelTurn: async (id, turnId) => bestResult(await askAll(question('cancelTurn', [id, turnId]))),
    drainSession: async (id) => bestResult(await askAll(question('drainSession', [id]))),
  };
}

/** What a process says to a question about its sessions. */
export function answerOf(source: SessionSource, { method, args }: SourceQuestion): Promise<unknown> {
  const call = source[method] as (...args: readonly unknown[]) => Promise<unknown>;
  return call(...args);
}

function addBoards(boards: readonly Board[]): Omit<Board, 'silentProcesses'> {
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
function known(found: readonly SessionDetail[]): SessionDetail | undefined {
  return found.find(({ session }) => session.state !== 'ended') ?? found[0];
}

/** Turns of all processes that the session was in. One that moved with it is remembered by both: its newer begin counts. */
function addTurns(found: readonly TurnPage[], { offset, limit }: TurnQuery): TurnPage | undefined {
  if (found.length === 0) return undefined;
  const turns = found
    .flatMap((page) => page.turns)
    .toSorted((one, other) => one.acceptedAtMs - other.acceptedAtMs);
  const byId = new Map(turns.map((turn) => [turn.turnId, turn]));
  const total = found.reduce((sum, page) => sum + page.total, 0) - (turns.length - byId.size);
  return { turns: [...byId.values()].slice(offset, offset + limit), total, offset, limit };
}

function once(keys: readonly SessionKey[]): readonly SessionKey[] {
  return [...new Map(keys.map((key) => [key[1], key])).values()];
}

function inOrder(ids: readonly string[], rows: readonly SessionRow[]): readonly SessionRow[] {
  const byId = new Map<string, SessionRow>();
  for (const row of rows) if (row.state !== 'ended' || !byId.has(row.id)) byId.set(row.id, row);
  return ids.flatMap((id) => byId.get(id) ?? []);
}

const WORTH = { unknownSession: 0, noAnswer: 1, unknownTurn: 2, done: 3 } as const satisfies Record<
  ActResult,
  number
>;

function bestResult(answers: readonly unknown[]): ActResult {
  return answers
    .map((answer) => (answer === NO_ANSWER ? 'noAnswer' : (answer as ActResult)))
    .reduce((best, result) => (WORTH[result] > WORTH[best] ? result : best), 'unknownSession');
}
