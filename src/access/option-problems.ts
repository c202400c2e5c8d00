import { parseKey } from './auth/api-keys.ts';
import { openMethod } from './auth/authenticate.ts';
import { compileRule } from './auth/mtls.ts';
import { openCredential } from './credential.ts';
import { type AccessOptions, AccessOptionsError, DEFAULT_OWNED_ID_BYTES } from './options.ts';
import { Tenant } from './tenant.ts';

type Checked = Pick<AccessOptions, 'auth' | 'tenants' | 'upstreamNames' | 'loopbackOnly'> & {
  readonly onWarning: NonNullable<AccessOptions['onWarning']>;
};

/** All mistakes of the options, where `createAccessControl` would stop at the first: it makes the same parts, one by one. */
export function accessProblems(options: Checked): readonly AccessOptionsError[] {
  return [...authProblems(options), ...tenantProblems(options)];
}

function authProblems({ auth, tenants, loopbackOnly, onWarning }: Checked): readonly AccessOptionsError[] {
  const tenantIds = new Set(tenants.map(({ id }) => id));
  const surroundings = { methods: auth, loopbackOnly, tenantIds, now: Date.now, warn: onWarning };
  return auth.flatMap((method, at) => {
    const path = `auth[${at}]`;
    const problems = new Problems();
    if (method.kind === 'apiKeys') {
      for (const [keyAt, key] of method.keys.entries())
        problems.of(() => parseKey(key, `${path}.keys[${keyAt}]`));
    }
    if (method.kind === 'mtls') {
      for (const [ruleAt, rule] of method.rules.entries())
        problems.of(() => compileRule(rule, `${path}.rules[${ruleAt}]`));
    }
    problems.of(() => openMethod(method, path, surroundings));
    return problems.found;
  });
}

function tenantProblems({ tenants, upstreamNames, onWarning }: Checked): readonly AccessOptionsError[] {
  const context = {
    upstreamNames,
    maxOwnedIdBytes: DEFAULT_OWNED_ID_BYTES,
    shared: undefined,
    now: Date.now,
    warn: () => {},
  };
  return tenants.flatMap((tenant, at) => {
    const path = `tenants[${at}]`;
    const problems = new Problems();
    for (const [credentialAt, { source }] of (tenant.credentials ?? []).entries()) {
      const where = `${path}.credentials[${credentialAt}].source`;
      problems.of(() => openCredential(source, where, Date.now, onWarning));
    }
    problems.of(() => new Tenant(tenant, path, context));
    return problems.found;
  });
}

class Problems {
  readonly found: AccessOptionsError[] = [];

  of(make: () => unknown): void {
    try {
      make();
    } catch (error) {
      if (!(error instanceof AccessOptionsError)) throw error;
      if (!this.found.some(({ message }) => message === error.message)) this.found.push(error);
    }
  }
}
