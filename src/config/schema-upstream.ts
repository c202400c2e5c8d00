import * as z from 'zod';
import {
  DEFAULT_BREAKER_FAILURES,
  DEFAULT_BREAKER_OPEN_MAX_MS,
  DEFAULT_BREAKER_OPEN_MIN_MS,
} from '../upstream/breaker.ts';
import { DEFAULT_FAILOVER_AFTER, DEFAULT_REFUSED_UPGRADE_MS } from '../upstream/dialer.ts';
import { DEFAULT_MAX_IDLE_LINKS, DEFAULT_MAX_IDLE_MS, DEFAULT_POOL_SIZE } from '../upstream/pool.ts';
import { DEFAULT_WS_LIMITS } from '../upstream/ws-link.ts';
import { byteSize, duration, formatDuration } from './units.ts';

export const DEFAULT_UPSTREAM_URL = 'wss://api.openai.com/v1';

/**
 * Where a provider's key is looked for when nobody says: each under the name that its own tools use, so that no
 * provider is sent another one's key. A compatible server is somebody's own and gets none.
 */
export const DEFAULT_API_KEY_ENV = {
  openai: 'OPENAI_API_KEY',
  azure: 'AZURE_OPENAI_API_KEY',
  xai: 'XAI_API_KEY',
  compatible: null,
} as const;

const URL_EXPECTED =
  'an absolute URL with wss://, ws://, https:// or http://, without user, query or fragment';

const upstreamUrl = z
  .string()
  .refine(isUpstreamUrl, URL_EXPECTED)
  .describe('Base URL, e.g. wss://api.openai.com/v1; /responses is appended. wss or https.');

const environmentName = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'the name of an environment variable (not the key itself)');

const capabilitiesSchema = z.strictObject({
  multiplexed: z.boolean().optional().describe('Lanes have names upstream (stream_id).'),
  max_in_flight: z.int().min(1).optional().describe('Turns in flight on one link.'),
  max_named_lanes: z.int().min(1).optional().describe('Lane names that one link takes in its life.'),
  keeps_unstored: z.boolean().optional().describe('A link remembers responses that were not stored.'),
  stores_responses: z.boolean().optional().describe('Stored responses can be continued from another link.'),
  steering: z.boolean().optional().describe('A running turn takes further input.'),
  multi_agent: z
    .boolean()
    .optional()
    .describe(
      'The multi-agent beta is used: its OpenAI-Beta header is sent, and running turns take tool outputs. Unset: false.',
    ),
  warm_up: z.boolean().optional().describe('Turns with generate: false are understood.'),
  max_age: duration({ min: '1s' }).optional().describe('Age at which the upstream ends a link.'),
  rotate_after: duration({ min: '1s' }).optional().describe('Age at which a link is replaced.'),
  max_frame: byteSize({ min: '64KiB' }).optional().describe('Largest frame that the upstream takes.'),
});

const upstreamFields = {
  provider: z
    .enum(['openai', 'azure', 'xai', 'compatible'])
    .default('openai')
    .describe('Whose dialect the upstream speaks: decides URL form, credential header and capabilities.'),
  url: upstreamUrl.default(DEFAULT_UPSTREAM_URL),
  api_key_env: environmentName
    .nullable()
    .optional()
    .describe(
      'Environment variable that holds the provider key; null: no key is sent. Unset: OPENAI_API_KEY for openai, AZURE_OPENAI_API_KEY for azure, XAI_API_KEY for xai, null for compatible.',
    ),
  api_key_file: z
    .string()
    .optional()
    .describe('File that holds the provider key; read again when it changes. Wins over api_key_env.'),
  transport: z
    .enum(['auto', 'websocket', 'sse'])
    .default('auto')
    .describe('auto: WebSocket, and HTTP with server-sent events when the upgrade is refused.'),
  api_version: z.string().optional().describe('Azure: value of the api-version query parameter.'),
  models: z
    .array(z.string())
    .default([])
    .describe('Models that are routed here; * matches any run of characters. Empty: all.'),
  headers: z
    .record(z.string(), z.string())
    .default({})
    .describe('Headers for every handshake and request, e.g. OpenAI-Project. No secrets: they are printed.'),
  allow_plaintext: z
    .boolean()
    .optional()
    .describe('ws and http beyond this machine, with the key in clear. Unset: only for compatible.'),
  ca_file: z
    .string()
    .optional()
    .describe('CA certificates for this upstream, PEM, instead of the system ones.'),
  proxy: z
    .string()
    .refine(isProxyUrl, 'an http:// or https:// URL, "environment" (HTTPS_PROXY, NO_PROXY) or "none"')
    .default('environment')
    .describe('HTTP proxy for the connection: a URL, "environment" (HTTPS_PROXY, NO_PROXY) or "none".'),
  handshake_timeout: duration({ min: '100ms' })
    .prefault(formatDuration(DEFAULT_WS_LIMITS.handshakeTimeoutMs))
    .describe('Time for TCP, TLS and upgrade together.'),
  compression: z
    .boolean()
    .default(DEFAULT_WS_LIMITS.compression)
    .describe(
      'Offer permessage-deflate: less than half of the bytes, for some milliseconds and several times the CPU of each turn.',
    ),
  tls_min_version: z.enum(['TLSv1.2', 'TLSv1.3']).default('TLSv1.2').describe('Oldest TLS version.'),
  tls_server_name: z.string().optional().describe('Name in the certificate, where it is not the URL’s host.'),
  capabilities: capabilitiesSchema.optional().describe('What this upstream can do, where it differs.'),
} as const;

