/**
 * An agent loop four ways, side by side: HTTP with the whole context, HTTP by id, the official SDK's WebSocket, and the
 * gateway, each over its own emulated network to the same simulator with TLS; after them the gateway with compression
 * to the provider. `--quick` runs a part of it, `BENCH_SLOW_START=0` leaves out the slow start of TCP.
 */
import { loadavg } from 'node:os';
import { type ChaosConnection, type ChaosProxy, startChaosProxy } from '../test/harness/chaos-proxy.ts';
import { type Agent, type Instructions, runLoop } from './support/agent-loop.ts';
import { gatewayAgent, httpAgent, sdkSocketAgent } from './support/agents.ts';
import { type Service, startGateway } from './support/processes.ts';
import { publish, type Row, round } from './support/report.ts';
import { CA, startTlsSimulator, TRUST_CA } from './support/tls.ts';

const QUICK = process.argv.includes('--quick');
const CALLS = QUICK ? [5, 20] : [5, 20, 50, 100];
const NETWORKS: readonly Network[] = (QUICK ? [20] : [0, 20, 80]).flatMap((rttMs) =>
  (QUICK ? [10] : [10, 100]).map((upMbit) => ({ rttMs, upMbit })),
);
/** Side by side, 20 calls each: enough turns that the code of a turn is compiled. */
const WARM_UP_LOOPS = 12;
/** Networks measured at once: they mostly wait. One gives the cleanest times, and takes half an hour. */
const AT_ONCE = Number(process.env.BENCH_AT_ONCE ?? 3);
const SLOW_START = process.env.BENCH_SLOW_START !== '0';

/** Nothing is known of a real model's: read every result beside these. */
const MODELS: Readonly<Record<string, Timing>> = {
  none: { timeToFirstTokenMs: 0, tokensPerSecond: 0, costPerInputTokenUs: 0 },
  stated: { timeToFirstTokenMs: 100, tokensPerSecond: 200, costPerInputTokenUs: 10 },
};

const SIDE_BY_SIDE = ['HTTP, full context', 'HTTP, by id', 'SDK WebSocket', 'gateway'] as const;
const WAYS = [...SIDE_BY_SIDE, 'gateway, compressed'] as const;
type Way = (typeof WAYS)[number];

interface Timing {
  readonly timeToFirstTokenMs: number;
  readonly tokensPerSecond: number;
  readonly costPerInputTokenUs: number;
}

interface Network {
  readonly rttMs: number;
  readonly upMbit: number;
}

interface Cell {
  readonly way: Way;
  readonly totalMs: number;
  readonly medianFirstMs: number;
  readonly bytesUp: number;
}

const rows: Row[] = [];
const load = loadavg()[0] ?? 0;
for (const [model, timing] of Object.entries(MODELS)) {
  const simulator = await startTlsSimulator({ timing, switches: { compression: true } });
  const waiting = [...NETWORKS.entries()];
  const found: Row[][] = [];
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const [position, network] = next;
        found[position] = await measureNetwork(simulator, model, network);
      }
    }),
  );
  await simulator.stop();
  rows.push(...found.flat());
}

const chosen = rows.filter((row) => row['network'] === (QUICK ? '20 ms, 10 Mbit/s' : '80 ms, 10 Mbit/s'));
publish({
  name: QUICK ? 'workflow-quick' : 'workflow',
  title: 'Workflow: an agent loop of tool calls, five ways',
  notes: [
    '18 KB of instructions, 2 KB of tools, 1–4 KB of output for each call, reasoning items; each turn one call, then an answer.',
    'Instructions are the first message of the conversation, except where a row says that they are in `instructions`, which is not inherited and so goes up with every turn in every way.',
    'Assumed model "stated": 100 ms to the first token, 200 tokens/s, and 10 µs for each input token that the connection does not hold (an assumption: that HTTP requests have their whole context read again; providers with a prompt cache do better). Model "none": no model time at all, pure transport.',
    `The emulated network delays both directions and limits the way up, for each connection; ${SLOW_START ? 'slow start as Linux does it by default, also after a pause' : 'no slow start, which favours HTTP with large bodies'}; no loss. The service is beside the gateway, the delay lies between gateway and provider. TLS everywhere; connecting is part of the time.`,
    'Before that each gateway of a network has served 12 loops of 20 calls: a new process spends several times the CPU on a turn.',
    'Bytes up are those of the TLS connections to the provider, handshakes included.',
    '"gateway, compressed" is `upstream.compression: true`: permessage-deflate with context takeover, both ways, with a window of 32 KB. The text is random letters and digits, which it makes a third smaller; prose and code it makes less than half.',
    `Load average at the start: ${round(load, 1)}. All ways of a row but the compressed one, which came after them, ran at the same time, and ${AT_ONCE} networks.`,
  ],
  rows,
  chart: {
    unit: 's',
    bars: chosen.flatMap((row) =>
      WAYS.map((way) => ({
        label: `${row['calls']} calls, model ${row['model']}: ${way}`,
        value: Number(row[`${way} s`]),
      })),
    ),
  },
});
process.exit(0);

