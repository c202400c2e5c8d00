import { readFileSync } from 'node:fs';
import type {
  AccessOptions,
  ApiKeyOptions,
  AuthMethod,
  JwtAuth,
  JwtKeys,
  Limits,
  MtlsRule,
  TenantOptions,
} from '../access/options.ts';
import { loadPrices, parsePrices } from '../config/prices.ts';
import type { GatewayConfig } from '../config/schema.ts';
import { DEFAULT_TENANT_ID } from '../config/schema-access.ts';
import { isLoopback } from '../ground/loopback.ts';

type Environment = Readonly<Record<string, string | undefined>>;

export interface AccessSurroundings {
  readonly environment: Environment;
  /** Text of the price table. Default: what the file holds. */
  readonly prices?: string | undefined;
  readonly onWarning: NonNullable<AccessOptions['onWarning']>;
  /** Memory is short: so many bytes should be freed. */
  readonly onMemoryPressure: (bytes: number) => void;
  readonly shared?: NonNullable<AccessOptions['shared']>;
}

/** The access part of the configuration in access control's own terms. */
export function accessOptions(
  config: GatewayConfig,
  upstreamNames: readonly string[],
  surroundings: AccessSurroundings,
): AccessOptions {
  const { environment, prices, onMemoryPressure: _pressure, ...rest } = surroundings;
  const { memory_high, memory_low, owned_ids, items_per_turn: _, ...processLimits } = config.limits;
  return {
    ...rest,
    upstreamNames,
    auth:
      config.auth.length === 0
        ? [openMethod(config)]
        : config.auth.map((each) => authMethod(each, environment)),
    tenants: tenantOptions(config),
    loopbackOnly: isLoopback(config.listen.host),
    processLimits: limits(processLimits),
    memoryGuard: {
      highMark: memory_high,
      lowMark: memory_low,
      processes: config.workers,
      onPressure: surroundings.onMemoryPressure,
    },
    maxOwnedIdBytes: owned_ids,
    ...(config.prices_file === undefined ? {} : { prices: priceTable(config.prices_file, prices) }),
  };
}

/** `text`: what the file held when it was last good. */
export function priceTable(path: string, text: string | undefined) {
  return text === undefined ? loadPrices(path) : parsePrices(text, path);
}

/** What holds where no method is configured. */
export function openMethod({ tenants }: Pick<GatewayConfig, 'tenants'>): AuthMethod {
  return { kind: 'none', tenant: tenants[0]?.id ?? DEFAULT_TENANT_ID };
}

export function tenantOptions({ tenants }: Pick<GatewayConfig, 'tenants'>): readonly TenantOptions[] {
  return tenants.length === 0 ? [{ id: DEFAULT_TENANT_ID, alone: true }] : tenants.map(tenant);
}

/** Throws when a file of it cannot be read. */
export function authMethod(method: GatewayConfig['auth'][number], environment: Environment): AuthMethod {
  switch (method.kind) {
    case 'none':
      return method;
    case 'api_keys':
      return { kind: 'apiKeys', keys: method.keys.map(apiKey) };
    case 'mtls':
      return { kind: 'mtls', rules: method.rules.map(mtlsRule) };
    case 'jwt':
      return jwt(method, environment);
  }
}

type ApiKeyConfig = Extract<GatewayConfig['auth'][number], { kind: 'api_keys' }>['keys'][number];

function apiKey({ id, hash, tenant: tenantId, subject, not_before, not_after }: ApiKeyConfig): ApiKeyOptions {
  return {
    id,
    hash,
    tenant: tenantId,
    ...given('subject', subject),
    ...given('notBeforeMs', not_before === undefined ? undefined : Date.parse(not_before)),
    ...given('notAfterMs', not_after === undefined ? undefined : Date.parse(not_after)),
  };
}

type MtlsConfig = Extract<GatewayConfig['auth'][number], { kind: 'mtls' }>;

/** The configuration was checked to have exactly one of the names. */
function mtlsRule({ spiffe, dns, uri, email, tenant: tenantId }: MtlsConfig['rules'][number]): MtlsRule {
  if (spiffe !== undefined) return { match: { kind: 'spiffe', id: spiffe }, tenant: tenantId };
  if (dns !== undefined) return { match: { kind: 'san', type: 'DNS', value: dns }, tenant: tenantId };
  if (uri !== undefined) return { match: { kind: 'san', type: 'URI', value: uri }, tenant: tenantId };
  return { match: { kind: 'san', type: 'email', value: email ?? '' }, tenant: tenantId };
}

type JwtConfig = Extract<GatewayConfig['auth'][number], { kind: 'jwt' }>;

function jwt(method: JwtConfig, environment: Environment): JwtAuth {
  const {
    issuer,
    audience,
    algorithms,
    tenant: tenantId,
    tenant_claim: claim = '',
    tenant_map: map,
  } = method;
  return {
    kind: 'jwt',
    issuer,
    audience,
    algorithms,
    keys: jwtKeys(method, environment),
    tenant:
      tenantId === undefined
        ? { kind: 'claim', claim, ...given('map', map) }
        : { kind: 'fixed', tenant: tenantId },
    clockSkewMs: method.clock_skew,
    ...given('maxTokenAgeMs', method.max_token_age),
    ...given('typ', method.typ),
  };
}

/** The configuration was checked to have exactly one of the sources. */
function jwtKeys(
  { jwks_url, jwks_file, public_key_file, secret_env }: JwtConfig,
  environment: Environment,
): JwtKeys {
  if (jwks_url !== undefined) return { kind: 'jwksUrl', url: jwks_url };
  if (jwks_file !== undefined) return { kind: 'jwksFile', path: jwks_file };
  if (public_key_file !== undefined) return { kind: 'publicKey', pem: readFileSync(public_key_file, 'utf8') };
  return { kind: 'secret', secret: environment[secret_env ?? ''] ?? '' };
}

function tenant(config: GatewayConfig['tenants'][number]): TenantOptions {
  return {
    id: config.id,
    ...given('upstreams', config.upstreams),
    ...given('models', config.models),
    credentials: config.credentials.map(({ upstream, api_key_env, api_key_file }) => ({
      upstream,
      source:
        api_key_file === undefined
          ? { kind: 'env', name: api_key_env ?? '' }
          : { kind: 'file', path: api_key_file },
    })),
    passThrough: config.pass_through,
    limits: limits(config.limits),
    captureContent: config.capture_content,
    storedIds: config.stored_ids,
  };
}

function limits(config: GatewayConfig['tenants'][number]['limits']): Limits {
  return {
    ...given('sessions', config.sessions),
    ...given('lanes', config.lanes),
    ...given('turnsInFlight', config.turns_in_flight),
    ...given('messageBytes', config.message),
    ...given('turnsPerMinute', config.turns_per_minute),
    ...given('tokensPerMinute', config.tokens_per_minute),
    ...given('tokensPerDay', config.tokens_per_day),
    ...given('tokensPerMonth', config.tokens_per_month),
    ...given('moneyPerDay', config.money_per_day),
    ...given('moneyPerMonth', config.money_per_month),
  };
}

/** A property only where there is a value, as exact optional properties want it. */
function given<K extends string, V>(key: K, value: V | undefined): { readonly [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { readonly [P in K]?: V });
}
