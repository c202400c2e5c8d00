import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { SessionLimits } from '../../src/core/types.ts';
import { TestClient, type TestClientOptions } from '../harness/client.ts';

const SCRIPT = fileURLToPath(new URL('gateway-process.ts', import.meta.url));

export interface GatewayProcessOptions {
  readonly storeUrl: string;
  readonly upstreamUrl: string;
  readonly processId: string;
  /** Hex. Empty: only ids are written. */
  readonly keys: readonly { readonly id: string; readonly secret: string }[];
  readonly limits?: Partial<SessionLimits>;
  /** Of the upstream. */
  readonly apiKey?: string;
  /** Longer than a busy machine needs to end a process. */
  readonly gateTimeoutMs?: number;
  /** Longer than a busy machine needs to answer all dials at once. */
  readonly dialTimeoutMs?: number;
}

export const KEYS = [{ id: 'k1', secret: randomBytes(32).toString('hex') }];

/** A gateway in a process of its own. */
export class GatewayProcess implements AsyncDisposable {
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #clients: TestClient[] = [];

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
  }

  static async start(options: GatewayProcessOptions): Promise<GatewayProcess> {
    const child = spawn(process.execPath, [SCRIPT, JSON.stringify(options)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const [line] = (await once(child.stdout as NodeJS.EventEmitter, 'data')) as [Buffer];
    return new GatewayProcess(child, Number(/listening (\d+)/.exec(String(line))?.[1]));
  }

  client(options?: TestClientOptions): TestClient {
    const client = new TestClient(`127.0.0.1:${this.port}`, options);
    this.#clients.push(client);
    return client;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  stall(): void {
    this.#child.kill('SIGSTOP');
  }

  goOn(): void {
    this.#child.kill('SIGCONT');
  }

  /** Resolves when the process has ended. */
  async drain(): Promise<void> {
    this.#child.stdin?.write('drain\n');
    if (this.#child.exitCode === null) await once(this.#child, 'exit');
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.close();
    await this.kill();
  }
}
