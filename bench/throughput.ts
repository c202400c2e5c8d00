/**
 * Saturation with 200-byte text deltas: CPU of the gateway process alone per event (from /proc, so that a noisy
 * neighbour does not count), beside the floor of the same run.
 */
import { loadavg } from 'node:os';
import { startGateway, startScript, startSimulator } from './support/processes.ts';
import { type LoadResult, overFloor, overGateway } from './support/relay-load.ts';
import { median, publish, type Row, round } from './support/report.ts';

const EVENTS = Number(process.env.BENCH_EVENTS ?? 150_000);
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 7);
const STREAMS = 8;
const DELTAS = Math.floor(EVENTS / STREAMS);

const simulator = await startSimulator();
const url = `ws://${simulator.address}/v1`;
const floor = await startScript(new URL('floor.ts', import.meta.url), [url]);
const one = await startGateway(url);
const two = process.env.BENCH_WORKERS === '0' ? undefined : await startGateway(url, ['--workers', '2']);

const results = new Map<string, LoadResult[]>();
const measure = async (name: string, run: () => Promise<LoadResult>) => {
  const result = await run();
  results.set(name, [...(results.get(name) ?? []), result]);
};
await overFloor(floor, STREAMS, DELTAS);
await overGateway(one, 'TYPED', STREAMS, DELTAS);
for (let n = 0; n < ROUNDS; n += 1) {
  // Side by side in every round: a slow spell of the machine hits them all.
  await measure('floor: bare relay', () => overFloor(floor, STREAMS, DELTAS));
  await measure('gateway, typed', () => overGateway(one, 'TYPED', STREAMS, DELTAS));
  await measure('gateway, json', () => overGateway(one, 'JSON', STREAMS, DELTAS));
  if (two !== undefined)
    await measure('gateway, typed, 2 workers', () => overGateway(two, 'TYPED', STREAMS, DELTAS));
}
for (const service of [one, two, floor, simulator]) await service?.stop();

const floors = (results.get('floor: bare relay') ?? []).map((result) => result.cpuUs);
// Round by round, so that a slow spell of the machine is in both.
const overFloors = (list: readonly LoadResult[]) =>
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
    'Clients acknowledge every 512 events or 256 KiB, as those of this project do.',
    'The floor relays frames untouched in batches per tick: no parsing, routing, numbering, resume or typing.',
  ],
  rows,
  chart: {
    unit: 'µs',
    bars: rows.map((row) => ({ label: String(row.case), value: Number(row['CPU µs/event']) })),
  },
});
