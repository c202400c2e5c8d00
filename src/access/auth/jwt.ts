import { createSecretKey, type KeyObject } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { importSPKI, JSONWebKeySet, JWTPayload, JWTVerifyGetKey } from 'jose';
import { AccessOptionsError, type AccessWarning, DEFAULT_CLOCK_SKEW_MS, type JwtAuth } from '../options.ts';
import type { Principal } from '../types.ts';
import type { Method, Presented, Refused } from './method.ts';

const TOKEN_FORM = /^[\w-]+\.[\w-]+\.[\w-]*$/;

/** The time between two fetches for a `kid` that is not known: made-up ids cannot turn into load on the issuer. */
const JWKS_COOLDOWN_MS = 30_000;
/** A key withdrawn by the issuer is refused after this at the latest. */
const JWKS_MAX_AGE_MS = 10 * 60_000;
const JWKS_TIMEOUT_MS = 5_000;
const FILE_CHECK_INTERVAL_MS = 1_000;

/** RFC 7518 asks for a key as long as the hash. */
const MIN_SECRET_BYTES = 32;

const MAX_SUBJECT_CHARS = 256;

let loaded: typeof import('jose') | undefined;

/** Loaded when tokens are first configured: few gateways take any, and it takes 16 MB. */
function jose(): typeof import('jose') {
  loaded ??= createRequire(import.meta.url)('jose') as typeof import('jose');
  return loaded;
}

export function jwt(options: JwtAuth, path: string, warn: (warning: AccessWarning) => void): Method {
  checkAlgorithms(options, path);
  if (options.audience.length === 0) throw new AccessOptionsError(`${path}.audience`, 'is empty');
  const keyFor = openKeys(options, path, warn);
  const clockSkewMs = options.clockSkewMs ?? DEFAULT_CLOCK_SKEW_MS;

  return {
    kind: 'jwt',
    fits: ({ bearer }) =>
      bearer !== undefined && TOKEN_FORM.test(bearer) && issuerOf(bearer) === options.issuer,
    verify: async (presented: Presented, nowMs: number): Promise<Principal | Refused> => {
      try {
        const { payload } = await jose().jwtVerify(presented.bearer ?? '', keyFor, {
          algorithms: [...options.algorithms],
          issuer: options.issuer,
          audience: [...options.audience],
          clockTolerance: clockSkewMs / 1000,
          currentDate: new Date(nowMs),
          requiredClaims: ['exp', 'sub'],
          ...(options.maxTokenAgeMs === undefined ? {} : { maxTokenAge: options.maxTokenAgeMs / 1000 }),
          ...(options.typ === undefined ? {} : { typ: options.typ }),
        });
        return principalOf(payload, options, clockSkewMs) ?? { why: 'names_no_tenant' };
      } catch (error) {
        if (isFetchTrouble(error)) {
          warn({ code: 'JWKS_UNAVAILABLE', message: `the keys of ${options.issuer} cannot be fetched` });
        }
        return { why: whyOf(error), keyId: keyIdOf(presented.bearer) };
      }
    },
  };
}

function principalOf(payload: JWTPayload, options: JwtAuth, clockSkewMs: number): Principal | undefined {
  const tenantId = tenantOf(payload, options);
  const { sub, exp } = payload;
  if (tenantId === undefined || sub === undefined || exp === undefined) return undefined;
  if (sub === '' || sub.length > MAX_SUBJECT_CHARS) return undefined;
  return { tenantId, subject: sub, expiresAtMs: exp * 1000 + clockSkewMs };
}

function tenantOf(payload: JWTPayload, { tenant }: JwtAuth): string | undefined {
  if (tenant.kind === 'fixed') return tenant.tenant;
  let value: unknown = payload;
  for (const name of tenant.claim.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined;
    value = Object.entries(value).find(([key]) => key === name)?.[1];
  }
  if (typeof value !== 'string') return undefined;
  if (tenant.map === undefined) return value;
  return Object.hasOwn(tenant.map, value) ? tenant.map[value] : undefined;
}

/** jose's own codes, in words that are shorter. */
const WHY: Readonly<Record<string, string>> = {
  ERR_JWT_EXPIRED: 'expired',
  ERR_JWS_SIGNATURE_VERIFICATION_FAILED: 'wrong_signature',
  ERR_JWKS_NO_MATCHING_KEY: 'unknown_key',
  ERR_JOSE_ALG_NOT_ALLOWED: 'algorithm_not_allowed',
  ERR_JWKS_TIMEOUT: 'keys_unavailable',
  ERR_JWKS_INVALID: 'keys_unavailable',
};

function whyOf(error: unknown): string {
  if (error instanceof jose().errors.JWTClaimValidationFailed) return `claim_${error.claim}`;
  if (error instanceof jose().errors.JOSEError)
    return WHY[error.code] ?? (isFetchTrouble(error) ? 'keys_unavailable' : 'malformed_token');
  return 'keys_unavailable';
}

