/** One client's part of scripts/bench-clients.ts: reads turns of the flood server and prints one line of JSON. */
import { Client } from '../src/index.ts';

const [address = '', batch = '1', events = '100000'] = process.argv.slice(2);
using client = new Client({ address });
await using session = await client.connect();

await read(Math.ceil(Number(events) / 4));
const cpu = process.cpuUsage();
const started = performance.now();
const count = await read(Number(events));
const seconds = (performance.now() - started) / 1000;
const { user, system } = process.cpuUsage(cpu);
console.log(JSON.stringify({ events: count, seconds, cpuMicros: user + system, batch: Number(batch) }));

async function read(deltas: number): Promise<number> {
  const turn = await session.start({ input: `${deltas} ${batch}` });
  let seen = 0;
  for await (const { textDelta } of turn) if (textDelta !== '') seen += 1;
  return seen;
}