async function measureNetwork(simulator: Service, model: string, network: Network): Promise<Row[]> {
  const start = () => startProxy(simulator, network);
  const [full, byId, sdk, own, small] = await Promise.all([start(), start(), start(), start(), start()]);
  const [gateway, compressing] = await Promise.all([
    startGateway(`wss://127.0.0.1:${own.port}/v1`, TRUST_CA),
    startGateway(`wss://127.0.0.1:${small.port}/v1`, [...TRUST_CA, '--set', 'upstream.compression=true']),
  ]);
  const found: Row[] = [];
  const ways: Readonly<Record<Way, { readonly proxy: ChaosProxy; readonly connect: () => Agent }>> = {
    'HTTP, full context': { proxy: full, connect: () => httpAgent(urlOf(full), CA, 'full') },
    'HTTP, by id': { proxy: byId, connect: () => httpAgent(urlOf(byId), CA, 'by id') },
    'SDK WebSocket': { proxy: sdk, connect: () => sdkSocketAgent(urlOf(sdk), CA) },
    gateway: { proxy: own, connect: () => gatewayAgent(gateway.address) },
    'gateway, compressed': { proxy: small, connect: () => gatewayAgent(compressing.address) },
  };
  const cell = async (calls: number, instructions: Instructions) => {
    const one = (way: Way) => measure(way, ways[way].proxy, ways[way].connect(), calls, instructions);
    const cells = await Promise.all(SIDE_BY_SIDE.map(one));
    // Afterwards, because compression takes the processor from the others.
    return rowOf([...cells, await one('gateway, compressed')], model, network, calls, instructions);
  };
  // The clients share this process and warm each other up; the gateways of each network are new.
  for (const way of ['gateway', 'gateway, compressed'] as const)
    await Promise.all(Array.from({ length: WARM_UP_LOOPS }, () => warmUp(ways[way].connect())));
  await cell(5, 'message');
  for (const calls of CALLS) found.push(await cell(calls, 'message'));
  if (!QUICK && network.rttMs === 20) found.push(await cell(50, 'field'));
  await Promise.all([gateway.stop(), compressing.stop()]);
  for (const { proxy } of Object.values(ways)) await proxy.close();
  return found;
}

async function warmUp(agent: Agent): Promise<void> {
  await runLoop(agent, 20, 'message');
  await agent.close();
}

async function measure(
  way: Way,
  proxy: ChaosProxy,
  agent: Agent,
  calls: number,
  instructions: Instructions,
): Promise<Cell> {
  // One that closes meanwhile, as the link of the loop before may, still counts.
  const seen = new Set<ChaosConnection>();
  const up = () => {
    for (const connection of proxy.connections) seen.add(connection);
    return [...seen].reduce((sum, connection) => sum + connection.bytesUp, 0);
  };
  const before = up();
  const times = await runLoop(agent, calls, instructions);
  const bytesUp = up() - before;
  await agent.close();
  return { way, ...times, bytesUp };
}

function rowOf(
  cells: readonly Cell[],
  model: string,
  { rttMs, upMbit }: Network,
  calls: number,
  instructions: Instructions,
): Row {
  const of = (way: Way) => cells.find((cell) => cell.way === way) as Cell;
  const [full, sdk] = [of('HTTP, full context'), of('SDK WebSocket')];
  const [own, small] = [of('gateway'), of('gateway, compressed')];
  const percent = (value: number, base: number) => `${round((value / base - 1) * 100, 1)} %`;
  return {
    model,
    network: `${rttMs} ms, ${upMbit} Mbit/s`,
    calls: instructions === 'field' ? `${calls} (instructions each turn)` : calls,
    ...Object.fromEntries(cells.map(({ way, totalMs }) => [`${way} s`, round(totalMs / 1_000, 3)])),
    'gateway against HTTP full': percent(own.totalMs, full.totalMs),
    'gateway against SDK': percent(own.totalMs, sdk.totalMs),
    ...Object.fromEntries(
      cells.map(({ way, medianFirstMs }) => [`${way}: first token ms`, round(medianFirstMs, 1)]),
    ),
    ...Object.fromEntries(cells.map(({ way, bytesUp }) => [`${way}: KB up`, round(bytesUp / 1_000, 1)])),
    'bytes up against HTTP full': percent(own.bytesUp, full.bytesUp),
    'bytes up of the compressed one against HTTP full': percent(small.bytesUp, full.bytesUp),
  };
}

function startProxy(simulator: Service, { rttMs, upMbit }: Network): Promise<ChaosProxy> {
  const port = Number(simulator.address.split(':')[1]);
  const path = { latencyMs: rttMs / 2, ...(SLOW_START && { slowStart: { roundTripMs: rttMs } }) };
  return startChaosProxy({
    target: { host: '127.0.0.1', port },
    // Buffers that are never the limit: what is compared is bytes, not the tuning of TCP.
    up: { ...path, bytesPerSecond: (upMbit * 1_000_000) / 8, readAheadBytes: 16 * 1024 * 1024 },
    down: path,
  });
}

function urlOf(proxy: ChaosProxy): URL {
  return new URL(`https://127.0.0.1:${proxy.port}/v1`);
}
