import type { ClientRequest, IncomingMessage } from 'node:http';
import { createParser } from 'eventsource-parser';
import { readErrorWords } from '../dialect/error-body.ts';
import { endingOf, isWarning } from '../dialect/events.ts';
import { asObject, parseObject } from '../dialect/json.ts';
import { notReached } from '../dialect/link-down.ts';
import type { UpstreamFrame } from '../dialect/types.ts';
import type { GatewayError } from '../errors.ts';
import { frameFromBytes } from '../translate/peek.ts';
import { readAnswer } from './http-answer.ts';
import { onConnected } from './http-post.ts';
import type { Redactor } from './redact.ts';
import {
  answerFrame,
  isUntypedError,
  laneFrame,
  lostFrame,
  notReachedFrame,
  protocolFrame,
  untypedErrorFrame,
} from './sse-frames.ts';

export interface SseRequestOptions {
  readonly request: ClientRequest;
  readonly streamId: string | undefined;
  readonly secure: boolean;
  readonly maxInboundBytes: number;
  /** What the upstream says goes through it. */
  readonly redactor: Redactor;
  readonly onFrame: (frame: UpstreamFrame) => void;
  /** The body is written, or will never be. Once. */
  readonly onWritten: () => void;
  /** The last frame was reported. Once, and not after `abort`. With the error of a connection that was never made. */
  readonly onEnd: (notReached?: GatewayError) => void;
}

const MAX_WORDS = 200;

/** What a server that speaks no JSON says; a page is no sentence. */
function firstLine(body: string): string {
  const [line = ''] = body.trim().split('\n', 1);
  return line.startsWith('<') ? '' : line.slice(0, MAX_WORDS);
}

/** Whether a response over HTTP says no more after this frame. */
function endsResponse(frame: UpstreamFrame): boolean {
  if (frame.type !== 'error') return endingOf(frame.type, undefined) !== undefined;
  return !isWarning(readErrorWords(frame.json()).code);
}

/** What follows a terminal (`[DONE]`, the last chunk) is read so that the connection can serve again. */
const DRAIN_TIMEOUT_MS = 2_000;

/** One response over HTTP: a POST and its event stream. Exactly one terminal frame comes out, unless aborted. */
export class SseRequest {
  readonly streamId: string | undefined;
  readonly #options: SseRequestOptions;
  #response: IncomingMessage | undefined;
  #state: 'running' | 'ended' = 'running';
  #written = false;
  #connected = false;
  #paused = false;

  constructor(options: SseRequestOptions) {
    this.streamId = options.streamId;
    this.#options = options;
    const { request, secure } = options;
    onConnected(request, secure, () => {
      this.#connected = true;
    });
    request.once('finish', () => this.#bodyWritten());
    request.once('close', () => this.#bodyWritten());
    request.on('response', (response) => this.#answered(response));
    request.on('error', (error) => this.#lost(error));
  }

  pause(): void {
    this.#paused = true;
    this.#response?.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#response?.resume();
  }

  abort(): void {
    this.#state = 'ended';
    this.#options.request.destroy();
  }

  #answered(response: IncomingMessage): void {
    const status = response.statusCode ?? 0;
    if (status !== 200) {
      readAnswer(response, this.#options.redactor, (answer) =>
        this.#finish(answerFrame(answer, this.streamId)),
      );
      return;
    }
    this.#response = response;
    response.on('error', () => this.#lost());
    if (!(response.headers['content-type'] ?? '').startsWith('text/event-stream')) {
      readAnswer(response, this.#options.redactor, (answer) => this.#finish(this.#instead(answer.body)));
      return;
    }
    this.#read(response);
  }

  /** Success without events: some servers and relays say their errors so. */
  #instead(body: string): UpstreamFrame {
    const json = parseObject(body);
    if (json !== undefined && isUntypedError(json)) return untypedErrorFrame(json, this.streamId);
    // A whole response would be content; anything else in an object is no sentence.
    const said = json === undefined ? firstLine(body) : (readErrorWords(json).message ?? '');
    return protocolFrame(this.streamId, said);
  }

  #read(response: IncomingMessage): void {
    const decoder = new TextDecoder('utf-8');
    const parser = createParser({
      maxBufferSize: this.#options.maxInboundBytes,
      onEvent: ({ data }) => this.#event(data),
      onError: ({ type }) => {
        if (type === 'max-buffer-size-exceeded') this.#broken();
      },
    });
    response.on('data', (chunk: Buffer) => {
      if (this.#state === 'running') parser.feed(decoder.decode(chunk, { stream: true }));
    });
    response.once('end', () => this.#lost());
    response.once('close', () => this.#lost());
    if (this.#paused) response.pause();
  }

  #event(data: string): void {
    // Some servers keep the connection busy with events that have no data.
    if (this.#state !== 'running' || data === '' || data === '[DONE]') return;
    let frame: UpstreamFrame;
    try {
      frame = this.#options.redactor.frame(frameFromBytes(Buffer.from(data, 'utf8')));
    } catch {
      return this.#untyped(data);
    }
    if (endsResponse(frame)) this.#finish(laneFrame(frame, this.streamId));
    else this.#options.onFrame(laneFrame(frame, this.streamId));
  }

  /** A heartbeat, like `{}`, or the error of a server that has no events for errors. */
  #untyped(data: string): void {
    const value = parseObject(data);
    if (value === undefined || Object.hasOwn(value, 'type')) return this.#broken();
    if (!isUntypedError(value)) return;
    const said = asObject(this.#options.redactor.json(value)) ?? {};
    this.#finish(untypedErrorFrame(said, this.streamId));
  }

  #broken(): void {
    if (this.#state !== 'running') return;
    this.#options.request.destroy();
    this.#finish(protocolFrame(this.streamId));
  }

  #lost(error?: Error): void {
    if (this.#state !== 'running') return;
    this.#options.request.destroy();
    if (this.#connected) this.#finish(lostFrame(this.streamId));
    else this.#finish(notReachedFrame(this.streamId), notReached(error));
  }

  #finish(frame: UpstreamFrame, error?: GatewayError): void {
    if (this.#state !== 'running') return;
    this.#state = 'ended';
    this.#drain();
    this.#options.onFrame(frame);
    this.#options.onEnd(error);
  }

  #drain(): void {
    const response = this.#response;
    if (response === undefined || response.readableEnded || response.destroyed) return;
    const timer = setTimeout(() => response.destroy(), DRAIN_TIMEOUT_MS);
    response.once('close', () => clearTimeout(timer));
    response.resume();
  }

  #bodyWritten(): void {
    if (this.#written) return;
    this.#written = true;
    this.#options.onWritten();
  }
}
