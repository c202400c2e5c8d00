import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { readSecrets, readStoreKey } from '../config/checks-cluster.ts';
import type { GatewayConfig } from '../config/schema.ts';
import { formatHostPort } from '../config/units.ts';
import type { PeerRoute, PeersOptions, PeerTlsOptions } from '../grpc/peers.ts';
import type { Durability } from '../session/durability.ts';
import type { JournalOwner } from '../session/record.ts';
import type { StoreClient, StoreClientOptions } from '../store/client.ts';
import type { Heartbeat } from '../store/heartbeats.ts';
import type { OpenSharedLimits } from '../store/shared-limits.ts';
import type { KeyedCalls } from '../store/types.ts';
import type { GatewayTelemetry } from '../telemetry/types.ts';

/** A start does not wait longer for a store that is away. */
const FIRST_CONNECTION_MS = 2_000;
/** What the owner of a session may take to answer, when another process could go on with it. */
const TAKEOVER_AFTER_MS = 1_000;
/** The clients of a process that died come within this, one after the other. */
const UNREACHABLE_MS = 1_000;
/** Addresses that are remembered for when the store is away. */
const MAX_ADDRESSES = 1_000;

export type ClusterConfig = Pick<GatewayConfig, 'session'> & {
  readonly cluster: NonNullable<GatewayConfig['cluster']>;
};

/** The processes of one machine, which reach each other by sockets. */
export interface LocalPeers {
  /** Names the machine's gateway among others; new at every start. */
  readonly hostId: string;
  readonly workerId: string;
  readonly addressOf: (workerId: string) => string;
  /** Known to the workers only. */
  readonly secret: Uint8Array;
}

/** What this process has to do with others through the store. */
export interface Replicas {
  readonly limits: OpenSharedLimits;
  /** Undefined: processes of this gateway cannot reach each other. */
  readonly peers: PeersOptions | undefined;
  /** From now on the others find this process. `port`: where it listens for them. */
  announce(port: number | undefined): void;
  /** Undefined: sessions end with their process. */
  readonly durability: Durability | undefined;
  /** Undefined: each process knows its own idempotency keys. */
  readonly keyedCalls: KeyedCalls | undefined;
  /** Once no session is left. What was said is still written. */
  close(): Promise<void>;
}

export function newHostId(): string {
  return randomBytes(8).toString('hex');
}

/** Workers without a store. */
export function localPeers(local: LocalPeers): PeersOptions {
  return {
    id: local.workerId,
    find: (id) => ({ address: local.addressOf(id), local: true }),
    listen: [local.addressOf(local.workerId)],
    secrets: [local.secret],
  };
}

/** A client of the configured store, which begins to connect. */
export async function openClusterClient(
  cluster: ClusterConfig['cluster'],
  options: Pick<StoreClientOptions, 'commandTimeoutMs' | 'onError' | 'onCommand'>,
): Promise<StoreClient> {
  const { openStoreClient } = await import('../store/client.ts');
  return openStoreClient({ ...(await connection(cluster)), keyPrefix: `${cluster.prefix}:`, ...options });
}

/**
 * Connects to the store and looks at it. A store that is away keeps no gateway from its start. Rejects with RangeError
 * when sessions are to be durable and the store would lose them.
 */
