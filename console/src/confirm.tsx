import { useEffect, useRef, useState } from 'preact/hooks';
import { post } from './api.ts';

/** Something to be done, which is asked about first. */
export interface Question {
  readonly title: string;
  readonly text: string;
  readonly button: string;
  readonly danger: boolean;
  readonly path: string;
  readonly body: Readonly<Record<string, string>>;
  /** What has to be typed; undefined: the button is enough. */
  readonly typed?: string;
}

interface ConfirmProps {
  readonly question: Question;
  readonly onClose: () => void;
}

export function ConfirmDialog({ question, onClose }: ConfirmProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [typed, setTyped] = useState('');
  const [problem, setProblem] = useState<string | undefined>();
  const [busy, setBusy] = useState(false);
  useEffect(() => dialog.current?.showModal(), []);
  const act = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await post(question.path, question.body);
      onClose();
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
      setBusy(false);
    }
  };
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="question">
      <form onSubmit={(event) => void act(event)}>
        <h2 id="question">{question.title}</h2>
        <p>{question.text}</p>
        {question.typed !== undefined && (
          <label>
            Type <code>{question.typed}</code> to confirm
            <input
              value={typed}
              autocomplete="off"
              onInput={({ currentTarget }) => setTyped(currentTarget.value)}
            />
          </label>
        )}
        {problem !== undefined && (
          <p role="alert" class="bad">
            {problem}
          </p>
        )}
        <footer>
          <button type="button" onClick={() => dialog.current?.close()}>
            Keep as it is
          </button>
          <button
            type="submit"
            class={question.danger ? 'danger' : 'primary'}
            disabled={busy || (question.typed !== undefined && typed !== question.typed)}
          >
            {question.button}
          </button>
        </footer>
      </form>
    </dialog>
  );
}
