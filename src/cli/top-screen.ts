import { stripVTControlCharacters, styleText } from 'node:util';
import type {
  BoardView,
  Overview,
  SessionDetail,
  SessionPage,
  SessionRow,
  SessionSort,
  TurnView,
} from '../admin/api.ts';

export interface TopView {
  readonly board: BoardView & Partial<Pick<Overview, 'past'>>;
  readonly page: SessionPage | undefined;
  readonly open: { readonly detail: SessionDetail; readonly turns: readonly TurnView[] } | undefined;
  readonly sort: SessionSort;
  readonly ascending: boolean;
  readonly search: string;
  /** The search is being typed. */
  readonly typing: boolean;
  readonly at: number;
}

export interface ScreenSize {
  readonly columns: number;
  readonly rows: number;
  readonly colors: boolean;
  readonly problem?: string | undefined;
}

type Style = Parameters<typeof styleText>[0];

/** The lines of one screen, none wider than it. */
export function renderTop(view: TopView, { columns, rows, colors, problem }: ScreenSize): readonly string[] {
  const paint = (style: Style, text: string) =>
    colors ? styleText(style, text, { validateStream: false }) : text;
  const head = [...headLines(view, paint), ...upstreamLines(view.board, paint), ''];
  const room = Math.max(3, rows - head.length - 1);
  const body = view.open === undefined ? listLines(view, room, paint) : openLines(view.open, room, paint);
  const foot =
    problem !== undefined
      ? paint('red', problem)
      : view.typing
        ? `search: ${view.search}_`
        : paint('dim', '↑↓ choose  ⏎ open  s sort  r reverse  / search  esc back  q quit');
  return [...head, ...body.slice(0, room), foot].map((line) => cut(line, columns));
}

type Paint = (style: Style, text: string) => string;

function headLines({ board }: TopView, paint: Paint): string[] {
  const { replica, notReady, sample, past } = board;
  const workers = replica.workers > 1 ? ` · ${replica.workers} workers` : '';
  const state = notReady.length === 0 ? paint('green', 'ready') : paint('yellow', notReady.join('; '));
  const minute = past?.at(-1);
  const counts = minute?.counts;
  const ended =
    (counts?.completed ?? 0) +
    (counts?.incomplete ?? 0) +
    (counts?.failed ?? 0) +
    (counts?.cancelled ?? 0) +
    (counts?.deadlineExceeded ?? 0);
  const failed = (counts?.failed ?? 0) + (counts?.deadlineExceeded ?? 0);
  const failedText = `${failed} of ${ended}`;
  const gauges = sample?.gauges;
  const numbers: readonly (readonly [string, string])[] = [
    ['sessions', number(gauges?.sessions)],
    ['lanes', number(gauges?.lanes)],
    ['links', number(gauges?.links)],
    ['running', number(gauges?.turnsRunning)],
    ['failed', failed > 0 ? paint('red', failedText) : failedText],
    ['first token p50', time(minute?.firstTokenP50Ms)],
    ['p95', time(minute?.firstTokenP95Ms)],
    ['queue p95', time(minute?.queueP95Ms)],
    ['loop', `${Math.round((gauges?.eventLoopShare ?? 0) * 100)} %`],
    ['memory', size(gauges?.rssBytes ?? 0)],
  ];
  return [
    `${paint('bold', 'responses-gateway')} ${replica.version}  ${replica.host} pid ${replica.pid}${workers}  ${state}`,
    numbers.map(([name, value]) => `${paint('dim', name)} ${value}`).join('  '),
  ];
}

const CIRCUITS = { closed: ['green', 'ok'], halfOpen: ['yellow', 'trying'], open: ['red', 'open'] } as const;

function upstreamLines({ upstreams }: BoardView, paint: Paint): string[] {
  return upstreams.slice(0, 8).map(({ name, breaker, dials, failedDials, lastFailure, rttMs }) => {
    const [style, word] = CIRCUITS[breaker];
    const trouble =
      failedDials === 0 ? '' : paint('red', `  ${failedDials} failed (${lastFailure?.reason ?? 'unknown'})`);
    return `${paint('dim', 'upstream')} ${name} ${paint(style, word)}  ${dials} dials${trouble}  ${paint('dim', 'ping')} ${time(rttMs)}`;
  });
}

const COLUMNS: readonly (readonly [
  name: string,
  width: number,
  cell: (row: SessionRow, nowMs: number) => string,
])[] = [
  ['SESSION', 18, ({ id }) => id],
  ['STATE', 8, ({ state }) => state],
  ['TENANT', 12, ({ tenant }) => tenant],
  ['CLIENT', 16, ({ client }) => client ?? '-'],
  ['MODEL', 16, ({ model }) => model ?? '-'],
  ['TURNS', -6, ({ turnsTotal }) => String(turnsTotal)],
  ['RUN', -4, ({ turnsRunning }) => String(turnsRunning)],
  ['FAIL', -5, ({ failures }) => String(failures)],
  ['TOKENS', -8, ({ inputTokens, outputTokens }) => number(inputTokens + outputTokens)],
  ['SAVED', -8, ({ bytesSaved }) => size(bytesSaved)],
  ['ACTIVE', -8, ({ activeAtMs }, nowMs) => time(nowMs - activeAtMs)],
];

