import type { ClientRequest, IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { type ClientOptions, WebSocket } from 'ws';
import type { LinkCapabilities, LinkDown, LinkRoute, TraceContext, UpstreamFrame } from '../core/types.ts';
import type { OutgoingFrame } from '../dialect/frames.ts';
import { parseObject } from '../dialect/json.ts';
import { brokenLink, closedLink, failedDial, silentLink, timedOutDial } from '../dialect/link-down.ts';
import { refusedDial } from '../dialect/refusal.ts';
import { afterAwakeMs } from '../ground/awake-timer.ts';
import { frameIn } from '../translate/peek.ts';
import { DEFAULT_PING_INTERVAL_MS, Heartbeat } from './heartbeat.ts';
import { readAnswer } from './http-answer.ts';
import type { ConnectOptions } from './network.ts';
import { readInSlices } from './read-slices.ts';
import type { Redactor } from './redact.ts';
import {
  DEFAULT_FRAGMENT_BYTES,
  DEFAULT_HIGH_WATER_BYTES,
  DEFAULT_LOW_WATER_BYTES,
  SendQueue,
} from './send-queue.ts';
import { isUntypedError, untypedErrorFrame } from './sse-frames.ts';
import { takeTextFrames } from './text-frames.ts';
import type { Link, LinkListener } from './types.ts';

export interface WsLinkOptions {
  readonly url: URL;
  /** Asked once, at the handshake; the link keeps no copy. */
  readonly headers: () => Record<string, string>;
  /** What the upstream says goes through it. */
  readonly redactor: Redactor;
  readonly connect: ConnectOptions;
  /** Asked when the link comes up and when it changes hands: what is known of the upstream grows. */
  readonly capabilities: () => LinkCapabilities;
  readonly onLanes: (named: boolean) => void;
  readonly route: LinkRoute;
  readonly limits: WsLinkLimits;
  readonly onRtt: (ms: number) => void;
  readonly onHeartbeatLost: () => void;
}

export interface WsLinkLimits {
  /** From the first packet to the upgrade. */
  readonly handshakeTimeoutMs: number;
  readonly closeTimeoutMs: number;
  readonly pingIntervalMs: number;
  readonly pongTimeoutMs: number;
  /** A paused link reads one chunk at this interval, which is how it sees and answers pings. */
  readonly pausedReadIntervalMs: number;
  /** Largest message that is taken from the upstream. */
  readonly maxInboundBytes: number;
  readonly fragmentBytes: number;
  readonly highWaterBytes: number;
  readonly lowWaterBytes: number;
  readonly compression: boolean;
}

export const DEFAULT_WS_LIMITS: Omit<WsLinkLimits, 'pongTimeoutMs'> = {
  handshakeTimeoutMs: 10_000,
  // The upstream's half of the closing handshake; nothing of value comes after it.
  closeTimeoutMs: 3_000,
  pingIntervalMs: DEFAULT_PING_INTERVAL_MS,
  // A quarter of the 20 s after which the upstream gives up (upstream.md#liveness).
  pausedReadIntervalMs: 5_000,
  // Image events are multi-megabyte and no limit is known (upstream.md#frames): this only stops a hostile upstream.
  maxInboundBytes: 256 * 1024 * 1024,
  fragmentBytes: DEFAULT_FRAGMENT_BYTES,
  highWaterBytes: DEFAULT_HIGH_WATER_BYTES,
  lowWaterBytes: DEFAULT_LOW_WATER_BYTES,
  // 35 KB instead of 479 KB a link, and no detour over the thread pool.
  compression: false,
};

type State =
  | { readonly t: 'dialing'; readonly stopTimer: () => void }
  | {
      readonly t: 'open';
      readonly socket: Socket;
      readonly queue: SendQueue;
      readonly heartbeat: Heartbeat;
      readonly openedAt: number;
      pausedReads: NodeJS.Timeout | undefined;
    }
  | { readonly t: 'ended' };

/** One WebSocket to the upstream. Events reach the listener as they are read, one call each. */
export class WsLink implements Link {
  readonly #options: WsLinkOptions;
  readonly #ws: WebSocket;
  #listener: LinkListener;
  #state: State;

  constructor(options: WsLinkOptions, listener: LinkListener) {
    this.#options = options;
    this.#listener = listener;
    this.#ws = this.#connect(options);
    const { handshakeTimeoutMs } = options.limits;
    const stopTimer = afterAwakeMs(handshakeTimeoutMs, () => this.#down(timedOutDial(handshakeTimeoutMs)));
    this.#state = { t: 'dialing', stopTimer };
  }

  /** Time since the upgrade. */
  get ageMs(): number {
    return this.#state.t === 'open' ? performance.now() - this.#state.openedAt : 0;
  }

  /** Undefined once the link has ended. */
  get capabilities(): LinkCapabilities | undefined {
    if (this.#state.t !== 'open') return undefined;
    const capabilities = this.#options.capabilities();
    const ageMs = this.ageMs;
    const { rotateAfterMs } = capabilities;
    return {
      ...capabilities,
      maxAgeMs: Math.max(0, capabilities.maxAgeMs - ageMs),
      rotateAfterMs: rotateAfterMs === undefined ? undefined : Math.max(0, rotateAfterMs - ageMs),
    };
  }

  get route(): LinkRoute {
    return this.#options.route;
  }

  /** Hands the link to another owner; what comes from now on goes there. */
  adopt(listener: LinkListener): void {
    this.#listener = listener;
  }

  send(frame: OutgoingFrame, _traceContext: TraceContext | undefined): void {
    if (this.#state.t === 'open') this.#state.queue.send([frame.head, ...frame.body], frame.bytes);
  }

  lanes(named: boolean): void {
    this.#options.onLanes(named);
  }

  pause(): void {
    const state = this.#state;
    if (state.t !== 'open' || state.pausedReads !== undefined) return;
    this.#ws.pause();
    state.pausedReads = setInterval(
      () => this.#readOnce(state.socket),
      this.#options.limits.pausedReadIntervalMs,
    );
    state.queue.readingPaused = true;
  }

  resume(): void {
    const state = this.#state;
    if (state.t !== 'open' || state.pausedReads === undefined) return;
    clearInterval(state.pausedReads);
    state.pausedReads = undefined;
    state.queue.readingPaused = false;
    this.#ws.resume();
  }

  close(code: number, reason: string): void {
    const state = this.#end();
    if (state.t === 'dialing') this.#ws.terminate();
    if (state.t !== 'open') return;
    // A paused socket would never see the other half of the closing handshake.
    this.#ws.resume();
    this.#ws.close(code, reason);
  }

  #connect({ url, headers, connect, limits }: WsLinkOptions): WebSocket {
    // The type lacks `closeTimeout`.
    const socketOptions: ClientOptions & { readonly closeTimeout: number } = {
      ...connect,
      headers: headers(),
      perMessageDeflate: limits.compression,
      maxPayload: limits.maxInboundBytes,
      closeTimeout: limits.closeTimeoutMs,
      // `frameIn` looks at every byte anyway.
      skipUTF8Validation: true,
      // The configured URL is the only place that the key goes to.
      followRedirects: false,
    };
    const ws = new UpstreamSocket(url, socketOptions);
    ws.on('upgrade', (response: IncomingMessage) => ws.once('open', () => this.#opened(response.socket)));
    ws.on('unexpected-response', (_request: ClientRequest, response: IncomingMessage) => {
      readAnswer(response, this.#options.redactor, (answer) => this.#down(refusedDial(answer, Date.now())));
    });
    ws.on('message', (data, isBinary) => this.#received(data as Buffer, isBinary));
    ws.on('pong', (payload) => {
      if (this.#state.t !== 'open') return;
      if (payload.length === 0) this.#state.heartbeat.pong();
      else this.#state.queue.pong(payload.toString('latin1'));
    });
    ws.onConcluded = (code, reason) => this.#concluded(this.#closedBy(code, reason));
    ws.on('error', (error) => this.#down(this.#failure(error)));
    ws.on('close', (code, reason) => this.#down(this.#closedBy(code, reason.toString('utf8'))));
    return ws;
  }

  #opened(socket: Socket): void {
    if (this.#state.t !== 'dialing') return;
    this.#state.stopTimer();
    const { limits, onRtt, onHeartbeatLost, capabilities, route } = this.#options;
    const queue = new SendQueue(this.#ws, {
      ...limits,
      onBlocked: () => {
        if (this.#state.t === 'open') this.#listener.onBlocked();
      },
      onWritable: () => {
        if (this.#state.t === 'open') this.#listener.onWritable();
      },
    });
    const heartbeat = new Heartbeat({
      intervalMs: limits.pingIntervalMs,
      timeoutMs: limits.pongTimeoutMs,
      ping: () => this.#ws.ping(),
      activity: () => socket.bytesRead + queue.writtenBytes,
      onRtt,
      onLost: () => {
        onHeartbeatLost();
        this.#down(silentLink());
      },
    });
    takeTextFrames(this.#ws, (chunk, start, end) => this.#text(chunk, start, end));
    readInSlices(this.#ws, socket, () => this.#state.t === 'open' && this.#state.pausedReads !== undefined);
    this.#state = {
      t: 'open',
      socket,
      queue,
      heartbeat,
      openedAt: performance.now(),
      pausedReads: undefined,
    };
    this.#listener.onUp(capabilities(), route);
  }

  #received(data: Buffer, isBinary: boolean): void {
    if (this.#state.t !== 'open') return;
    if (isBinary) return this.#down(brokenLink('the upstream sent a binary frame'));
    this.#text(data, 0, data.length);
  }

  #text(chunk: Buffer, start: number, end: number): void {
    if (this.#state.t !== 'open') return;
    const frame = parse(chunk, start, end);
    if (frame === 'malformed')
      this.#down(brokenLink('the upstream sent a frame that is no JSON object with a type'));
    else if (frame !== 'ignored') this.#listener.onFrame(this.#options.redactor.frame(frame));
  }

  #closedBy(code: number, reason: string): LinkDown {
    return closedLink(code, this.#options.redactor.text(reason));
  }

  /** One chunk, then paused again: `ws` reads what was in it, pings too, before our listener runs. */
  #readOnce(socket: Socket): void {
    if (!this.#ws.isPaused) return;
    socket.once('data', () => {
      if (this.#state.t === 'open' && this.#state.pausedReads !== undefined) this.#ws.pause();
    });
    this.#ws.resume();
  }

  #failure(error: Error): LinkDown {
    if (this.#state.t === 'dialing') return failedDial(error);
    const code = 'code' in error ? String(error.code) : '';
    if (code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH')
      return brokenLink('the upstream sent a frame over the limit');
    if (code.startsWith('WS_ERR_')) return brokenLink('the upstream broke the WebSocket protocol');
    return closedLink(1006, '');
  }

  /** The upstream's close frame is here; the socket answers it and ends by itself. */
  #concluded(down: LinkDown): void {
    if (this.#state.t !== 'open') return;
    this.#end();
    this.#listener.onDown(down);
  }

  #down(down: LinkDown): void {
    if (this.#state.t === 'ended') return;
    const { t } = this.#end();
    this.#ws.terminate();
    this.#listener.onDown(t === 'dialing' ? { ...down, during: 'dial' } : down);
  }

  #end(): State {
    const state = this.#state;
    this.#state = { t: 'ended' };
    if (state.t === 'dialing') state.stopTimer();
    if (state.t === 'open') {
      clearInterval(state.pausedReads);
      state.heartbeat.stop();
      state.queue.clear();
    }
    return state;
  }
}

/**
 * `ws` tells of a close frame only when the TCP connection has ended as well, up to the close time-out later; frames
 * sent meanwhile would be lost without a word. It answers the frame with `close`, which is where it is seen here.
 */
class UpstreamSocket extends WebSocket {
  onConcluded: ((code: number, reason: string) => void) | undefined;

  override close(code?: number, reason?: string | Buffer): void {
    super.close(code, reason);
    if (code === undefined) this.onConcluded?.(1005, '');
    else if (Buffer.isBuffer(reason)) this.onConcluded?.(code, reason.toString('utf8'));
  }
}

/** A frame without a type is an error of an upstream that has no events for errors, or tells nothing that is needed. */
function parse(chunk: Buffer, start: number, end: number): UpstreamFrame | 'ignored' | 'malformed' {
  try {
    return frameIn(chunk, start, end);
  } catch {
    return untyped(chunk.subarray(start, end));
  }
}

const MAX_UNTYPED_FRAME_BYTES = 64 * 1024;

function untyped(data: Buffer): UpstreamFrame | 'ignored' | 'malformed' {
  const json = data.length > MAX_UNTYPED_FRAME_BYTES ? undefined : parseObject(data.toString('utf8'));
  if (json === undefined || Object.hasOwn(json, 'type')) return 'malformed';
  if (isUntypedError(json)) return untypedErrorFrame(json, undefined);
  // Some open with `{"headers":{…}}` (upstream.md#other-endpoints).
  return Object.hasOwn(json, 'headers') ? 'ignored' : 'malformed';
}
