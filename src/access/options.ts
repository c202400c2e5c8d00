import type { PriceTable } from './prices.ts';
import type { SharedLimits } from './types.ts';

/** What an operator can set about callers, tenants and limits. Plain data; the configuration maps onto it. */

export interface AccessOptions {
  /** In order: the first method that fits what the caller presents decides; a failure never falls through. */
  readonly auth: readonly AuthMethod[];
  /** At least one; ids are unique. */
  readonly tenants: readonly TenantOptions[];
  /** Names of the configured upstreams; tenants' globs are resolved against them. */
  readonly upstreamNames: readonly string[];
  /** True when every gRPC listener is on a loopback address or a Unix socket; `none` needs it. */
  readonly loopbackOnly: boolean;
  /** Over all tenants. Unset values: `DEFAULT_PROCESS_LIMITS`. */
  readonly processLimits?: Limits;
  readonly memoryGuard?: MemoryGuardOptions;
  /** Undefined: turns have no cost. */
  readonly prices?: PriceTable;
  /** Bytes of response ids remembered per tenant, least recently used first out. Default `DEFAULT_OWNED_ID_BYTES`. */
  readonly maxOwnedIdBytes?: number;
  /** What other processes have to know of tenants. Undefined: this process is alone. */
  readonly shared?: SharedLimits;
  /** Wall clock in milliseconds since the epoch, for expiry of proofs. Default `Date.now`. */
  readonly now?: () => number;
  /** Things an operator should know. Texts hold no secrets. */
  readonly onWarning?: (warning: AccessWarning) => void;
}

export interface AccessWarning {
  readonly code:
    | 'API_KEY_IN_CLEAR'
    | 'API_KEY_UNUSED'
    | 'AUTH_NONE'
    | 'AUTH_NONE_FORCED'
    | 'CREDENTIAL_FILE_READABLE'
    | 'CREDENTIAL_FILE_UNREADABLE'
    | 'JWKS_UNAVAILABLE'
    | 'MEMORY_HIGH'
    | 'MEMORY_NORMAL';
  readonly message: string;
}

export type AuthMethod = ApiKeyAuth | JwtAuth | MtlsAuth | NoAuth;

/** Bearer keys of the form `rgk_<id>_<secret>`. Fits every bearer with that prefix. */
export interface ApiKeyAuth {
  readonly kind: 'apiKeys';
  readonly keys: readonly ApiKeyOptions[];
}

/** One live key. Two keys with the same tenant and subject are how a key is rotated. */
export interface ApiKeyOptions {
  /** The part between `rgk_` and the second underscore; sixteen characters of `a-z2-7`. */
  readonly id: string;
  /** `sha256:<64 hex digits>` or `scrypt:<N>:<r>:<p>:<salt base64url>:<hash base64url>`, of the whole key. */
  readonly hash: string;
  readonly tenant: string;
  /** Default: the key's id. Give both keys of a rotation the same, so that sessions survive the switch. */
  readonly subject?: string;
  /** Milliseconds since the epoch; unset: at once / for ever. */
  readonly notBeforeMs?: number;
  readonly notAfterMs?: number;
}

/** Bearer tokens of three base64url parts whose `iss` is this issuer. */
export interface JwtAuth {
  readonly kind: 'jwt';
  readonly issuer: string;
  /** Any one of them has to be in the token's `aud`. */
  readonly audience: readonly string[];
  /** Pinned: a token signed otherwise is refused. HS* only with a shared secret, the others only with public keys. */
  readonly algorithms: readonly JwtAlgorithm[];
  readonly keys: JwtKeys;
  readonly tenant: JwtTenant;
  /** Default 30 s: hosts with NTP differ by less, a stolen token gains little. */
  readonly clockSkewMs?: number;
  /** Refuses tokens whose `iat` is older. Unset: only `exp` counts. */
  readonly maxTokenAgeMs?: number;
  /** Required value of the header `typ`, e.g. `at+jwt`. Unset: any. */
  readonly typ?: string;
}

export type JwtAlgorithm =
  | 'RS256'
  | 'RS384'
  | 'RS512'
  | 'PS256'
  | 'PS384'
  | 'PS512'
  | 'ES256'
  | 'ES384'
  | 'ES512'
  | 'EdDSA'
  | 'HS256'
  | 'HS384'
  | 'HS512';

export type JwtKeys =
  /** `https:`, or `http:` on loopback. Fetched on first use, refetched for an unknown `kid` at most every 30 s. */
  | { readonly kind: 'jwksUrl'; readonly url: string }
  /** A JWKS file; read again when it changes. */
  | { readonly kind: 'jwksFile'; readonly path: string }
  /** A PEM public key (SPKI or certificate). */
  | { readonly kind: 'publicKey'; readonly pem: string }
  /** A shared secret of 32 bytes or more. */
  | { readonly kind: 'secret'; readonly secret: string };

export type JwtTenant =
  | { readonly kind: 'fixed'; readonly tenant: string }
  /** The claim's string value is the tenant's id, or is looked up in `map`. Nested claims: `a.b`. */
  | {
      readonly kind: 'claim';
      readonly claim: string;
      readonly map?: Readonly<Record<string, string>>;
    };

/** A verified client certificate. Fits when one is presented and no `authorization`. */
export interface MtlsAuth {
  readonly kind: 'mtls';
  /** The first rule that fits a name of the certificate decides. */
  readonly rules: readonly MtlsRule[];
}

export interface MtlsRule {
  /** `*` stands for any characters but `/`, e.g. `spiffe://example.org/billing/*`. */
  readonly match:
    | { readonly kind: 'spiffe'; readonly id: string }
    | { readonly kind: 'san'; readonly type: 'DNS' | 'URI' | 'email'; readonly value: string };
  readonly tenant: string;
}

