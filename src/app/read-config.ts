import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { accessProblems } from '../access/option-problems.ts';
import { AccessOptionsError, type AuthMethod } from '../access/options.ts';
import { type CrossProblem, placedUpstreams } from '../config/checks.ts';
import { type ConfigSources, type LoadedConfig, loadConfig } from '../config/load.ts';
import { ConfigError, type PathSegment } from '../config/problems.ts';
import type { GatewayConfig } from '../config/schema.ts';
import { GatewayError } from '../errors.ts';
import { isLoopback } from '../ground/loopback.ts';
import { certificateProblems } from '../grpc/tls.ts';
import { parseTelemetryOptions } from '../telemetry/options.ts';
import { upstreamProblems } from '../upstream/upstream.ts';
import { authMethod, openMethod, tenantOptions } from './access-options.ts';
import { telemetryOptions } from './options.ts';
import type { simulatorOptions } from './simulator.ts';
import {
  chooseUpstreams,
  credentialSource,
  type UpstreamChoice,
  upstreamNames,
  warnOfUnusedKeys,
  wayTo,
} from './upstreams.ts';

type Sections = Partial<GatewayConfig>;
type Environment = ConfigSources['environment'];

export interface ReadConfig extends LoadedConfig {
  /** What works and is probably not meant; `serve` logs the same. */
  readonly warnings: readonly string[];
}

/**
 * The configuration as `serve`, `check-config`, `doctor` and a reload take it. Throws ConfigError with everything for which
 * the gateway would not start, as far as that shows without opening a port or a connection: also what is in the files
 * that it names, and what the parts say that it is for.
 */
export async function readConfig(sources: ConfigSources): Promise<ReadConfig> {
  const warnings = new Set<string>();
  const warn = ({ message }: { readonly message: string }) => void warnings.add(message);
  let namesOptionsFile = false;
  const load = (readOptions: ReadSimulatorOptions = () => {}) =>
    loadConfig(sources, (config, environment) => {
      namesOptionsFile = config.simulator?.options_file !== undefined;
      return [
        ...certificates(config),
        ...upstreams(config, environment, warn),
        ...access(config, environment, warn),
        ...adminToken(config),
        ...simulator(config, readOptions),
      ];
    });
  let loaded: LoadedConfig | undefined;
  try {
    loaded = load();
  } catch (error) {
    if (!namesOptionsFile) throw error;
  }
  // Most gateways have an upstream of their own and never load the simulator.
  if (loaded === undefined || namesOptionsFile)
    loaded = load((await import('./simulator.ts')).simulatorOptions);
  const telemetry = telemetryOptions(loaded.config, { environment: sources.environment, version: '' });
  for (const complaint of parseTelemetryOptions(telemetry).complaints) warnings.add(complaint);
  return { ...loaded, warnings: [...warnings] };
}

type ReadSimulatorOptions = (config: Parameters<typeof simulatorOptions>[0]) => unknown;

function certificates({ tls, cluster }: Sections): CrossProblem[] {
  const peerTls = cluster?.peer_tls;
  const storeTls = cluster?.tls;
  const { ca_file: storeCa } = storeTls ?? {};
  return [
    ...pair('tls', 'client_ca_file', tls?.cert_file, tls?.key_file, tls?.client_ca_file),
    ...pair('cluster.peer_tls', 'ca_file', peerTls?.cert_file, peerTls?.key_file, peerTls?.ca_file),
    ...pair('cluster.tls', 'ca_file', storeTls?.cert_file, storeTls?.key_file, undefined),
    ...(storeCa === undefined ? [] : authority(['cluster', 'tls', 'ca_file'], storeCa)),
  ];
}

function pair(
  section: string,
  caField: string,
  certificateFile: string | undefined,
  privateKeyFile: string | undefined,
  clientCaFile: string | undefined,
): CrossProblem[] {
  if (certificateFile === undefined || privateKeyFile === undefined) return [];
  const problems = certificateProblems({ certificateFile, privateKeyFile, clientCaFile }, section, caField);
  return problems.map(({ field, file, why }) => ({
    path: field.split('.'),
    found: `${file} ${why}`,
    expected: field.endsWith('key_file') ? 'the private key of cert_file, PEM' : 'a certificate, PEM',
  }));
}

function upstreams(config: Sections, environment: Environment, warn: Warn): CrossProblem[] {
  const choice = choiceOf(config, environment);
  if (choice === undefined || choice.kind === 'simulator') return [];
  warnOfUnusedKeys(choice.upstreams, environment, warn);
  const placed = placedUpstreams(config).map(({ path }) => path);
  return choice.upstreams.flatMap((upstream, index): CrossProblem[] => {
    const path = placed[index] ?? ['upstream'];
    const problems: CrossProblem[] = upstreamProblems(wayTo(upstream, environment)).map(
      ({ field, message }) => ({
        path: [...path, field === 'proxies' ? 'proxy' : field],
        found: field === 'proxies' ? 'an address that is none, here or in HTTPS_PROXY' : message,
        expected: EXPECTED[field],
      }),
    );
    try {
      credentialSource(upstream, environment, warn);
    } catch (error) {
      if (!(error instanceof AccessOptionsError || error instanceof GatewayError)) throw error;
      const field = upstream.api_key_file === undefined ? 'api_key_env' : 'api_key_file';
      const found =
        error instanceof AccessOptionsError ? error.complaint : 'a value that no header may carry';
      problems.push({ path: [...path, field], found, expected: 'a provider key' });
    }
    const { ca_file: file } = upstream;
    if (file !== undefined) problems.push(...authority([...path, 'ca_file'], file));
    return problems;
  });
}

