import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { TestClient, type TestStream } from '../harness/client.ts';
import { freePort } from '../harness/store-server.ts';
import { Page } from '../telemetry/prometheus.ts';

const MIB = 1024 * 1024;
const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const WAIT = { timeout: 120_000, interval: 100 };

const children: ChildProcess[] = [];
const cleanUp: (() => void)[] = [];
afterEach(async () => {
  const ended = children
    .filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null)
    .map((child) => new Promise((resolve) => child.once('exit', resolve)));
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await Promise.all(ended);
  for (const each of cleanUp.splice(0)) each();
});

/** A memory control group of our own, of either version; a text says why there can be none. */
function controlGroup(name: string, bytes: number): { readonly procs: string; remove(): void } | string {
  for (const { root, limit } of [
    { root: '/sys/fs/cgroup/memory', limit: 'memory.limit_in_bytes' },
    { root: '/sys/fs/cgroup', limit: 'memory.max' },
  ]) {
    if (!existsSync(root)) continue;
    const folder = `${root}/${name}`;
    try {
      mkdirSync(folder);
      if (existsSync(`${folder}/${limit}`)) {
        writeFileSync(`${folder}/${limit}`, String(bytes));
        return { procs: `${folder}/cgroup.procs`, remove: () => rmdirSync(folder) };
      }
      rmdirSync(folder);
    } catch (error) {
      return `no control group can be made here: ${error instanceof Error ? error.message : String(error)}`;
    }
  }
  return 'no memory controller is mounted here';
}

/** What the image gives Node. */
function imageFlags(): string[] {
  const dockerfile = readFileSync(new URL('../../Dockerfile', import.meta.url), 'utf8');
  const [, words = '[]'] = /^ENTRYPOINT (\[.*\])$/m.exec(dockerfile) ?? [];
  return (JSON.parse(words) as string[]).filter((word) => word.startsWith('--'));
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

function fetchText(port: number, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ port, host: '127.0.0.1', path, agent: false }, (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => {
        body += chunk.toString();
      });
      response.on('end', () => resolve(body));
    }).on('error', reject);
  });
}

/** The gateway in a container's memory, and its upstream outside. */
async function start(procs: string) {
  const [upstreamPort, grpcPort, adminPort] = [await freePort(), await freePort(), await freePort()];
  const simulator = spawn(process.execPath, [MAIN, 'simulate', '--listen', `127.0.0.1:${upstreamPort}`], {
    stdio: 'ignore',
  });
  const args = [
    ...imageFlags(),
    MAIN,
    'serve',
    ...['--listen', `127.0.0.1:${grpcPort}`, '--admin-listen', `127.0.0.1:${adminPort}`],
    ...['--upstream-url', `ws://127.0.0.1:${upstreamPort}/v1`, '--log-level', 'warn'],
    // What was given up on is over when nobody comes back for it.
    ...['--set', 'session.resume_grace=1s'],
  ];
  const gateway = spawn('sh', ['-c', `echo $$ > ${procs} && exec "$@"`, 'sh', process.execPath, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  gateway.stderr?.on('data', (chunk: Buffer) => {
    log += chunk.toString();
  });
  children.push(simulator, gateway);
  await vi.waitUntil(() => listens(upstreamPort), WAIT);
  await vi.waitUntil(
    () =>
      fetchText(adminPort, '/readyz')
        .then((text) => text.startsWith('ready'))
        .catch(() => false),
    WAIT,
  );
  const client = new TestClient(`127.0.0.1:${grpcPort}`);
  cleanUp.push(() => client.close());
  return {
    client,
    log: () => log,
    died: () => gateway.exitCode !== null || gateway.signalCode !== null,
    ready: () => fetchText(adminPort, '/readyz'),
    metrics: async () => new Page(await fetchText(adminPort, '/metrics')),
  };
}

async function open(client: TestClient): Promise<TestStream> {
  const stream = client.connect();
  await stream.opened();
  return stream;
}

describe.each([
  ['512 MiB', 512],
  ['1 GiB', 1_024],
])('a gateway in %s', (_, mib) => {
  it('sheds, refuses, recovers, and does not die', { timeout: 300_000 }, async (context) => {
    const group = controlGroup(`responses-gateway-test-${process.pid}-${mib}`, mib * MIB);
    if (typeof group === 'string') return context.skip(group);
    cleanUp.push(group.remove);
    const { client, died, log, metrics, ready } = await start(group.procs);

    // Conversations that are over, kept for a recovery.
    const talked = await Promise.all(Array.from({ length: 8 }, () => open(client)));
    for (const stream of talked) {
      stream.startTurn({ turn_id: 't1', create: { store: false } }, 'word '.repeat((mib / 512) * 400_000));
      const last = (await stream.turn('t1')).at(-1);
      expect(last?.outcome, last?.turn_failed?.reason).toBe('TURN_OUTCOME_COMPLETED');
    }

    // Then more work than there is memory for, on as many sessions as it takes, until it is refused.
    const busy: TestStream[] = [];
    let refused = false;
    for (let session = 0; session < mib / 4 && !refused && !died(); session++) {
      const stream = await open(client).catch(() => undefined);
      if (stream === undefined) {
        refused = true;
        break;
      }
      busy.push(stream);
      stream.startTurn({ turn_id: 'running' }, 'in the way #hang');
      for (let turn = 0; turn < 3; turn++) stream.startTurn({ turn_id: `q${turn}` }, 'x'.repeat(4 * MIB));
      await delay(50);
      refused = stream.events.some(({ turn_failed: failed }) => failed?.reason === 'OVERLOADED');
    }
    expect(died(), log()).toBe(false);
    expect(refused).toBe(true);
    await vi.waitUntil(async () => (await ready()).includes('memory above the high mark'), WAIT);
    expect((await metrics()).sum('responses_gateway_memory_shed_bytes_total')).toBeGreaterThan(MIB);

    // With that work gone there is room again, for the conversations whose transcripts were given up as well.
    for (const stream of busy) stream.cancel();
    await vi.waitUntil(async () => (await ready()).startsWith('ready'), WAIT);
    const [first] = talked as [TestStream];
    await vi.waitUntil(async () => {
      const turn_id = `after-${first.events.length}`;
      first.startTurn({ turn_id }, 'and on');
      return (await first.turn(turn_id)).at(-1)?.outcome === 'TURN_OUTCOME_COMPLETED';
    }, WAIT);
    expect(died(), log()).toBe(false);
  });
});
