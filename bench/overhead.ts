/**
 * What the gateway adds to an event and to a turn: through it minus direct, at a fixed rate that waits for nobody.
 * An event's time runs from its hand-over to the upstream's socket to its arrival at the client.
 */
import { loadavg } from 'node:os';
import { credentials, Client as GrpcClient } from '@grpc/grpc-js';
import { build, type Histogram } from 'hdr-histogram-js';
import { WebSocket } from 'ws';
import { LightClient, type LightStream, userMessage } from './support/light-client.ts';
import { serviceCpuUs, startGateway, startScript } from './support/processes.ts';
import { publish, type Row, round } from './support/report.ts';

const SESSIONS = (process.env.BENCH_SESSIONS ?? '1,64,1000').split(',').map(Number);
const RATE = Number(process.env.BENCH_RATE ?? 50);
const SECONDS = Number(process.env.BENCH_SECONDS ?? 5);
const ROUNDS = 2;
const TURNS = 300;
const STREAMS_PER_CONNECTION = 50;
const STAMP = '@ns=';

interface Client {
  /** Resolves at the end of the turn. */
  turn(prompt: string): Promise<void>;
  close(): void;
}

const metronome = await startScript(new URL('metronome.ts', import.meta.url), []);
const url = `ws://${metronome.address}/v1`;
const gateway = await startGateway(url, [
  '--set',
  'tenants=[{"id":"default","limits":{"sessions":null,"lanes":null,"turns_in_flight":null}}]',
]);
const rows: Row[] = [];
const floor = await startScript(new URL('floor.ts', import.meta.url), [url]);
const ways = { direct: directClients, floor: floorClients, through: gatewayClients } as const;
type Way = keyof typeof ways;
const WAYS: readonly Way[] = ['direct', 'floor', 'through'];
// Code is compiled in all processes before anything is counted.
for (const way of WAYS) await runAll(await ways[way](16, histogram()), '#deltas=1500 #rate=500');
for (const sessions of SESSIONS) rows.push(...(await events(sessions)));
rows.push(...(await turns()));
await gateway.stop();
await floor.stop();
await metronome.stop();

publish({
  name: 'overhead',
  title: 'Overhead: through the gateway minus direct',
  notes: [
    `${RATE} events/s of 200 bytes for each session, ${SECONDS} s a round, ${ROUNDS} rounds of each in turn; the upstream sends by the clock and waits for nobody, so nothing is omitted when something is late.`,
    '"direct" is a bare WebSocket to the same upstream; "floor" a bare WebSocket to gRPC relay of thirty lines, which is what a process in between and gRPC cost here. "added" is through minus direct, "over the floor" through minus floor, quantile by quantile.',
    'Upstream, gateway and client share the cores of one machine: a row whose processes want more than it has shows queueing, not the gateway.',
    `Load average at the end: ${round(loadavg()[0] ?? 0, 1)}.`,
  ],
  rows,
  chart: {
    unit: 'ms p50 added',
    bars: rows
      .filter((row) => row['case'] === 'added')
      .map((row) => ({ label: String(row['of']), value: Number(row['p50 ms']) })),
  },
});
process.exit(0);

async function events(sessions: number): Promise<Row[]> {
  const times = histograms();
  const prompt = `#deltas=${RATE * SECONDS} #rate=${RATE}`;
  const usedUs = { direct: 0, floor: 0, through: 0 };
  for (let n = 0; n < ROUNDS; n += 1) {
    for (const way of WAYS) {
      const clients = await ways[way](sessions, times[way]);
      const before = cpuOf(way);
      await runAll(clients, prompt);
      usedUs[way] += cpuOf(way) - before;
    }
  }
  const of = `event, ${sessions} session${sessions === 1 ? '' : 's'}`;
  const busy = (way: Way) => round(usedUs[way] / (ROUNDS * SECONDS * 10_000), 1);
  return rowsOf(of, times).map((row) =>
    row['case'] === 'floor' || row['case'] === 'through' ? { ...row, 'CPU %': busy(row['case']) } : row,
  );
}

async function runAll(clients: readonly Client[], prompt: string): Promise<void> {
  await Promise.all(clients.map((client) => client.turn(prompt)));
  for (const client of clients) client.close();
}

/** One turn after the other, from the client's write to the end of an answer of one delta. */
async function turns(): Promise<Row[]> {
  const times = histograms();
  const clients = await Promise.all(
    WAYS.map(async (way) => ({ way, client: (await ways[way](1, histogram()))[0] })),
  );
  for (let n = 0; n < TURNS; n += 1) {
    for (const { way, client } of clients) {
      const started = performance.now();
      await client?.turn('#deltas=1 #rate=1000');
      if (n >= TURNS / 10) times[way].recordValue(Math.round((performance.now() - started) * 1_000));
    }
  }
  for (const { client } of clients) client?.close();
  return rowsOf('turn, 1 session', times);
}

