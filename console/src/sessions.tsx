import { useEffect, useRef, useState } from 'preact/hooks';
import type { SessionPage, SessionRow, SessionSort } from '../../src/admin/api.ts';
import { sessions } from './api.ts';
import { age, bytes, short } from './format.ts';

const ROW_PX = 40;
const PAGE = 100;
const REFRESH_MS = 2_000;
const SEARCH_DELAY_MS = 200;

interface Column {
  readonly name: string;
  readonly sort?: SessionSort;
  readonly class: string;
  readonly cell: (row: SessionRow, nowMs: number) => preact.ComponentChildren;
}

const COLUMNS: readonly Column[] = [
  {
    name: 'Session',
    class: 'id',
    cell: ({ id, state }) => (
      <>
        <i class={`dot ${state}`} aria-hidden="true" />
        <a href={`#/sessions/${encodeURIComponent(id)}`} tabIndex={-1}>
          {id}
        </a>
      </>
    ),
  },
  { name: 'State', class: 'state', cell: ({ state }) => state },
  { name: 'Tenant', sort: 'tenant', class: 'tenant', cell: ({ tenant }) => tenant },
  { name: 'Client', sort: 'client', class: 'client', cell: ({ client }) => client ?? '–' },
  {
    name: 'Labels',
    class: 'labels',
    cell: ({ labels }) =>
      Object.entries(labels).map(([name, value]) => (
        <span key={name} class="chip">
          {name}={value}
        </span>
      )),
  },
  { name: 'Model', class: 'model', cell: ({ model }) => model ?? '–' },
  {
    name: 'Turns',
    sort: 'turns',
    class: 'num turns',
    cell: ({ turnsTotal, turnsRunning }) => (
      <>
        {short(turnsTotal)}
        {turnsRunning > 0 && <small class="good">{turnsRunning} running</small>}
      </>
    ),
  },
  {
    name: 'Failed',
    sort: 'failures',
    class: 'num failures',
    cell: ({ failures }) => <span class={failures > 0 ? 'bad' : 'faint'}>{failures}</span>,
  },
  {
    name: 'Tokens',
    sort: 'tokens',
    class: 'num tokens',
    cell: ({ inputTokens, outputTokens }) => short(inputTokens + outputTokens),
  },
  { name: 'Saved', sort: 'saved', class: 'num saved', cell: ({ bytesSaved }) => bytes(bytesSaved) },
  {
    name: 'Active',
    sort: 'active',
    class: 'num active',
    cell: ({ activeAtMs }, nowMs) => age(nowMs - activeAtMs),
  },
  {
    name: 'Started',
    sort: 'started',
    class: 'num started',
    cell: ({ startedAtMs }, nowMs) => age(nowMs - startedAtMs),
  },
];

const STATES = ['live', 'running', 'idle', 'detached', 'ended', 'any'] as const;

