import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startGateway } from '../cli/program.ts';

/** Passes TCP connections on to each of its targets in turn, as a balancer does that knows no gRPC. */
export class TcpBalancer implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #targets: string[];
  #next = 0;

  private constructor(targets: readonly string[]) {
    this.#targets = [...targets];
    this.#server = createServer((client) => this.#serve(client));
  }

  static async start(targets: readonly string[]): Promise<TcpBalancer> {
    const balancer = new TcpBalancer(targets);
    balancer.#server.listen(0, '127.0.0.1');
    await once(balancer.#server, 'listening');
    return balancer;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Open connections stay where they are. */
  set targets(targets: readonly string[]) {
    this.#targets = [...targets];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }

  /** A target that refuses is passed over. */
  #serve(client: Socket, tried = 0): void {
    const target = this.#targets[this.#next % this.#targets.length];
    this.#next += 1;
    if (target === undefined || tried >= this.#targets.length) return void client.destroy();
    const [host, port] = target.split(':');
    const upstream = connect(Number(port), host);
    for (const socket of [client, upstream]) {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    }
    let open = false;
    upstream.once('connect', () => {
      open = true;
      client.pipe(upstream).pipe(client);
    });
    client.on('error', () => upstream.destroy());
    client.on('close', () => upstream.destroy());
    upstream.on('error', () => {
      if (!open && !client.destroyed) this.#serve(client, tried + 1);
    });
    upstream.on('close', () => {
      if (open) client.destroy();
    });
  }
}

export interface ReplicasOptions {
  /** Of the store; undefined: the replicas do not know each other. */
  readonly storeUrl: string;
  /** Base URL of the upstream that all have. */
  readonly upstreamUrl: string;
  /** Sessions outlive their process. */
  readonly durable?: boolean;
  /** Further settings, as YAML. */
  readonly config?: string;
}

/** Gateway processes with one store and one configuration. Ended by `killAll` of the programs' tests. */
export class Replicas implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), 'gateway-replicas-'));
  readonly #config: string;

  constructor({ storeUrl, upstreamUrl, durable = false, config = '' }: ReplicasOptions) {
    const secret = join(this.#folder, 'secret');
    writeFileSync(secret, 'a secret that all replicas have in common\n');
    const key = join(this.#folder, 'key');
    writeFileSync(key, randomBytes(32));
    this.#config = join(this.#folder, 'gateway.yaml');
    writeFileSync(
      this.#config,
      `
upstream: { provider: openai, url: "${upstreamUrl}", allow_plaintext: true, api_key_env: null }
cluster:
  url: ${storeUrl}
  listen: 127.0.0.1:0
  timeout: 5s
  secret_file: ${secret}
${durable ? `  store: { keys: [{ id: k1, key_file: ${key} }] }` : ''}
${config}`,
    );
  }

  /** For other commands of the program. */
  get environment(): Readonly<Record<string, string>> {
    return { RESPONSES_GATEWAY_CONFIG: this.#config };
  }

  start(...args: string[]) {
    return startGateway('--config', this.#config, ...args);
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true });
  }
}
