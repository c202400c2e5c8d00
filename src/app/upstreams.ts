import { readFileSync } from 'node:fs';
import { openCredential } from '../access/credential.ts';
import type { AccessWarning } from '../access/options.ts';
import { maskUrl } from '../config/mask.ts';
import type { GatewayConfig } from '../config/schema.ts';
import {
  apiKeyEnvOf,
  DEFAULT_API_KEY_ENV,
  DEFAULT_UPSTREAM_URL,
  upstreamSchema,
} from '../config/schema-upstream.ts';
import { type CredentialSource, createCredential } from '../upstream/credential.ts';
import { type ProxySettings, proxiesFromEnvironment } from '../upstream/network.ts';
import type { UpstreamOptions } from '../upstream/upstream.ts';

type Environment = Readonly<Record<string, string | undefined>>;
type UpstreamConfig = GatewayConfig['upstreams'][number];

/** Which upstreams the gateway uses, and why. */
export type UpstreamChoice =
  | { readonly kind: 'simulator' }
  | {
      readonly kind: 'configured' | 'default';
      readonly upstreams: readonly (UpstreamConfig & {
        readonly shownUrl: string;
        readonly keySource: string;
      })[];
    };

/** The name of the upstream in places that name one, where the configuration does not. */
const DEFAULT_NAME = 'default';
/** Of the built-in simulator. */
export const SIMULATOR_NAME = 'simulator';

/** What is configured; else OpenAI where there is a key; else the built-in simulator. */
export function chooseUpstreams(
  config: Pick<GatewayConfig, 'upstream' | 'upstreams'>,
  environment: Environment,
): UpstreamChoice {
  if (config.upstreams.length > 0)
    return { kind: 'configured', upstreams: config.upstreams.map((each) => shown(each, environment)) };
  if (config.upstream !== undefined) {
    return {
      kind: 'configured',
      upstreams: [shown({ ...config.upstream, name: DEFAULT_NAME }, environment)],
    };
  }
  if (!environment[DEFAULT_API_KEY_ENV.openai]) return { kind: 'simulator' };
  const openai = { ...upstreamSchema.parse({ url: DEFAULT_UPSTREAM_URL }), name: DEFAULT_NAME };
  return { kind: 'default', upstreams: [shown(openai, environment)] };
}

/** By which requests and tenants name them. */
export function upstreamNames(choice: UpstreamChoice): readonly string[] {
  return choice.kind === 'simulator' ? [SIMULATOR_NAME] : choice.upstreams.map(({ name }) => name);
}

/** In the dialer's own terms. `simulatorUrl` is where the built-in one listens. Throws when a key file is unusable. */
export function upstreamOptions(
  choice: UpstreamChoice,
  simulatorUrl: string | undefined,
  environment: Environment,
  warn: (warning: AccessWarning) => void,
): readonly UpstreamOptions[] {
  if (choice.kind === 'simulator') {
    return [{ name: SIMULATOR_NAME, provider: 'openai', url: simulatorUrl ?? '' }];
  }
  warnOfUnusedKeys(choice.upstreams, environment, warn);
  return choice.upstreams.map((upstream) => ({
    ...wayTo(upstream, environment),
    transport: upstream.transport,
    credential: credentialSource(upstream, environment, warn),
    models: upstream.models,
    ...(upstream.fallback === undefined ? {} : { fallback: upstream.fallback }),
    tls: {
      ca: upstream.ca_file === undefined ? undefined : readFileSync(upstream.ca_file, 'utf8'),
      minVersion: upstream.tls_min_version,
      servername: upstream.tls_server_name,
    },
    capabilities: capabilities(upstream.capabilities ?? {}),
    limits: { handshakeTimeoutMs: upstream.handshake_timeout, compression: upstream.compression },
    // Telemetry decides what goes on to the upstream; without `propagate` that is nothing.
  }));
}

/** Where it is, and what goes there with every request. */
export function wayTo(upstream: UpstreamConfig, environment: Environment) {
  return {
    name: upstream.name,
    provider: upstream.provider,
    url: upstream.url,
    headers: withBetas(upstream),
    ...(upstream.api_version === undefined ? {} : { apiVersion: upstream.api_version }),
    ...(upstream.allow_plaintext === undefined ? {} : { allowPlaintext: upstream.allow_plaintext }),
    proxies: proxies(upstream.proxy, environment),
  };
}

