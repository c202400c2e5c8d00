import type { LinkCapabilities, LinkDown, LinkRoute, TraceContext } from '../core/types.ts';
import type { OutgoingFrame } from '../dialect/frames.ts';
import type { DialRequest, Link, LinkListener } from './types.ts';
import { WsLink } from './ws-link.ts';

type State =
  | { readonly t: 'dialing'; readonly link: Link | undefined }
  | { readonly t: 'up'; readonly link: Link }
  | { readonly t: 'ended' };

/** The link that `dial` returns: stands for whichever connection answers in the end. */
export class DialedLink implements Link {
  readonly request: DialRequest;
  readonly listener: LinkListener;
  /** What to tell the breaker when the owner gives up while a connection is tried. */
  abandon: (() => void) | undefined;
  #state: State = { t: 'dialing', link: undefined };
  readonly #failures: LinkDown[] = [];
  readonly #onEnd: () => void;

  constructor(request: DialRequest, listener: LinkListener, onEnd: () => void) {
    this.request = request;
    this.listener = listener;
    this.#onEnd = onEnd;
  }

  get ended(): boolean {
    return this.#state.t === 'ended';
  }

  /** A connection is being tried. */
  trying(link: Link): void {
    if (this.#state.t === 'dialing') this.#state = { t: 'dialing', link };
    else link.close(1000, '');
  }

  /** A connection failed; others may follow. */
  missed(down: LinkDown): void {
    this.abandon = undefined;
    this.#failures.push(down);
  }

  up(link: Link, capabilities: LinkCapabilities, route: LinkRoute): void {
    this.abandon = undefined;
    if (this.#state.t === 'ended') return link.close(1000, '');
    this.#state = { t: 'up', link };
    if (link instanceof WsLink) link.adopt(this.#forwarding());
    this.listener.onUp(capabilities, route);
  }

  down(down: LinkDown): void {
    if (this.#state.t === 'ended') return;
    this.#end();
    this.listener.onDown(down);
  }

  /** Nothing answered. What an upstream said tells more than that its circuit was open. */
  failed(): void {
    const told =
      this.#failures.find(({ error }) => error.reason !== 'UPSTREAM_CIRCUIT_OPEN') ?? this.#failures[0];
    if (told !== undefined)
      this.down({ ...told, permanent: this.#failures.every(({ permanent }) => permanent) });
  }

  send(frame: OutgoingFrame, traceContext: TraceContext | undefined): void {
    if (this.#state.t === 'up') this.#state.link.send(frame, traceContext);
  }

  pause(): void {
    if (this.#state.t === 'up') this.#state.link.pause();
  }

  resume(): void {
    if (this.#state.t === 'up') this.#state.link.resume();
  }

  abort(streamId: string | undefined): void {
    if (this.#state.t === 'up') this.#state.link.abort?.(streamId);
  }

  lanes(named: boolean): void {
    if (this.#state.t === 'up') this.#state.link.lanes?.(named);
  }

  close(code: number, reason: string): void {
    const state = this.#state;
    if (state.t === 'ended') return;
    this.#end();
    this.abandon?.();
    state.link?.close(code, reason);
  }

  #end(): void {
    this.#state = { t: 'ended' };
    this.#onEnd();
  }

  #forwarding(): LinkListener {
    const { listener } = this;
    return {
      onUp: () => {},
      onFrame: (frame) => listener.onFrame(frame),
      onBlocked: () => listener.onBlocked(),
      onWritable: () => listener.onWritable(),
      onDown: (down) => this.down(down),
    };
  }
}
