import type { TraceContext } from '../core/types.ts';
import { GatewayError } from '../errors.ts';
import type { Secret } from '../ground/secret.ts';
import type { ProviderFacts } from './providers.ts';

export type Headers = Readonly<Record<string, string>>;

/** Throws RangeError naming the header (never its value) that must not be sent. */
export function checkExtraHeaders(headers: Headers): Headers {
  for (const [name, value] of Object.entries(headers)) {
    if (!NAME.test(name)) throw new RangeError('a header name holds characters that are not allowed');
    if (RESERVED.has(name.toLowerCase()) || name.toLowerCase().startsWith('sec-')) {
      throw new RangeError(`the header ${name} is the gateway's own`);
    }
    if (!VALUE.test(value)) throw new RangeError(`the header ${name} holds characters that are not allowed`);
  }
  return headers;
}

/** Holds the key in clear: build it for one request and let it go. Throws UPSTREAM_AUTH for an unusable key. */
export function requestHeaders(
  facts: ProviderFacts,
  extra: Headers,
  credential: Secret | undefined,
  traceContext: TraceContext | undefined,
): Record<string, string> {
  const headers: Record<string, string> = { 'User-Agent': USER_AGENT, ...extra };
  if (credential !== undefined) {
    const key = credential.reveal();
    if (!VALUE.test(key)) {
      throw new GatewayError(
        'UPSTREAM_AUTH',
        'the provider credential holds characters that no header may carry',
      );
    }
    if (facts.keyHeader === 'bearer') headers['Authorization'] = `Bearer ${key}`;
    else headers[facts.keyHeader] = key;
  }
  for (const name of ['traceparent', 'tracestate', 'baggage'] as const) {
    const value = traceContext?.[name];
    // It came from a caller: what no header may carry is left out, a turn does not fail for it.
    if (value !== undefined && value !== '' && VALUE.test(value)) headers[name] = value;
  }
  return headers;
}

const USER_AGENT = 'responses-gateway';

const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/;
/** Printable ASCII: no CR or LF to start a header of its own, nothing that proxies read differently. */
const VALUE = /^[\x20-\x7e]{0,8192}$/;

const RESERVED: ReadonlySet<string> = new Set([
  'authorization',
  'api-key',
  'host',
  'connection',
  'upgrade',
  'content-length',
  'content-type',
  'transfer-encoding',
  'accept',
  'accept-encoding',
  'cookie',
  'proxy-authorization',
  'te',
  'trailer',
]);