export const upstreamSchema = z.strictObject(upstreamFields);

/** The variable that an upstream's key is in; null: it gets none from the environment. */
export function apiKeyEnvOf({
  provider,
  api_key_env: named,
}: Pick<z.output<typeof upstreamSchema>, 'provider' | 'api_key_env'>): string | null {
  return named === undefined ? DEFAULT_API_KEY_ENV[provider] : named;
}

export const upstreamListSchema = z
  .array(
    z.strictObject({
      name: z
        .string()
        .regex(/^[A-Za-z0-9_.-]{1,64}$/, '1 to 64 letters, digits, ".", "_" or "-"')
        .describe('What sessions, tenants and logs call it.'),
      ...upstreamFields,
      fallback: z
        .array(z.string())
        .optional()
        .describe(
          'Upstreams to try when this one fails, in order. Unset: the later ones that serve the model.',
        ),
    }),
  )
  .default([])
  .describe(
    'Several upstreams by name, in order of preference: later ones that serve a model are its fallback.',
  );

/** How upstreams are dialled. The defaults, with their reasons, stand in upstream/. */
export const dialSchema = z.strictObject({
  pool_size: z
    .int()
    .min(0)
    .max(1_000)
    .default(DEFAULT_POOL_SIZE)
    .describe('Links kept ready per upstream, tenant and credential. 0: dial when a session asks.'),
  pool_max_links: z.int().min(0).default(DEFAULT_MAX_IDLE_LINKS).describe('Ready links in all.'),
  pool_max_idle: duration({ min: '1s' })
    .prefault(formatDuration(DEFAULT_MAX_IDLE_MS))
    .describe('A link that waited longer is closed.'),
  breaker_failures: z
    .int()
    .min(1)
    .default(DEFAULT_BREAKER_FAILURES)
    .describe('Failed dials in a row after which an upstream is not tried for a while.'),
  breaker_open_min: duration({ min: '10ms' })
    .prefault(formatDuration(DEFAULT_BREAKER_OPEN_MIN_MS))
    .describe('First such while; doubles.'),
  breaker_open_max: duration({ min: '10ms' })
    .prefault(formatDuration(DEFAULT_BREAKER_OPEN_MAX_MS))
    .describe('Longest such while.'),
  refused_upgrade: duration()
    .prefault(formatDuration(DEFAULT_REFUSED_UPGRADE_MS))
    .describe('How long a refused WebSocket upgrade is remembered.'),
  failover_after: z
    .int()
    .min(1)
    .default(DEFAULT_FAILOVER_AFTER)
    .describe('Failed dials before a live session moves to a fallback.'),
});

function isUpstreamUrl(text: string): boolean {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['wss:', 'ws:', 'https:', 'http:'].includes(url.protocol)) return false;
  return url.username === '' && url.password === '' && url.search === '' && url.hash === '';
}

function isProxyUrl(text: string): boolean {
  if (text === 'environment' || text === 'none') return true;
  return URL.canParse(text) && ['http:', 'https:'].includes(new URL(text).protocol);
}