function shown(upstream: UpstreamConfig, environment: Environment) {
  const { api_key_file: file } = upstream;
  const name = apiKeyEnvOf(upstream);
  const fromEnvironment = name !== null && environment[name] ? `key from ${name}` : 'no key';
  const keySource = file === undefined ? fromEnvironment : `key from ${file}`;
  return { ...upstream, shownUrl: maskUrl(upstream.url), keySource };
}

/** Throws AccessOptionsError for a file, GatewayError for a variable that holds no usable key. */
export function credentialSource(
  upstream: UpstreamConfig & { readonly shownUrl: string },
  environment: Environment,
  warn: (warning: AccessWarning) => void,
): CredentialSource {
  if (upstream.api_key_file !== undefined) {
    return openCredential(
      { kind: 'file', path: upstream.api_key_file },
      `upstream ${upstream.name}.api_key_file`,
      performance.now.bind(performance),
      warn,
    );
  }
  const name = apiKeyEnvOf(upstream);
  const secret = name === null ? undefined : environment[name]?.trim();
  if (!secret) return undefined;
  if (/^(?:ws|http):/.test(upstream.url) && name === DEFAULT_API_KEY_ENV[upstream.provider]) {
    warn({
      code: 'API_KEY_IN_CLEAR',
      message: `${name} goes unencrypted to ${upstream.shownUrl}, which is not the provider's; for a server of your own set provider: compatible`,
    });
  }
  return createCredential(secret);
}

const BETA_HEADER = 'OpenAI-Beta';
const MULTI_AGENT_BETA = 'responses_multi_agent=v1';

/** Several betas share one header. */
function withBetas({ headers, capabilities }: UpstreamConfig): UpstreamConfig['headers'] {
  if (capabilities?.multi_agent !== true) return headers;
  const isBeta = ([name]: readonly [string, string]) => name.toLowerCase() === BETA_HEADER.toLowerCase();
  const all = Object.entries(headers);
  const given = all.filter(isBeta).flatMap(([, value]) => value.split(/\s*,\s*/));
  const others = Object.fromEntries(all.filter((each) => !isBeta(each)));
  return { ...others, [BETA_HEADER]: [...new Set([...given, MULTI_AGENT_BETA])].join(', ') };
}

/** The keys that lie ready, and that somebody may think are used. */
export function warnOfUnusedKeys(
  upstreams: readonly UpstreamConfig[],
  environment: Environment,
  warn: (warning: AccessWarning) => void,
): void {
  const used = new Set(upstreams.map((each) => (each.api_key_file === undefined ? apiKeyEnvOf(each) : null)));
  const keyless = upstreams.filter(
    (each) => each.api_key_file === undefined && each.provider === 'compatible' && apiKeyEnvOf(each) === null,
  );
  const name = DEFAULT_API_KEY_ENV.openai;
  if (keyless.length === 0 || !environment[name] || used.has(name)) return;
  warn({
    code: 'API_KEY_UNUSED',
    message: `${name} is set and not used: ${keyless.map((each) => each.name).join(', ')} is sent no key, unless api_key_env or api_key_file names one`,
  });
}

function proxies(proxy: string, environment: Environment): ProxySettings {
  if (proxy === 'none') return {};
  return proxy === 'environment'
    ? proxiesFromEnvironment(environment)
    : { httpsProxy: proxy, httpProxy: proxy };
}

type CapabilitiesConfig = NonNullable<UpstreamConfig['capabilities']>;

function capabilities(config: CapabilitiesConfig): NonNullable<UpstreamOptions['capabilities']> {
  const all = {
    multiplexed: config.multiplexed,
    maxInFlight: config.max_in_flight,
    maxNamedLanes: config.max_named_lanes,
    keepsUnstored: config.keeps_unstored,
    storesResponses: config.stores_responses,
    steering: config.steering,
    injecting: config.multi_agent,
    warmUp: config.warm_up,
    maxAgeMs: config.max_age,
    rotateAfterMs: config.rotate_after,
    maxFrameBytes: config.max_frame,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}
