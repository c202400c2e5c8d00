import type {
  DialPurpose,
  LinkCapabilities,
  LinkDown,
  LinkRoute,
  TraceContext,
  UpstreamFrame,
} from '../core/types.ts';
import type { OutgoingFrame } from '../dialect/frames.ts';
import type { Reason } from '../errors.ts';
import type { ResourceCall } from '../ground/resource-call.ts';
import type { Secret } from '../ground/secret.ts';

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
   * One frame. Call it only between `onUp` and `onDown`; a frame over the limit of the capabilities was
   * refused before.
   */
  send(frame: OutgoingFrame, traceContext: TraceContext | undefined): void;
  /**
   * Stops reading, but still answers pings by reading a chunk now and then. What is in a chunk of the socket
   * (64 KiB) that was being read still arrives.
   */
  pause(): void;
  resume(): void;
  /** Nothing is reported after it, `onDown` neither. */
  close(code: number, reason: string): void;
  /**
   * Links over HTTP only: gives up the running request of one lane and frees its place. No frame of that request
   * follows.
   */
  abort?(streamId: string | undefined): void;
  /** What the answers have shown: whether this upstream names the lane that asked. For the links that come after. */
  lanes?(named: boolean): void;
}

export interface DialRequest {
  readonly purpose: DialPurpose;
  readonly attempt: number;
  /** The session: its failed dials of one moment count as one. Unset: each counts. */
  readonly caller?: object;
  /** Named upstream; undefined: the routing rules choose by model. */
  readonly upstream: string | undefined;
  /**
   * Where the session lives now (`LinkRoute.upstream` of its last link). Tried first; extra and successor links
   * go nowhere else.
   */
  readonly current?: string | undefined;
  readonly model: string | undefined;
  /** The only upstreams that this tenant may use, fallbacks included. Undefined: all. */
  readonly allowed?: readonly string[] | undefined;
  /** Links are never shared over tenants: part of every pool key. */
  readonly tenantId: string;
  readonly credential: Secret | undefined;
  readonly traceContext: TraceContext | undefined;
  /** Over HTTP whatever the upstream speaks: a background response does not run over a WebSocket. Default false. */
  readonly overHttp?: boolean;
  /** `LinkRoute.account` is comparable with that of other processes under the same scope. Default: of this one only. */
  readonly accountScope?: string | undefined;
}

export interface FollowRequest {
  readonly responseId: string;
  /** `sequence_number` of the last event that is known. */
  readonly after: number | undefined;
  readonly query: readonly (readonly [name: string, value: string])[];
  readonly onFrame: (frame: UpstreamFrame) => void;
}

export interface Followed {
  pause(): void;
  resume(): void;
  /** No frame follows. */
  abort(): void;
}

/** Routing, pool, breaker and providers behind one verb. */
export interface Dialer {
  /** Never throws; failures arrive as `onDown` with `during: 'dial'`, never before `dial` has returned. */
  dial(request: DialRequest, listener: LinkListener): Link;
  /** One HTTP call beside the links, and the JSON of its answer. Rejects with GatewayError. */
  call(request: DialRequest, call: ResourceCall, signal: AbortSignal): Promise<Uint8Array>;
  /** The events of a stored response from a position on. Frames as of a link over HTTP; exactly one is terminal. */
  follow(request: DialRequest, follow: FollowRequest): Followed;
  /** The name of the upstream that the routing rules pick first; undefined: none serves the model. */
  route(model: string | undefined): string | undefined;
  /** Memory is short: closes the links that wait ready. Returns how many there were. */
  shedReadyLinks(): number;
  /** Another dialer takes what is new: the links that wait ready are closed, and no others opened ahead of need. */
  retire(): void;
  close(): Promise<void>;
}

/** Codes of the `error` frames that a link over HTTP makes itself. All have the nested shape. */
export const LOCAL_ERROR_CODES = {
  /** Status 502. The request was written, its event stream broke off: it may have run. */
  streamLost: 'upstream_stream_lost',
  /** Status 503. No connection was made: the request certainly did not run. */
  notReached: 'upstream_not_reached',
  /** Status 502. The answer is not an event stream of JSON objects. */
  protocol: 'upstream_protocol',
  /** Status 400. Steering, warm-up and other WebSocket-only frames. Nothing was sent. */
  unsupported: 'not_supported_over_http',
} as const;

/** What happens on the way to the upstreams, as plain data for metrics and logs. No ids, no secrets. */
export type UpstreamEvent =
  | { readonly kind: 'poolHit' | 'poolMiss'; readonly upstream: string }
  | { readonly kind: 'poolSize'; readonly upstream: string; readonly idle: number }
  | {
      readonly kind: 'dial';
      readonly upstream: string;
      readonly transport: 'websocket' | 'sse';
      readonly purpose: DialPurpose | 'pool';
      readonly attempt: number;
      readonly durationMs: number;
      /** Undefined: the link came up. */
      readonly failure:
        | {
            readonly reason: Reason;
            readonly httpStatus: number | undefined;
            /** Of the system or of TLS, e.g. ECONNREFUSED; TIMEOUT. */
            readonly errno?: string | undefined;
          }
        | undefined;
      /** Host and port that were dialled. */
      readonly host?: string;
    }
  | { readonly kind: 'failover'; readonly from: string; readonly to: string }
  /** The upgrade was refused; the upstream is spoken to over HTTP for `forMs`. */
  | {
      readonly kind: 'sseFallback';
      readonly upstream: string;
      readonly httpStatus: number;
      readonly forMs: number;
    }
  /** It took the name of a lane and answered without it; a link serves one lane from now on. */
  | { readonly kind: 'lanesRefuted'; readonly upstream: string }
  | {
      readonly kind: 'breaker';
      readonly upstream: string;
      /** The upstream's own key, or one of a tenant or caller. */
      readonly credential: 'own' | 'other';
      /** Tells circuits of one upstream apart; good for nothing else. */
      readonly circuit: string;
      readonly state: 'open' | 'halfOpen' | 'closed';
      /** Of an open one: after this it may be tried again. */
      readonly openMs: number | undefined;
    }
  | { readonly kind: 'rtt'; readonly upstream: string; readonly ms: number }
  | { readonly kind: 'heartbeatLost'; readonly upstream: string };

export type Observe = (event: UpstreamEvent) => void;
