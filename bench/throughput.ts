/**
 * Saturation with 200-byte text deltas: CPU of the gateway process alone per event (from /proc, so that a noisy
 * neighbour does not count), beside the floor of the same run.
 */
import { loadavg } from 'node:os';
import { Client, type ClientDuplexStream, credentials } from '@grpc/grpc-js';
import { LightClient, userMessage } from './support/light-client.ts';
import {
  childrenOf,
  cpuUs,
  type Service,
  startGateway,
  startScript,
  startSimulator,
} from './support/processes.ts';
import { median, publish, type Row, round } from './support/report.ts';

const EVENTS = Number(process.env.BENCH_EVENTS ?? 150_000);
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 3);
const STREAMS = 8;
const DELTAS = Math.floor(EVENTS / STREAMS);
const PROMPT = `#deltas=${DELTAS}`;

interface Result {
  readonly cpuUs: number;
  readonly perSecond: number;
  readonly batch: number;
}

const simulator = await startSimulator();
const url = `ws://${simulator.address}/v1`;
const floor = await startScript(new URL('floor.ts', import.meta.url), [url]);
const one = await startGateway(url);
const two = process.env.BENCH_WORKERS === '0' ? undefined : await startGateway(url, ['--workers', '2']);

const results = new Map<string, Result[]>();
const measure = async (name: string, run: () => Promise<Result>) => {
  const result = await run();
  results.set(name, [...(results.get(name) ?? []), result]);
};
await overFloor(floor);
await overGateway(one, 'TYPED');
for (let n = 0; n < ROUNDS; n += 1) {
  // Side by side in every round: a slow spell of the machine hits them all.
  await measure('floor: bare relay', () => overFloor(floor));
  await measure('gateway, typed', () => overGateway(one, 'TYPED'));
  await measure('gateway, json', () => overGateway(one, 'JSON'));
  if (two !== undefined) await measure('gateway, typed, 2 workers', () => overGateway(two, 'TYPED'));
}
for (const service of [one, two, floor, simulator]) await service?.stop();

const floors = (results.get('floor: bare relay') ?? []).map((result) => result.cpuUs);
// Round by round, so that a slow spell of the machine is in both.
const overFloors = (list: readonly Result[]) =>
  list.map((result, index) => result.cpuUs / (floors[index] as number));
const rows: Row[] = [...results].map(([name, list]) => ({
  case: name,
  'CPU µs/event': round(median(list.map((result) => result.cpuUs))),
  '× floor': round(median(overFloors(list))),
  'events/s': Math.round(median(list.map((result) => result.perSecond))),
  'events/message': round(median(list.map((result) => result.batch)), 1),
}));
publish({
  name: 'throughput',
  title: 'Throughput: CPU of the gateway process per event',
  notes: [
    `${STREAMS} streams, ${DELTAS} text deltas each a round, medians of ${ROUNDS} rounds; load average at the end ${round(loadavg()[0] ?? 0, 1)}; simulator and client are processes of their own on the same machine.`,
    'events/s is bounded by the slowest of the three processes that share the cores; CPU µs/event is not.',
    'The floor relays frames untouched in batches per tick: no parsing, routing, numbering, resume or typing.',
  ],
  rows,
  chart: {
    unit: 'µs',
    bars: rows.map((row) => ({ label: String(row.case), value: Number(row['CPU µs/event']) })),
  },
});

async function overGateway(service: Service, payload: 'TYPED' | 'JSON'): Promise<Result> {
  // A connection for each stream: with several workers, connections are what is shared out.
  const clients = Array.from({ length: STREAMS }, () => new LightClient(service.address));
  const streams = await Promise.all(clients.map((client) => client.open(payload)));
  const cpu = () => [service.pid, ...childrenOf(service.pid)].reduce((sum, pid) => sum + cpuUs(pid), 0);
  const before = cpu();
  const started = performance.now();
  const create = { model: 'gpt-5.5', input: [userMessage(PROMPT)] };
  await Promise.all(streams.map((stream) => stream.turn({ turnId: 't', create })));
  const elapsedMs = performance.now() - started;
  const used = cpu() - before;
  const events = streams.reduce((sum, stream) => sum + stream.events, 0);
  const batches = streams.reduce((sum, stream) => sum + stream.batches, 0);
  await Promise.all(streams.map((stream) => stream.close()));
  for (const client of clients) client.close();
  return { cpuUs: used / events, perSecond: (events / elapsedMs) * 1000, batch: events / batches };
}

async function overFloor(service: Service): Promise<Result> {
  const identity = (value: Buffer) => value;
  const clients = Array.from(
    { length: STREAMS },
    () =>
      new Client(service.address, credentials.createInsecure(), {
        'grpc.max_receive_message_length': -1,
        'grpc.use_local_subchannel_pool': 1,
      }),
  );
  let events = 0;
  let batches = 0;
  const create = JSON.stringify({
    type: 'response.create',
    model: 'gpt-5.5',
    input: [{ role: 'user', content: PROMPT }],
  });
  const before = cpuUs(service.pid);
  const started = performance.now();
  await Promise.all(
    clients.map(
      (client) =>
        new Promise<void>((resolve) => {
          const call: ClientDuplexStream<Buffer, Buffer> = client.makeBidiStreamRequest(
            '/floor.Relay/Relay',
            identity,
            identity,
          );
          call.on('data', (bytes: Buffer) => {
            batches += 1;
            for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) events += 1;
            if (bytes.includes('"type":"response.completed"')) call.end();
          });
          call.on('status', () => resolve());
          call.on('error', () => {});
          call.write(Buffer.from(create));
        }),
    ),
  );
  const elapsedMs = performance.now() - started;
  const used = cpuUs(service.pid) - before;
  for (const client of clients) client.close();
  return { cpuUs: used / events, perSecond: (events / elapsedMs) * 1000, batch: events / batches };
}
