import { readFileSync } from 'node:fs';
import { isLoopback } from '../ground/loopback.ts';
import type { CrossProblem } from './checks.ts';
import type { PathSegment } from './problems.ts';
import type { GatewayConfig } from './schema.ts';
import { formatHostPort } from './units.ts';

type Cluster = NonNullable<GatewayConfig['cluster']>;

const MIN_SECRET_BYTES = 32;
/** How long a session may wait for its client in a store. */
const MAX_DURABLE_GRACE_MS = 24 * 60 * 60_000;

export function clusterProblems(config: Partial<GatewayConfig>): CrossProblem[] {
  const { cluster, listen, admin, session } = config;
  if (cluster === undefined) return [];
  const problems = [
    ...urlProblems(cluster),
    ...topologyProblems(cluster),
    ...secretProblems(cluster),
    ...keyProblems(cluster),
  ];
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
    [['cluster', 'sentinel_password_file'], cluster.sentinel_password_file],
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

function urlProblems({ url, topology, tls }: Cluster): CrossProblem[] {
  const path = ['cluster', 'url'];
  const parsed = URL.parse(url);
  // Browsers' rules for URLs read an unknown scheme without two slashes, too.
  if (parsed === null || parsed.hostname === '') return [{ path, expected: 'a URL with a host' }];
  const problems: CrossProblem[] = [];
  if (parsed.password !== '' || parsed.username !== '') {
    const help = 'use cluster.username and cluster.password_file';
    problems.push({ path, found: 'a user or a password', expected: 'neither, in a configuration', help });
  }
  if (parsed.search !== '' || parsed.hash !== '' || !/^\/?\d*$/.test(parsed.pathname)) {
    const found = `${parsed.pathname}${parsed.search}${parsed.hash}`;
    problems.push({ path, found, expected: 'nothing after the host but the number of a database' });
  } else if (topology === 'cluster' && Number(parsed.pathname.slice(1)) > 0) {
    problems.push({ path, found: parsed.pathname, expected: 'database 0: a Cluster has no other' });
  }
  if (tls !== undefined && !/^(?:valkeys|rediss):/.test(url)) {
    problems.push({
      path: ['cluster', 'tls'],
      found: parsed.protocol,
      expected: 'valkeys:// in cluster.url',
    });
  }
  if ((tls?.cert_file === undefined) !== (tls?.key_file === undefined)) {
    problems.push({ path: ['cluster', 'tls'], expected: 'cert_file and key_file, or neither' });
  }
  return problems;
}

function topologyProblems(cluster: Cluster): CrossProblem[] {
  const { topology, nodes, sentinel_name: name, sentinel_password_file: password } = cluster;
  const problems: CrossProblem[] = [];
  if (topology === 'sentinel' && name === undefined) {
    problems.push({
      path: ['cluster', 'sentinel_name'],
      expected: 'the name of the primary, as in "sentinel monitor NAME …"',
    });
  }
  if (topology !== 'sentinel' && (name !== undefined || password !== undefined)) {
    const field = name === undefined ? 'sentinel_password_file' : 'sentinel_name';
    problems.push({
      path: ['cluster', field],
      found: `topology ${topology}`,
      expected: 'topology: sentinel',
    });
  }
  if (topology === 'standalone' && nodes.length > 0) {
    problems.push({ path: ['cluster', 'nodes'], expected: 'topology: sentinel or cluster' });
  }
  return problems;
}

function secretProblems(cluster: Cluster): CrossProblem[] {
  const { secret_file: file, peer_tls: tls, store } = cluster;
  const path = ['cluster', 'secret_file'];
  const bytes = file === undefined ? undefined : trimmedLength(file);
  if (bytes !== undefined && bytes < MIN_SECRET_BYTES) {
    const help = 'openssl rand -base64 32 > FILE';
    return [{ path, found: `${bytes} bytes`, expected: `${MIN_SECRET_BYTES} bytes or more`, help }];
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
  return keys.flatMap(({ id }, at) =>
    keys.findIndex((other) => other.id === id) < at
      ? [{ path: ['cluster', 'store', 'keys', at, 'id'], expected: 'an id that no earlier key has' }]
      : [],
  );
}

/** Undefined: it cannot be read, which is told elsewhere. */
function trimmedLength(file: string): number | undefined {
  try {
    return readFileSync(file, 'utf8').trim().length;
  } catch {
    return undefined;
  }
}
