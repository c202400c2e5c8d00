import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openStoreClient, type StoreClient, whenReady } from '../../src/store/client.ts';
import { parseStoreUrl } from '../../src/store/url.ts';

export type ServerKind = 'redis' | 'valkey';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Where the server's program is; undefined where scripts/store-servers.sh could not get it. */
export function programOf(kind: ServerKind): string | undefined {
  const [found] = [`${kind}-server`].flatMap((name) => {
    try {
      return [execFileSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim()];
    } catch {
      return globSync(`node_modules/.cache/store-servers/**/${name}`, { cwd: ROOT }).map((path) =>
        join(ROOT, path),
      );
    }
  });
  return found;
}

/** Kinds of server that this machine has; a suite says which it had to leave out. */
export const AVAILABLE: readonly ServerKind[] = (['valkey', 'redis'] as const).filter(
  (kind) => programOf(kind) !== undefined,
);

/** One to test against where any will do. */
export const ANY_SERVER: ServerKind | undefined = AVAILABLE[0];

export interface StoreServerOptions {
  readonly kind: ServerKind;
  /** Further lines of its configuration, e.g. `maxmemory 2mb`. */
  readonly config?: readonly string[];
  readonly sentinel?: boolean;
}

/** A real server on a free loopback port, with a folder of its own, ended by the test. */
export class StoreServer implements AsyncDisposable {
  readonly kind: ServerKind;
  readonly port: number;
  readonly folder: string;
  readonly #options: StoreServerOptions;
  #process: ChildProcess | undefined;

  private constructor(options: StoreServerOptions, port: number) {
    this.kind = options.kind;
    this.port = port;
    this.#options = options;
    this.folder = mkdtempSync(join(tmpdir(), 'store-server-'));
  }

  static async start(options: StoreServerOptions): Promise<StoreServer> {
    const server = new StoreServer(options, await freePort());
    await server.run();
    return server;
  }

  get url(): string {
    return `valkey://127.0.0.1:${this.port}`;
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** Starts it, again after `kill`. */
  async run(): Promise<void> {
    const { config = [], sentinel = false } = this.#options;
    const file = join(this.folder, 'server.conf');
    const lines = [
      `port ${this.port}`,
      'bind 127.0.0.1',
      `dir ${this.folder}`,
      ...(sentinel ? [] : ['save ""']),
      ...config,
    ];
    writeFileSync(file, `${lines.join('\n')}\n`);
    const program = programOf(this.kind);
    if (program === undefined) throw new Error(`no ${this.kind}-server; run scripts/store-servers.sh`);
    const child = spawn(program, [file, ...(sentinel ? ['--sentinel'] : [])], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#process = child;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      if (/Ready to accept connections|Sentinel ID is/.test(output)) resolve();
    });
    child.once('exit', (code) => reject(new Error(`${this.kind}-server ended with ${code}: ${output}`)));
    await promise;
  }

  /** SIGSTOP: connections stay and nothing answers. */
  stall(): void {
    this.#process?.kill('SIGSTOP');
  }

  /** SIGCONT. */
  goOn(): void {
    this.#process?.kill('SIGCONT');
  }

  /** SIGKILL, and waits for its end. */
  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Watches a primary under the name `main`, and is quick to replace it. */
export function startSentinel(kind: ServerKind, primaryPort: number): Promise<StoreServer> {
  return StoreServer.start({
    kind,
    sentinel: true,
    config: [
      `sentinel monitor main 127.0.0.1 ${primaryPort} 1`,
      'sentinel down-after-milliseconds main 500',
      'sentinel failover-timeout main 2000',
    ],
  });
}

export interface TestStoreOptions {
  readonly keyPrefix?: string;
  readonly commandTimeoutMs?: number;
}

/** A client that is ready. */
export async function connectStore(
  url: string,
  { keyPrefix = 'rg:', ...options }: TestStoreOptions = {},
): Promise<StoreClient> {
  const { endpoint, username, password } = parseStoreUrl(url);
  const client = openStoreClient({
    endpoint,
    username,
    password: () => password,
    tls: undefined,
    keyPrefix,
    ...options,
  });
  if (!(await whenReady(client, 10_000))) throw new Error(`no connection to ${url}`);
  return client;
}

export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}
