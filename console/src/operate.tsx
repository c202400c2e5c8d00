import { useRef } from 'preact/hooks';
import type { Question } from './confirm.tsx';

interface OperateProps {
  readonly level: string | undefined;
  readonly onAsk: (question: Question) => void;
}

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

/** What can be done to the whole process. */
export function OperateMenu({ level, onAsk }: OperateProps) {
  const menu = useRef<HTMLDetailsElement>(null);
  const ask = (question: Question) => {
    if (menu.current !== null) menu.current.open = false;
    onAsk(question);
  };
  return (
    <details class="menu" ref={menu}>
      <summary>Operate</summary>
      <div class="panel">
        <label for="level">Log level</label>
        <select
          id="level"
          value={level ?? 'info'}
          onChange={({ currentTarget }) => {
            const next = currentTarget.value;
            currentTarget.value = level ?? 'info';
            ask({
              title: `Log level ${next}`,
              text: `The level is ${level ?? 'unknown'}. It changes until the next start.`,
              button: 'Change the level',
              danger: false,
              path: '/loglevel',
              body: { level: next, confirm: next },
            });
          }}
        >
          {LEVELS.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
        <button
          type="button"
          class="danger"
          onClick={() =>
            ask({
              title: 'Drain this gateway',
              text: 'It takes no new sessions, lets running turns finish within drain.timeout, and ends.',
              button: 'Drain the gateway',
              danger: true,
              path: '/drain',
              body: { confirm: 'drain' },
              typed: 'drain',
            })
          }
        >
          Drain this gateway…
        </button>
      </div>
    </details>
  );
}
