/**
 * What the gateway adds to an event and to a turn: through it minus direct, at a fixed rate that waits for nobody.
 * An event's time runs from its hand-over to the upstream's socket to its arrival at the client. Upstream and clients
 * are one Go program (bench/load), because what they cost is part of every time.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { build, decodeFromCompressedBase64, type Histogram } from 'hdr-histogram-js';
import { type Service, serviceCpuUs, startGateway, startProgram, startScript } from './support/processes.ts';
import { publish, type Row, round } from './support/report.ts';

interface Load {
  readonly sessions: number;
  /** Events a second of each session. */
  readonly rate: number;
}

/** `BENCH_LOADS=1x50,64x50` */
const LOADS: readonly Load[] = (process.env.BENCH_LOADS ?? '1x50,64x50,1000x5,1000x50')
  .split(',')
  .map(loadOf);
const SECONDS = Number(process.env.BENCH_SECONDS ?? 5);
/** In which the turns begin; what is sent meanwhile does not count. */
const RAMP_SECONDS = 4;
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 3);
const TURNS = 1_000;
const WAYS = ['direct', 'floor', 'through'] as const;
type Way = (typeof WAYS)[number];
type Times = Record<Way, Histogram>;

const program = buildProgram();
const upstream = await startProgram(program, ['upstream']);
const url = `ws://${upstream.address}/v1`;
const floor = await startScript(new URL('floor.ts', import.meta.url), [url]);
const gateway = await startGateway(url, [
  '--set',
  'tenants=[{"id":"default","limits":{"sessions":null,"lanes":null,"turns_in_flight":null}}]',
  '--set',
  'limits.sessions=null',
]);
const services: Readonly<Record<Way, Service>> = { direct: upstream, floor, through: gateway };
const rows: Row[] = [];
// Code is compiled in all processes before anything is counted.
for (const way of WAYS) await events(way, { sessions: 16, rate: 500 }, 3);
for (const load of LOADS) rows.push(...(await measureEvents(load)));
rows.push(...(await measureTurns()));
for (const service of [gateway, floor, upstream]) await service.stop();

publish({
  name: 'overhead',
  title: 'Overhead: through the gateway minus direct',
  notes: [
    `Events of 200 bytes, ${SECONDS} s a round, ${ROUNDS} rounds of each way in turn; the upstream sends by the clock and waits for nobody, so nothing is omitted when something is late.`,
    '"direct" is a bare WebSocket to the same upstream; "floor" a bare WebSocket to gRPC relay of thirty lines, which is what a process in between and gRPC cost here. "added" is through minus direct, "over the floor" through minus floor, quantile by quantile.',
    `Turns begin one after the other within ${RAMP_SECONDS} s, which do not count: the beginning of a turn costs what many events cost.`,
    'Upstream and clients are one program in Go. Upstream, gateway and client share the cores of one machine: a row whose processes want more than it has shows queueing, not the gateway. "CPU %" is that of the process in between, of one core; "direct" shows the upstream\'s. Fewer events/s than asked for: the upstream itself did not get the processor in time.',
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

function buildProgram(): string {
  const folder = mkdtempSync(join(tmpdir(), 'rgw-load-'));
  process.once('exit', () => rmSync(folder, { recursive: true }));
  const path = join(folder, 'load');
  execFileSync('go', ['build', '-o', path, '.'], {
    cwd: fileURLToPath(new URL('load', import.meta.url)),
    stdio: 'inherit',
  });
  return path;
}

async function measureEvents(load: Load): Promise<Row[]> {
  const times: Times = { direct: histogram(), floor: histogram(), through: histogram() };
  const usedUs = { direct: 0, floor: 0, through: 0 };
  for (let n = 0; n < ROUNDS; n += 1) {
    for (const way of WAYS) {
      times[way].add(
        await events(way, load, SECONDS, (line) => {
          usedUs[way] += (line === 'begin' ? -1 : 1) * serviceCpuUs(services[way].pid);
        }),
      );
    }
  }
  const { sessions, rate } = load;
  const of = `event, ${sessions} session${sessions === 1 ? '' : 's'} of ${rate}/s`;
  const busy = (way: Way) => round(usedUs[way] / (ROUNDS * SECONDS * 10_000), 1);
  return rowsOf(of, times).map((row) => {
    const way = WAYS.find((each) => each === row['case']);
    if (way === undefined) return row;
    return { ...row, 'CPU %': busy(way), 'events/s': Math.round(times[way].totalCount / ROUNDS / SECONDS) };
  });
}

/** One turn in every session; `seconds` of it count. */
async function events(way: Way, load: Load, seconds: number, onLine?: OnLine): Promise<Histogram> {
  const { sessions, rate } = load;
  const target = services[way].address;
  const settings = { way, target, sessions, rate, ramp: RAMP_SECONDS, seconds };
  const args = Object.entries(settings).flatMap(([name, value]) => [`-${name}`, `${value}`]);
  const found = await run(['events', ...args], onLine);
  return found[way] as Histogram;
}

/** One turn after the other, from the client's write to the end of an answer of one delta. */
async function measureTurns(): Promise<Row[]> {
  const targets = WAYS.flatMap((way) => [`-${way}`, services[way].address]);
  const found = await run(['turns', ...targets, '-count', `${TURNS}`]);
  return rowsOf('turn, 1 session', found as Times);
}

type OnLine = (line: string) => void;

/** Histograms in microseconds, which are the last line that the program prints. */
async function run(args: readonly string[], onLine: OnLine = () => {}): Promise<Partial<Times>> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let last = '';
  for await (const line of createInterface(child.stdout)) {
    last = line;
    if (!line.startsWith('{')) onLine(line);
  }
  if (!last.startsWith('{')) throw new Error(`load ${args[0]} has no result`);
  const found = JSON.parse(last) as Record<Way, { readonly histogram: string }>;
  return Object.fromEntries(
    Object.entries(found).map(([way, { histogram: text }]) => [way, decodeFromCompressedBase64(text)]),
  );
}

function histogram(): Histogram {
  return build({ highestTrackableValue: 600_000_000, numberOfSignificantValueDigits: 3 });
}

function rowsOf(of: string, times: Readonly<Times>): Row[] {
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

function loadOf(text: string): Load {
  const [sessions, rate] = text.split('x').map(Number);
  if (!sessions || !rate) throw new Error(`${text} is not like 64x50`);
  return { sessions, rate };
}
