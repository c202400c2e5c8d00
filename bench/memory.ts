/** Resident memory of the gateway process: per idle session, per session with a 1 MB transcript, and after closing. */
import { LightClient, type LightStream, userMessage } from './support/light-client.ts';
import { rssBytes, startGateway, startSimulator } from './support/processes.ts';
import { publish, type Row, round } from './support/report.ts';

const COUNTS = (process.env.BENCH_SESSIONS ?? '1000,5000,10000').split(',').map(Number);
const WITH_TRANSCRIPT = Number(process.env.BENCH_TRANSCRIPTS ?? 100);
/** Streams of one HTTP/2 connection; more connections than that is what a fleet of callers looks like. */
const STREAMS_PER_CONNECTION = 90;
const KIB = 1024;

const simulator = await startSimulator();
const flags = [
  '--set',
  'tenants=[{"id":"default","limits":{"sessions":null,"lanes":null}}]',
  '--set',
  'limits.sessions=null',
];
const gateway = await startGateway(`ws://${simulator.address}/v1`, flags);
const rows: Row[] = [];
const note = (name: string, rss: number, perSession?: number) =>
  rows.push({
    case: name,
    'RSS MiB': mib(rss),
    'KiB per session': perSession === undefined ? '' : round(perSession / KIB, 1),
  });
// One round first: code is compiled and pools are filled before anything is counted.
await closeAll(await openSessions(50));
const start = await settledRss();
note('at the start', start);
for (const count of COUNTS) {
  const sessions = await openSessions(count);
  const open = await settledRss();
  note(`${count} idle sessions`, open, (open - start) / count);
  await closeAll(sessions);
}
const before = await settledRss();
note('after closing them', before);

const sessions = await openSessions(WITH_TRANSCRIPT);
const text = 'x'.repeat(1024 * KIB);
for (const { stream } of sessions) {
  await stream.turn({
    turnId: 't',
    create: { model: 'gpt-5.5', store: false, input: [userMessage(text)] },
  });
}
const loaded = await settledRss();
note(`${WITH_TRANSCRIPT} sessions with a 1 MiB transcript`, loaded, (loaded - before) / WITH_TRANSCRIPT);
await closeAll(sessions);
note('after closing them, too', await settledRss());
await gateway.stop();
await simulator.stop();

publish({
  name: 'memory',
  title: 'Memory of the gateway process',
  notes: [
    'Each session has its own upstream WebSocket; idle means opened and nothing asked yet.',
    'RSS is what the operating system counts; a freed page is given back late or never, so "after closing" is an upper bound.',
  ],
  rows,
  chart: {
    unit: 'MiB',
    bars: rows.map((row) => ({ label: String(row.case), value: Number(row['RSS MiB']) })),
  },
});
process.exit(0);

interface Open {
  readonly client: LightClient;
  readonly stream: LightStream;
}

async function openSessions(count: number): Promise<Open[]> {
  const open: Open[] = [];
  let client = new LightClient(gateway.address);
  for (let n = 0; n < count; n += 1) {
    if (n > 0 && n % STREAMS_PER_CONNECTION === 0) client = new LightClient(gateway.address);
    open.push({ client, stream: await client.open() });
  }
  return open;
}

async function closeAll(sessions: readonly Open[]): Promise<void> {
  await Promise.all(sessions.map(({ stream }) => stream.close()));
  for (const client of new Set(sessions.map((session) => session.client))) client.close();
}

/** The figure once it has stopped moving: two readings in a row within 1 %. */
async function settledRss(): Promise<number> {
  let last = rssBytes(gateway.pid);
  for (let n = 0; n < 20; n += 1) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    const now = rssBytes(gateway.pid);
    if (Math.abs(now - last) < last / 100) return now;
    last = now;
  }
  return last;
}

function mib(bytes: number): number {
  return round(bytes / KIB / KIB, 1);
}