export async function openReplicas(
  { cluster, session }: ClusterConfig,
  local: LocalPeers | undefined,
  telemetry: GatewayTelemetry,
): Promise<Replicas> {
  const { whenReady } = await import('../store/client.ts');
  const { startHeartbeat } = await import('../store/heartbeats.ts');
  const { openSharedLimits } = await import('../store/shared-limits.ts');
  const { logger } = telemetry;
  const hostId = local?.hostId ?? newHostId();
  const processId = local === undefined ? hostId : `${hostId}-${local.workerId}`;
  const client = await openClusterClient(cluster, {
    onError: (error) =>
      logger.warn({ code: 'store_unavailable', reason: error.message }, 'the store cannot be reached'),
    onCommand: (command, result, durationMs) =>
      telemetry.replicas({ kind: 'command', command, result, durationMs }),
  });
  const limits = openSharedLimits({
    client,
    processId,
    timeoutMs: cluster.timeout,
    ownedIdDays: cluster.owned_id_days,
    onAlone: () => telemetry.replicas({ kind: 'limitsAlone' }),
  });
  const stopObserving = telemetry.observe('processes', () => limits.processes);
  let heartbeat: Heartbeat | undefined;
  let address = '';
  const addressOf = async (id: string) => heartbeat?.addressOf(id);
  const owner = {
    process: processId,
    get address() {
      return address;
    },
  };
  const stored =
    cluster.store &&
    (await openStored(cluster.store, {
      client,
      owner,
      addressOf,
      telemetry,
      resumeGraceMs: session.resume_grace,
    }));
  const close = async () => {
    stopObserving();
    await stored?.durability.close();
    await stored?.keyedCalls.close();
    await heartbeat?.stop();
    await limits.close();
    await client.close();
  };
  try {
    if (await whenReady(client, FIRST_CONNECTION_MS)) await look(client, cluster, telemetry);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    limits,
    peers: peersOptions(cluster, local, processId, { telemetry, addressOf }),
    durability: stored?.durability,
    keyedCalls: stored?.keyedCalls,
    announce: (port) => {
      address = advertised(cluster, port);
      heartbeat = startHeartbeat(client, { processId, address });
    },
    close,
  };
}

type Store = NonNullable<NonNullable<GatewayConfig['cluster']>['store']>;

interface StoreSurroundings {
  readonly client: StoreClient;
  readonly owner: JournalOwner;
  readonly addressOf: (processId: string) => Promise<string | undefined>;
  readonly telemetry: GatewayTelemetry;
  readonly resumeGraceMs: number;
}

async function openStored(
  store: Store,
  { client, owner, addressOf, telemetry, resumeGraceMs }: StoreSurroundings,
): Promise<{ readonly durability: Durability; readonly keyedCalls: KeyedCalls }> {
  const { createDurability, sealersOf } = await import('./durability.ts');
  const { createKeyedCalls } = await import('../store/keyed-calls.ts');
  const keys = store.keys.map(({ id, key_file }) => ({ id, secret: readStoreKey(key_file) }));
  const keyedCalls = createKeyedCalls({
    client,
    processId: owner.process,
    isAlive: async (id) => (await addressOf(id)) !== undefined,
    sealerOf: sealersOf(client, keys),
    onFailure: store.on_failure,
  });
  const durability = createDurability({
    client,
    owner,
    heartbeats: { addressOf },
    keys,
    onFailure: store.on_failure,
    resumeGraceMs,
    observe: {
      takeover: (result, durationMs) => telemetry.replicas({ kind: 'takeover', result, durationMs }),
      fenced: () => telemetry.replicas({ kind: 'fenced' }),
      handedOver: () => telemetry.replicas({ kind: 'handOver' }),
    },
    onBug: (error) => telemetry.logger.error({ err: error }, 'a bug in the journal of a session'),
  });
  return { durability, keyedCalls };
}

async function connection({
  url,
  username,
  password_file: file,
  tls,
}: NonNullable<GatewayConfig['cluster']>) {
  const { parseStoreUrl } = await import('../store/url.ts');
  const parsed = parseStoreUrl(url);
  const pem = (path: string | undefined) => (path === undefined ? undefined : readFileSync(path, 'utf8'));
  return {
    endpoint: parsed.endpoint,
    username: username ?? parsed.username,
    // Read at each connection: the file may be rotated.
    password: () => (file === undefined ? parsed.password : readFileSync(file, 'utf8').trim()),
    tls: parsed.tls
      ? {
          ca: pem(tls?.ca_file),
          cert: pem(tls?.cert_file),
          key: pem(tls?.key_file),
          serverName: tls?.server_name,
        }
      : undefined,
  };
}