/** All sessions in one list, of which only what is seen is fetched and drawn. */
export function Sessions() {
  const [search, setSearch] = useState('');
  const [state, setState] = useState<(typeof STATES)[number]>('live');
  const [sort, setSort] = useState<SessionSort>('started');
  const [order, setOrder] = useState<'asc' | 'desc'>('desc');
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const [at, setAt] = useState(0);
  const view = useRef<HTMLDivElement>(null);
  const first = Math.max(0, Math.floor(top / ROW_PX) - 5);
  const last = first + Math.ceil(height / ROW_PX) + 10;
  const { rows, total, problem } = usePages({ ...searchQuery(search), state, sort, order }, first, last);
  const nowMs = Date.now();

  useEffect(() => {
    const element = view.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => setHeight(element.clientHeight));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const go = (index: number) => {
    const next = Math.max(0, Math.min((total ?? 1) - 1, index));
    setAt(next);
    const element = view.current;
    if (element === null) return;
    if (next * ROW_PX < element.scrollTop) element.scrollTop = next * ROW_PX;
    const below = (next + 2) * ROW_PX - element.clientHeight;
    if (below > element.scrollTop) element.scrollTop = below;
  };
  const onKey = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(height / ROW_PX) - 2);
    const moves: Readonly<Record<string, number>> = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: (total ?? 1) - 1,
    };
    const to = moves[event.key];
    const row = rows.get(at);
    if (event.key === 'Enter' && row !== undefined)
      location.hash = `#/sessions/${encodeURIComponent(row.id)}`;
    else if (to !== undefined) go(to);
    else return;
    event.preventDefault();
  };
  const sortBy = (next: SessionSort) => {
    setOrder(next === sort && order === 'desc' ? 'asc' : 'desc');
    setSort(next);
  };
  return (
    <main id="main" class="sessions">
      <div class="pagehead">
        <h1>Sessions</h1>
        <span class="count" role="status" data-test="total">
          {total === undefined ? '' : `${total.toLocaleString('en-US')} found`}
        </span>
        <span class="spring" />
        <input
          id="search"
          type="search"
          aria-label="Search"
          placeholder="id, response id, word, or tenant:acme label:env=prod lane:main"
          value={search}
          onInput={({ currentTarget }) => {
            setSearch(currentTarget.value);
            go(0);
          }}
        />
        <div class="segmented" role="group" aria-label="State">
          {STATES.map((name) => (
            <button type="button" key={name} aria-pressed={name === state} onClick={() => setState(name)}>
              {name}
            </button>
          ))}
        </div>
      </div>
      {problem !== undefined && (
        <p role="alert" class="bad">
          {problem}
        </p>
      )}
      <div
        class="panel grid"
        ref={view}
        role="grid"
        aria-label="Sessions"
        aria-rowcount={(total ?? 0) + 1}
        aria-activedescendant={rows.has(at) ? `row-${at}` : undefined}
        tabIndex={0}
        onKeyDown={onKey}
        onScroll={({ currentTarget }) => setTop(currentTarget.scrollTop)}
      >
        <div class="row head" role="row" aria-rowindex={1}>
          {COLUMNS.map(({ name, sort: key, class: style }) => (
            <span
              key={name}
              role="columnheader"
              class={style}
              aria-sort={key === sort ? (order === 'asc' ? 'ascending' : 'descending') : undefined}
            >
              {key === undefined ? (
                name
              ) : (
                <button type="button" onClick={() => sortBy(key)}>
                  {name}
                  {key === sort && <b aria-hidden="true">{order === 'asc' ? ' ↑' : ' ↓'}</b>}
                </button>
              )}
            </span>
          ))}
        </div>
        <div class="rows" role="rowgroup" style={{ height: `${(total ?? 0) * ROW_PX}px` }}>
          {indexes(first, Math.min(last, total ?? 0)).map((index) => {
            const row = rows.get(index);
            return (
              <div
                key={index}
                id={`row-${index}`}
                class={index === at ? 'row at' : 'row'}
                role="row"
                aria-rowindex={index + 2}
                style={{ top: `${index * ROW_PX}px` }}
                onClick={() => {
                  if (row !== undefined) location.hash = `#/sessions/${encodeURIComponent(row.id)}`;
                }}
              >
                {COLUMNS.map(({ name, class: style, cell }) => (
                  <span key={name} role="gridcell" class={style}>
                    {row === undefined ? '' : cell(row, nowMs)}
                  </span>
                ))}
              </div>
            );
          })}
        </div>
        {total === 0 && <p class="empty">No session matches.</p>}
      </div>
    </main>
  );
}

const FIELDS = /(?:^|\s)(tenant|client|label|lane|response|turn|model):(\S+)/g;

/** `tenant:acme word` asks for a tenant, and for the word anywhere. */
function searchQuery(text: string): Record<string, string> {
  const query: Record<string, string> = {};
  const rest = text.replaceAll(FIELDS, (_, name: string, value: string) => {
    query[name] = value;
    return ' ';
  });
  if (rest.trim() !== '') query['q'] = rest.trim();
  return query;
}

/** The rows between two indexes, page by page, and again every two seconds. */
function usePages(query: Readonly<Record<string, string>>, first: number, last: number) {
  const [pages, setPages] = useState<ReadonlyMap<number, SessionPage>>(new Map());
  const [total, setTotal] = useState<number | undefined>();
  const [problem, setProblem] = useState<string | undefined>();
  const key = JSON.stringify(query);
  const from = Math.floor(first / PAGE);
  const to = Math.floor(last / PAGE);
  const asked = useRef(key);
  useEffect(() => {
    const abort = new AbortController();
    const isNew = asked.current !== key;
    asked.current = key;
    const load = async () => {
      const wanted = indexes(from, to + 1);
      try {
        const loaded = await Promise.all(
          wanted.map((page) =>
            sessions({ ...query, offset: String(page * PAGE), limit: String(PAGE) }, abort.signal),
          ),
        );
        setProblem(undefined);
        setTotal(loaded[0]?.total);
        // Those of other places would be stale when one comes back to them.
        setPages(new Map(loaded.map((page) => [page.offset / PAGE, page])));
      } catch (error) {
        if (!abort.signal.aborted) setProblem(error instanceof Error ? error.message : String(error));
      }
    };
    const start = setTimeout(load, isNew ? SEARCH_DELAY_MS : 0);
    const timer = setInterval(() => {
      if (!document.hidden) void load();
    }, REFRESH_MS);
    return () => {
      abort.abort();
      clearTimeout(start);
      clearInterval(timer);
    };
  }, [key, from, to]);
  const rows = new Map<number, SessionRow>();
  for (const { sessions: list, offset } of pages.values())
    list.forEach((row, index) => {
      rows.set(offset + index, row);
    });
  return { rows, total, problem };
}

function indexes(first: number, end: number): number[] {
  return Array.from({ length: Math.max(0, end - first) }, (_, index) => first + index);
}
