import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startSimulator } from '../../src/simulator/index.ts';
import type { Message, TestClient, TestStream } from '../harness/client.ts';
import { StoreRelay } from '../harness/store-relay.ts';
import { ANY_SERVER, connectStore, freePort, StoreServer } from '../harness/store-server.ts';
import { beside, type Defer, pause } from './play.ts';
import { type Situation, upstreamAt } from './situations.ts';

/** A real store beside everything else that this machine does. */
const SLOW_HERE = ['StoreIsSlow', 'StoreFails'];

/** What befalls a store, and the replicas that share it. */
export function clusterSituations(): Readonly<Record<string, Situation>> {
  return {
    'a store that takes its time': slowStore(),
    'a store that does not answer': lostStore(),
    'a replica that was cut off from the others': fencedReplica(),
    'a store that comes back without what it had acknowledged': forgetfulStore(),
    'replicas with different secrets': strangers(),
  };
}

function slowStore(): Situation {
  let relay: StoreRelay | undefined;
  return {
    alerts: ['StoreIsSlow'],
    also: ['StoreFails', 'LimitsAreNotShared', 'TurnsWait'],
    settings: async (defer) => {
      const { server, replica } = await startCluster(defer);
      relay = await StoreRelay.start(server.port);
      defer(() => relay?.[Symbol.asyncDispose]());
      return replica({ url: relay.url, timeout: '5s' });
    },
    during: async ({ ask }) => {
      if (relay !== undefined) relay.delayMs = 200;
      await ask();
      await pause();
    },
    after: async () => {
      if (relay !== undefined) relay.delayMs = 0;
    },
  };
}

function lostStore(): Situation {
  let cluster: Cluster | undefined;
  return {
    alerts: ['StoreFails', 'LimitsAreNotShared'],
    also: ['StoreIsSlow', 'TurnsWait'],
    settings: async (defer) => {
      cluster = await startCluster(defer);
      return {
        ...cluster.replica(),
        tenants: [{ id: 'default', limits: { turns_per_minute: 1_000_000 } }],
      };
    },
    during: async ({ ask }) => {
      cluster?.server.stall();
      await ask();
      await pause();
    },
    after: async ({ ask }) => {
      cluster?.server.goOn();
      await ask();
    },
  };
}

/** Another one, which cannot reach it, goes on with a session that it still serves. */
function fencedReplica(): Situation {
  let cluster: Cluster | undefined;
  let superseded = false;
  return {
    alerts: ['SessionsAreFenced'],
    also: SLOW_HERE,
    settings: async (defer) => {
      cluster = await startCluster(defer);
      const nobody = await freePort();
      return cluster.replica({ advertise: `127.0.0.1:${nobody}` });
    },
    during: async ({ stream, ask, defer }) => {
      if (!superseded && cluster !== undefined) {
        superseded = true;
        await ask();
        const { resume_token: token } = await stream.opened();
        const other = await beside(defer, cluster.replica());
        const resumed = other.client.connect({ resume: resumeOf(stream, token) });
        await resumed.opened();
        // The one that was cut off does not know until it writes.
        stream.startTurn({ turn_id: 'late' }, 'x');
        await stream.ended();
      }
      await pause();
    },
  };
}

function forgetfulStore(): Situation {
  let cluster: Cluster | undefined;
  let asked = false;
  return {
    alerts: ['StoreLostData'],
    also: ['StoreFails', 'StoreIsSlow', 'LimitsAreNotShared'],
    settings: async (defer) => {
      cluster = await startCluster(defer);
      return cluster.replica();
    },
    during: async ({ client, defer }) => {
      if (!asked && cluster !== undefined) {
        asked = true;
        const { server } = cluster;
        const other = await beside(defer, cluster.replica());
        const stream = other.client.connect();
        const { resume_token: token } = await stream.opened();
        stream.startTurn({ turn_id: 'kept' }, 'x');
        await stream.turn('kept');
        const store = await connectStore(server.url);
        await store.command('', ['SAVE']);
        await store.close();
        stream.startTurn({ turn_id: 'forgotten' }, 'x');
        await stream.turn('forgotten');
        await server.kill();
        await other.close();
        await server.run();
        await resume(client, resumeOf(stream, token));
      }
      await pause();
    },
  };
}

function strangers(): Situation {
  let cluster: Cluster | undefined;
  let tried = false;
  return {
    alerts: ['ReplicasRefuseEachOther'],
    also: SLOW_HERE,
    settings: async (defer) => {
      cluster = await startCluster(defer);
      return cluster.replica();
    },
    during: async ({ client, defer }) => {
      if (!tried && cluster !== undefined) {
        tried = true;
        const file = cluster.file('other-secret', 'another secret, which is long enough');
        const other = await beside(defer, cluster.replica({ secret_file: file }));
        const stream = other.client.connect();
        const { resume_token: token } = await stream.opened();
        const resumed = client.connect({ resume: resumeOf(stream, token) });
        await Promise.race([resumed.opened(), resumed.ended()]);
        resumed.cancel();
      }
      await pause();
    },
  };
}

/** Again and again, as a client does, until the store can be asked. */
async function resume(client: TestClient, resume: Message): Promise<void> {
  for (;;) {
    const stream = client.connect({ resume });
    const opened = await stream.opened().then(
      () => true,
      () => false,
    );
    stream.cancel();
    if (opened) return;
    await pause();
  }
}

function resumeOf(stream: TestStream, token: string) {
  const commit = Math.max(0, ...stream.events.map((event) => Number(event['commit'] ?? 0)));
  return { token, last_seq: stream.events.at(-1)?.seq ?? 0, last_commit: commit };
}

interface Cluster {
  readonly server: StoreServer;
  /** A file of the cluster's own, with this in it. */
  file(name: string, content: string | Buffer): string;
  /** Settings of a replica, with these changes of its `cluster`. */
  replica(changes?: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>>;
}

async function startCluster(defer: Defer): Promise<Cluster> {
  const folder = mkdtempSync(join(tmpdir(), 'alerts-cluster-'));
  const server = await StoreServer.start({ kind: ANY_SERVER ?? 'valkey' });
  const simulator = await startSimulator();
  defer(async () => {
    await simulator.close();
    await server[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });
  const file = (name: string, content: string | Buffer): string => {
    const path = join(folder, name);
    writeFileSync(path, content, { mode: 0o600 });
    return path;
  };
  const secret_file = file('secret', 'one secret, which is long enough for it');
  const key_file = file('key', randomBytes(32));
  return {
    server,
    file,
    replica: (changes = {}) => ({
      ...upstreamAt(simulator.url),
      cluster: {
        url: server.url,
        listen: '127.0.0.1:0',
        secret_file,
        store: { keys: [{ id: 'k1', key_file }] },
        ...changes,
      },
    }),
  };
}