async function look(
  client: StoreClient,
  { store }: NonNullable<GatewayConfig['cluster']>,
  { logger }: GatewayTelemetry,
): Promise<void> {
  const { checkStore } = await import('../store/check.ts');
  const findings = await checkStore(client).catch(() => []);
  for (const { severity, message } of findings) {
    if (severity === 'error' && store !== undefined) throw new RangeError(`cluster.url: ${message}`);
    logger.warn({ code: 'store_check' }, message);
  }
}

interface Others {
  readonly telemetry: GatewayTelemetry;
  readonly addressOf: (processId: string) => Promise<string | undefined>;
}

function peersOptions(
  cluster: NonNullable<GatewayConfig['cluster']>,
  local: LocalPeers | undefined,
  processId: string,
  { telemetry, addressOf }: Others,
): PeersOptions | undefined {
  const { secret_file: secretFile, peer_tls: tls, store } = cluster;
  const isOpen = secretFile !== undefined || tls !== undefined;
  if (!isOpen && local === undefined) return undefined;
  const [first = local?.secret ?? randomBytes(32), ...others] =
    secretFile === undefined ? [] : readSecrets(secretFile);
  const known = new Map<string, string>();
  const find = async (id: string): Promise<PeerRoute | undefined> => {
    const worker = local === undefined ? undefined : workerOf(id, local);
    if (worker !== undefined) return { address: worker, local: true };
    if (!isOpen) return undefined;
    try {
      const address = await addressOf(id);
      if (address === undefined) return undefined;
      known.delete(id);
      known.set(id, address);
      const [oldest] = known.keys();
      if (known.size > MAX_ADDRESSES && oldest !== undefined) known.delete(oldest);
      return { address, local: false };
    } catch {
      // Without the store the others are where they were.
      const address = known.get(id);
      return address === undefined ? undefined : { address, local: false };
    }
  };
  return {
    id: processId,
    find,
    listen: [
      ...(local === undefined ? [] : [local.addressOf(local.workerId)]),
      ...(isOpen ? [formatHostPort(cluster.listen)] : []),
    ],
    secrets: [first, ...others],
    ...(tls === undefined ? {} : { tls: peerTls(tls, secretFile === undefined, telemetry) }),
    ...(store === undefined ? {} : { openedTimeoutMs: TAKEOVER_AFTER_MS, unreachableMs: UNREACHABLE_MS }),
    onForward: (result) => {
      telemetry.replicas({ kind: 'forward', result });
      if (result !== 'refused') return;
      const text = 'another process refused a stream: the replicas have different secrets or certificates';
      telemetry.logger.warn({ code: 'peer_refused' }, text);
    },
  };
}

function workerOf(processId: string, { hostId, addressOf }: LocalPeers): string | undefined {
  return processId.startsWith(`${hostId}-`) ? addressOf(processId.slice(hostId.length + 1)) : undefined;
}

function peerTls(
  tls: NonNullable<NonNullable<GatewayConfig['cluster']>['peer_tls']>,
  withoutSecret: boolean,
  { logger }: GatewayTelemetry,
): PeerTlsOptions {
  return {
    certificateFile: tls.cert_file,
    privateKeyFile: tls.key_file,
    clientCaFile: tls.ca_file,
    withoutSecret,
    onReloadError: (error) => logger.error({ err: error }, 'a certificate could not be loaded'),
  };
}

function advertised(
  { advertise, listen }: NonNullable<GatewayConfig['cluster']>,
  port: number | undefined,
): string {
  if (advertise !== undefined) return formatHostPort(advertise);
  const isAny = listen.host === '0.0.0.0' || listen.host === '::';
  return formatHostPort({ host: isAny ? ownAddress() : listen.host, port: port ?? listen.port });
}

function ownAddress(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((each = []) => each);
  const outside = addresses.filter(({ internal }) => !internal);
  return (outside.find(({ family }) => family === 'IPv4') ?? outside[0])?.address ?? '127.0.0.1';
}
