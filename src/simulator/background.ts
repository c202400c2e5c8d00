import type { Run } from './turn.ts';

/** Streams of so many background responses can be read again; the oldest goes first. */
const MAX_RESPONSES = 200;

interface LoggedEvent {
  readonly sequence: number;
  readonly type: string;
  readonly json: string;
}

/** The events of one background response, for whoever reads them when. */
export class BackgroundLog {
  readonly run: Run;
  /** Ends the run where it is. */
  readonly cancel: () => void;
  readonly #events: LoggedEvent[] = [];
  readonly #readers = new Set<() => void>();
  #isOver = false;

  constructor(run: Run, cancel: () => void) {
    this.run = run;
    this.cancel = cancel;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  add(type: string, json: string): void {
    this.#events.push({ sequence: this.run.sequence - 1, type, json });
    this.#wake();
  }

  end(): void {
    this.#isOver = true;
    this.#wake();
  }

  /** Events after a sequence number, as they come; ends with the response or when the reader has left. */
  async *read(after: number, gone: AbortSignal): AsyncGenerator<LoggedEvent> {
    for (let at = 0; ; ) {
      const event = this.#events[at];
      if (event !== undefined) {
        at += 1;
        if (event.sequence > after) yield event;
      } else if (this.#isOver || gone.aborted) return;
      else await this.#next(gone);
    }
  }

  #next(gone: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      this.#readers.add(resolve);
      gone.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  #wake(): void {
    for (const wake of this.#readers) wake();
    this.#readers.clear();
  }
}

/** Background responses by id. */
export class BackgroundLogs {
  readonly #logs = new Map<string, BackgroundLog>();

  add(log: BackgroundLog): void {
    this.#logs.set(log.run.id, log);
    const [oldest] = this.#logs.keys();
    if (this.#logs.size > MAX_RESPONSES && oldest !== undefined) this.#logs.delete(oldest);
  }

  get(id: string): BackgroundLog | undefined {
    return this.#logs.get(id);
  }

  delete(id: string): void {
    this.#logs.delete(id);
  }

  clear(): void {
    this.#logs.clear();
  }
}
