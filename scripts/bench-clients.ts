/**
 * Measures what receiving an event costs each client: `node scripts/bench-clients.ts [NAME…]`. A server in another
 * process sends deltas as fast as they are taken, one a message and in batches as the gateway sends them. Prints a table.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { hasJava } from './client-tools.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const EVENTS = 100_000;
/** One, and about what the gateway flushes when the upstream is fast. */
const BATCHES = [1, 32];

interface Bench {
  readonly name: string;
  missing(): string | undefined;
  readonly command: readonly [string, ...string[]];
  readonly cwd: string;
}

/** Each is given address, batch and events, and prints {events, seconds, cpuMicros}. */
const BENCHES: readonly Bench[] = [
  {
    name: 'typescript',
    missing: () => undefined,
    command: [process.execPath, 'bench/events.ts'],
    cwd: 'clients/typescript',
  },
  {
    name: 'java',
    missing: () => (hasJava() ? undefined : 'no javac or no mvn'),
    command: ['sh', 'run.sh', 'dev.responsesgateway.conformance.Bench'],
    cwd: 'clients/java',
  },
];

const names = process.argv.slice(2);
const server = spawn(process.execPath, [`${ROOT}clients/typescript/bench/flood-server.ts`], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
try {
  const [address] = (await once(createInterface({ input: server.stdout }), 'line')) as [string];
  console.log('| client | events a message | events a second | CPU an event (µs) |\n|---|---|---|---|');
  for (const bench of BENCHES.filter(({ name }) => names.length === 0 || names.includes(name))) {
    const why = bench.missing();
    if (why !== undefined) {
      console.log(`| ${bench.name} | skipped: ${why} | | |`);
      continue;
    }
    for (const batch of BATCHES) measure(bench, address, batch);
  }
} finally {
  server.kill();
}

function measure({ name, command: [command, ...args], cwd }: Bench, address: string, batch: number): void {
  const output = execFileSync(command, [...args, address, String(batch), String(EVENTS)], {
    cwd: `${ROOT}${cwd}`,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const last = output.trim().split('\n').at(-1) ?? '';
  const { events, seconds, cpuMicros } = JSON.parse(last) as Record<
    'events' | 'seconds' | 'cpuMicros',
    number
  >;
  if (events !== EVENTS) throw new Error(`${name}: ${events} events instead of ${EVENTS}`);
  const rate = Math.round(events / seconds).toLocaleString('en');
  console.log(`| ${name} | ${batch} | ${rate} | ${(cpuMicros / events).toFixed(1)} |`);
}
