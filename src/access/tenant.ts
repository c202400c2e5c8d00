import { GatewayError } from '../errors.ts';
import { type AllowList, compileAllowList, compileGlob, type Glob } from '../ground/glob.ts';
import { type Secret, sealSecret } from '../ground/secret.ts';
import { type CredentialReader, openCredential } from './credential.ts';
import { finish, lookSteps } from './input-look.ts';
import { Ledger } from './limits.ts';
import {
  AccessOptionsError,
  type AccessWarning,
  DEFAULT_TENANT_LIMITS,
  type Limits,
  type TenantOptions,
} from './options.ts';
import { OwnedIds } from './ownership.ts';
import { SharedLedger } from './shared-ledger.ts';
import type { InputLook, SharedLimits, Steps } from './types.ts';

/** Some thousand ids: each costs whoever tries it a turn. */
const MAX_FOREIGN_ID_BYTES = 256 * 1024;

export interface TenantContext {
  readonly upstreamNames: readonly string[];
  readonly maxOwnedIdBytes: number;
  readonly shared: SharedLimits | undefined;
  readonly now: () => number;
  readonly warn: (warning: AccessWarning) => void;
}

/** One tenant's permissions, keys, ids and use. */
export class Tenant {
  readonly id: string;
  readonly captureContent: boolean;
  readonly storedIds: 'strict' | 'allow';
  /** Undefined: all that are configured. */
  readonly allowedUpstreams: readonly string[] | undefined;
  /** What this process counts by itself. */
  readonly ledger: Ledger;
  /** What all processes count together. */
  readonly shared: SharedLedger | undefined;
  readonly owned: OwnedIds;
  readonly ownedItems: OwnedIds;
  /** Other tenants' ids that other processes told of. */
  readonly foreign: OwnedIds;
  readonly foreignItems: OwnedIds;
  readonly #limits: Limits;
  readonly #ownLimits: Limits;
  readonly #models: AllowList;
  readonly #alone: boolean;
  /** The configured upstreams that the tenant may use. */
  readonly #upstreams: readonly string[];
  readonly #passThrough: 'forbidden' | 'allowed' | 'required';
  readonly #credentials: readonly { readonly fits: Glob; readonly read: CredentialReader }[];

