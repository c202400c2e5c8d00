import { emitKeypressEvents, type Key } from 'node:readline';
import type { BoardView, SessionDetail, SessionPage, SessionSort, TurnPage } from '../admin/api.ts';
import { EXIT } from '../app/exit-codes.ts';
import { type AdminClient, adminClient } from './admin-client.ts';
import type { ConfigFlags } from './flags.ts';
import { renderTop, type TopView } from './top-screen.ts';

const REFRESH_MS = 1_000;
const SORTS: readonly SessionSort[] = [
  'active',
  'started',
  'running',
  'turns',
  'failures',
  'tokens',
  'saved',
];
const MAX_ROWS = 200;

const ALTERNATE_SCREEN = '\x1b[?1049h\x1b[?25l';
const NORMAL_SCREEN = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR_TO_END = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';

/**
 * The overview and the sessions of a running gateway, in a terminal; once and as plain text where there is none, or with
 * `once`. 0 when the gateway answered.
 */
export async function topCommand(
  flags: ConfigFlags,
  environment: NodeJS.ProcessEnv,
  once: boolean,
): Promise<number> {
  const client = adminClient(flags, environment);
  const isTerminal = process.stdout.isTTY === true && process.stdin.isTTY === true;
  try {
    if (once || !isTerminal) {
      const view = await fetchView(client, START);
      process.stdout.write(`${renderTop(view, { columns: 120, rows: 60, colors: false }).join('\n')}\n`);
      return EXIT.ok;
    }
    return await new Screen(client).run();
  } catch (error) {
    process.stderr.write(
      `no answer from http://${client.address}: ${(error as Error).message}\nhelp: --admin-listen or --config name the gateway\n`,
    );
    return EXIT.failure;
  }
}

type State = Pick<TopView, 'sort' | 'ascending' | 'search' | 'at' | 'typing'> & {
  /** The session that is looked at; undefined: the list. */
  readonly openId: string | undefined;
};

const START: State = {
  sort: 'active',
  ascending: false,
  search: '',
  typing: false,
  at: 0,
  openId: undefined,
};

async function fetchView(client: AdminClient, state: State): Promise<TopView> {
  const { openId, ...shown } = state;
  const asked = client.get<BoardView>('/overview?seconds=60&step=60');
  const query = new URLSearchParams({
    sort: state.sort,
    order: state.ascending ? 'asc' : 'desc',
    limit: String(MAX_ROWS),
    ...(state.search === '' ? {} : { q: state.search }),
  });
  if (openId === undefined) {
    const [board, page] = await Promise.all([asked, client.get<SessionPage>(`/sessions?${query}`)]);
    return { ...shown, board, page, open: undefined };
  }
  const path = `/sessions/${encodeURIComponent(openId)}`;
  const [board, detail, turns] = await Promise.all([
    asked,
    client.get<SessionDetail>(path),
    client.get<TurnPage>(`${path}/turns?limit=1000`),
  ]);
  return { ...shown, board, page: undefined, open: { detail, turns: turns.turns } };
}

class Screen {
  readonly #client: AdminClient;
  #state: State = START;
  #view: TopView | undefined;
  #problem: string | undefined;
  #end: () => void = () => {};

  constructor(client: AdminClient) {
    this.#client = client;
  }

  async run(): Promise<number> {
    // Whether there is anybody is told before the screen changes.
    this.#view = await fetchView(this.#client, this.#state);
    const { stdin, stdout } = process;
    const ended = new Promise<void>((resolve) => {
      this.#end = resolve;
    });
    emitKeypressEvents(stdin);
    stdin.setRawMode(true);
    stdin.resume();
    stdout.write(ALTERNATE_SCREEN);
    const onKey = (text: string | undefined, key: Key) => this.#key(text ?? '', key);
    const onResize = () => this.#draw();
    stdin.on('keypress', onKey);
    stdout.on('resize', onResize);
    const timer = setInterval(() => void this.#refresh(), REFRESH_MS);
    this.#draw();
    try {
      await ended;
    } finally {
      clearInterval(timer);
      stdin.off('keypress', onKey);
      stdout.off('resize', onResize);
      stdin.setRawMode(false);
      stdin.pause();
      stdout.write(NORMAL_SCREEN);
    }
    return EXIT.ok;
  }

  async #refresh(): Promise<void> {
    const asked = this.#state;
    try {
      const view = await fetchView(this.#client, asked);
      this.#problem = undefined;
      // What was asked for before the last key is not what is wanted now.
      if (asked.openId === this.#state.openId) this.#view = { ...view, ...this.#shown() };
    } catch (error) {
      this.#problem = (error as Error).message;
    }
    this.#draw();
  }

  #shown(): Omit<State, 'openId'> {
    const { openId, ...shown } = this.#state;
    return shown;
  }

  #set(change: Partial<State>, refetch = true): void {
    this.#state = { ...this.#state, ...change };
    if (this.#view !== undefined) this.#view = { ...this.#view, ...this.#shown() };
    this.#draw();
    if (refetch) void this.#refresh();
  }

  #key(text: string, { name, ctrl }: Key): void {
    if (ctrl === true && name === 'c') return this.#end();
    if (this.#state.typing) return this.#type(text, name);
    const rows = this.#view?.page?.sessions ?? [];
    const { at, sort, ascending } = this.#state;
    switch (name) {
      case 'q':
        return this.#end();
      case 'escape':
      case 'left':
        return this.#set({ openId: undefined });
      case 'up':
        return this.#set({ at: Math.max(0, at - 1) }, false);
      case 'down':
        return this.#set({ at: Math.min(Math.max(0, rows.length - 1), at + 1) }, false);
      case 'return':
      case 'right': {
        const id = rows[at]?.id;
        return id === undefined ? undefined : this.#set({ openId: id });
      }
      case 's':
        return this.#set({ sort: SORTS[(SORTS.indexOf(sort) + 1) % SORTS.length] ?? 'active', at: 0 });
      case 'r':
        return this.#set({ ascending: !ascending, at: 0 });
    }
    if (text === '/') this.#set({ typing: true, openId: undefined }, false);
  }

  #type(text: string, name: string | undefined): void {
    const { search } = this.#state;
    if (name === 'return') return this.#set({ typing: false });
    if (name === 'escape') return this.#set({ typing: false, search: '', at: 0 });
    if (name === 'backspace') return this.#set({ search: search.slice(0, -1), at: 0 });
    if (/^[\x20-\x7e]$/.test(text)) this.#set({ search: search + text, at: 0 });
  }

  #draw(): void {
    if (this.#view === undefined) return;
    const { columns = 80, rows = 24 } = process.stdout;
    const colors = process.env['NO_COLOR'] === undefined;
    const lines = renderTop(this.#view, { columns, rows, colors, problem: this.#problem });
    process.stdout.write(
      `${HOME}${lines.map((line) => `${line}${CLEAR_TO_END}`).join('\r\n')}${CLEAR_BELOW}`,
    );
  }
}
