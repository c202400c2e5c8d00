import type { LinkCapabilities, LinkRoute, TraceContext } from '../core/types.ts';
import type { GatewayError } from '../errors.ts';
import type { ResourceCall } from '../ground/resource-call.ts';
import type { Secret } from '../ground/secret.ts';
import { BackgroundStream, type StreamPosition } from './background-stream.ts';
import type { CredentialSource } from './credential.ts';
import { type Endpoint, parseEndpoint } from './endpoint.ts';
import { checkExtraHeaders, type Headers, requestHeaders } from './headers.ts';
import { post } from './http-post.ts';
import { createNetwork, type Network, type ProxySettings, proxyFor, type UpstreamTls } from './network.ts';
import {
  httpCapabilities,
  PROVIDERS,
  type ProviderFacts,
  type ProviderName,
  type Transport,
  webSocketCapabilities,
} from './providers.ts';
import { redactorFor } from './redact.ts';
import { SseLink, streamUrl } from './sse-link.ts';
import type { FollowRequest, LinkListener, Observe } from './types.ts';
import { DEFAULT_WS_LIMITS, WsLink, type WsLinkLimits } from './ws-link.ts';

/** One named upstream, as the configuration has it. */
export interface UpstreamOptions {
  readonly name: string;
  readonly provider: ProviderName;
  /** `wss`, `https`, `ws` or `http`; `/responses` is appended; without a path the provider's own is used. */
  readonly url: string;
  /** Default `auto`: WebSocket, and HTTP with server-sent events where the upgrade is refused. */
  readonly transport?: Transport;
  /** The upstream's own key. A request's credential goes before it. */
  readonly credential?: CredentialSource;
  /** Globs with `*`. Default: every model. */
  readonly models?: readonly string[];
  /** Names, in order. Default: the later upstreams that serve the model, for sessions that name none. */
  readonly fallback?: readonly string[];
  /** Sent with every handshake and request. */
  readonly headers?: Headers;
  /** Azure: the `api-version` query parameter. */
  readonly apiVersion?: string;
  /** Keys may go unencrypted beyond this machine. Default: only for `compatible`. */
  readonly allowPlaintext?: boolean;
  readonly tls?: UpstreamTls;
  /** Default: none. `proxiesFromEnvironment` reads the usual variables. */
  readonly proxies?: ProxySettings;
  /** What this upstream can do, where it differs from its provider. */
  readonly capabilities?: Partial<Omit<LinkCapabilities, 'transport'>>;
  /** Default `DEFAULT_WS_LIMITS` and the provider's pong time-out. */
  readonly limits?: Partial<WsLinkLimits>;
}

/** A link that serves one lane. */
const SINGLE_LANE = { multiplexed: false, maxNamedLanes: 0, maxInFlight: 1 } as const;

/** What of the options `Upstream` would be made of in vain. */
export interface UpstreamProblem {
  readonly field: 'url' | 'proxies' | 'headers';
  readonly message: string;
}

/** All of them, where the constructor stops at the first. */
export function upstreamProblems(
  options: Pick<
    UpstreamOptions,
    'provider' | 'url' | 'apiVersion' | 'allowPlaintext' | 'headers' | 'proxies'
  >,
): readonly UpstreamProblem[] {
  const problems: UpstreamProblem[] = [];
  const make = <T>(field: UpstreamProblem['field'], work: () => T): T | undefined => {
    try {
      return work();
    } catch (error) {
      problems.push({ field, message: error instanceof Error ? error.message : String(error) });
      return undefined;
    }
  };
  const endpoint = make('url', () => parseEndpoint(options, PROVIDERS[options.provider]));
  if (endpoint !== undefined) make('proxies', () => proxyFor(endpoint, options.proxies ?? {}));
  make('headers', () => checkExtraHeaders(options.headers ?? {}));
  return problems;
}

/** One upstream with everything parsed: opens links and makes calls. */
export class Upstream {
  readonly name: string;
  readonly models: readonly string[] | undefined;
  readonly fallback: readonly string[] | undefined;
  readonly origin: string;
  readonly transport: Transport;
  readonly credential: CredentialSource;
  readonly facts: ProviderFacts;
  readonly #options: UpstreamOptions;
  readonly #endpoint: Endpoint;
  readonly #network: Network;
  readonly #headers: Headers;
  readonly #limits: WsLinkLimits;
  #lanes: 'unproven' | 'named' | 'refuted';
  readonly #observe: Observe;

  /** Throws RangeError for what cannot work: URL, headers, proxy. */
  constructor(options: UpstreamOptions, observe: Observe) {
    this.#options = options;
    this.#observe = observe;
    this.name = options.name;
    this.models = options.models;
    this.fallback = options.fallback;
    this.transport = options.transport ?? 'auto';
    this.credential = options.credential;
    this.facts = PROVIDERS[options.provider];
    this.#endpoint = parseEndpoint(options, this.facts);
    this.origin = this.#endpoint.httpUrl.origin;
    this.#network = createNetwork(this.#endpoint, options.tls ?? {}, options.proxies ?? {});
    this.#headers = checkExtraHeaders(options.headers ?? {});
    // What the operator says of it, and the documented service, need no proof.
    const isKnown =
      options.capabilities?.multiplexed !== undefined || this.#endpoint.host === 'api.openai.com';
    this.#lanes = isKnown ? 'named' : 'unproven';
    this.#limits = { ...DEFAULT_WS_LIMITS, pongTimeoutMs: this.facts.pongTimeoutMs, ...options.limits };
  }

