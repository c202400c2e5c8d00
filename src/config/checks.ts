import { accessSync, constants } from 'node:fs';
import { isLoopback } from '../ground/loopback.ts';
import { clusterFiles, clusterProblems } from './checks-cluster.ts';
import { loadPrices } from './prices.ts';
import { didYouMean, type PathSegment } from './problems.ts';
import type { GatewayConfig } from './schema.ts';
import { DEFAULT_TENANT_ID } from './schema-access.ts';
import { apiKeyEnvOf } from './schema-upstream.ts';
import { formatHostPort } from './units.ts';

/** A rule over several fields that is broken. `found` undefined: the value at the path is shown. */
export interface CrossProblem {
  readonly path: readonly PathSegment[];
  readonly found?: string;
  readonly expected: string;
  readonly help?: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** What no single field can say about itself. Sections that did not parse are absent and not looked at. */
export function crossChecks(config: Partial<GatewayConfig>, environment: Environment): CrossProblem[] {
  return [
    ...addressProblems(config),
    ...upstreamProblems(config, environment),
    ...sessionProblems(config),
    ...accessProblems(config, environment),
    ...clusterProblems(config),
    ...fileProblems(config),
    ...priceProblems(config),
  ];
}

function addressProblems({ listen, admin }: Partial<GatewayConfig>): CrossProblem[] {
  if (listen === undefined || admin === undefined || listen.port === 0) return [];
  if (formatHostPort(listen) !== formatHostPort(admin.listen)) return [];
  return [
    { path: ['admin', 'listen'], found: formatHostPort(listen), expected: 'another address than "listen"' },
  ];
}

function upstreamProblems(config: Partial<GatewayConfig>, environment: Environment): CrossProblem[] {
  const problems: CrossProblem[] = [];
  const upstreams = config.upstreams ?? [];
  if (config.upstream !== undefined && upstreams.length > 0) {
    const help = 'move it into the list, with a name';
    problems.push({
      path: ['upstream'],
      found: 'both "upstream" and "upstreams"',
      expected: 'one of the two',
      help,
    });
  }
  upstreams.forEach(({ name }, index) => {
    if (upstreams.findIndex((other) => other.name === name) < index) {
      problems.push({ path: ['upstreams', index, 'name'], expected: 'a name that no earlier upstream has' });
    }
  });
  upstreams.forEach(({ fallback = [] }, index) => {
    fallback.forEach((name, at) => {
      if (upstreams.some((other) => other.name === name)) return;
      const near = didYouMean(
        name,
        upstreams.map((other) => other.name),
      );
      const help = near === undefined ? {} : { help: `did you mean "${near}"?` };
      problems.push({
        path: ['upstreams', index, 'fallback', at],
        expected: 'the name of an upstream',
        ...help,
      });
    });
  });
  for (const { path, upstream } of placedUpstreams(config)) {
    const plain = /^(?:ws|http):/.test(upstream.url) && !isLocal(upstream.url);
    if (plain && !(upstream.allow_plaintext ?? upstream.provider === 'compatible')) {
      const help = 'set allow_plaintext: true where the way there is safe';
      problems.push({ path: [...path, 'url'], expected: 'wss:// or https:// beyond this machine', help });
    }
  }
  // Tenants may bring the keys; whether they do is only known when one asks.
  const fromTenants = config.tenants?.some(
    (each) => each.credentials.length > 0 || each.pass_through !== 'forbidden',
  );
  for (const { path, upstream } of fromTenants ? [] : placedUpstreams(config)) {
    const name = apiKeyEnvOf(upstream);
    if (upstream.api_key_file !== undefined || name === null || environment[name]) continue;
    // Who names a variable means it to be there; otherwise one's own server may well need no key.
    if (upstream.api_key_env !== undefined || !isLocal(upstream.url)) {
      const help = 'export it, or set api_key_env or api_key_file';
      const expected = `the provider key in the environment variable ${name}`;
      problems.push({ path: [...path, 'api_key_env'], found: `${name} is not set`, expected, help });
    }
  }
  return problems;
}

function isLocal(url: string): boolean {
  return /^\w+:\/\/(?:localhost|127\.|\[::1\])/.test(url);
}

function sessionProblems({ session }: Partial<GatewayConfig>): CrossProblem[] {
  if (session === undefined || session.redial_min <= session.redial_max) return [];
  return [
    {
      path: ['session', 'redial_min'],
      found: `${session.redial_min} ms`,
      expected: 'at most session.redial_max',
    },
  ];
}

function accessProblems(config: Partial<GatewayConfig>, environment: Environment): CrossProblem[] {
  const { auth = [], tenants = [], listen, limits } = config;
  const problems: CrossProblem[] = [];
  const known = new Set(tenants.length === 0 ? [DEFAULT_TENANT_ID] : tenants.map(({ id }) => id));
  const knowTenant = (path: readonly PathSegment[], tenant: string | undefined) => {
    if (config.tenants === undefined || tenant === undefined || known.has(tenant)) return;
    const near = didYouMean(tenant, known);
    const help = near === undefined ? {} : { help: `did you mean "${near}"?` };
    problems.push({ path, found: `"${tenant}"`, expected: `a tenant: ${[...known].join(', ')}`, ...help });
  };
  const needVariable = (path: readonly PathSegment[], name: string | undefined) => {
    if (name === undefined || environment[name]) return;
    problems.push({
      path,
      found: `${name} is not set`,
      expected: `a secret in the environment variable ${name}`,
    });
  };
  auth.forEach((method, index) => {
    const path = ['auth', index];
    switch (method.kind) {
      case 'none':
        knowTenant([...path, 'tenant'], method.tenant);
        break;
      case 'api_keys':
        method.keys.forEach((key, at) => {
          knowTenant([...path, 'keys', at, 'tenant'], key.tenant);
        });
        break;
      case 'mtls':
        method.rules.forEach((rule, at) => {
          knowTenant([...path, 'rules', at, 'tenant'], rule.tenant);
          exactlyOne(problems, [...path, 'rules', at], rule, ['spiffe', 'dns', 'uri', 'email']);
        });
        break;
      case 'jwt':
        knowTenant([...path, 'tenant'], method.tenant);
        for (const [claim, tenant] of Object.entries(method.tenant_map ?? {})) {
          knowTenant([...path, 'tenant_map', claim], tenant);
        }
        needVariable([...path, 'secret_env'], method.secret_env);
        exactlyOne(problems, path, method, ['jwks_url', 'jwks_file', 'public_key_file', 'secret_env']);
        exactlyOne(problems, path, method, ['tenant', 'tenant_claim']);
    }
  });
  const open = auth.findIndex((method) => method.kind === 'none' && !method.force);
  if (
    listen !== undefined &&
    !isLoopback(listen.host) &&
    config.auth !== undefined &&
    (open >= 0 || auth.length === 0)
  ) {
    problems.push({
      path: open >= 0 ? ['auth', open] : ['auth'],
      found: `no authentication, and "listen" is ${formatHostPort(listen)}`,
      expected: 'authentication where the port can be reached from other machines',
      help: 'add api_keys, jwt or mtls, or accept it: auth: [{ kind: none, force: true }]',
    });
  }
  tenants.forEach((tenant, index) => {
    if (tenants.findIndex((other) => other.id === tenant.id) < index) {
      problems.push({ path: ['tenants', index, 'id'], expected: 'an id that no earlier tenant has' });
    }
    tenant.credentials.forEach((credential, at) => {
      const path = ['tenants', index, 'credentials', at];
      exactlyOne(problems, path, credential, ['api_key_env', 'api_key_file']);
      needVariable([...path, 'api_key_env'], credential.api_key_env);
    });
  });
  if (limits !== undefined && limits.memory_low > limits.memory_high) {
    problems.push({ path: ['limits', 'memory_low'], expected: 'at most limits.memory_high' });
  }
  return problems;
}

function exactlyOne(
  problems: CrossProblem[],
  path: readonly PathSegment[],
  section: object,
  fields: readonly string[],
): void {
  const given = fields.filter((field) => (section as Record<string, unknown>)[field] !== undefined);
  if (given.length === 1) return;
  const found = given.length === 0 ? 'none of them' : given.join(' and ');
  problems.push({ path, found, expected: `exactly one of ${fields.join(', ')}` });
}

function fileProblems(config: Partial<GatewayConfig>): CrossProblem[] {
  const { tls, admin, simulator, cluster } = config;
  const files: [readonly PathSegment[], string | undefined][] = [
    [['admin', 'token_file'], admin?.token_file],
    [['tls', 'cert_file'], tls?.cert_file],
    [['tls', 'key_file'], tls?.key_file],
    [['tls', 'client_ca_file'], tls?.client_ca_file],
    [['simulator', 'options_file'], simulator?.options_file],
    ...clusterFiles(cluster),
    ...(config.auth ?? []).flatMap((method, index): [readonly PathSegment[], string | undefined][] =>
      method.kind !== 'jwt'
        ? []
        : [
            [['auth', index, 'jwks_file'], method.jwks_file],
            [['auth', index, 'public_key_file'], method.public_key_file],
          ],
    ),
    ...placedUpstreams(config).flatMap(
      ({ path, upstream }): [readonly PathSegment[], string | undefined][] => [
        [[...path, 'ca_file'], upstream.ca_file],
        [[...path, 'api_key_file'], upstream.api_key_file],
      ],
    ),
  ];
  return files.flatMap(([path, file]) => {
    const trouble = file === undefined ? undefined : unreadable(file);
    return trouble === undefined
      ? []
      : [{ path, found: `${file} (${trouble})`, expected: 'a file that can be read' }];
  });
}

function priceProblems({ prices_file }: Partial<GatewayConfig>): CrossProblem[] {
  if (prices_file === undefined) return [];
  try {
    loadPrices(prices_file);
    return [];
  } catch (error) {
    // What follows the first line are the lines of the file.
    const [found = ''] = (error as Error).message.split('\n');
    return [{ path: ['prices_file'], found, expected: 'a price table (docs/costs.md)' }];
  }
}

type Upstream = NonNullable<GatewayConfig['upstream']>;

export function placedUpstreams(
  config: Partial<GatewayConfig>,
): { path: readonly PathSegment[]; upstream: Upstream }[] {
  const listed = (config.upstreams ?? []).map((upstream, index) => ({
    path: ['upstreams', index],
    upstream,
  }));
  return config.upstream === undefined
    ? listed
    : [{ path: ['upstream'], upstream: config.upstream }, ...listed];
}

function unreadable(file: string): string | undefined {
  try {
    accessSync(file, constants.R_OK);
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unreadable';
  }
}