type Warn = (warning: { readonly code: string; readonly message: string }) => void;

const EXPECTED = {
  url: 'an address of the upstream: wss://, https://, ws:// or http://, without user, password and fragment',
  proxies: 'an http:// or https:// address of a proxy',
  headers: "headers that are not the gateway's own, of printable ASCII",
} as const;

/** TLS takes anything for the authorities, and then trusts none. */
function authority(path: readonly PathSegment[], file: string): CrossProblem[] {
  try {
    new X509Certificate(readFileSync(file));
    return [];
  } catch (error) {
    const found = `${file} cannot be used: ${(error as Error).message}`;
    return [{ path, found, expected: 'certificates of authorities, PEM' }];
  }
}

/** Undefined: that does not show while a section is wrong. */
function choiceOf(config: Sections, environment: Environment): UpstreamChoice | undefined {
  if (!('upstream' in config) || config.upstreams === undefined) return undefined;
  return chooseUpstreams({ upstream: config.upstream, upstreams: config.upstreams }, environment);
}

function access(config: Sections, environment: Environment, warn: Warn): CrossProblem[] {
  const { auth, tenants, listen } = config;
  const choice = choiceOf(config, environment);
  if (auth === undefined || tenants === undefined || listen === undefined || choice === undefined) return [];
  const unreadable: CrossProblem[] = [];
  const methods = auth.map((method, at): AuthMethod | undefined => {
    try {
      return authMethod(method, environment);
    } catch (error) {
      const found = (error as Error).message;
      unreadable.push({ path: ['auth', at], found, expected: 'files that can be read' });
      return undefined;
    }
  });
  const problems = accessProblems({
    // One that cannot be read keeps its place, and says nothing more.
    auth:
      auth.length === 0 ? [openMethod({ tenants })] : methods.map((each) => each ?? openMethod({ tenants })),
    tenants: tenantOptions({ tenants }),
    upstreamNames: upstreamNames(choice),
    loopbackOnly: isLoopback(listen.host),
    onWarning: warn,
  });
  return [
    ...unreadable,
    ...problems.map(({ path, complaint }) => ({
      path: fieldOf(path, { auth, tenants }),
      found: complaint,
      expected: EXPECTED_OF_ACCESS.find(([of]) => of.test(path))?.[1] ?? 'what docs/configuration.md allows',
    })),
  ];
}

/** By path in access control's own terms. */
const EXPECTED_OF_ACCESS: readonly (readonly [RegExp, string])[] = [
  [/\.hash$/, 'a hash as "keys create" prints it: sha256:… or scrypt:…'],
  [/\.keys\[\d+\]\.id$/, 'the id of a key, each once: "keys create" makes one'],
  [/\.match\.id$/, 'spiffe://TRUST-DOMAIN/PATH'],
  [/\.algorithms$/, 'HS* with secret_env, the others with public keys'],
  [/\.keys\.url$/, 'https://…, or http://… on loopback'],
  [/\.keys\.path$/, 'a file with a JSON Web Key Set'],
  [/\.keys\.pem$/, 'a file with one public key or certificate, PEM'],
  [/\.keys\.secret$/, 'a secret of 32 bytes or more'],
  [/\.source$/, 'a provider key, of visible ASCII'],
  [/\.upstreams$/, 'globs of which one fits the name of an upstream'],
];

/** The configuration has other names for some. */
function fieldOf(
  path: string,
  { auth, tenants }: Pick<GatewayConfig, 'auth' | 'tenants'>,
): readonly PathSegment[] {
  const segments: PathSegment[] = path
    .split(/[.[\]]+/)
    .filter((part) => part !== '')
    .map((part) => (/^\d+$/.test(part) ? Number(part) : part));
  const [section, at, list, inner] = segments;
  const tail = path.replace(/^\w+\[\d+\]/, '');
  const method = section === 'auth' ? auth[Number(at)] : undefined;
  if (method?.kind === 'mtls' && tail.endsWith('.match.id')) return [...segments.slice(0, 4), 'spiffe'];
  if (method?.kind === 'jwt' && list === 'keys')
    return [...segments.slice(0, 2), JWT_KEYS[String(inner)] ?? ''];
  if (section === 'tenants' && list === 'credentials') {
    const credential = tenants[Number(at)]?.credentials[Number(inner)];
    return [...segments.slice(0, 4), credential?.api_key_file === undefined ? 'api_key_env' : 'api_key_file'];
  }
  return segments;
}

const JWT_KEYS: Readonly<Record<string, string>> = {
  url: 'jwks_url',
  path: 'jwks_file',
  pem: 'public_key_file',
  secret: 'secret_env',
};

function adminToken({ admin }: Sections): CrossProblem[] {
  if (admin?.token_file === undefined) return [];
  const path = ['admin', 'token_file'];
  try {
    if (readFileSync(admin.token_file, 'utf8').trim() !== '') return [];
    return [
      { path, found: `${admin.token_file}, which is empty`, expected: 'a file with a long random word' },
    ];
  } catch (error) {
    return [{ path, found: (error as Error).message, expected: 'a file that can be read' }];
  }
}

function simulator({ simulator: config }: Sections, read: ReadSimulatorOptions): CrossProblem[] {
  if (config === undefined) return [];
  try {
    read(config);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const path = ['simulator', 'options_file'];
    return error.problems.map(({ found, expected }) => ({
      path,
      found: `${config.options_file}: ${found}`,
      expected,
    }));
  }
}
