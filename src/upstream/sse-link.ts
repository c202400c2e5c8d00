import { connect, type Socket } from 'node:net';
import type { LinkCapabilities, LinkDown, LinkRoute, TraceContext, UpstreamFrame } from '../core/types.ts';
import { type OutgoingFrame, postBody } from '../dialect/frames.ts';
import { failedDial, timedOutDial } from '../dialect/link-down.ts';
import type { GatewayError } from '../errors.ts';
import { afterAwakeMs } from '../ground/awake-timer.ts';
import { BackgroundStream, type StreamPosition } from './background-stream.ts';
import { post } from './http-post.ts';
import type { ConnectOptions } from './network.ts';
import type { Redactor } from './redact.ts';
import { unsupportedFrame } from './sse-frames.ts';
import { SseRequest, type SseRequestOptions } from './sse-request.ts';
import type { Link, LinkListener } from './types.ts';

export interface SseLinkOptions {
  readonly url: URL;
  readonly host: string;
  readonly port: number;
  /** Asked for every request; the link keeps no copy. */
  readonly headers: (traceContext: TraceContext | undefined) => Record<string, string>;
  /** What the upstream says goes through it. */
  readonly redactor: Redactor;
  readonly connect: ConnectOptions;
  readonly capabilities: LinkCapabilities;
  readonly route: LinkRoute;
  readonly limits: SseLinkLimits;
  /** Whether to try a TCP connection first: without it a dead upstream is seen by the first request only. */
  readonly probe: boolean;
  readonly onNotReached: (error: GatewayError) => void;
}

export interface SseLinkLimits {
  readonly handshakeTimeoutMs: number;
  readonly maxInboundBytes: number;
  readonly highWaterBytes: number;
  readonly lowWaterBytes: number;
}

type RunningRequest = SseRequest | BackgroundStream;

type State =
  | { readonly t: 'dialing'; readonly abandon: () => void }
  | { readonly t: 'open'; readonly running: Set<RunningRequest> }
  | { readonly t: 'ended' };

/**
 * A link over `POST /responses` with server-sent events. Every create is a request of its own; what happens to one
 * is an `error` frame on its lane and leaves the others alone. It is down only when the upstream cannot be reached.
 */
export class SseLink implements Link {
  readonly #options: SseLinkOptions;
  readonly #listener: LinkListener;
  #state: State;
  #unwrittenBytes = 0;
  #blocked = false;
  #paused = false;

  constructor(options: SseLinkOptions, listener: LinkListener) {
    this.#options = options;
    this.#listener = listener;
    // An unusable key is found at the dial, not at the first request.
    options.headers(undefined);
    this.#state = { t: 'dialing', abandon: options.probe ? this.#probe() : this.#upSoon() };
  }

  send(frame: OutgoingFrame, traceContext: TraceContext | undefined): void {
    if (this.#state.t !== 'open') return;
    if (frame.kind === 'create') return this.#start(frame, this.#state.running, traceContext);
    const refused = unsupportedFrame(frame.streamId, frame.kind === 'steer' ? 'steering' : 'warm-up');
    queueMicrotask(() => this.#frame(refused));
  }

  pause(): void {
    this.#paused = true;
    if (this.#state.t === 'open') for (const request of this.#state.running) request.pause();
  }

  resume(): void {
    this.#paused = false;
    if (this.#state.t === 'open') for (const request of this.#state.running) request.resume();
  }

  abort(streamId: string | undefined): void {
    if (this.#state.t !== 'open') return;
    for (const request of this.#state.running) {
      if (request.streamId !== streamId) continue;
      this.#state.running.delete(request);
      request.abort();
    }
  }

  close(_code: number, _reason: string): void {
    const state = this.#state;
    this.#state = { t: 'ended' };
    if (state.t === 'dialing') state.abandon();
    if (state.t === 'open') for (const request of state.running) request.abort();
  }

  #start(frame: OutgoingFrame, running: Set<RunningRequest>, traceContext: TraceContext | undefined): void {
    const { url, headers, redactor, connect, limits } = this.#options;
    const body = postBody(frame);
    const events = { headers: headers(traceContext), connect, accept: 'text/event-stream' } as const;
    const options: SseRequestOptions = {
      request: post({ ...events, url, body }),
      streamId: frame.streamId,
      secure: url.protocol === 'https:',
      maxInboundBytes: limits.maxInboundBytes,
      redactor,
      onFrame: (frame) => this.#frame(frame),
      onWritten: () => this.#written(body.bytes),
      onEnd: (error) => {
        running.delete(request);
        if (error !== undefined) this.#notReached(running, error);
      },
    };
    const request: RunningRequest =
      frame.background === true
        ? new BackgroundStream({
            ...options,
            position: undefined,
            reopen: (position) =>
              post({ ...events, method: 'GET', url: streamUrl(url, position), body: undefined }),
          })
        : new SseRequest(options);
    running.add(request);
    if (this.#paused) request.pause();
    this.#unwrittenBytes += body.bytes;
    if (this.#blocked || this.#unwrittenBytes <= limits.highWaterBytes) return;
    this.#blocked = true;
    this.#listener.onBlocked();
  }

  #written(length: number): void {
    this.#unwrittenBytes -= length;
    if (!this.#blocked || this.#unwrittenBytes > this.#options.limits.lowWaterBytes) return;
    this.#blocked = false;
    if (this.#state.t === 'open') this.#listener.onWritable();
  }

  #frame(frame: UpstreamFrame): void {
    if (this.#state.t === 'open') this.#listener.onFrame(frame);
  }

  /** With nothing else running a new dial decides where to go on. */
  #notReached(running: ReadonlySet<RunningRequest>, error: GatewayError): void {
    this.#options.onNotReached(error);
    if (this.#state.t !== 'open' || running.size > 0) return;
    this.#state = { t: 'ended' };
    this.#listener.onDown({ during: 'open', error, permanent: false });
  }

  #probe(): () => void {
    const { host, port, limits } = this.#options;
    const socket: Socket = connect({ host, port });
    const failed = (down: LinkDown) => {
      stopTimer();
      socket.destroy();
      if (this.#state.t !== 'dialing') return;
      this.#state = { t: 'ended' };
      this.#listener.onDown(down);
    };
    const stopTimer = afterAwakeMs(limits.handshakeTimeoutMs, () =>
      failed(timedOutDial(limits.handshakeTimeoutMs)),
    );
    socket.once('error', (error) => failed(failedDial(error)));
    socket.once('connect', () => {
      stopTimer();
      socket.destroy();
      this.#up();
    });
    return () => {
      stopTimer();
      socket.destroy();
    };
  }

  #upSoon(): () => void {
    queueMicrotask(() => this.#up());
    return () => {};
  }

  #up(): void {
    if (this.#state.t !== 'dialing') return;
    this.#state = { t: 'open', running: new Set() };
    this.#listener.onUp(this.#options.capabilities, this.#options.route);
  }
}

/** Where the events of a stored response are read behind a position. */
export function streamUrl(responsesUrl: URL, { responseId, after }: StreamPosition): URL {
  const url = new URL(responsesUrl);
  url.pathname += `/${encodeURIComponent(responseId)}`;
  url.searchParams.set('stream', 'true');
  if (after !== undefined) url.searchParams.set('starting_after', String(after));
  return url;
}
