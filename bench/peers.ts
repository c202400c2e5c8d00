/** Other gateways in front of the same simulator, by the same load: CPU of an event, time of a turn, memory. */
import { loadavg } from 'node:os';
import { WebSocket } from 'ws';
import { LightClient, userMessage } from './support/light-client.ts';
import { type Peer, startCodexLb, startLiteLlm } from './support/peers.ts';
import { childrenOf, cpuUs, rssBytes, type Service, startGateway } from './support/processes.ts';
import { overGateway, promptFor } from './support/relay-load.ts';
import { median, publish, type Row, round } from './support/report.ts';
import { startTlsSimulator, TRUST_CA } from './support/tls.ts';

const STREAMS = 4;
const DELTAS = Number(process.env.BENCH_DELTAS ?? 2_000);
const ROUNDS = 3;
const TURNS = 100;
/** A turn runs far more code than an event, which is compiled later. */
const WARM_UP_TURNS = 400;
/** A peer that stops in the middle must not stop the benchmark. */
const TURN_TIMEOUT_MS = 60_000;

const simulator = await startTlsSimulator();
const rows: Row[] = [];
const notes: string[] = [];
rows.push(await measureGateway());
for (const start of [startLiteLlm, startCodexLb]) {
  try {
    const peer = await start(simulator.address);
    try {
      rows.push(await measurePeer(peer));
    } catch (error) {
      rows.push({ gateway: `${peer.name} ${peer.version}`, 'MiB idle': mib(peer.service) });
      notes.push(`${peer.name} started, but served no turn: ${(error as Error).message}`);
    } finally {
      await peer.service.stop();
    }
  } catch (error) {
    notes.push(`${start.name.replace('start', '')} could not be started: ${(error as Error).message}`);
  }
}
await simulator.stop();

const own = Number(rows[0]?.['CPU µs/event']);
publish({
  name: 'peers',
  title: 'Peers in front of the same simulator',
  notes: [
    `CPU: ${STREAMS} connections, ${DELTAS} deltas on each a round, median of ${ROUNDS} rounds after one that warms up. Turn: one delta, one after the other, median of ${TURNS} after ${WARM_UP_TURNS} that warm up.`,
    'Each with its Responses WebSocket or, for this gateway, typed events over gRPC. Defaults, one process, TLS to the upstream.',
    `Load average at the end: ${round(loadavg()[0] ?? 0, 1)}.`,
    ...notes,
  ],
  rows: rows.map((row) => ({
    ...row,
    '× this gateway': row['CPU µs/event'] === undefined ? '' : round(Number(row['CPU µs/event']) / own, 1),
  })),
  chart: {
    unit: 'µs',
    bars: rows
      .filter((row) => row['CPU µs/event'] !== undefined)
      .map((row) => ({ label: String(row['gateway']), value: Number(row['CPU µs/event']) })),
  },
});
process.exit(0);

async function measureGateway(): Promise<Row> {
  const service = await startGateway(`wss://${simulator.address}/v1`, TRUST_CA);
  const idle = mib(service);
  const cpu: number[] = [];
  // The same number of events in every round would leave this gateway with too few to measure.
  for (let n = 0; n <= ROUNDS; n += 1) {
    const result = await overGateway(service, 'TYPED', STREAMS, DELTAS * 10);
    if (n > 0) cpu.push(result.cpuUs);
  }
  const client = new LightClient(service.address);
  const stream = await client.open();
  const turns: number[] = [];
  for (let n = -WARM_UP_TURNS; n < TURNS; n += 1) {
    const create = { model: 'gpt-5.5', store: false, input: [userMessage(promptFor(1))] };
    const started = performance.now();
    await stream.turn({ turnId: `t${n}`, create });
    if (n >= 0) turns.push(performance.now() - started);
  }
  const loaded = mib(service);
  client.close();
  await service.stop();
  return rowOf('this gateway', cpu, turns, idle, loaded);
}

async function measurePeer({ name, version, service }: Peer): Promise<Row> {
  const idle = mib(service);
  const cpu: number[] = [];
  for (let n = 0; n <= ROUNDS; n += 1) {
    const sockets = await Promise.all(Array.from({ length: STREAMS }, () => connect(service.address)));
    const before = cpuOf(service);
    const counts = await Promise.all(sockets.map((socket) => turn(socket, promptFor(DELTAS))));
    const used = cpuOf(service) - before;
    for (const socket of sockets) socket.close();
    if (n > 0) cpu.push(used / counts.reduce((sum, count) => sum + count, 0));
  }
  const socket = await connect(service.address);
  const turns: number[] = [];
  for (let n = -WARM_UP_TURNS; n < TURNS; n += 1) {
    const started = performance.now();
    await turn(socket, promptFor(1));
    if (n >= 0) turns.push(performance.now() - started);
  }
  socket.close();
  return rowOf(`${name} ${version}`, cpu, turns, idle, mib(service));
}

function rowOf(
  gateway: string,
  cpu: readonly number[],
  turns: readonly number[],
  idle: number,
  loaded: number,
): Row {
  return {
    gateway,
    'CPU µs/event': round(median(cpu), 2),
    'turn ms': round(median(turns), 2),
    'MiB idle': idle,
    'MiB after the load': loaded,
  };
}

function connect(address: string): Promise<WebSocket> {
  const socket = new WebSocket(`ws://${address}/v1/responses?model=gpt-5.5`, {
    headers: { authorization: 'Bearer sk-bench' },
    perMessageDeflate: false,
  });
  return new Promise((resolve, reject) => {
    socket.once('open', () => resolve(socket));
    socket.once('error', reject);
    socket.once('close', (code) => reject(new Error(`closed with ${code}`)));
  });
}

/** Number of events. */
function turn(socket: WebSocket, prompt: string): Promise<number> {
  return new Promise((resolve, reject) => {
    let events = 0;
    const timer = setTimeout(() => reject(new Error('no end of the turn')), TURN_TIMEOUT_MS);
    const listen = (frame: Buffer) => {
      events += 1;
      const head = frame.toString('utf8', 0, 2_000);
      if (/"type": ?"(error|response\.failed)"/.test(head)) reject(new Error(head.slice(0, 300)));
      if (!/"type": ?"response\.completed"/.test(head)) return;
      clearTimeout(timer);
      socket.off('message', listen);
      socket.off('close', closed);
      resolve(events);
    };
    const closed = (code: number) => reject(new Error(`closed with ${code} in a turn`));
    socket.on('message', listen);
    socket.once('close', closed);
    socket.send(
      JSON.stringify({
        type: 'response.create',
        model: 'gpt-5.5',
        store: false,
        input: [{ type: 'message', role: 'user', content: [{ type: 'input_text', text: prompt }] }],
      }),
    );
  });
}

function cpuOf(service: Service): number {
  return family(service.pid).reduce((sum, pid) => sum + cpuUs(pid), 0);
}

function mib(service: Service): number {
  return round(family(service.pid).reduce((sum, pid) => sum + rssBytes(pid), 0) / 1024 / 1024, 1);
}

function family(pid: number): readonly number[] {
  return [pid, ...childrenOf(pid).flatMap(family)];
}
