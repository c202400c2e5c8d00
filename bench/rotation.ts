/**
 * Time to the first token of the turn after something happened to the upstream connection, against an undisturbed
 * turn: a rotation, a cut, and a cut with 1 MB to replay. The provider is 20 ms away, with no model time.
 */
import { loadavg } from 'node:os';
import { startSimulator } from '../src/simulator/index.ts';
import { startChaosProxy } from '../test/harness/chaos-proxy.ts';
import { LightClient, type LightStream, userMessage } from './support/light-client.ts';
import { type Service, startGateway } from './support/processes.ts';
import { median, publish, quantile, type Row, round } from './support/report.ts';

const SAMPLES = Number(process.env.BENCH_SAMPLES ?? 15);
const RTT_MS = 20;
const UP_MBIT = 100;
/** Longer than a rotation takes; the same pause before every turn, so that all find the same idle processes. */
const PAUSE_MS = 1_700;
/** A cut is known after half a round trip; a turn sent before that is lost and not sent twice. */
const HEARD_MS = 200;
const MIB = 1024 * 1024;

const simulator = await startSimulator();
const latencyMs = RTT_MS / 2;
const proxy = await startChaosProxy({
  target: { host: '127.0.0.1', port: simulator.port },
  up: { latencyMs, bytesPerSecond: (UP_MBIT * 1_000_000) / 8, readAheadBytes: 16 * MIB },
  down: { latencyMs },
});
const url = `ws://127.0.0.1:${proxy.port}/v1`;
const plain = await startGateway(url);
const rotating = await startGateway(url, ['--set', 'upstream.capabilities={"rotate_after":"1s"}']);

const results: (readonly [string, readonly number[]])[] = await Promise.all([
  measure('undisturbed', plain, '', async () => {}),
  measure('after a rotation', rotating, '', async () => {}),
]);
// One after the other: a cut hits every connection.
results.push(await measure('soon after a cut', plain, '', cut));
results.push(await measure('undisturbed, 1 MB of history', plain, 'x'.repeat(MIB), async () => {}));
results.push(await measure('soon after a cut, 1 MB replayed', plain, 'x'.repeat(MIB), cut));
await plain.stop();
await rotating.stop();
await proxy.close();
await simulator.close();

const base = median(results[0]?.[1] ?? []);
const rows: Row[] = results.map(([name, times]) => ({
  case: name,
  'first token ms, p50': round(median(times), 1),
  p90: round(quantile(times, 0.9), 1),
  'turns lost': times.filter(Number.isNaN).length,
  'against undisturbed': `${round((median(times) / base - 1) * 100, 1)} %`,
}));
publish({
  name: 'rotation',
  title: 'Rotation and recovery: time to the first token of the next turn',
  notes: [
    `${SAMPLES} turns each, ${PAUSE_MS} ms apart; round trip to the provider ${RTT_MS} ms, ${UP_MBIT} Mbit/s up, no model time; responses are not stored, so what is lost has to be replayed.`,
    'Rotation: links are replaced every second, so each turn runs on a new one, onto which the lane was moved before.',
    `Cut: the connection is reset and the turn sent ${HEARD_MS} ms later. The gateway has a ready link or dials, then sends the whole conversation once.`,
    `Load average at the end: ${round(loadavg()[0] ?? 0, 1)}.`,
  ],
  rows,
  chart: {
    unit: 'ms',
    bars: results.map(([label, times]) => ({ label, value: median(times) })),
  },
});
process.exit(0);

async function measure(
  name: string,
  gateway: Service,
  history: string,
  disturb: () => Promise<void>,
): Promise<readonly [string, readonly number[]]> {
  const client = new LightClient(gateway.address);
  const times: number[] = [];
  const stream = await client.open();
  await turn(stream, 't0', `remember ${history}`);
  for (let n = 1; n <= SAMPLES; n += 1) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    await disturb();
    times.push(await turn(stream, `t${n}`, 'go on'));
  }
  await stream.close();
  client.close();
  return [name, times];
}

async function turn(stream: LightStream, turnId: string, text: string): Promise<number> {
  const started = performance.now();
  const { firstMs } = await stream.turn({
    turnId,
    create: { model: 'gpt-5.5', store: false, input: [userMessage(text)] },
  });
  return firstMs - started;
}

async function cut(): Promise<void> {
  simulator.cutConnections();
  await new Promise((resolve) => setTimeout(resolve, HEARD_MS));
}
