import type { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import type { SecureVersion } from 'node:tls';
import type { HttpsProxyAgent } from 'https-proxy-agent';
import { http } from '../ground/http.ts';
import { isLoopback } from '../ground/loopback.ts';
import type { Endpoint } from './endpoint.ts';

/** To the upstream. Certificates are always checked. */
export interface UpstreamTls {
  /** PEM; replaces the system's roots. (NODE_EXTRA_CA_CERTS adds to them.) */
  readonly ca?: string | readonly string[] | undefined;
  /** Default TLSv1.2. */
  readonly minVersion?: 'TLSv1.2' | 'TLSv1.3' | undefined;
  /** Name in SNI and in the certificate, where it is not the URL's host. */
  readonly servername?: string | undefined;
}

/** URLs of forward proxies and the hosts to reach without them, in the form of the usual variables. */
export interface ProxySettings {
  readonly httpsProxy?: string | undefined;
  readonly httpProxy?: string | undefined;
  readonly noProxy?: string | undefined;
}

/** What `http.request`, `https.request` and `ws` need to connect. */
export interface ConnectOptions {
  readonly agent: HttpAgent | HttpsAgent;
  readonly ca?: string[];
  readonly minVersion?: SecureVersion;
  readonly servername?: string;
}

/** One upstream's way into the network. */
export interface Network {
  /** One connection each: a WebSocket takes it over. */
  readonly webSocket: ConnectOptions;
  /** Connections are kept for the next request. */
  readonly http: ConnectOptions;
  readonly proxied: boolean;
  /** Connections end with their requests from now on; those that wait for one end at once. */
  retire(): void;
  close(): void;
}

/**
 * HTTP has no pings: TCP's own probes begin after this much silence and give up a dead peer ten seconds later (Node
 * sets one second between them), while a model may think for minutes.
 */
const TCP_KEEPALIVE_MS = 15_000;

export function createNetwork(endpoint: Endpoint, tls: UpstreamTls, proxies: ProxySettings): Network {
  const proxy = proxyFor(endpoint, proxies);
  const secure = endpoint.secure ? tlsOptions(tls) : {};
  const create = (keepAlive: boolean): HttpAgent | HttpsAgent => {
    const options = { keepAlive, keepAliveMsecs: TCP_KEEPALIVE_MS };
    if (proxy !== undefined) return tunnelAgent(proxy, options);
    return endpoint.secure ? new HttpsAgent(options) : new http.Agent(options);
  };
  const webSocketAgent = create(false);
  const httpAgent = create(true);
  return {
    webSocket: { ...secure, agent: webSocketAgent },
    http: { ...secure, agent: httpAgent },
    proxied: proxy !== undefined,
    retire: () => {
      Object.assign(httpAgent, { keepAlive: false });
      for (const socket of Object.values(httpAgent.freeSockets).flat()) socket?.destroy();
    },
    close: () => {
      webSocketAgent.destroy();
      httpAgent.destroy();
    },
  };
}

/** Reads HTTPS_PROXY, HTTP_PROXY and NO_PROXY, lower-case names first, as curl does. */
export function proxiesFromEnvironment(env: Readonly<Record<string, string | undefined>>): ProxySettings {
  return {
    httpsProxy: env['https_proxy'] ?? env['HTTPS_PROXY'],
    // HTTP_PROXY in capitals can be set by a request header in CGI; nothing here runs as CGI.
    httpProxy: env['http_proxy'] ?? env['HTTP_PROXY'],
    noProxy: env['no_proxy'] ?? env['NO_PROXY'],
  };
}

/** The proxy for this upstream, if it is not exempt. Throws RangeError for what is no http(s) URL. */
export function proxyFor({ secure, host, port }: Endpoint, proxies: ProxySettings): URL | undefined {
  const text = (secure ? proxies.httpsProxy : proxies.httpProxy) ?? '';
  if (text === '' || isLoopback(host) || isExempt(host, port, proxies.noProxy ?? '')) return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol)) {
    throw new RangeError('expected an http or https URL as proxy');
  }
  return url;
}

type TunnelOptions = ConstructorParameters<typeof HttpsProxyAgent<string>>[1];

/** Loaded where there is a proxy. Without the override its refusal would look like the upstream's own answer, a 403 like a bad key. */
function tunnelAgent(proxy: URL, options: TunnelOptions): HttpAgent {
  const { HttpsProxyAgent } = createRequire(import.meta.url)(
    'https-proxy-agent',
  ) as typeof import('https-proxy-agent');
  class TunnelAgent extends HttpsProxyAgent<string> {
    override async connect(...args: Parameters<HttpsProxyAgent<string>['connect']>): Promise<Socket> {
      const [request] = args;
      let status = 200;
      request.once('proxyConnect', (answer: { readonly statusCode: number }) => {
        status = answer.statusCode;
      });
      const socket = await super.connect(...args);
      if (status === 200) return socket;
      socket.destroy();
      throw Object.assign(new Error('the proxy refused the tunnel'), { code: 'PROXY_REFUSED' });
    }
  }
  return new TunnelAgent(proxy, options);
}

/** `*`, a host with all below it (with or without leading dot), each optionally with a port. */
function isExempt(host: string, port: number, noProxy: string): boolean {
  const name = host.toLowerCase();
  return noProxy
    .toLowerCase()
    .split(/[\s,]+/)
    .some((entry) => {
      if (entry === '') return false;
      if (entry === '*') return true;
      const [, domain = '', onlyPort] = /^\*?\.?(.*?)(?::(\d+))?$/.exec(entry) ?? [];
      if (onlyPort !== undefined && Number(onlyPort) !== port) return false;
      return name === domain || name.endsWith(`.${domain}`);
    });
}

function tlsOptions({ ca, minVersion, servername }: UpstreamTls): Omit<ConnectOptions, 'agent'> {
  return {
    minVersion: minVersion ?? 'TLSv1.2',
    ...(ca === undefined ? {} : { ca: typeof ca === 'string' ? [ca] : [...ca] }),
    ...(servername === undefined ? {} : { servername }),
  };
}
