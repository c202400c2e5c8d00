import * as z from 'zod';
import { byteSize, duration } from './units.ts';

export const DEFAULT_UPSTREAM_URL = 'wss://api.openai.com/v1';
export const DEFAULT_API_KEY_ENV = 'OPENAI_API_KEY';
/** A ready link saves TCP, TLS and upgrade on the first turn; two cover the arrival of sessions one by one. */
const DEFAULT_POOL_SIZE = 2;
const DEFAULT_HANDSHAKE_TIMEOUT = '10s';

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
    .default(DEFAULT_API_KEY_ENV)
    .describe('Environment variable that holds the provider key. The key itself never stands in the file.'),
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
  ca_file: z
    .string()
    .optional()
    .describe('CA certificates for this upstream, PEM, instead of the system ones.'),
  proxy: z
    .string()
    .refine(isProxyUrl, 'an http:// or https:// URL, "environment" (HTTPS_PROXY, NO_PROXY) or "none"')
    .default('environment')
    .describe('HTTP proxy for the connection: a URL, "environment" (HTTPS_PROXY, NO_PROXY) or "none".'),
  pool_size: z
    .int()
    .min(0)
    .max(1_000)
    .default(DEFAULT_POOL_SIZE)
    .describe('Links kept ready per credential. 0: dial when a session asks.'),
  handshake_timeout: duration({ min: '100ms' })
    .prefault(DEFAULT_HANDSHAKE_TIMEOUT)
    .describe('Time for TCP, TLS and upgrade together.'),
  capabilities: capabilitiesSchema.optional().describe('What this upstream can do, where it differs.'),
} as const;

export const upstreamSchema = z.strictObject(upstreamFields);

export const upstreamListSchema = z
  .array(
    z.strictObject({
      name: z
        .string()
        .regex(/^[A-Za-z0-9_.-]{1,64}$/, '1 to 64 letters, digits, ".", "_" or "-"')
        .describe('What sessions, tenants and logs call it.'),
      ...upstreamFields,
    }),
  )
  .default([])
  .describe(
    'Several upstreams by name, in order of preference: later ones that serve a model are its fallback.',
  );

function isUpstreamUrl(text: string): boolean {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['wss:', 'ws:', 'https:', 'http:'].includes(url.protocol)) return false;
  return url.username === '' && url.password === '' && url.search === '' && url.hash === '';
}

function isProxyUrl(text: string): boolean {
  if (text === 'environment' || text === 'none') return true;
  return URL.canParse(text) && ['http:', 'https:'].includes(new URL(text).protocol);
}