  /** `before`: the same tenant with other options, whose ids and use go on. */
  constructor(options: TenantOptions, path: string, context: TenantContext, before?: Tenant) {
    this.id = options.id;
    this.captureContent = options.captureContent ?? false;
    this.storedIds = options.storedIds ?? 'strict';
    const limits = { ...DEFAULT_TENANT_LIMITS, ...options.limits };
    this.#limits = limits;
    const { shared } = context;
    this.shared =
      shared === undefined ? undefined : (before?.shared ?? new SharedLedger(options.id, limits, shared));
    this.#ownLimits = shared === undefined ? limits : ownOf(limits);
    this.ledger = before?.ledger ?? new Ledger('tenant', this.#ownLimits);
    this.owned = before?.owned ?? new OwnedIds(context.maxOwnedIdBytes);
    this.ownedItems = before?.ownedItems ?? new OwnedIds(context.maxOwnedIdBytes);
    this.foreign = before?.foreign ?? new OwnedIds(MAX_FOREIGN_ID_BYTES);
    this.foreignItems = before?.foreignItems ?? new OwnedIds(MAX_FOREIGN_ID_BYTES);
    this.#models = compileAllowList(options.models);
    this.#alone = options.alone ?? false;
    const upstreams = compileAllowList(options.upstreams);
    this.#upstreams = context.upstreamNames.filter((name) => upstreams.allows(name));
    if (this.#upstreams.length === 0)
      throw new AccessOptionsError(`${path}.upstreams`, 'fit no configured upstream');
    this.allowedUpstreams =
      this.#upstreams.length < context.upstreamNames.length ? this.#upstreams : undefined;
    this.#passThrough = options.passThrough ?? 'forbidden';
    this.#credentials = (options.credentials ?? []).map(({ upstream, source }, at) => ({
      fits: compileGlob(upstream),
      read: openCredential(source, `${path}.credentials[${at}].source`, context.now, context.warn),
    }));
  }

  /** It takes the place of the one before. */
  takeOver(): void {
    this.ledger.setLimits(this.#ownLimits);
    this.shared?.setLimits(this.#limits);
  }

  allowsModel(model: string): boolean {
    return !this.#models.restricted || this.#models.allows(model);
  }

  /** Throws MODEL_NOT_ALLOWED. */
  checkModel(model: string | undefined): void {
    if (!this.#models.restricted) return;
    if (model !== undefined && this.#models.allows(model)) return;
    throw this.#modelRefused('create.model', model === undefined ? 'a turn without a model' : 'this model');
  }

  /** What a request names; items before `from` are known. */
  lookSteps(input: readonly string[], fields: ReadonlyMap<string, string>, from = 0): Steps<InputLook> {
    return lookSteps(input, fields, from, this.#models.restricted);
  }

  look(input: readonly string[], fields: ReadonlyMap<string, string>, from = 0): InputLook {
    return finish(this.lookSteps(input, fields, from));
  }

  /** As `checkModel`, for every other model that a request may have the upstream run. */
  checkNamedModels({ models }: InputLook): void {
    for (const { path, name } of models) {
      if (typeof name === 'string' && this.#models.allows(name)) continue;
      throw this.#modelRefused(path, name === undefined ? "the upstream's default" : 'what this names');
    }
  }

  #modelRefused(path: string, what: string): GatewayError {
    return new GatewayError(
      'MODEL_NOT_ALLOWED',
      `${path}: ${what} is not allowed for this tenant; allowed: ${this.#models.patterns.join(', ')}`,
      { metadata: { field: path } },
    );
  }

  /** Throws UPSTREAM_NOT_ALLOWED; the same for one that does not exist. */
  checkUpstream(named: string | undefined): void {
    if (named === undefined || this.#upstreams.includes(named)) return;
    throw new GatewayError(
      'UPSTREAM_NOT_ALLOWED',
      `upstream: not one of this tenant's; allowed: ${this.#upstreams.join(', ')}`,
    );
  }

  /** The key for a session. Throws when the caller may not, must, or has to choose. */
  credentialFor(upstream: string | undefined, passedKey: string | undefined): Secret | undefined {
    if (passedKey === undefined && this.#passThrough === 'required') {
      throw new GatewayError(
        'PERMISSION_DENIED',
        'this tenant has to pass a provider key: x-upstream-api-key',
      );
    }
    if (passedKey !== undefined && this.#passThrough === 'forbidden') {
      throw new GatewayError('PERMISSION_DENIED', 'this tenant may not pass a provider key of its own');
    }
    const reachable = upstream === undefined ? this.#upstreams : [upstream];
    if (passedKey !== undefined) return parsePassedKey(passedKey, reachable);
    const readers = new Set(reachable.map((name) => this.#credentials.find(({ fits }) => fits(name))?.read));
    if (readers.size > 1) throw upstreamNeeded();
    const [reader] = readers;
    return reader?.();
  }

  /** Throws UNKNOWN_RESPONSE. `isForeign` tells whether another tenant was given the id. */
  checkResponse(id: string, isForeign: (id: string) => boolean): void {
    if (this.owned.knows(id)) return;
    if (this.storedIds === 'allow' && !isForeign(id)) return;
    throw new GatewayError('UNKNOWN_RESPONSE', 'this response is not known here');
  }

  /** Throws PERMISSION_DENIED: the gateway keeps no record of conversations. */
  checkConversation(): void {
    if (this.storedIds === 'allow') return;
    throw new GatewayError('PERMISSION_DENIED', 'conversation needs stored_ids: allow for this tenant', {
      metadata: { field: 'conversation' },
    });
  }

  /** Throws PERMISSION_DENIED for an item that stands for a stored one which this tenant was not given. */
  checkInput({ stored: items }: InputLook, isForeign: (itemId: string) => boolean): void {
    for (const [at, stored] of items) {
      if (this.ownedItems.knows(stored.id)) continue;
      if (this.storedIds === 'allow' && !isForeign(stored.id)) continue;
      // With nobody else here, what comes back with its id is this tenant's own history, of before a restart.
      if (this.#alone && !BY_ID_ALONE.has(stored.type)) continue;
      const field = `input[${at}]`;
      throw new GatewayError(
        'PERMISSION_DENIED',
        `${field}: found an item by its id alone, which this tenant was not given; allowed: items with their content, or stored_ids: allow`,
        { metadata: { field } },
      );
    }
  }
}

/** Items that are nothing but a name. */
const BY_ID_ALONE: ReadonlySet<string> = new Set(['item_reference', '']);

/** What concerns one message alone. */
function ownOf({ messageBytes = null }: Limits): Limits {
  return { messageBytes };
}

function parsePassedKey(key: string, reachable: readonly string[]): Secret {
  // A caller's key is meant for one provider; the routing rules are not to choose where it goes.
  if (reachable.length > 1) throw upstreamNeeded();
  const credential = sealSecret(key);
  if (credential === undefined) {
    throw new GatewayError(
      'INVALID_FIELD',
      'x-upstream-api-key: found no usable key; allowed: visible ASCII',
      {
        metadata: { field: 'x-upstream-api-key' },
      },
    );
  }
  return credential;
}

function upstreamNeeded(): GatewayError {
  return new GatewayError(
    'INVALID_FIELD',
    'upstream: found none; allowed: one that is configured, since the provider key depends on it',
    { metadata: { field: 'upstream' } },
  );
}
