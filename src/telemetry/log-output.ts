/** Where lines of the log go. */
export interface LogTarget {
  write(lines: string): void;
}

/** What a stream has to have to be written to without waiting; `process.stderr` is one. */
export interface LogStream {
  readonly writableLength: number;
  write(lines: string): boolean;
  on(event: 'error' | 'drain', listener: () => void): unknown;
}

/** Of lines that nobody has taken yet. About 2,000 turns. */
const MAX_PENDING_BYTES = 1024 * 1024;

/**
 * Writes to a stream and never waits for whoever reads it: lines for which there is no room are dropped and counted.
 * `process.stderr` is set to not block where it is a pipe or a socket; a write by file descriptor would wait there, and
 * one from Node's thread pool would keep the process from ending.
 */
export class LogOutput implements LogTarget {
  /** Lines. */
  dropped = 0;
  /** Called when a reader that was too slow has caught up, with the lines it missed. */
  onCaughtUp: (missed: number) => void = () => {};
  readonly #stream: LogStream;
  readonly #maxPendingBytes: number;
  #missed = 0;

  constructor(stream: LogStream, maxPendingBytes = MAX_PENDING_BYTES) {
    this.#stream = stream;
    this.#maxPendingBytes = maxPendingBytes;
    // A reader that went away is no reason to end; what is written from then on is lost.
    stream.on('error', () => {});
    stream.on('drain', () => {
      const missed = this.#missed;
      this.#missed = 0;
      if (missed > 0) this.onCaughtUp(missed);
    });
  }

  write(lines: string): void {
    if (this.#stream.writableLength <= this.#maxPendingBytes) {
      this.#stream.write(lines);
      return;
    }
    const count = linesIn(lines);
    this.dropped += count;
    this.#missed += count;
  }
}

function linesIn(text: string): number {
  let count = 0;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) count += 1;
  return count;
}
