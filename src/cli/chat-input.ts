import { createInterface, type Interface } from 'node:readline';

/** What comes through a pipe without a pause as long as this belongs together. */
const PIPE_PAUSE_MS = 1_000;

const PASTE_BEGINS = '\x1b[200~';
const PASTE_ENDS = '\x1b[201~';
/** Asks a terminal to put these around what is pasted. */
const MARK_PASTES = '\x1b[?2004h';
const MARK_NO_PASTES = '\x1b[?2004l';

/**
 * What a person types, or a pipe brings, in the units that it is meant in: a command is a line; a text is a line, or all
 * lines that were pasted at once, or all of a pipe up to a command, a pause or its end.
 */
export class ChatInput {
  readonly #interactive: boolean;
  readonly #lines: Interface;
  readonly #ready: string[] = [];
  readonly #held: string[] = [];
  #wake = Promise.withResolvers<void>();
  #pasting = false;
  #ended = false;
  #pause: NodeJS.Timeout | undefined;

  constructor(interactive: boolean) {
    this.#interactive = interactive;
    this.#lines = createInterface({
      input: process.stdin,
      ...(interactive ? { output: process.stdout, terminal: true } : {}),
    });
    this.#lines.on('line', (line) => (interactive ? this.#typed(line) : this.#piped(line)));
    this.#lines.once('close', () => this.#close());
    if (!interactive) return;
    process.stdout.write(MARK_PASTES);
    process.stdin.on('keypress', (_text: string | undefined, key: { readonly name?: string } | undefined) => {
      if (key?.name === 'paste-start') this.#pasting = true;
      if (key?.name === 'paste-end') this.#pasting = false;
    });
  }

  onInterrupt(interrupted: () => void): void {
    this.#lines.on('SIGINT', () => {
      // What was pasted and not sent is given up.
      this.#held.length = 0;
      this.#pasting = false;
      interrupted();
    });
  }

  prompt(text: string): void {
    this.#lines.setPrompt(text);
    this.#lines.prompt();
  }

  close(): void {
    this.#lines.close();
  }

  /** One user's turns and commands, until the input ends. */
  async *entries(): AsyncGenerator<string> {
    for (;;) {
      const next = this.#ready.shift();
      if (next !== undefined) yield next;
      else if (this.#ended) return;
      else {
        await this.#wake.promise;
        this.#wake = Promise.withResolvers();
      }
    }
  }

  #typed(line: string): void {
    this.#held.push(line);
    if (!this.#pasting) this.#flush();
  }

  #piped(line: string): void {
    clearTimeout(this.#pause);
    const begins = line.lastIndexOf(PASTE_BEGINS);
    const ends = line.lastIndexOf(PASTE_ENDS);
    const text = line.replaceAll(PASTE_BEGINS, '').replaceAll(PASTE_ENDS, '');
    if (begins >= 0 && !this.#pasting) this.#flush();
    const isText = this.#pasting || begins >= 0 || !isCommand(text);
    if (begins >= 0 || ends >= 0) this.#pasting = begins > ends;
    if (!isText) {
      this.#flush();
      this.#add(text);
      return;
    }
    this.#held.push(text);
    if (ends >= 0 && !this.#pasting) this.#flush();
    else if (!this.#pasting) this.#pause = setTimeout(() => this.#flush(), PIPE_PAUSE_MS);
  }

  #flush(): void {
    clearTimeout(this.#pause);
    const text = this.#held.splice(0).join('\n').trim();
    // Who presses Enter on nothing is asked again.
    if (text !== '' || this.#interactive) this.#add(text);
  }

  #add(entry: string): void {
    this.#ready.push(entry);
    this.#wake.resolve();
  }

  #close(): void {
    if (this.#held.length > 0) this.#flush();
    if (this.#interactive) process.stdout.write(MARK_NO_PASTES);
    this.#ended = true;
    this.#wake.resolve();
  }
}

/** Paths at the start of lines are none. */
export function isCommand(text: string): boolean {
  return /^\s*\/[a-z]*(?:[ \t]|$)/i.test(text);
}
