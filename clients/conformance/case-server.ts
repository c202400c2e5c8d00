import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer as createHttp2Server } from 'node:http2';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type SessionRow, sessionQuerySchema } from '../../src/admin/api.ts';
import { type RunningGateway, startGateway } from '../../src/app/gateway.ts';
import { configSchema } from '../../src/config/schema.ts';
import { type SettingsChange, type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { type Case, compareJournal } from './format.ts';
import { Replicas } from './replicas.ts';

/** What a case may do to its surroundings; see README.md. */
interface Action {
  readonly cut_clients?: boolean;
  readonly block_clients?: boolean;
  readonly cut_upstream?: boolean;
  readonly configure?: SettingsChange;
  readonly wait_requests?: { readonly count: number; readonly status?: string };
  readonly wait_buffered?: number;
  readonly drain?: boolean;
  readonly restart?: boolean;
  readonly stall_clients?: boolean;
  readonly cut_after?: number;
  readonly freeze_clients?: boolean;
  readonly answer_http?: number;
  readonly cut_idle?: number;
  readonly wait_idle_cuts?: number;
  readonly wait_messages?: number;
  readonly wait_detached?: boolean;
  readonly wait_resets?: number;
  readonly wait_connections?: number;
  readonly wait_sessions?: number;
  readonly replace_gateway?: 'SIGTERM' | 'SIGKILL';
}

const WAIT_MS = 20_000;

/** A fresh gateway and simulator for each case, with a TCP proxy before the gateway. */
export class CaseServer {
  readonly #cases: ReadonlyMap<string, Case>;
  readonly #running = new Map<string, Stage>();

  constructor(cases: readonly Case[]) {
    this.#cases = new Map(cases.map((each) => [each.name, each]));
  }

  async start(name: string): Promise<{ address: string }> {
    const found = this.#cases.get(name);
    if (found === undefined) throw new Error(`no such case: ${name}`);
    const stage = await Stage.open(found);
    this.#running.set(name, stage);
    return { address: `127.0.0.1:${stage.proxy.port}` };
  }

  async control(name: string, action: unknown): Promise<object> {
    await this.#stage(name).act(action as Action);
    return {};
  }

  async finish(name: string): Promise<{ ok: boolean; error?: string }> {
    const stage = this.#stage(name);
    this.#running.delete(name);
    const problems = [...stage.judge()];
    await stage.close().catch((error: Error) => problems.push(error.message));
    return problems.length === 0 ? { ok: true } : { ok: false, error: problems.join('; ') };
  }

  async close(): Promise<void> {
    await Promise.all([...this.#running.values()].map((stage) => stage.close()));
  }

  #stage(name: string): Stage {
    const stage = this.#running.get(name);
    if (stage === undefined) throw new Error(`the case does not run: ${name}`);
    return stage;
  }
}

class Stage {
  readonly proxy: CuttingProxy;
  readonly #case: Case;
  readonly #simulator: Simulator;
  readonly #bugs: string[];
  readonly #replicas: Replicas | undefined;
  #gateway: RunningGateway | undefined;
  #drained: Promise<void> | undefined;

  private constructor(
    found: Case,
    simulator: Simulator,
    gateway: RunningGateway | undefined,
    replicas: Replicas | undefined,
    proxy: CuttingProxy,
    bugs: string[],
  ) {
    this.#case = found;
    this.#simulator = simulator;
    this.#gateway = gateway;
    this.#replicas = replicas;
    this.proxy = proxy;
    this.#bugs = bugs;
  }

  static async open(found: Case): Promise<Stage> {
    const simulator = await startSimulator(found.simulator ?? {});
    const bugs: string[] = [];
    const replicas = found.replicas === true ? await Replicas.start(simulator.url) : undefined;
    const gateway = replicas === undefined ? await startGatewayFor(found, simulator, bugs) : undefined;
    const proxy = await CuttingProxy.open(gateway?.grpcPort ?? replicas?.port ?? 0);
    return new Stage(found, simulator, gateway, replicas, proxy, bugs);
  }

  async act(action: Action): Promise<void> {
    if (action.cut_clients === true) this.proxy.cut();
    if (action.block_clients !== undefined) this.proxy.block(action.block_clients);
    if (action.cut_upstream === true) this.#simulator.cutConnections();
    if (action.configure !== undefined) this.#simulator.configure(action.configure);
    if (action.drain === true) this.#drained = this.#gateway?.drain();
    if (action.restart === true) await this.#restart();
    if (action.replace_gateway !== undefined) await this.#replace(action.replace_gateway);
    if (action.stall_clients !== undefined) this.proxy.stalled = action.stall_clients;
    if (action.cut_after !== undefined) this.proxy.cutAfterBytes = action.cut_after;
    if (action.answer_http !== undefined) this.proxy.answerStatus = action.answer_http;
    if (action.freeze_clients === true) this.proxy.freeze();
    if (action.cut_idle !== undefined) this.proxy.cutIdleMs = action.cut_idle;
    if (action.wait_idle_cuts !== undefined) await this.#waitForIdleCuts(action.wait_idle_cuts);
    if (action.wait_messages !== undefined) await this.#waitForMessages(action.wait_messages);
    if (action.wait_detached === true) await this.#waitForDetached();
    if (action.wait_resets !== undefined) await this.#waitForResets(action.wait_resets);
    if (action.wait_connections !== undefined) await this.#waitForConnections(action.wait_connections);
    if (action.wait_sessions !== undefined) await this.#waitForSessions(action.wait_sessions);
    if (action.wait_requests !== undefined) await this.#waitForRequests(action.wait_requests);
    if (action.wait_buffered !== undefined) await this.#waitForBuffered(action.wait_buffered);
  }

  judge(): readonly string[] {
    const { journal } = this.#simulator;
    const expected = this.#case.journal ?? {};
    return [
      ...compareJournal(expected, journal.entries, journal.counters.connectionsAccepted),
      ...this.#bugs.map((line) => `the gateway has a bug: ${line}`),
    ];
  }

  async close(): Promise<void> {
    await closing('proxy', this.proxy.close());
    await closing('gateway', this.#gateway?.close());
    await closing('replicas', this.#replicas?.close());
    await closing('drain', this.#drained);
    await closing('simulator', this.#simulator.close());
  }

  async #waitForRequests({ count, status }: { count: number; status?: string }): Promise<void> {
    const { journal } = this.#simulator;
    const fits = () =>
      journal.entries.filter((entry) => status === undefined || entry.status === status).length;
    await within(
      journal.until(() => fits() >= count),
      () => `${fits()} requests instead of ${count}`,
    );
  }

  async #waitForBuffered(bytes: number): Promise<void> {
    await poll(
      async () => (await this.#bufferedBytes()) >= bytes,
      async () => `${await this.#bufferedBytes()} bytes buffered instead of ${bytes}`,
    );
  }

  async #waitForDetached(): Promise<void> {
    await poll(
      async () => (await this.#sessions()).some(({ attached }) => attached === false),
      async () => 'no stream was cut',
    );
  }

  async #waitForResets(count: number): Promise<void> {
    const { proxy } = this;
    await poll(
      async () => proxy.resets >= count,
      async () => `${proxy.resets} resets instead of ${count}`,
    );
  }

  async #waitForConnections(count: number): Promise<void> {
    const { proxy } = this;
    await poll(
      async () => proxy.connections >= count,
      async () => `${proxy.connections} connections of clients instead of ${count}`,
    );
  }

  async #waitForSessions(count: number): Promise<void> {
    await poll(
      async () => (await this.#sessions()).length === count,
      async () => `${(await this.#sessions()).length} sessions instead of ${count}`,
    );
  }

  async #waitForIdleCuts(count: number): Promise<void> {
    const { proxy } = this;
    await poll(
      async () => proxy.idleCuts >= count,
      async () => `${proxy.idleCuts} idle connections cut instead of ${count}`,
    );
  }

  async #waitForMessages(count: number): Promise<void> {
    const { proxy } = this;
    const before = proxy.messages;
    await poll(
      async () => proxy.messages - before >= count,
      async () => `${proxy.messages - before} messages of clients instead of ${count}`,
    );
  }

  async #sessions(): Promise<readonly SessionRow[]> {
    const source = this.#gateway?.sources.sessions;
    if (source === undefined) return [];
    const { keys } = await source.keys(sessionQuerySchema.parse({}));
    return source.rows(keys.map(([, id]) => id));
  }

  async #bufferedBytes(): Promise<number> {
    return (await this.#sessions()).reduce((total, { bufferedBytes = 0 }) => total + bufferedBytes, 0);
  }

  async #replace(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const { proxy } = this;
    const replaced = this.#replicas?.replace(signal);
    // At once: what reconnects must not find the old one.
    proxy.target = this.#replicas?.port ?? proxy.target;
    await replaced;
  }

  async #restart(): Promise<void> {
    await this.#gateway?.close();
    this.#gateway = await startGatewayFor(this.#case, this.#simulator, this.#bugs);
    this.proxy.target = this.#gateway.grpcPort;
  }
}

