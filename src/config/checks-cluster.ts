import { readFileSync } from 'node:fs';
import { isLoopback } from '../ground/loopback.ts';
import { parseStoreUrl } from '../store/url.ts';
import type { CrossProblem } from './checks.ts';
import type { PathSegment } from './problems.ts';
import type { GatewayConfig } from './schema.ts';
import { formatHostPort } from './units.ts';

type Cluster = NonNullable<GatewayConfig['cluster']>;

const MIN_SECRET_BYTES = 32;
/** Of AES-256. */
const STORE_KEY_BYTES = 32;
/** How long a session may wait for its client in a store. */
const MAX_DURABLE_GRACE_MS = 24 * 60 * 60_000;

export function clusterProblems(config: Partial<GatewayConfig>): CrossProblem[] {
  const { cluster, listen, admin, session } = config;
  if (cluster === undefined) return [];
  const problems = [...urlProblems(cluster), ...secretProblems(cluster), ...keyProblems(cluster)];
  for (const [name, other] of [
    ['listen', listen],
    ['admin.listen', admin?.listen],
  ] as const) {
    if (other === undefined || other.port === 0 || other.port !== cluster.listen.port) continue;
    problems.push({ path: ['cluster', 'listen'], expected: `another port than "${name}"` });
  }
  if (cluster.store !== undefined && (session?.resume_grace ?? 0) > MAX_DURABLE_GRACE_MS) {
    problems.push({ path: ['session', 'resume_grace'], expected: 'at most 24h with cluster.store' });
  }
  return problems;
}

/** Files that have to be there. */
export function clusterFiles(cluster: Cluster | undefined): [readonly PathSegment[], string | undefined][] {
  if (cluster === undefined) return [];
  const { tls, peer_tls: peerTls, store } = cluster;
  return [
    [['cluster', 'password_file'], cluster.password_file],
    [['cluster', 'tls', 'ca_file'], tls?.ca_file],
    [['cluster', 'tls', 'cert_file'], tls?.cert_file],
    [['cluster', 'tls', 'key_file'], tls?.key_file],
    [['cluster', 'secret_file'], cluster.secret_file],
    [['cluster', 'peer_tls', 'cert_file'], peerTls?.cert_file],
    [['cluster', 'peer_tls', 'key_file'], peerTls?.key_file],
    [['cluster', 'peer_tls', 'ca_file'], peerTls?.ca_file],
    ...(store?.keys ?? []).map(({ key_file }, at): [readonly PathSegment[], string] => [
      ['cluster', 'store', 'keys', at, 'key_file'],
      key_file,
    ]),
  ];
}

function urlProblems({ url, tls }: Cluster): CrossProblem[] {
  const problems: CrossProblem[] = [];
  if (tls !== undefined && !parseStoreUrl(url).tls) {
    problems.push({
      path: ['cluster', 'tls'],
      found: 'a URL without TLS',
      expected: 'valkeys:// in cluster.url',
    });
  }
  if ((tls?.cert_file === undefined) !== (tls?.key_file === undefined)) {
    problems.push({ path: ['cluster', 'tls'], expected: 'cert_file and key_file, or neither' });
  }
  return problems;
}

function secretProblems(cluster: Cluster): CrossProblem[] {
  const { secret_file: file, peer_tls: tls, store } = cluster;
  const path = ['cluster', 'secret_file'];
  const shortest = file === undefined ? undefined : shortestSecret(file);
  if (shortest !== undefined && shortest < MIN_SECRET_BYTES) {
    const help = 'openssl rand -base64 32 > FILE';
    const found = shortest === 0 ? 'no secret' : `one of ${shortest} bytes`;
    return [{ path, found, expected: `${MIN_SECRET_BYTES} bytes or more, one secret a line`, help }];
  }
  if (file === undefined && tls === undefined && store !== undefined) {
    const found = 'neither secret_file nor peer_tls';
    const expected = 'one of them: replicas hand sessions to each other';
    return [{ path, found, expected, help: 'openssl rand -base64 32 > FILE' }];
  }
  const { advertise } = cluster;
  if (advertise !== undefined && (advertise.port === 0 || advertise.host === '0.0.0.0')) {
    const found = formatHostPort(advertise);
    return [{ path: ['cluster', 'advertise'], found, expected: 'an address that others can reach' }];
  }
  if (advertise !== undefined && isLoopback(cluster.listen.host) && !isLoopback(advertise.host)) {
    const found = formatHostPort(cluster.listen);
    return [{ path: ['cluster', 'listen'], found, expected: 'an address that cluster.advertise leads to' }];
  }
  return [];
}

function keyProblems({ store }: Cluster): CrossProblem[] {
  const keys = store?.keys ?? [];
  return keys.flatMap(({ id, key_file: file }, at): CrossProblem[] => {
    const path = ['cluster', 'store', 'keys', at];
    if (keys.findIndex((other) => other.id === id) < at) {
      return [{ path: [...path, 'id'], expected: 'an id that no earlier key has' }];
    }
    try {
      if (readStoreKey(file).length === STORE_KEY_BYTES) return [];
    } catch {
      // Told with the other files.
      return [];
    }
    const help = 'openssl rand -base64 32 > FILE';
    const expected = `${STORE_KEY_BYTES} bytes, as they are, in hex or in base64`;
    return [{ path: [...path, 'key_file'], found: `${file} with something else`, expected, help }];
  });
}

/** What the file holds, decoded; of another length when it is no key. Throws when it cannot be read. */
export function readStoreKey(file: string): Buffer {
  const bytes = readFileSync(file);
  if (bytes.length === STORE_KEY_BYTES) return bytes;
  const text = bytes.toString('latin1').trim();
  return /^[0-9A-Fa-f]{64}$/.test(text) ? Buffer.from(text, 'hex') : Buffer.from(text, 'base64');
}

/** Undefined: it cannot be read, which is told elsewhere. */
function shortestSecret(file: string): number | undefined {
  try {
    const secrets = readSecrets(file);
    return secrets.length === 0 ? 0 : Math.min(...secrets.map(({ length }) => length));
  } catch {
    return undefined;
  }
}

/** One a line. Throws when the file cannot be read. */
export function readSecrets(file: string): readonly Buffer[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .map((line) => Buffer.from(line));
}
