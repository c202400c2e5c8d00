import type { ServerResponse } from 'node:http';
import type { StreamReply } from './reply.ts';
import { problem, type Reply } from './reply.ts';

/** Pages and terminals that look on; each costs a write a second. */
const MAX_STREAMS = 64;
const SECOND_MS = 1_000;
/** Somebody who has not read for so long is not looking. */
const MAX_UNREAD_BYTES = 512 * 1024;

/**
 * One sample a second to everybody who looks on: it is made and put into words once, whatever their number, and not at
 * all while there is nobody.
 */
export class LiveBoard {
  readonly #streams = new Set<ServerResponse>();
  readonly #board: () => Promise<object>;
  #timer: NodeJS.Timeout | undefined;
  #asking = false;

  constructor(board: () => Promise<object>) {
    this.#board = board;
  }

  reply(): StreamReply | Reply {
    if (this.#streams.size >= MAX_STREAMS) {
      return {
        ...problem(503, `as many as ${MAX_STREAMS} look on already`),
        headers: { 'retry-after': '5' },
      };
    }
    return { status: 200, contentType: 'text/event-stream', open: (response) => this.#open(response) };
  }

  close(): void {
    clearInterval(this.#timer);
    for (const stream of this.#streams) stream.end();
    this.#streams.clear();
  }

  #open(response: ServerResponse): void {
    this.#streams.add(response);
    response.on('close', () => {
      this.#streams.delete(response);
      if (this.#streams.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    });
    response.write(`retry: ${SECOND_MS}\n\n`);
    this.#timer ??= setInterval(() => void this.#tell(), SECOND_MS);
    void this.#tell();
  }

  async #tell(): Promise<void> {
    // A process that takes longer than a second to answer must not be asked ever more often.
    if (this.#asking) return;
    this.#asking = true;
    try {
      const event = `event: board\ndata: ${JSON.stringify(await this.#board())}\n\n`;
      for (const stream of this.#streams) {
        if (stream.writableLength > MAX_UNREAD_BYTES) stream.destroy();
        else stream.write(event);
      }
    } catch {
      // A second without a board; the next one is asked for as ever.
    } finally {
      this.#asking = false;
    }
  }
}
