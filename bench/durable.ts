/**
 * What durable sessions cost a turn: CPU of the gateway, time of the turn, commands and bytes to the store; beside the
 * same gateway without a store, in interleaved rounds. Needs a server, see scripts/store-servers.sh.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { StoreClient } from '../src/store/client.ts';
import { ANY_SERVER, connectStore, StoreServer } from '../test/harness/store-server.ts';
import { LightClient, userMessage } from './support/light-client.ts';
import { exactCpuUs, type Service, startGateway, startSimulator } from './support/processes.ts';
import { promptFor } from './support/relay-load.ts';
import { median, publish, quantile, round } from './support/report.ts';

const SESSIONS = Number(process.env['BENCH_SESSIONS'] ?? 20);
const TURNS = Number(process.env['BENCH_TURNS'] ?? 20);
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 6);
const DELTAS = 50;
/** A part of the names; the one without a store is always there. */
const KIND = process.env['BENCH_KIND'] ?? '';

if (ANY_SERVER === undefined) throw new Error('no Valkey or Redis: run scripts/store-servers.sh');
const folder = mkdtempSync(join(tmpdir(), 'bench-durable-'));
const file = (name: string, text: string) => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};
const server = await StoreServer.start({ kind: ANY_SERVER });
const store = await connectStore(server.url);
const simulator = await startSimulator();
const secret = file('secret', randomBytes(32).toString('base64'));
const key = file('key', randomBytes(32).toString('base64'));
const cluster = (prefix: string, more: string) =>
  file(
    `${prefix}.yaml`,
    `cluster: { url: "${server.url}", listen: "127.0.0.1:0", prefix: ${prefix}, secret_file: ${secret}${more} }\n`,
  );
const config = (path: string) => ['--config', path];
const kinds: Readonly<Record<string, readonly string[]>> = {
  'no store': [],
  'shared limits and ids': config(cluster('shared', '')),
  'durable, ids only': config(cluster('ids', ', store: {}')),
  'durable, sealed': config(cluster('sealed', `, store: { keys: [{ id: k, key_file: ${key} }] }`)),
};

interface Round {
  readonly cpuUs: number;
  readonly turnMs: number;
  readonly commands: number;
  readonly inScripts: number;
  readonly bytes: number;
}

/** What only scripts call; a server counts that, too. */
const IN_SCRIPTS = /^(?:time|hlen|hset|hexists|hgetall|hdel|zadd|zrem|zremrangebyscore|zcard|pexpire)$/;

const gateways: [string, Service][] = [];
for (const [name, args] of Object.entries(kinds).filter(
  ([name]) => name === 'no store' || name.includes(KIND),
))
  gateways.push([name, await startGateway(`ws://${simulator.address}/v1`, args)]);
const results = new Map<string, Round[]>();
for (let n = 0; n <= ROUNDS; n += 1) {
  for (const [name, gateway] of gateways) {
    const result = await measure(gateway);
    if (n > 0) results.set(name, [...(results.get(name) ?? []), result]);
  }
}
for (const [, gateway] of gateways) await gateway.stop();
await simulator.stop();
await store.close();
await server[Symbol.asyncDispose]();
rmSync(folder, { recursive: true });

const base = median((results.get('no store') ?? []).map(({ cpuUs }) => cpuUs));
publish({
  name: 'durable',
  title: 'Durable sessions',
  notes: [
    `${SESSIONS} sessions at once, ${TURNS} turns of ${DELTAS} deltas each, median of ${ROUNDS} interleaved rounds after one that warms up.`,
    `Commands and bytes are what ${ANY_SERVER} counted, pings and heartbeats of all four gateways included; what scripts call, and expiries, apart. Load average at the end: ${round(loadavg()[0] ?? 0, 1)}.`,
  ],
  rows: [...results].map(([name, rounds]) => {
    const of = (pick: (round: Round) => number) => median(rounds.map(pick));
    return {
      gateway: name,
      'CPU µs/turn': round(
        of(({ cpuUs }) => cpuUs),
        0,
      ),
      'added µs': round(of(({ cpuUs }) => cpuUs) - base, 0),
      'turn ms, median': round(of(({ turnMs }) => turnMs)),
      'commands/turn': round(of(({ commands }) => commands)),
      'in scripts': round(of(({ inScripts }) => inScripts)),
      'bytes/turn': round(
        of(({ bytes }) => bytes),
        0,
      ),
    };
  }),
});

async function measure(gateway: Service): Promise<Round> {
  const clients = Array.from({ length: SESSIONS }, () => new LightClient(gateway.address));
  const streams = await Promise.all(clients.map((client) => client.open()));
  const create = { model: 'gpt-5.5', input: [userMessage(promptFor(DELTAS))] };
  const before = await countersOf(store);
  const cpuBefore = exactCpuUs(gateway.pid);
  const times: number[] = [];
  await Promise.all(
    streams.map(async (stream) => {
      for (let n = 0; n < TURNS; n += 1) {
        const startedMs = performance.now();
        await stream.turn({ turnId: `t${n}`, create });
        times.push(performance.now() - startedMs);
      }
    }),
  );
  const turns = SESSIONS * TURNS;
  const cpuUs = (exactCpuUs(gateway.pid) - cpuBefore) / turns;
  const after = await countersOf(store);
  await Promise.all(streams.map((stream) => stream.close()));
  for (const client of clients) client.close();
  return {
    cpuUs,
    turnMs: quantile(times, 0.5),
    commands: (after.commands - before.commands) / turns,
    inScripts: (after.inScripts - before.inScripts) / turns,
    bytes: (after.bytes - before.bytes) / turns,
  };
}

async function countersOf(
  client: StoreClient,
): Promise<{ commands: number; inScripts: number; bytes: number }> {
  const info = String(await client.command('info', ['INFO', 'everything']));
  let commands = 0;
  let inScripts = 0;
  for (const [, name = '', calls] of info.matchAll(/cmdstat_(\S+):calls=(\d+)/g)) {
    if (IN_SCRIPTS.test(name)) inScripts += Number(calls);
    else commands += Number(calls);
  }
  return { commands, inScripts, bytes: Number(/total_net_input_bytes:(\d+)/.exec(info)?.[1]) };
}
