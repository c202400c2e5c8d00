/**
 * What the console costs the gateway: CPU of its process with 1,000 sessions, a turn of one of them every 20 ms, while
 * nobody looks, and while a browser (Debian's Chromium) has the overview or the list of sessions open. What it
 * remembers while it is closed is told by the profile of `npm run bench:telemetry`.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { chromium, type Page } from 'playwright-core';
import { startGateway } from '../src/app/gateway.ts';
import { loadConfig } from '../src/config/load.ts';
import { startSimulator } from '../src/simulator/index.ts';
import { chromiumPath } from '../test/console/chromium.ts';
import { TestClient, type TestStream } from '../test/harness/client.ts';
import { cpuMicros } from './support/processes.ts';

const SESSIONS = 1_000;
const TURN_EVERY_MS = 20;
const ROUNDS = 4;
const ROUND_MS = 5_000;
const LIMIT = 0.03;

if (process.send === undefined) await measure();
else await serve();

async function measure(): Promise<void> {
  const simulator = await startSimulator({ journal: { maxEntries: 1 } });
  const child = fork(import.meta.filename, {
    env: {
      PATH: process.env['PATH'],
      RESPONSES_GATEWAY_LISTEN: '127.0.0.1:0',
      RESPONSES_GATEWAY_ADMIN_LISTEN: '127.0.0.1:0',
      RESPONSES_GATEWAY_UPSTREAM_URL: simulator.url,
      RESPONSES_GATEWAY_UPSTREAM_ALLOW_PLAINTEXT: 'true',
      RESPONSES_GATEWAY_TELEMETRY_LOGS_LEVEL: 'silent',
      // The simulator takes any.
      OPENAI_API_KEY: 'none',
    },
  });
  const [{ grpc, admin }] = (await once(child, 'message')) as [{ grpc: number; admin: number }];
  const client = new TestClient(`127.0.0.1:${grpc}`);
  const streams = await openSessions(client);
  let going = true;
  const load = (async () => {
    for (let turn = 0; going; turn += 1) {
      streams[turn % SESSIONS]?.startTurn({ turn_id: `t${turn}` }, 'Hi #deltas=3');
      await delay(TURN_EVERY_MS);
    }
  })();
  const browser = await chromium.launch({ executablePath: chromiumPath(), args: ['--no-sandbox'] });
  const page = await browser.newPage();
  const shares: Record<'closed' | 'overview' | 'sessions', number[]> = {
    closed: [],
    overview: [],
    sessions: [],
  };
  for (let round = 0; round <= ROUNDS; round += 1) {
    for (const name of ['closed', 'overview', 'sessions'] as const) {
      await show(page, name, admin);
      const before = await cpuMicros(child);
      await delay(ROUND_MS);
      // The first round compiles.
      if (round > 0) shares[name].push(((await cpuMicros(child)) - before) / (ROUND_MS * 1_000));
    }
  }
  going = false;
  await load;
  await browser.close();
  client.close();
  child.disconnect();
  await once(child, 'exit');
  await simulator.close();
  report(shares);
}

function report(shares: Readonly<Record<string, readonly number[]>>): void {
  const median = (name: string): number =>
    (shares[name] ?? []).toSorted((a, b) => a - b)[ROUNDS / 2] ?? Number.NaN;
  const closed = median('closed');
  console.log(
    `share of a core, ${SESSIONS} sessions, ${1_000 / TURN_EVERY_MS} turns a second, median of ${ROUNDS} rounds`,
  );
  console.log(`  closed    ${(100 * closed).toFixed(1)} %`);
  for (const name of ['overview', 'sessions']) {
    const more = median(name) - closed;
    console.log(
      `  ${name.padEnd(10)}${(100 * median(name)).toFixed(1)} %: ${(100 * more).toFixed(1)} % more, limit ${100 * LIMIT} %`,
    );
    if (more > LIMIT) process.exitCode = 1;
  }
}

async function show(page: Page, name: 'closed' | 'overview' | 'sessions', admin: number): Promise<void> {
  if (name === 'closed') await page.goto('about:blank');
  else {
    await page.goto(`http://127.0.0.1:${admin}/console${name === 'sessions' ? '#/sessions' : ''}`);
    await page.reload();
    await page.waitForSelector('.connection.live');
    if (name === 'sessions') await page.waitForSelector('#row-3 a');
  }
  await delay(1_000);
}

async function openSessions(client: TestClient): Promise<readonly TestStream[]> {
  const streams: TestStream[] = [];
  for (let index = 0; index < SESSIONS; index += 1) {
    const stream = client.connect({ client_name: `agent-${index % 7}` });
    stream.startTurn({ turn_id: 'first' }, 'Hi');
    await stream.turn('first');
    streams.push(stream);
  }
  return streams;
}

/** The gateway under test. */
async function serve(): Promise<void> {
  const { config } = loadConfig({ file: undefined, environment: process.env, flags: [] });
  const gateway = await startGateway(config, { environment: process.env, version: '0.0.0' });
  process.on('message', () => {
    const { user, system } = process.cpuUsage();
    process.send?.({ micros: user + system });
  });
  process.on('disconnect', () => void gateway.close());
  process.send?.({ grpc: gateway.grpcPort, admin: gateway.adminPort });
}
