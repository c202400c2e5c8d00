import { useEffect, useState } from 'preact/hooks';
import { type Refused, setToken } from './api.ts';
import { ConfirmDialog, type Question } from './confirm.tsx';
import { useBoard } from './live.ts';
import { OperateMenu } from './operate.tsx';
import { Overview } from './overview.tsx';
import { SessionPage } from './session.tsx';
import { Sessions } from './sessions.tsx';

type Place =
  | { readonly at: 'overview' }
  | { readonly at: 'sessions' }
  | { readonly at: 'session'; readonly id: string };

const CONNECTION_TEXT = {
  connecting: 'connecting',
  live: 'live',
  lost: 'no answer, trying again',
  refused: 'refused',
} as const;

export function App() {
  const place = usePlace();
  const { theme, next: nextTheme, choice } = useTheme();
  const [attempt, setAttempt] = useState(0);
  const [question, setQuestion] = useState<Question | undefined>();
  const { board, connection, refusal } = useBoard(attempt);
  useKeys();
  const replica = board?.replica;
  const tab = (to: string, name: string, current: boolean) => (
    <a href={to} aria-current={current ? 'page' : undefined}>
      {name}
    </a>
  );
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => skip(event)}>
        Skip to content
      </a>
      <header class="top">
        <a class="brand" href="#/">
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d="M4 7h9a4 4 0 0 1 0 8H8" />
            <path d="M8 19l-4-4 4-4" />
            <circle cx="19" cy="7" r="2" />
          </svg>
          <span>responses-gateway</span>
        </a>
        <nav aria-label="Pages">
          {tab('#/', 'Overview', place.at === 'overview')}
          {tab('#/sessions', 'Sessions', place.at !== 'overview')}
        </nav>
        <span class="spring" />
        {replica !== undefined && (
          <span class="replica" title={`version ${replica.version}`}>
            <b>{replica.host}</b> pid {replica.pid}
            {replica.workers > 1 && ` · ${replica.workers} workers`}
          </span>
        )}
        {(board?.silentProcesses ?? 0) > 0 && (
          <span class="pill warn" role="status" data-test="silent">
            {board?.silentProcesses} of {replica?.workers} workers silent: their numbers are missing
          </span>
        )}
        {(board?.notReady.length ?? 0) > 0 && <span class="pill warn">{board?.notReady.join(', ')}</span>}
        <span class={`connection ${connection}`} role="status">
          {CONNECTION_TEXT[connection]}
        </span>
        <OperateMenu level={replica?.logLevel} onAsk={setQuestion} />
        <button type="button" class="quiet" onClick={nextTheme} aria-label={`Colours: ${choice}. Change`}>
          {choice === 'auto' ? '◐' : choice === 'dark' ? '●' : '○'}
        </button>
      </header>
      {connection === 'refused' && refusal !== undefined ? (
        <TokenForm refusal={refusal} onToken={() => setAttempt(attempt + 1)} />
      ) : place.at === 'overview' ? (
        <Overview board={board} connection={connection} theme={theme} />
      ) : place.at === 'sessions' ? (
        <Sessions />
      ) : (
        <SessionPage key={place.id} id={place.id} onAsk={setQuestion} />
      )}
      {question !== undefined && <ConfirmDialog question={question} onClose={() => setQuestion(undefined)} />}
    </>
  );
}

interface TokenFormProps {
  readonly refusal: Refused;
  readonly onToken: () => void;
}

function TokenForm({ refusal, onToken }: TokenFormProps) {
  const [token, edit] = useState('');
  return (
    <main id="main" class="token">
      <form
        class="panel"
        onSubmit={(event) => {
          event.preventDefault();
          setToken(token.trim());
          onToken();
        }}
      >
        <h1>{refusal.status === 401 ? 'Admin token' : 'Not from here'}</h1>
        <p role="alert">{refusal.message}.</p>
        {refusal.status === 401 && (
          <>
            <label for="token">What the file of admin.token_file holds. It is kept for this tab only.</label>
            <input
              id="token"
              type="password"
              autocomplete="off"
              value={token}
              onInput={({ currentTarget }) => edit(currentTarget.value)}
            />
            <button type="submit" class="primary" disabled={token.trim() === ''}>
              Open
            </button>
          </>
        )}
      </form>
    </main>
  );
}

function usePlace(): Place {
  const [place, setPlace] = useState(read);
  useEffect(() => {
    const changed = () => setPlace(read());
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return place;
}

function read(): Place {
  const path = location.hash.replace(/^#/, '').split('?')[0] ?? '';
  const [, id] = /^\/sessions\/(.+)$/.exec(path) ?? [];
  if (id !== undefined) return { at: 'session', id: decoded(id) };
  return path.startsWith('/sessions') ? { at: 'sessions' } : { at: 'overview' };
}

/** Addresses are typed by hand too. */
function decoded(id: string): string {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

const CHOICES = ['auto', 'dark', 'light'] as const;
const CHOICE = 'responses-gateway-colours';

/** As the system has it, until somebody says otherwise. */
function useTheme() {
  const stored = CHOICES.find((one) => one === localStorage.getItem(CHOICE)) ?? 'auto';
  const [choice, setChoice] = useState<(typeof CHOICES)[number]>(stored);
  const [systemDark, setSystemDark] = useState(matchMedia('(prefers-color-scheme: dark)').matches);
  useEffect(() => {
    const query = matchMedia('(prefers-color-scheme: dark)');
    const changed = () => setSystemDark(query.matches);
    query.addEventListener('change', changed);
    return () => query.removeEventListener('change', changed);
  }, []);
  const theme = choice === 'auto' ? (systemDark ? 'dark' : 'light') : choice;
  document.documentElement.dataset.theme = theme;
  const next = () => {
    const after = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length] ?? 'auto';
    localStorage.setItem(CHOICE, after);
    setChoice(after);
  };
  return { theme, choice, next };
}

/** `/` searches, `1` and `2` change the page; not while somebody types. */
function useKeys(): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target instanceof HTMLElement && event.target.closest('input, select, textarea, dialog'))
        return;
      if (event.key === '1') location.hash = '#/';
      else if (event.key === '2') location.hash = '#/sessions';
      else if (event.key === '/') {
        location.hash = '#/sessions';
        focusSearch(60);
        event.preventDefault();
      }
    };
    addEventListener('keydown', pressed);
    return () => removeEventListener('keydown', pressed);
  }, []);
}

/** As soon as its page is there. */
function focusSearch(frames: number): void {
  const search = document.getElementById('search');
  if (search !== null) search.focus();
  else if (frames > 0) requestAnimationFrame(() => focusSearch(frames - 1));
}

/** The address holds the page, so a real anchor would leave it. */
function skip(event: Event): void {
  event.preventDefault();
  const main = document.getElementById('main');
  main?.setAttribute('tabindex', '-1');
  main?.focus();
}
