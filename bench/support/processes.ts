import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Of this checkout. */
export const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const MAIN = mainOf(ROOT);

export interface Service {
  readonly address: string;
  readonly pid: number;
  /** From the spawn to the line that tells the address. */
  readonly readyMs: number;
  stop(): Promise<void>;
}

/** The simulator as its users start it, in a process of its own. `options` is a simulator options file. */
export function startSimulator(args: readonly string[] = []): Promise<Service> {
  return start([MAIN, 'simulate', '--listen', '127.0.0.1:0', ...args], /wss?:\/\/(127\.0\.0\.1:\d+)/);
}

/** The gateway of a checkout as `npm start` starts it. Telemetry as by default: metrics on, traces off. */
export function startGateway(
  upstreamUrl: string,
  args: readonly string[] = [],
  root = ROOT,
): Promise<Service> {
  const flags = [
    '--listen',
    '127.0.0.1:0',
    '--admin-listen',
    '127.0.0.1:0',
    '--upstream-url',
    upstreamUrl,
    '--log-format',
    'json',
  ];
  return start(
    [...preloads(root), '--max-semi-space-size=16', mainOf(root), 'serve', ...flags, ...args],
    /"grpc":"(127\.0\.0\.1:\d+)"/,
    {
      OPENAI_API_KEY: 'bench',
    },
  );
}

/** Any script that prints `listening HOST:PORT`. */
export function startScript(script: URL, args: readonly string[]): Promise<Service> {
  return startProgram(process.execPath, [...nodeFlags(), fileURLToPath(script), ...args]);
}

/** The same for any program. */
export function startProgram(path: string, args: readonly string[]): Promise<Service> {
  return launch(path, args, /listening (127\.0\.0\.1:\d+)/);
}

/** CPU time of a process and its threads, user and system, in microseconds. Resolution: one clock tick, 10 ms. */
export function cpuUs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}

/** The same with the workers of a service. */
export function serviceCpuUs(pid: number): number {
  return [pid, ...childrenOf(pid)].reduce((sum, each) => sum + cpuUs(each), 0);
}

/** CPU time of a process's threads in microseconds, to the nanosecond; of threads that have ended, nothing. */
export function exactCpuUs(pid: number): number {
  let sumNs = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    sumNs += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]);
  }
  return sumNs / 1_000;
}

/** Resident memory in bytes. */
export function rssBytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
}

export function childrenOf(pid: number): readonly number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? [] : text.split(' ').map(Number);
}

// A benchmark that fails half way leaves nobody behind.
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** As the checkout's `npm start` does, if it has one. */
function preloads(root: string): readonly string[] {
  const path = join(root, 'scripts/compile-cache.mjs');
  return existsSync(path) ? ['--import', path] : [];
}

function mainOf(root: string): string {
  return join(root, 'src/main.ts');
}

function start(
  argv: readonly string[],
  ready: RegExp,
  env: Readonly<Record<string, string>> = {},
): Promise<Service> {
  return launch(process.execPath, [...nodeFlags(), ...argv], ready, env);
}

async function launch(
  path: string,
  args: readonly string[],
  ready: RegExp,
  env: Readonly<Record<string, string>> = {},
): Promise<Service> {
  const child = spawn(path, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  running.add(child);
  child.once('exit', () => running.delete(child));
  const startedMs = performance.now();
  const address = await readyLine(child, ready);
  return {
    address,
    readyMs: performance.now() - startedMs,
    pid: child.pid as number,
    stop: () =>
      new Promise((resolve) => {
        if (child.exitCode !== null || child.signalCode !== null) return resolve();
        child.once('exit', () => resolve());
        child.kill('SIGINT');
        // Twice means now: a benchmark has nothing to drain.
        // A profile that is being written is lost by it.
        if (nodeFlags().length === 0) setTimeout(() => child.kill('SIGINT'), 200).unref();
        setTimeout(() => child.kill('SIGKILL'), 10_000).unref();
      }),
  };
}

/** `BENCH_NODE_FLAGS="--cpu-prof"` profiles the services. */
function nodeFlags(): readonly string[] {
  return (process.env.BENCH_NODE_FLAGS ?? '').split(' ').filter((flag) => flag !== '');
}

function readyLine(child: ChildProcess, ready: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let seen = '';
    const look = (chunk: Buffer) => {
      seen += chunk.toString();
      const found = ready.exec(seen)?.[1];
      if (found !== undefined) {
        resolve(found);
        // What comes later is only taken off the pipe.
        for (const stream of [child.stdout, child.stderr]) stream?.off('data', look).resume();
      }
    };
    child.stdout?.on('data', look);
    child.stderr?.on('data', look);
    child.once('exit', (code) => reject(new Error(`exited with ${code} before it was ready:\n${seen}`)));
  });
}

/** CPU that a forked process has used, in microseconds: it answers the message `cpu` with `{ micros }`. */
export async function cpuMicros(child: ChildProcess): Promise<number> {
  child.send('cpu');
  const [{ micros }] = (await once(child, 'message')) as [{ micros: number }];
  return micros;
}
