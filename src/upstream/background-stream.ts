import type { ClientRequest } from 'node:http';
import { endingOf } from '../dialect/events.ts';
import { asObject, own } from '../dialect/json.ts';
import type { UpstreamFrame } from '../dialect/types.ts';
import { isStreamLost, lostFrame } from './sse-frames.ts';
import { SseRequest, type SseRequestOptions } from './sse-request.ts';

/** How far a background response is known. */
export interface StreamPosition {
  readonly responseId: string;
  /** `sequence_number` of the last event; undefined: none. */
  readonly after: number | undefined;
}

export interface BackgroundStreamOptions extends Omit<SseRequestOptions, 'request'> {
  /** The first request: the create itself, or the reading of a response that runs. */
  readonly request: ClientRequest;
  /** Known from the start when a response is read. */
  readonly position: StreamPosition | undefined;
  /** The stream of a response that runs, behind a position. */
  readonly reopen: (position: StreamPosition) => ClientRequest;
}

/** Without an event in between. Doubling waits make about eight seconds of it. */
const MAX_REOPENS = 6;
const FIRST_WAIT_MS = 125;

/**
 * The events of a background response, which goes on when its stream is lost: the stream is opened again behind the last
 * event, and nothing is told twice. Exactly one terminal frame comes out, unless aborted.
 */
export class BackgroundStream {
  readonly streamId: string | undefined;
  readonly #options: BackgroundStreamOptions;
  #request: SseRequest;
  #position: StreamPosition | undefined;
  /** There is no place behind events without a number: reading on would tell all of them again. */
  #unnumbered = false;
  #reopens = 0;
  #timer: NodeJS.Timeout | undefined;
  #paused = false;

  constructor(options: BackgroundStreamOptions) {
    this.streamId = options.streamId;
    this.#options = options;
    this.#position = options.position;
    this.#request = this.#read(options.request, options.onWritten, options.onEnd);
  }

  pause(): void {
    this.#paused = true;
    this.#request.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#request.resume();
  }

  /** The response goes on without anybody who reads it. */
  abort(): void {
    clearTimeout(this.#timer);
    this.#request.abort();
  }

  #read(request: ClientRequest, onWritten: () => void, onEnd: SseRequestOptions['onEnd']): SseRequest {
    let lost = false;
    return new SseRequest({
      ...this.#options,
      request,
      onWritten,
      onFrame: (frame) => {
        lost = this.#goesOnAfter(frame);
        if (!lost) this.#frame(frame);
      },
      onEnd: (notReached) => {
        if (lost) this.#reopenLater();
        else onEnd(notReached);
      },
    });
  }

  #frame(frame: UpstreamFrame): void {
    const json = frame.json();
    const sequence = own(json, 'sequence_number');
    const { after } = this.#position ?? {};
    // An upstream that does not know `starting_after` begins anew.
    const isRepeat =
      this.#reopens > 0 && typeof sequence === 'number' && after !== undefined && sequence <= after;
    if (isRepeat && endingOf(frame.type, undefined) === undefined) return;
    this.#unnumbered ||= typeof sequence !== 'number';
    const id = own(asObject(own(json, 'response')), 'id');
    const responseId = typeof id === 'string' && id !== '' ? id : this.#position?.responseId;
    if (responseId !== undefined)
      this.#position = { responseId, after: typeof sequence === 'number' ? sequence : after };
    this.#reopens = 0;
    this.#options.onFrame(frame);
  }

  #goesOnAfter(frame: UpstreamFrame): boolean {
    const isKnown = this.#position !== undefined && !this.#unnumbered;
    return isKnown && this.#reopens < MAX_REOPENS && isStreamLost(frame);
  }

  #reopenLater(): void {
    const position = this.#position;
    if (position === undefined) return this.#options.onFrame(lostFrame(this.streamId));
    this.#reopens += 1;
    this.#timer = setTimeout(
      () => {
        this.#request = this.#read(
          this.#options.reopen(position),
          () => {},
          // It was reached once, whatever became of it since.
          () => this.#options.onEnd(),
        );
        if (this.#paused) this.#request.pause();
      },
      FIRST_WAIT_MS * 2 ** (this.#reopens - 1),
    );
  }
}