async function startGatewayFor(found: Case, simulator: Simulator, bugs: string[]): Promise<RunningGateway> {
  const { upstream, ...rest } = found.gateway ?? {};
  const folder = await mkdtemp(join(tmpdir(), 'conformance-'));
  const prices = join(folder, 'prices.yaml');
  // JSON is YAML as well.
  if (found.prices !== undefined) await writeFile(prices, JSON.stringify(found.prices));
  const config = configSchema.parse({
    listen: '127.0.0.1:0',
    admin: { listen: '127.0.0.1:0' },
    // Links kept ready would count as connections.
    dial: { pool_size: 0 },
    upstream: { url: simulator.url, allow_plaintext: true, ...(upstream as object | undefined) },
    ...(found.prices !== undefined && { prices_file: prices }),
    ...rest,
  });
  const write = (line: string) => {
    if (line.includes('a bug ended')) bugs.push(line);
  };
  const started = startGateway(config, {
    environment: {},
    version: 'conformance',
    logDestination: { write },
  });
  return started.finally(() => rm(folder, { recursive: true }));
}

/** Passes bytes on until told otherwise. */
class CuttingProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  target: number;
  /** New connections are accepted, and nothing is passed on. */
  stalled = false;
  /** Cuts a connection whose client has sent so many bytes; 0: none. */
  cutAfterBytes = 0;
  /** Cuts a connection on which its client has sent no message for so long, as many proxies do; 0: none. */
  cutIdleMs = 0;
  /** Answers each call of a new connection itself, with this HTTP status; 0: passes it on. */
  answerStatus = 0;
  readonly #http = createHttp2Server((_, { stream }) => {
    stream.respond({ ':status': this.answerStatus, 'content-type': 'text/html' });
    // The end resets a stream that its client has not ended, and grpcio may hear of that first.
    setTimeout(() => !stream.destroyed && stream.end('<html></html>'), 100);
    stream.on('error', () => undefined);
  });
  /** Frames of data that clients have sent. */
  messages = 0;
  readonly #idle: NodeJS.Timeout;
  readonly #heardAtMs = new Map<Socket, number>();
  /** Connections that were cut for being idle. */
  idleCuts = 0;
  /** Streams that the gateway has reset. */
  resets = 0;
  /** Connections that were accepted. */
  connections = 0;
  #blocked = false;

  private constructor(target: number) {
    this.target = target;
    this.#idle = setInterval(() => this.#cutIdle(), 20);
    this.#server = createServer((client) => {
      if (this.#blocked) {
        client.resetAndDestroy();
        return;
      }
      this.connections += 1;
      if (this.answerStatus !== 0) {
        this.#sockets.add(client);
        client.on('error', () => undefined);
        client.on('close', () => this.#sockets.delete(client));
        this.#http.emit('connection', client);
        return;
      }
      if (this.stalled) {
        this.#sockets.add(client);
        client.on('error', () => undefined);
        client.on('close', () => this.#sockets.delete(client));
        return;
      }
      const upstream = connect(this.target, '127.0.0.1');
      for (const [from, to] of [
        [client, upstream],
        [upstream, client],
      ] as const) {
        this.#sockets.add(from);
        from.setNoDelay(true);
        from.pipe(to);
        if (from === client) this.#count(client);
        else eachFrame(from, 0, ({ type }) => (this.resets += type === RST_STREAM ? 1 : 0));
        from.on('error', () => undefined);
        from.on('close', () => {
          this.#sockets.delete(from);
          this.#heardAtMs.delete(from);
          to.destroy();
        });
      }
    });
  }

  static async open(target: number): Promise<CuttingProxy> {
    const proxy = new CuttingProxy(target);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  #count(client: Socket): void {
    let sent = 0;
    client.on('data', ({ length }) => {
      sent += length;
      if (this.cutAfterBytes > 0 && sent > this.cutAfterBytes) client.resetAndDestroy();
    });
    this.#heardAtMs.set(client, performance.now());
    eachFrame(client, PREFACE_BYTES, ({ type }) => {
      if (type !== DATA) return;
      this.messages += 1;
      this.#heardAtMs.set(client, performance.now());
    });
  }

  #cutIdle(): void {
    if (this.cutIdleMs === 0) return;
    for (const [client, heardAtMs] of this.#heardAtMs) {
      if (performance.now() - heardAtMs <= this.cutIdleMs) continue;
      this.idleCuts += 1;
      this.#heardAtMs.delete(client);
      client.resetAndDestroy();
    }
  }

  /** Open connections stay, and nothing comes through any more. */
  freeze(): void {
    for (const socket of this.#sockets) {
      socket.unpipe();
      socket.resume();
    }
  }

  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  block(blocked: boolean): void {
    this.#blocked = blocked;
    if (blocked) this.cut();
  }

  async close(): Promise<void> {
    clearInterval(this.#idle);
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

const DATA = 0;
const RST_STREAM = 3;
/** Before a client's first frame. */
const PREFACE_BYTES = 24;
const FRAME_HEADER_BYTES = 9;

/** Calls `take` with the header of each HTTP/2 frame that a socket sends after its first bytes. */
function eachFrame(
  socket: Socket,
  skipBytes: number,
  take: (frame: { readonly type: number }) => void,
): void {
  let header = Buffer.alloc(0);
  let payloadLeft = skipBytes;
  socket.on('data', (chunk: Buffer) => {
    let rest = chunk;
    while (rest.length > 0) {
      const skipped = Math.min(payloadLeft, rest.length);
      payloadLeft -= skipped;
      rest = rest.subarray(skipped);
      const wanted = FRAME_HEADER_BYTES - header.length;
      header = Buffer.concat([header, rest.subarray(0, wanted)]);
      rest = rest.subarray(wanted);
      if (header.length < FRAME_HEADER_BYTES) return;
      take({ type: header[3] ?? 0 });
      payloadLeft = header.readUIntBE(0, 3);
      header = Buffer.alloc(0);
    }
  });
}

/** What does not close fails its case instead of holding up the rest. */
async function closing(what: string, done: Promise<void> | undefined): Promise<void> {
  await within(done ?? Promise.resolve(), () => `the ${what} did not close`);
}

async function within(done: Promise<void>, problem: () => string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(problem())), WAIT_MS);
  });
  await Promise.race([done, late]).finally(() => clearTimeout(timer));
}

async function poll(test: () => Promise<boolean>, problem: () => Promise<string>): Promise<void> {
  const giveUpAt = Date.now() + WAIT_MS;
  while (!(await test())) {
    if (Date.now() > giveUpAt) throw new Error(await problem());
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
