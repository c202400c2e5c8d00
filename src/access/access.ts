import { GatewayError } from '../errors.ts';
import { createAuthenticate } from './auth/authenticate.ts';
import { RunningSession } from './lease.ts';
import { Ledger } from './limits.ts';
import { createMemoryGuard } from './memory-guard.ts';
import {
  type AccessOptions,
  AccessOptionsError,
  DEFAULT_OWNED_ID_BYTES,
  DEFAULT_PROCESS_LIMITS,
} from './options.ts';
import { Prices } from './prices.ts';
import { Tenant, type TenantContext } from './tenant.ts';
import type { AccessControl } from './types.ts';

export interface RunningAccess extends AccessControl {
  /** Share of the memory limit at the last sample, 0 to 1. */
  readonly memoryShare: number;
  /**
   * Goes by other callers, tenants, upstreams and limits from now on; sessions that run keep what they were let in with.
   * Throws AccessOptionsError, and nothing has changed.
   */
  reload(next: Pick<AccessOptions, 'auth' | 'tenants' | 'upstreamNames' | 'processLimits' | 'prices'>): void;
}

/** Throws AccessOptionsError. `close` stops the timers, all of which let the process end. */
export function createAccessControl(options: AccessOptions): RunningAccess {
  const now = options.now ?? Date.now;
  const warn = options.onWarning ?? (() => undefined);
  const context: TenantContext = {
    upstreamNames: options.upstreamNames,
    maxOwnedIdBytes: options.maxOwnedIdBytes ?? DEFAULT_OWNED_ID_BYTES,
    shared: options.shared,
    now,
    warn,
  };
  const authenticateBy = (methods: AccessOptions['auth'], known: ReadonlyMap<string, Tenant>) =>
    createAuthenticate({
      methods,
      loopbackOnly: options.loopbackOnly,
      tenantIds: new Set(known.keys()),
      now,
      warn,
    });
  let tenants = openTenants(options.tenants, context, new Map());
  let authenticate = authenticateBy(options.auth, tenants);
  const pricesOf = (given: AccessOptions['prices']) => (given === undefined ? undefined : new Prices(given));
  let prices = pricesOf(options.prices);
  const processLedger = new Ledger('process', { ...DEFAULT_PROCESS_LIMITS, ...options.processLimits });
  const guard = createMemoryGuard(options.memoryGuard ?? {}, warn);
  options.shared?.keep(function* () {
    for (const { shared } of tenants.values()) if (shared !== undefined) yield* shared.held();
  });
  const isForeign = (responseId: string, mine: Tenant): boolean =>
    mine.foreign.has(responseId) ||
    [...tenants.values()].some((tenant) => tenant !== mine && tenant.owned.has(responseId));
  const isForeignItem = (itemId: string, mine: Tenant): boolean =>
    mine.foreignItems.has(itemId) ||
    [...tenants.values()].some((tenant) => tenant !== mine && tenant.ownedItems.has(itemId));
  let tenantIds = [...tenants.keys()];

  return {
    authenticate: (caller) => authenticate(caller),

    reload(next) {
      const nextTenants = openTenants(
        next.tenants,
        { ...context, upstreamNames: next.upstreamNames },
        tenants,
      );
      const nextPrices = pricesOf(next.prices);
      authenticate = authenticateBy(next.auth, nextTenants);
      // Nothing throws from here on.
      for (const tenant of nextTenants.values()) tenant.takeOver();
      processLedger.setLimits({ ...DEFAULT_PROCESS_LIMITS, ...next.processLimits });
      prices = nextPrices;
      tenants = nextTenants;
      tenantIds = [...tenants.keys()];
    },

    reserveSession: ({ tenantId }) => tenants.get(tenantId)?.shared?.reserveSession(),

    admitSession(principal, request, reservation) {
      const tenant = tenants.get(principal.tenantId);
      if (tenant === undefined)
        throw new GatewayError('PERMISSION_DENIED', 'this tenant may not open sessions');
      const overloaded = guard.overload();
      if (overloaded !== undefined) throw overloaded;
      tenant.checkUpstream(request.upstream);
      const credential = tenant.credentialFor(request.upstream, request.upstreamKey);
      return new RunningSession(principal, {
        tenant,
        process: processLedger,
        credential,
        upstream: request.upstream,
        overload: guard.overload,
        isForeign,
        isForeignItem,
        tenantIds,
        shared: options.shared,
        prices,
        now,
        reservation,
      });
    },

    overload: guard.overload,

    get memoryShare() {
      return guard.share;
    },

    close() {
      guard.close();
      return Promise.resolve();
    },
  };
}

function openTenants(
  wanted: AccessOptions['tenants'],
  context: TenantContext,
  before: ReadonlyMap<string, Tenant>,
): ReadonlyMap<string, Tenant> {
  if (wanted.length === 0) throw new AccessOptionsError('tenants', 'is empty: nobody could call');
  const tenants = new Map<string, Tenant>();
  wanted.forEach((tenant, at) => {
    if (tenants.has(tenant.id)) throw new AccessOptionsError(`tenants[${at}].id`, 'is already taken');
    tenants.set(tenant.id, new Tenant(tenant, `tenants[${at}]`, context, before.get(tenant.id)));
  });
  return tenants;
}