  openWebSocket(
    credential: Secret | undefined,
    traceContext: TraceContext | undefined,
    listener: LinkListener,
  ): WsLink {
    const options = {
      url: this.#endpoint.webSocketUrl,
      headers: () => this.#requestHeaders(credential, traceContext),
      redactor: redactorFor(credential),
      connect: this.#network.webSocket,
      capabilities: () => this.#webSocketCapabilities(),
      onLanes: (named: boolean) => this.#learn(named),
      route: this.#routeWith(credential),
      limits: this.#limits,
      onRtt: (ms: number) => this.#observe({ kind: 'rtt', upstream: this.name, ms }),
      onHeartbeatLost: () => this.#observe({ kind: 'heartbeatLost', upstream: this.name }),
    };
    return new WsLink(options, listener);
  }

  /** `reachable`: the upstream has just answered, so it need not be tried first. */
  openSse(
    credential: Secret | undefined,
    reachable: boolean,
    onNotReached: (error: GatewayError) => void,
    listener: LinkListener,
  ): SseLink {
    const { httpUrl, host, port } = this.#endpoint;
    const options = {
      url: httpUrl,
      host,
      port,
      headers: (traceContext: TraceContext | undefined) => this.#requestHeaders(credential, traceContext),
      redactor: redactorFor(credential),
      connect: this.#network.http,
      capabilities: httpCapabilities(this.facts, this.#options.capabilities ?? {}),
      route: this.#routeWith(credential),
      limits: this.#limits,
      // Through a proxy only the proxy would be tried.
      probe: !reachable && !this.#network.proxied,
      onNotReached,
    };
    return new SseLink(options, listener);
  }

  /** One HTTP call of the resource, apart from links. */
  call(credential: Secret | undefined, traceContext: TraceContext | undefined, call: ResourceCall) {
    const { method, path, query = [], accept = 'application/json', body } = call;
    const url = new URL(this.#endpoint.httpUrl);
    if (path[0] === 'models') url.pathname = url.pathname.replace(/\/responses$/, '/models');
    else
      url.pathname += path
        .slice(1)
        .map((part) => `/${encodeURIComponent(part)}`)
        .join('');
    for (const [name, value] of query) url.searchParams.append(name, value);
    const headers = this.#requestHeaders(credential, traceContext);
    return post({ method, url, headers, connect: this.#network.http, accept, body });
  }

  /** The events of a stored response. */
  follow(
    credential: Secret | undefined,
    traceContext: TraceContext | undefined,
    { responseId, after, query, onFrame }: FollowRequest,
  ): BackgroundStream {
    const open = (position: StreamPosition) => {
      const url = streamUrl(this.#endpoint.httpUrl, position);
      for (const [name, value] of query) url.searchParams.append(name, value);
      return post({
        method: 'GET',
        url,
        headers: this.#requestHeaders(credential, traceContext),
        connect: this.#network.http,
        accept: 'text/event-stream',
        body: undefined,
      });
    };
    return new BackgroundStream({
      request: open({ responseId, after }),
      position: { responseId, after },
      reopen: open,
      streamId: undefined,
      secure: this.#endpoint.secure,
      maxInboundBytes: this.#limits.maxInboundBytes,
      redactor: redactorFor(credential),
      onFrame,
      onWritten: () => {},
      onEnd: () => {},
    });
  }

  /** Host and port, for people. */
  get host(): string {
    const { host, port } = this.#endpoint;
    return `${host.includes(':') ? `[${host}]` : host}:${port}`;
  }

  get handshakeTimeoutMs(): number {
    return this.#limits.handshakeTimeoutMs;
  }

  get maxInboundBytes(): number {
    return this.#limits.maxInboundBytes;
  }

  retire(): void {
    this.#network.retire();
  }

  close(): void {
    this.#network.close();
  }

  /** One session's answers show it for all. */
  #learn(named: boolean): void {
    if (this.#lanes === 'refuted') return;
    if (!named) this.#observe({ kind: 'lanesRefuted', upstream: this.name });
    this.#lanes = named ? 'named' : 'refuted';
  }

  #webSocketCapabilities(): LinkCapabilities {
    const all = webSocketCapabilities(this.facts, this.#options.capabilities ?? {});
    if (!all.multiplexed || this.#lanes === 'named') return all;
    return this.#lanes === 'unproven' ? { ...all, lanesUnproven: true } : { ...all, ...SINGLE_LANE };
  }

  #routeWith(credential: Secret | undefined): LinkRoute {
    const { host, port } = this.#endpoint;
    return {
      upstream: this.name,
      provider: this.#options.provider,
      serverAddress: host,
      serverPort: port,
      ...(credential === undefined ? {} : { account: credential.fingerprint }),
      pooled: false,
    };
  }

  #requestHeaders(credential: Secret | undefined, traceContext: TraceContext | undefined) {
    return requestHeaders(this.facts, this.#headers, credential, traceContext);
  }
}