/** Unverified: what the token says of the key that it was signed with. */
function keyIdOf(token: string | undefined): string | undefined {
  try {
    const { kid } = jose().decodeProtectedHeader(token ?? '');
    return kid !== undefined && /^[\w.:-]{1,64}$/.test(kid) ? kid : undefined;
  } catch {
    return undefined;
  }
}

/** Unverified, only to choose between several issuers. */
function issuerOf(token: string): string | undefined {
  try {
    return jose().decodeJwt(token).iss;
  } catch {
    return undefined;
  }
}

/** The one confusion that matters: a public key taken for an HMAC secret. */
function checkAlgorithms({ algorithms, keys }: JwtAuth, path: string): void {
  if (algorithms.length === 0) throw new AccessOptionsError(`${path}.algorithms`, 'is empty');
  const shared = keys.kind === 'secret';
  const wrong = algorithms.find((name) => name.startsWith('HS') !== shared);
  if (wrong !== undefined) {
    const why = shared ? 'needs a public key, but a shared secret is given' : 'needs a shared secret';
    throw new AccessOptionsError(`${path}.algorithms`, `${wrong} ${why}`);
  }
}

function openKeys(options: JwtAuth, path: string, warn: (warning: AccessWarning) => void): JWTVerifyGetKey {
  const { keys } = options;
  switch (keys.kind) {
    case 'jwksUrl':
      return jose().createRemoteJWKSet(parseJwksUrl(keys.url, `${path}.keys.url`), {
        cooldownDuration: JWKS_COOLDOWN_MS,
        cacheMaxAge: JWKS_MAX_AGE_MS,
        timeoutDuration: JWKS_TIMEOUT_MS,
      });
    case 'jwksFile':
      return openJwksFile(keys.path, `${path}.keys.path`, warn);
    case 'publicKey':
      return openPem(keys.pem, `${path}.keys.pem`);
    case 'secret': {
      const secret = Buffer.from(keys.secret, 'utf8');
      if (secret.length < MIN_SECRET_BYTES) {
        throw new AccessOptionsError(`${path}.keys.secret`, `is shorter than ${MIN_SECRET_BYTES} bytes`);
      }
      const key: KeyObject = createSecretKey(secret);
      return () => Promise.resolve(key);
    }
  }
}

function parseJwksUrl(text: string, path: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const loopback = url !== undefined && ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname);
  if (url === undefined || !(url.protocol === 'https:' || (url.protocol === 'http:' && loopback))) {
    throw new AccessOptionsError(path, 'has to be an https: address (http: only on loopback)');
  }
  return url;
}

function openPem(pem: string, path: string): JWTVerifyGetKey {
  const isCertificate = pem.includes('BEGIN CERTIFICATE');
  if (!isCertificate && !pem.includes('BEGIN PUBLIC KEY')) {
    throw new AccessOptionsError(path, 'holds neither a public key (SPKI) nor a certificate');
  }
  const imported = new Map<string, ReturnType<typeof importSPKI>>();
  return ({ alg }) => {
    const known = imported.get(alg);
    if (known !== undefined) return known;
    const key = isCertificate ? jose().importX509(pem, alg) : jose().importSPKI(pem, alg);
    imported.set(alg, key);
    return key;
  };
}

function openJwksFile(file: string, path: string, warn: (warning: AccessWarning) => void): JWTVerifyGetKey {
  let version = '';
  let checkedAtMs = Number.NEGATIVE_INFINITY;
  let keyFor: JWTVerifyGetKey;
  const refresh = (): void => {
    const facts = statSync(file, { bigint: true });
    const found = `${facts.ino}:${facts.mtimeNs}:${facts.size}`;
    if (found === version) return;
    keyFor = jose().createLocalJWKSet(parseJwks(readFileSync(file, 'utf8')));
    version = found;
  };
  try {
    refresh();
  } catch {
    throw new AccessOptionsError(path, `${file} does not hold a JSON Web Key Set`);
  }
  return (header, token) => {
    const nowMs = performance.now();
    if (nowMs - checkedAtMs >= FILE_CHECK_INTERVAL_MS) {
      checkedAtMs = nowMs;
      try {
        refresh();
      } catch {
        warn({ code: 'JWKS_UNAVAILABLE', message: `${file} cannot be read; the old keys stay in use` });
      }
    }
    return keyFor(header, token);
  };
}

function parseJwks(text: string): JSONWebKeySet {
  const value: unknown = JSON.parse(text);
  if (typeof value !== 'object' || value === null || !('keys' in value) || !Array.isArray(value.keys)) {
    throw new TypeError('not a JSON Web Key Set');
  }
  return { keys: value.keys };
}

function isFetchTrouble(error: unknown): boolean {
  if (error instanceof jose().errors.JWKSTimeout || error instanceof jose().errors.JWKSInvalid) return true;
  // Network errors are fetch's own; everything about the token is a JOSEError with a code of its own.
  return !(error instanceof jose().errors.JOSEError) || error.code === 'ERR_JOSE_GENERIC';
}
