import type { ChannelCredentials, ChannelOptions } from '@grpc/grpc-js';
import type { Event, GoAway } from './event.ts';
import type { Logger } from './log.ts';

/** Where a gateway listens that was started with its defaults. */
export const DEFAULT_ADDRESS = '127.0.0.1:50051';
/** Single events with images reach tens of MB; gRPC's own limit of 4 MiB would end the stream on them. */
export const DEFAULT_MAX_RECEIVE_BYTES = 64 * 1024 * 1024;
/** Seconds of the fastest models, and as much as the gateway itself holds. */
export const DEFAULT_MAX_BUFFERED_BYTES = 4 * 1024 * 1024;
/** Three of the largest requests. */
export const DEFAULT_MAX_QUEUED_BYTES = 64 * 1024 * 1024;
/** A handshake with room for a slow token source. */
export const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;
/** Below the time-outs of proxies, which count messages; a gateway may ask for less. */
export const DEFAULT_HEARTBEAT_MS = 15_000;
/** A few round trips. */
export const DEFAULT_CLOSE_TIMEOUT_MS = 3_000;

export interface ClientOptions {
  /**
   * `host:port`, `https://host:port` (TLS), `http://host:port` (plain) or `unix:/path`. Without a scheme, loopback
   * addresses are plain and all others TLS. Default: `RESPONSES_GATEWAY_ADDR`, then {@link DEFAULT_ADDRESS}.
   */
  readonly address?: string;
  /**
   * Sent as `authorization: Bearer …`; a function is asked each time a stream is opened or resumed. Default:
   * `RESPONSES_GATEWAY_TOKEN`, if set.
   */
  readonly token?: string | (() => string | Promise<string>);
  /** gRPC metadata added to each call. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** PEM files for TLS; setting it means TLS whatever the address. */
  readonly tls?: { readonly ca?: Buffer; readonly cert?: Buffer; readonly key?: Buffer };
  /** Credentials of grpc-js, instead of `tls` and what the address says. */
  readonly credentials?: ChannelCredentials;
  /** Largest message taken, in bytes. Default: {@link DEFAULT_MAX_RECEIVE_BYTES}. */
  readonly maxReceiveBytes?: number;
  /** Options of grpc-js, applied last. */
  readonly channelOptions?: ChannelOptions;
  /** Default: warnings and errors become warnings of the process. */
  readonly logger?: Logger;
}

/** What is left out has no limit. */
export interface Budget {
  /** Input and output. */
  readonly tokens?: number;
  /** Exact decimal in the currency of the gateway's price table, for instance `0.50`. */
  readonly money?: string;
  readonly turns?: number;
}

export interface SessionOptions {
  /** Model of turns that name none. */
  readonly model?: string;
  /** A configured upstream of the gateway, by name. */
  readonly upstream?: string;
  /** Labels for traces and logs of the gateway; at most 16, no secrets. */
  readonly labels?: Readonly<Record<string, string>>;
  readonly clientName?: string;
  readonly clientVersion?: string;
  /** Whether the gateway may rebuild lanes that the upstream has lost. Default: true. */
  readonly recovery?: boolean;
  /**
   * What the session may use in its life. A turn that does not fit fails with LIMIT_EXCEEDED, whose metadata has what is
   * left. Default: as much as its tenant may.
   */
  readonly budget?: Budget;
  /** Whether a lost stream is resumed. Default: true. */
  readonly resume?: boolean;
  /** Delivers the upstream's exact JSON with each event, besides its typed form. Default: false. */
  readonly rawJson?: boolean;
  /**
   * Bytes of events that wait for their readers, over all turns of the session. Above it the session stops reading,
   * and so finally do the gateway and the upstream. If that holds up the readers of other turns for a second, the turns
   * that hold the most give way: their events are dropped (READER_TOO_SLOW), their `final()` keeps the whole result.
   * One event may exceed the bound. Default: {@link DEFAULT_MAX_BUFFERED_BYTES}.
   */
  readonly maxBufferedBytes?: number;
  /** Bytes of requests that wait to be sent; above it `start` and `steer` wait. Default: {@link DEFAULT_MAX_QUEUED_BYTES}. */
  readonly maxQueuedBytes?: number;
  /** How long opening takes at most, the token source included. Default: {@link DEFAULT_CONNECT_TIMEOUT_MS}. */
  readonly timeoutMs?: number;
  /**
   * How often the client says that it is there, if the gateway agrees; three times as long without an answer, and the
   * stream is resumed on another connection. 0: never. Default: {@link DEFAULT_HEARTBEAT_MS}.
   */
  readonly heartbeatMs?: number;
  /** How long `close` waits for the gateway to end the stream. Default: {@link DEFAULT_CLOSE_TIMEOUT_MS}. */
  readonly closeTimeoutMs?: number;
  /** Is told events that belong to no turn of this client: notices about the session, refusals of unknown turns. */
  readonly onEvent?: (event: Event) => unknown;
  /**
   * Is told when the gateway announces the end of the stream. A stream that has grown old is replaced by itself; when
   * the gateway shuts down (`draining`), running turns finish and new ones need a new session.
   */
  readonly onGoAway?: (goAway: GoAway) => unknown;
  /** Is told what the two above threw. It is logged as well. */
  readonly onError?: (error: unknown) => unknown;
  /** Ends the waiting for the session to open, not the session. */
  readonly signal?: AbortSignal;
}

export interface WaitOptions {
  /** Ends the wait and loses nothing: the work goes on. */
  readonly signal?: AbortSignal;
}

/** What grpc-js connects to, and whether the connection is plain. */
export function parseAddress(address: string): { readonly target: string; readonly plain: boolean } {
  const scheme = /^(https?):\/\/([^/]+)\/?$/.exec(address);
  if (scheme) return { target: scheme[2] as string, plain: scheme[1] === 'http' };
  if (address.startsWith('unix:')) return { target: address, plain: true };
  const host = /^(?:\[([^\]]+)\]|([^:]+)):\d+$/.exec(address);
  const name = host?.[1] ?? host?.[2];
  return { target: address, plain: name === 'localhost' || name === '::1' || /^127\./.test(name ?? '') };
}
