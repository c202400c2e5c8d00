import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { ANY_SERVER, StoreServer } from '../../test/harness/store-server.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

/** Two gateways in processes of their own and the Valkey or Redis that they share. */
export class Replicas {
  readonly #store: StoreServer;
  readonly #folder: string;
  readonly #config: string;
  #current: Replica;
  #next: Replica | undefined;

  private constructor(
    store: StoreServer,
    folder: string,
    config: string,
    replicas: readonly [Replica, Replica],
  ) {
    this.#store = store;
    this.#folder = folder;
    this.#config = config;
    [this.#current, this.#next] = replicas;
  }

  static async start(upstreamUrl: string): Promise<Replicas> {
    if (ANY_SERVER === undefined)
      throw new Error('no valkey-server and no redis-server; run scripts/store-servers.sh');
    const store = await StoreServer.start({ kind: ANY_SERVER });
    const folder = mkdtempSync(join(tmpdir(), 'conformance-'));
    const config = join(folder, 'gateway.yaml');
    for (const name of ['secret', 'key'])
      writeFileSync(join(folder, name), randomBytes(32).toString('base64'));
    writeFileSync(
      config,
      JSON.stringify({
        listen: '127.0.0.1:0',
        admin: { listen: '127.0.0.1:0' },
        drain: { timeout: '10s' },
        upstream: { provider: 'openai', url: upstreamUrl, allow_plaintext: true, api_key_env: null },
        cluster: {
          url: store.url,
          listen: '127.0.0.1:0',
          secret_file: join(folder, 'secret'),
          store: { keys: [{ id: 'conformance', key_file: join(folder, 'key') }] },
        },
      }),
    );
    const replicas = await Promise.all([startReplica(config), startReplica(config)]);
    return new Replicas(store, folder, config, replicas);
  }

  /** Of the gateway that new connections reach. */
  get port(): number {
    return this.#current.port;
  }

  /** New connections reach the other gateway, and the one before gets the signal. */
  async replace(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const old = this.#current;
    // Not now for the next time: the one before has little time left, and a process takes long to start.
    this.#current = this.#next ?? (await startReplica(this.#config));
    this.#next = undefined;
    old.process.kill(signal);
    if (signal === 'SIGKILL') await once(old.process, 'exit');
  }

  async close(): Promise<void> {
    for (const each of [this.#current, this.#next]) each?.process.kill('SIGKILL');
    await this.#store[Symbol.asyncDispose]();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

interface Replica {
  readonly process: ChildProcess;
  readonly port: number;
}

async function startReplica(config: string): Promise<Replica> {
  const child = spawn(process.execPath, [MAIN, 'serve', '--config', config], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output: string[] = [];
  const listening = new Promise<number>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        output.push(line);
        const port = /gRPC\s+\S+:(\d+)/.exec(line)?.[1];
        if (port !== undefined) resolve(Number(port));
      });
    }
    child.once('exit', (code) => reject(new Error(`a gateway ended with ${code}: ${output.join('\n')}`)));
  });
  return { process: child, port: await listening };
}
