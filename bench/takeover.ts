/**
 * How long clients wait when a replica is killed: from SIGKILL to the first event of the next turn at another replica,
 * with one session and with many on the dead one, and what a takeover costs the replica that goes on. Needs a server, see
 * scripts/store-servers.sh. `BENCH_SESSIONS="1 1000"`; `BENCH_HISTORY` is the number of turns that each has had.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { ANY_SERVER, StoreServer } from '../test/harness/store-server.ts';
import { LightClient, userMessage } from './support/light-client.ts';
import { exactCpuUs, type Service, startGateway, startSimulator } from './support/processes.ts';
import { publish, quantile, type Row, round } from './support/report.ts';

const COUNTS = (process.env['BENCH_SESSIONS'] ?? '1 1000').split(' ').map(Number);
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 3);
const HISTORY = Number(process.env['BENCH_HISTORY'] ?? 3);
/** Connections of all clients together, as a balancer would have them. */
const CONNECTIONS = 20;
/** Sessions that open or begin a turn at the same time before the kill. */
const AT_ONCE = 50;

if (ANY_SERVER === undefined) throw new Error('no Valkey or Redis: run scripts/store-servers.sh');
const folder = mkdtempSync(join(tmpdir(), 'bench-takeover-'));
const file = (name: string, text: string) => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};
const server = await StoreServer.start({ kind: ANY_SERVER });
const simulator = await startSimulator();
const secret = file('secret', randomBytes(32).toString('base64'));
const key = file('key', randomBytes(32).toString('base64'));
const config = file(
  'gateway.yaml',
  `cluster: { url: "${server.url}", listen: "127.0.0.1:0", secret_file: ${secret}, store: { keys: [{ id: k, key_file: ${key} }] } }\ntenants: [{ id: default, limits: { sessions: null } }]\n`,
);
const start = () => startGateway(`ws://${simulator.address}/v1`, ['--config', config]);
const create = { model: 'gpt-5.5', store: false, input: [userMessage('Hello. #deltas=5 #ttft=0')] };

const heir: Service = await start();
const rows: Row[] = [];
for (const count of COUNTS) {
  const openedMs: number[] = [];
  const acceptedMs: number[] = [];
  const cpuUs: number[] = [];
  // The first round only warms up who goes on.
  for (let n = 0; n <= ROUNDS; n += 1) {
    const result = await measure(count);
    if (n === 0) continue;
    openedMs.push(...result.openedMs);
    acceptedMs.push(...result.acceptedMs);
    cpuUs.push(result.cpuUs);
  }
  rows.push({
    'sessions on the dead one': count,
    'Opened, p50 ms': round(quantile(openedMs, 0.5), 0),
    'Opened, p99 ms': round(quantile(openedMs, 0.99), 0),
    'first event of the next turn, p50 ms': round(quantile(acceptedMs, 0.5), 0),
    'p99 ms': round(quantile(acceptedMs, 0.99), 0),
    'CPU ms of a takeover with its turn': round(cpuUs.reduce((a, b) => a + b) / cpuUs.length / 1000),
  });
}
await heir.stop();
await simulator.stop();
await server[Symbol.asyncDispose]();
rmSync(folder, { recursive: true });
publish({
  name: 'takeover',
  title: 'Takeover',
  notes: [
    `From SIGKILL of the owner; each session has had ${HISTORY} turns. ${ROUNDS} rounds after one that warms up. Load average at the end: ${round(loadavg()[0] ?? 0, 1)}.`,
    'The clients, the simulator and the store share the two cores with the gateway, and all clients come at once.',
  ],
  rows,
});

async function measure(count: number): Promise<{ openedMs: number[]; acceptedMs: number[]; cpuUs: number }> {
  const owner = await start();
  const clients = Array.from({ length: Math.min(CONNECTIONS, count) }, () => new LightClient(owner.address));
  const sessions = Array.from({ length: count }, (_, n) => clients[n % clients.length] as LightClient);
  const streams = await inGroups(sessions, async (client) => {
    const stream = await client.open();
    for (let n = 0; n < HISTORY; n += 1) await stream.turn({ turnId: `h${n}`, create });
    return stream;
  });
  const newClients = clients.map(() => new LightClient(heir.address));
  const ended = streams.map((stream) => stream.ended);
  const cpuBefore = exactCpuUs(heir.pid);
  process.kill(owner.pid, 'SIGKILL');
  const killedAtMs = performance.now();
  const openedMs: number[] = [];
  const acceptedMs: number[] = [];
  const resumed = await Promise.all(
    streams.map(async (old, n) => {
      await ended[n];
      const stream = await (newClients[n % newClients.length] as LightClient).open('TYPED', {
        token: old.resumeToken,
        last_seq: old.events,
        last_commit: old.lastCommit,
      });
      openedMs.push(performance.now() - killedAtMs);
      if (stream.outcome !== 5) throw new Error(`resume outcome ${stream.outcome}`);
      let first: number | undefined;
      stream.onEvent = (turnId, _type, atMs) => {
        if (turnId === 'next') first ??= atMs;
      };
      await stream.turn({ turnId: 'next', create });
      acceptedMs.push((first ?? Number.NaN) - killedAtMs);
      return stream;
    }),
  );
  const cpuUs = (exactCpuUs(heir.pid) - cpuBefore) / count;
  await Promise.all(resumed.map((stream) => stream.close()));
  for (const client of [...clients, ...newClients]) client.close();
  return { openedMs, acceptedMs, cpuUs };
}

async function inGroups<T, R>(all: readonly T[], work: (one: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let from = 0; from < all.length; from += AT_ONCE)
    results.push(...(await Promise.all(all.slice(from, from + AT_ONCE).map(work))));
  return results;
}
