import { X509Certificate } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { GatewayError } from '../../errors.ts';
import { AccessOptionsError, type AccessWarning, type AuthMethod } from '../options.ts';
import type { CallerFacts, Principal } from '../types.ts';
import { apiKeys } from './api-keys.ts';
import { jwt } from './jwt.ts';
import type { Method, Presented, Refused } from './method.ts';
import { mtls } from './mtls.ts';

/** Every refusal takes at least this long, so that its time does not tell how far the proof got. */
export const REFUSAL_FLOOR_MS = 50;

/** The longest bearer that is looked at; JWTs with many groups stay well under it. */
const MAX_AUTHORIZATION_CHARS = 16 * 1024;

export interface AuthenticateOptions {
  readonly methods: readonly AuthMethod[];
  readonly loopbackOnly: boolean;
  readonly tenantIds: ReadonlySet<string>;
  readonly now: () => number;
  readonly warn: (warning: AccessWarning) => void;
}

export function createAuthenticate(
  options: AuthenticateOptions,
): (caller: CallerFacts) => Promise<Principal> {
  if (options.methods.length === 0) throw new AccessOptionsError('auth', 'is empty: nobody could call');
  const methods = options.methods.map((method, at) => openMethod(method, `auth[${at}]`, options));
  return async (caller) => {
    const startedAtMs = performance.now();
    try {
      const verdict = await decide(methods, caller, options.now());
      if (!('why' in verdict) && options.tenantIds.has(verdict.tenantId)) return verdict;
      throw refusal('why' in verdict ? verdict : { kind: 'any', why: 'unknown_tenant' });
    } catch (error) {
      await delay(Math.max(0, REFUSAL_FLOOR_MS - (performance.now() - startedAtMs)));
      throw error;
    }
  };
}

/** What was wrong with a proof: for the operator's log, and for nobody else. */
export interface RefusedProof extends Refused {
  /** Of the method that looked at it. */
  readonly kind: string;
}

/** Beside the errors, not in them: what is in an error may be shown to its caller one day. */
const PROOFS = new WeakMap<GatewayError, RefusedProof>();

export function refusedProofOf(error: GatewayError): RefusedProof | undefined {
  return PROOFS.get(error);
}

function refusal(proof: RefusedProof): GatewayError {
  const error = new GatewayError('UNAUTHENTICATED', 'the caller could not be authenticated');
  PROOFS.set(error, proof);
  return error;
}

async function decide(
  methods: readonly Method[],
  caller: CallerFacts,
  nowMs: number,
): Promise<Principal | RefusedProof> {
  const presented = take(caller);
  if (presented === undefined) return { kind: 'any', why: 'malformed_credential' };
  const method = methods.find((candidate) => candidate.fits(presented));
  if (method === undefined) {
    const nothing = !presented.authorization && presented.certificate === undefined;
    return { kind: 'any', why: nothing ? 'no_credential' : 'no_method_fits' };
  }
  const verdict = await method.verify(presented, nowMs);
  return 'why' in verdict ? { kind: method.kind, ...verdict } : verdict;
}

/** Undefined: what is shown is not even well formed. */
function take(caller: CallerFacts): Presented | undefined {
  const { authorization, peerCertificate } = caller;
  if (authorization !== undefined && authorization.length > MAX_AUTHORIZATION_CHARS) return undefined;
  const bearer = authorization === undefined ? undefined : /^bearer +(\S+)$/i.exec(authorization)?.[1];
  try {
    return {
      bearer,
      authorization: authorization !== undefined,
      certificate: peerCertificate === undefined ? undefined : new X509Certificate(peerCertificate),
    };
  } catch {
    return undefined;
  }
}

/** Throws AccessOptionsError. */
export function openMethod(method: AuthMethod, path: string, options: AuthenticateOptions): Method {
  checkTenants(method, path, options.tenantIds);
  switch (method.kind) {
    case 'apiKeys':
      return apiKeys(method, path);
    case 'jwt':
      return jwt(method, path, options.warn);
    case 'mtls':
      return mtls(method, path);
    case 'none':
      return none(method.tenant, method.force === true, path, options);
  }
}

function none(tenantId: string, force: boolean, path: string, options: AuthenticateOptions): Method {
  if (!options.loopbackOnly && !force) {
    throw new AccessOptionsError(
      path,
      'lets everybody in, and a listener is not on loopback; force it if you mean it',
    );
  }
  const principal: Principal = { tenantId, subject: 'anonymous' };
  options.warn(
    options.loopbackOnly
      ? { code: 'AUTH_NONE', message: 'every process on this host may call: auth is none' }
      : {
          code: 'AUTH_NONE_FORCED',
          message: 'everybody who reaches the listener may call: auth is none, forced',
        },
  );
  const alone = options.methods.length === 1;
  return {
    kind: 'none',
    // Beside other methods, a mistyped key is a mistake and not an anonymous caller.
    fits: ({ authorization }) => alone || !authorization,
    verify: () => Promise.resolve(principal),
  };
}

/** Names that the options themselves hold; a tenant from a claim is checked at the call. */
function checkTenants(method: AuthMethod, path: string, known: ReadonlySet<string>): void {
  for (const [where, tenant] of namedTenants(method)) {
    if (!known.has(tenant)) throw new AccessOptionsError(`${path}.${where}`, `no tenant is called ${tenant}`);
  }
}

function namedTenants(method: AuthMethod): readonly (readonly [string, string])[] {
  switch (method.kind) {
    case 'apiKeys':
      return method.keys.map((key, at) => [`keys[${at}].tenant`, key.tenant] as const);
    case 'jwt':
      if (method.tenant.kind === 'fixed') return [['tenant.tenant', method.tenant.tenant]];
      return Object.entries(method.tenant.map ?? {}).map(([from, to]) => [`tenant.map.${from}`, to] as const);
    case 'mtls':
      return method.rules.map((rule, at) => [`rules[${at}].tenant`, rule.tenant] as const);
    case 'none':
      return [['tenant', method.tenant]];
  }
}