function directClients(count: number, times: Histogram): Promise<Client[]> {
  return Promise.all(
    Array.from({ length: count }, async () => {
      const socket = new WebSocket(`${url}/responses`, { perMessageDeflate: false });
      let done = () => {};
      socket.on('message', (frame: Buffer) => {
        if (!record(frame, times) && frame.includes('response.completed')) done();
      });
      await new Promise((resolve) => socket.once('open', resolve));
      return {
        turn: (prompt: string) =>
          new Promise<void>((resolve) => {
            done = resolve;
            socket.send(JSON.stringify({ type: 'response.create', input: prompt }));
          }),
        close: () => socket.terminate(),
      };
    }),
  );
}

async function floorClients(count: number, times: Histogram): Promise<Client[]> {
  const identity = (value: Buffer) => value;
  let connection: GrpcClient | undefined;
  return Array.from({ length: count }, (_, n) => {
    if (n % STREAMS_PER_CONNECTION === 0 || connection === undefined) {
      connection = new GrpcClient(floor.address, credentials.createInsecure(), {
        'grpc.use_local_subchannel_pool': 1,
      });
    }
    const call = connection.makeBidiStreamRequest('/floor.Relay/Relay', identity, identity);
    let done = () => {};
    call.on('error', () => {});
    call.on('data', (batch: Buffer) => {
      for (let from = 0; from < batch.length; ) {
        const end = batch.indexOf(10, from);
        const frame = batch.subarray(from, end);
        if (!record(frame, times) && frame.includes('response.completed')) done();
        from = end + 1;
      }
    });
    return {
      turn: (prompt: string) =>
        new Promise<void>((resolve) => {
          done = resolve;
          call.write(Buffer.from(JSON.stringify({ type: 'response.create', input: prompt })));
        }),
      close: () => call.cancel(),
    };
  });
}

async function gatewayClients(count: number, times: Histogram): Promise<Client[]> {
  const clients: Client[] = [];
  let connection = new LightClient(gateway.address);
  for (let n = 0; n < count; n += 1) {
    if (n > 0 && n % STREAMS_PER_CONNECTION === 0) connection = new LightClient(gateway.address);
    clients.push(clientOf(await connection.open(), times));
  }
  return clients;
}

function clientOf(stream: LightStream, times: Histogram): Client {
  let turn = 0;
  stream.onEventBytes = (_turnId, type, event) => {
    if (type === 'response.output_text.delta') record(event, times);
  };
  return {
    async turn(prompt) {
      turn += 1;
      await stream.turn({
        turnId: `t${turn}`,
        create: { model: 'metronome', store: false, input: [userMessage(prompt)] },
      });
    },
    close: () => stream.cancel(),
  };
}

function record(bytes: Buffer, times: Histogram): boolean {
  const at = bytes.indexOf(STAMP, 0, 'latin1');
  if (at < 0) return false;
  const sent = BigInt(bytes.toString('latin1', at + STAMP.length, bytes.indexOf(0x20, at)));
  times.recordValue(Math.max(0, Number((process.hrtime.bigint() - sent) / 1_000n)));
  return true;
}

function histogram(): Histogram {
  return build({ highestTrackableValue: 600_000_000, numberOfSignificantValueDigits: 3 });
}

function histograms(): Record<Way, Histogram> {
  return { direct: histogram(), floor: histogram(), through: histogram() };
}

function rowsOf(of: string, times: Readonly<Record<Way, Histogram>>): Row[] {
  const ms = (way: Way, percentile: number) => times[way].getValueAtPercentile(percentile) / 1_000;
  const row = (name: string, value: (percentile: number) => number): Row => ({
    of,
    case: name,
    'p50 ms': round(value(50), 3),
    'p99 ms': round(value(99), 3),
    'p99.9 ms': round(value(99.9), 3),
  });
  return [
    ...WAYS.map((way) => row(way, (percentile) => ms(way, percentile))),
    row('added', (percentile) => ms('through', percentile) - ms('direct', percentile)),
    row('over the floor', (percentile) => ms('through', percentile) - ms('floor', percentile)),
  ];
}

function cpuOf(way: Way): number {
  if (way === 'direct') return 0;
  return serviceCpuUs((way === 'floor' ? floor : gateway).pid);
}