/** Everybody is this tenant. Refused at start when a listener is not on loopback, unless forced. */
export interface NoAuth {
  readonly kind: 'none';
  readonly tenant: string;
  readonly force?: boolean;
}

export interface TenantOptions {
  readonly id: string;
  /** There is no other tenant to keep apart from this one, and never was. Default false. */
  readonly alone?: boolean;
  /** Globs (`*`) over upstream names. Default: all. */
  readonly upstreams?: readonly string[];
  /** Globs (`*`) over model names. Default: all. A restricted tenant has to name the model in every turn. */
  readonly models?: readonly string[];
  /**
   * The provider's key for upstreams that fit the glob; the first fit counts. A tenant whose upstreams have
   * different sources has to name the upstream when it opens a session, so that no key goes to another provider.
   * Default: none, the upstream's own credential is used.
   */
  readonly credentials?: readonly TenantCredential[];
  /**
   * Whether the caller may pass its own provider key (`x-upstream-api-key`): never (default), if it likes, or
   * always.
   */
  readonly passThrough?: 'forbidden' | 'allowed' | 'required';
  /** Unset values: `DEFAULT_TENANT_LIMITS`. */
  readonly limits?: Limits;
  /** Whether prompts and outputs may appear in telemetry, if telemetry asks for it. Default false. */
  readonly captureContent?: boolean;
  /**
   * `strict` (default): a response id, conversation or item reference that this gateway did not give to this
   * tenant is refused. `allow`: unknown ids pass (stored responses of before a restart, conversations made
   * elsewhere); ids known to be another tenant's are still refused.
   */
  readonly storedIds?: 'strict' | 'allow';
}

export interface TenantCredential {
  /** Glob over upstream names. */
  readonly upstream: string;
  readonly source: CredentialSource;
}

export type CredentialSource =
  /** Read once, at start. */
  | { readonly kind: 'env'; readonly name: string }
  /** Checked for a change on use, at most once a second; a file that became unreadable leaves the old key. */
  | { readonly kind: 'file'; readonly path: string };

/** All optional; `null` lifts a limit that has a default. */
export interface Limits {
  /** Open sessions, those waiting for a resume included. */
  readonly sessions?: number | null;
  /** Open lanes over all sessions. */
  readonly lanes?: number | null;
  readonly turnsInFlight?: number | null;
  /** Bytes of one turn's request. */
  readonly messageBytes?: number | null;
  readonly turnsPerMinute?: number | null;
  /** Input and output tokens as the upstream counts them; reserved at the start of a turn, settled at its end. */
  readonly tokensPerMinute?: number | null;
  readonly tokensPerDay?: number | null;
  /** A month is thirty days from its first turn. */
  readonly tokensPerMonth?: number | null;
  /** Nanos of the price table's currency. */
  readonly moneyPerDay?: number | null;
  readonly moneyPerMonth?: number | null;
}

export type LimitName = keyof Limits;

/** Wide enough for one busy service, and still small against the process limits. Rates are the operator's business. */
export const DEFAULT_TENANT_LIMITS: Limits = {
  sessions: 1_000,
  lanes: 8_000,
  turnsInFlight: 2_000,
  // The upstream takes frames up to 16 MiB; the rest is room for what the gateway adds.
  messageBytes: 15 * 1024 * 1024,
};

/** What one process on two cores holds with idle sessions of some tens of kilobytes each. */
export const DEFAULT_PROCESS_LIMITS: Limits = {
  sessions: 10_000,
  lanes: 80_000,
  turnsInFlight: 20_000,
};

/** About 40,000 ids of the upstream's usual length. */
export const DEFAULT_OWNED_ID_BYTES = 8 * 1024 * 1024;

export const DEFAULT_CLOCK_SKEW_MS = 30_000;

export interface MemoryGuardOptions {
  /** Share of the limit above which new work is refused. Default 0.85: the rest is room for the work that runs. */
  readonly highMark?: number;
  /** Share under which work is taken again. Default 0.75, so that it does not flap. */
  readonly lowMark?: number;
  /** Default 500 ms: a full-speed client fills some 100 MB in that time. */
  readonly sampleIntervalMs?: number;
  /** What a refused client is told to wait. Default 5 s, some major collections later. */
  readonly retryAfterMs?: number;
  /** Processes that share the container's memory. Default 1. */
  readonly processes?: number;
  /** Called from halfway between the marks on, every five seconds at most: so many bytes should be freed. */
  readonly onPressure?: (bytes: number) => void;
  readonly probe?: MemoryProbe;
  /** Called above the high mark, every five seconds at most. Default: a full collection by V8. */
  readonly collectGarbage?: () => void;
  /** Milliseconds that never go back. */
  readonly now?: () => number;
}

/** Bytes of the process in use, and their limits. `heap` is V8's old space: the young one comes and goes. */
export interface MemoryUse {
  readonly heapBytes: number;
  readonly heapLimitBytes: number;
  readonly rssBytes: number;
  readonly rssLimitBytes: number;
}

export type MemoryProbe = () => MemoryUse;

/** What the process may have, in bytes. */
export interface MemoryLimits {
  readonly heapBytes: number;
  readonly rssBytes: number;
}

/** An operator's mistake; `path` names the option. */
export class AccessOptionsError extends Error {
  override readonly name = 'AccessOptionsError';
  readonly path: string;
  /** What is wrong there. */
  readonly complaint: string;

  constructor(path: string, complaint: string) {
    super(`${path}: ${complaint}`);
    this.path = path;
    this.complaint = complaint;
  }
}
