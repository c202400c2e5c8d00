import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from './store-server.ts';

export type ProxyKind = 'nginx' | 'haproxy' | 'envoy';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const START_TIMEOUT_MS = 30_000;

/** Where the program is; undefined where scripts/proxies.sh could not get it. */
export function programOf(kind: ProxyKind): string | undefined {
  try {
    const PATH = `${process.env['PATH']}:/usr/sbin`;
    return execFileSync('sh', ['-c', `command -v ${kind}`], { encoding: 'utf8', env: { PATH } }).trim();
  } catch {
    const [found] = globSync(`node_modules/.cache/proxies/**/_bin/${kind}`, { cwd: ROOT });
    return found && join(ROOT, found);
  }
}

/** Those that this machine has; a suite says which it had to leave out. */
export const AVAILABLE_PROXIES: readonly ProxyKind[] = (['nginx', 'haproxy', 'envoy'] as const).filter(
  (kind) => programOf(kind) !== undefined,
);

export interface ProxyOptions {
  readonly kind: ProxyKind;
  /** The whole configuration; `PORT` and `FOLDER` stand for a free loopback port and an empty folder. */
  readonly config: string;
}

/** A real proxy on a free loopback port, ended by the test. */
export class ProxyServer implements AsyncDisposable {
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #folder: string;

  private constructor(child: ChildProcess, port: number, folder: string) {
    this.#child = child;
    this.port = port;
    this.#folder = folder;
  }

  static async start({ kind, config }: ProxyOptions): Promise<ProxyServer> {
    const program = programOf(kind);
    if (program === undefined) throw new Error(`no ${kind}; run scripts/proxies.sh`);
    const port = await freePort();
    const folder = mkdtempSync(join(tmpdir(), `${kind}-`));
    const file = join(folder, kind === 'envoy' ? 'proxy.yaml' : 'proxy.conf');
    writeFileSync(file, config.replaceAll('PORT', String(port)).replaceAll('FOLDER', folder));
    const child = spawn(program, ARGUMENTS[kind](file, folder), { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => {
        output = (output + chunk.toString()).slice(-4_096);
      });
    const proxy = new ProxyServer(child, port, folder);
    const deadlineMs = performance.now() + START_TIMEOUT_MS;
    while (!(await listens(port))) {
      if (child.exitCode === null && performance.now() < deadlineMs) continue;
      await proxy[Symbol.asyncDispose]();
      throw new Error(`${kind} does not listen: ${output}`);
    }
    return proxy;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGTERM');
      await once(this.#child, 'exit');
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

const ARGUMENTS: Readonly<Record<ProxyKind, (file: string, folder: string) => readonly string[]>> = {
  nginx: (file, folder) => ['-c', file, '-p', folder, '-g', 'daemon off;'],
  haproxy: (file) => ['-f', file, '-db'],
  envoy: (file) => ['-c', file, '--concurrency', '1', '--use-dynamic-base-id', '-l', 'warn'],
};

async function listens(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    await new Promise((resolve) => setTimeout(resolve, 50));
    return false;
  } finally {
    socket.destroy();
  }
}