function listLines({ page, sort, ascending, search, at }: TopView, room: number, paint: Paint): string[] {
  if (page === undefined) return [];
  const title = COLUMNS.map(([name, width]) => pad(name, width)).join(' ');
  const about = `${page.total} sessions, by ${sort}${ascending ? ', ascending' : ''}${search === '' ? '' : `, with "${search}"`}${page.silentProcesses > 0 ? `; ${page.silentProcesses} workers are silent, theirs are missing` : ''}`;
  const shown = Math.max(1, room - 2);
  const first = Math.max(0, Math.min(at - shown + 1, page.sessions.length - shown));
  const nowMs = Date.now();
  const rows = page.sessions.slice(first, first + shown).map((row, index) => {
    const text = COLUMNS.map(([, width, cell]) => pad(plain(cell(row, nowMs)), width)).join(' ');
    if (first + index === at) return paint('inverse', text);
    return row.state === 'running' ? text : paint('dim', text);
  });
  return [paint('dim', about), paint('bold', title), ...rows];
}

function openLines({ detail, turns }: NonNullable<TopView['open']>, room: number, paint: Paint): string[] {
  const { session, links, marks } = detail;
  const labels = Object.entries(session.labels).map(([name, value]) => `${name}=${value}`);
  const head = [
    `${paint('bold', session.id)}  ${session.state}  ${plain([session.tenant, session.client ?? '-', ...labels].join('  '))}`,
    ...links.slice(-3).map((link) => {
      const end = link.downReason === undefined ? paint('green', 'open') : paint('red', link.downReason);
      return `${paint('dim', `link ${link.linkId}`)} ${link.upstream ?? '-'} for ${link.purpose}  ${end}`;
    }),
    ...marks.slice(-3).map((mark) => `${paint('dim', mark.kind)} ${mark.reason ?? ''}`),
    paint(
      'bold',
      `${pad('TURN', 24)} ${pad('LANE', 12)} ${pad('OUTCOME', 18)} ${pad('TOOLS', -9)} ${pad('QUEUE', -9)} ${pad('TOKEN', -9)} ${pad('TOTAL', -9)}  CALLS`,
    ),
  ];
  const rows = turns
    .toReversed()
    .slice(0, Math.max(1, room - head.length))
    .map((turn) => {
      const { acceptedAtMs, firstOutputAtMs, endedAtMs, failure } = turn;
      const outcome = failure?.reason ?? turn.outcome ?? turn.state;
      const text = [
        pad(plain(turn.turnId), 24),
        pad(plain(turn.laneId || '-'), 12),
        pad(outcome.toLowerCase(), 18),
        pad(time(turn.toolsMs), -9),
        pad(time(turn.queueMs), -9),
        pad(time(firstOutputAtMs && firstOutputAtMs - acceptedAtMs), -9),
        pad(time((endedAtMs ?? detail.nowMs) - acceptedAtMs), -9),
        ` ${plain(turn.tools.join(', '))}`,
      ].join(' ');
      return failure === undefined ? text : paint('red', text);
    });
  return [...head, ...rows];
}

/** Ids and names are the callers' words, and no terminal's commands. */
function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out.
  return stripVTControlCharacters(text).replaceAll(/[\x00-\x1f\x7f-\x9f]/g, '');
}

/** To the left, or with a negative width to the right. */
function pad(text: string, width: number): string {
  const size = Math.abs(width);
  const short = text.length > size ? `${text.slice(0, size - 1)}…` : text;
  return width < 0 ? short.padStart(size) : short.padEnd(size);
}

/** Without breaking a colour: what is too long is shown without any. */
function cut(line: string, columns: number): string {
  const text = stripVTControlCharacters(line);
  return text.length <= columns ? line : text.slice(0, columns);
}

function number(value: number | undefined): string {
  if (value === undefined) return '-';
  if (value < 10_000) return String(Math.round(value));
  return value < 1e6 ? `${(value / 1e3).toFixed(1)}k` : `${(value / 1e6).toFixed(1)}M`;
}

function size(bytes: number): string {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)}kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)}MB` : `${(bytes / 1e9).toFixed(1)}GB`;
}

function time(ms: number | undefined): string {
  if (ms === undefined) return '-';
  if (ms < 1_000) return `${Math.round(ms)}ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)}s`;
  return ms < 3_600_000 ? `${Math.floor(ms / 60_000)}m` : `${Math.floor(ms / 3_600_000)}h`;
}
