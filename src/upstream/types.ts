import type {
  DialPurpose,
  LinkCapabilities,
  LinkDown,
  LinkRoute,
  TraceContext,
  UpstreamFrame,
} from '../core/types.ts';

/** Provider key. Only the link's handshake calls `reveal`; every other rendering says "[redacted]". */
export interface Credential {
  /** Same for equal secrets, tells nothing about them: pools and breakers are keyed by it. */
  readonly fingerprint: string;
  reveal(): string;
}

/** What a link reports. After `onDown` nothing more comes. */
export interface LinkListener {
  onUp(capabilities: LinkCapabilities, route: LinkRoute): void;
  onFrame(frame: UpstreamFrame): void;
  /** The send buffer passed its high mark / fell under its low mark. */
  onBlocked(): void;
  onWritable(): void;
  onDown(down: LinkDown): void;
}

/** One upstream connection, or one lane of work over HTTP. Frames go out in the order of `send`. */
export interface Link {
  /**
   * One frame of JSON. Call it only between `onUp` and `onDown`; a frame over the limit of the capabilities was
   * refused before.
   */
  send(text: string, traceContext: TraceContext | undefined): void;
  /** Stops reading, but still answers pings by reading a chunk now and then. */
  pause(): void;
  resume(): void;
  close(code: number, reason: string): void;
}

export interface DialRequest {
  readonly purpose: DialPurpose;
  readonly attempt: number;
  /** Named upstream; undefined: the routing rules choose by model. */
  readonly upstream: string | undefined;
  readonly model: string | undefined;
  /** Links are never shared over tenants: part of every pool key. */
  readonly tenantId: string;
  readonly credential: Credential | undefined;
  readonly traceContext: TraceContext | undefined;
}

/** Routing, pool, breaker and providers behind one verb. */
export interface Dialer {
  /** Never throws; failures arrive as `onDown` with `during: 'dial'`, never before `dial` has returned. */
  dial(request: DialRequest, listener: LinkListener): Link;
  /** One HTTP call beside the links: `/responses/compact`. Rejects with GatewayError. */
  compact(request: DialRequest, body: string, signal: AbortSignal): Promise<Uint8Array>;
  close(): Promise<void>;
}
