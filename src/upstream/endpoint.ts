import { isLoopback } from '../ground/loopback.ts';
import type { ProviderFacts } from './providers.ts';

/** Where an upstream is. The two URLs are the only places that its key goes to. */
export interface Endpoint {
  /** `ws:` or `wss:`, ending in `/responses`. */
  readonly webSocketUrl: URL;
  /** `http:` or `https:`, ending in `/responses`. */
  readonly httpUrl: URL;
  readonly secure: boolean;
  /** Without brackets, also for IPv6. */
  readonly host: string;
  readonly port: number;
}

export interface EndpointOptions {
  readonly url: string;
  readonly apiVersion?: string | undefined;
  readonly allowPlaintext?: boolean | undefined;
}

/** Throws RangeError with what was expected. `/responses` is appended; a URL without a path gets the provider's. */
export function parseEndpoint(options: EndpointOptions, facts: ProviderFacts): Endpoint {
  const url = URL.canParse(options.url) ? new URL(options.url) : undefined;
  const scheme = url === undefined ? undefined : SCHEMES[url.protocol];
  if (url === undefined || scheme === undefined) {
    throw new RangeError('expected an absolute URL with wss, https, ws or http');
  }
  if (url.username !== '' || url.password !== '' || url.hash !== '') {
    throw new RangeError('expected a URL without user, password and fragment');
  }
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const secure = scheme === 'secure';
  if (!secure && !isLoopback(host) && !(options.allowPlaintext ?? facts.plaintextAllowed)) {
    throw new RangeError('expected wss or https: a key must not travel in clear beyond this machine');
  }
  const path = url.pathname.replace(/\/+$/, '') || facts.basePath;
  url.pathname = path.endsWith('/responses') ? path : `${path}/responses`;
  if (options.apiVersion !== undefined) url.searchParams.set('api-version', options.apiVersion);
  return {
    webSocketUrl: withProtocol(url, secure ? 'wss:' : 'ws:'),
    httpUrl: withProtocol(url, secure ? 'https:' : 'http:'),
    secure,
    host,
    port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
  };
}

const SCHEMES: Readonly<Record<string, 'secure' | 'plain'>> = {
  'wss:': 'secure',
  'https:': 'secure',
  'ws:': 'plain',
  'http:': 'plain',
};

function withProtocol(url: URL, protocol: string): URL {
  const copy = new URL(url);
  copy.protocol = protocol;
  return copy;
}
