/** This client's part of clients/conformance/bench.ts: reads one turn and prints what its events cost. */
import { Client, type Session } from '../src/index.ts';

using client = new Client();
await using session = await client.connect({ model: 'gpt-5.5' });
await read(session, process.env['BENCH_WARM_UP'] ?? '#deltas=5000');
const cpu = process.cpuUsage();
const started = performance.now();
const events = await read(session, process.env['BENCH_INPUT'] ?? '#deltas=60000');
const seconds = (performance.now() - started) / 1000;
const { user, system } = process.cpuUsage(cpu);
console.log(JSON.stringify({ events, seconds, cpuSeconds: (user + system) / 1e6 }));

async function read(from: Session, input: string): Promise<number> {
  let count = 0;
  for await (const _ of await from.start({ input, newConversation: true })) count += 1;
  return count;
}
