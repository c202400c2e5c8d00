import cluster, { type Worker } from 'node:cluster';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as z from 'zod';
import type { AdminServer, AdminSources } from '../admin/server.ts';
import { type ConfigInput, configSchema, type GatewayConfig } from '../config/schema.ts';
import { LOG_LEVELS } from '../config/schema-telemetry.ts';
import type { Simulator } from '../simulator/index.ts';
import { mergeMetrics } from '../telemetry/merge.ts';
import { createTelemetry } from '../telemetry/telemetry.ts';
import type { GatewayTelemetry } from '../telemetry/types.ts';
import type { FromWorker, Question, ToWorker } from './cluster-messages.ts';
import {
  audit,
  type GatewaySurroundings,
  METRICS_CONTENT_TYPE,
  openAdmin,
  replica,
  type Serving,
  startBuiltIn,
} from './gateway.ts';
import { HostLimits } from './host-limits.ts';
import { heard, mergedSessions, NO_ANSWER } from './merged-sessions.ts';
import { telemetryOptions } from './options.ts';
import { compareConfigs, type Reloaded } from './reload.ts';
import { newHostId } from './replicas.ts';
import { type StartFailure, WorkerStartError } from './start-failure.ts';
import { chooseUpstreams } from './upstreams.ts';
import { workerFlags } from './worker-flags.ts';

/** A worker that dies this soon after its start will do so again; the next try waits. */
const SHORT_LIFE_MS = 5_000;
const RESTART_DELAY_MS = 1_000;
/** A worker that is alive answers in a few milliseconds. */
const ANSWER_TIMEOUT_MS = 2_000;

/**
 * Several processes behind one port, for more than one core. The primary holds no sessions: it starts the workers,
 * replaces those that die, and answers on the admin port for all of them.
 */
export async function startCluster(
  config: GatewayConfig,
  surroundings: GatewaySurroundings,
): Promise<Serving> {
  // The workers measure; here only the log is used.
  const telemetry = await createTelemetry({
    ...telemetryOptions(config, surroundings),
    traces: { exporter: 'off' },
    metrics: { prometheus: false, exporter: 'off' },
    env: {},
  });
  const upstreams = chooseUpstreams(config, surroundings.environment);
  const simulator = upstreams.kind === 'simulator' ? await startBuiltIn(config.simulator) : undefined;
  const limits = new HostLimits(config.limits.owned_ids);
  const primary = new Primary(config, surroundings, telemetry, simulator, limits);
  try {
    const grpcPort = await primary.start();
    const admin = await openAdmin(config, primary.sources(), telemetry);
    return {
      grpcPort,
      adminPort: admin.port,
      upstreams,
      telemetry,
      reload: (next) => primary.reload(next),
      drain: () => primary.drain(admin),
    };
  } catch (error) {
    await primary.kill();
    throw error;
  }
}

class Primary {
  readonly #config: GatewayConfig;
  /** The last one that could be used. */
  #last: GatewayConfig;
  /** The price table that belongs to it, as text. */
  #prices: string | undefined;
  readonly #surroundings: GatewaySurroundings;
  readonly #telemetry: GatewayTelemetry;
  readonly #simulator: Simulator | undefined;
  readonly #socketFolder: string | undefined;
  readonly #secret = randomBytes(32).toString('base64url');
  readonly #hostId = newHostId();
  readonly #limits: HostLimits;
  readonly #ready = new Set<Worker>();
  readonly #answers = new Map<number, (value: unknown) => void>();
  readonly #restarts = new Set<NodeJS.Timeout>();
  #questions = 0;
  #reloads = 0;
  #started = false;
  #draining = false;
  #level: string | undefined;

  constructor(
    config: GatewayConfig,
    surroundings: GatewaySurroundings,
    telemetry: GatewayTelemetry,
    simulator: Simulator | undefined,
    limits: HostLimits,
  ) {
    this.#config = config;
    this.#last = config;
    this.#prices = pricesOf(config);
    this.#surroundings = surroundings;
    this.#limits = limits;
    this.#telemetry = telemetry;
    this.#simulator = simulator;
    this.#socketFolder = makeSocketFolder(telemetry);
  }

  /** Resolves with the port when all workers listen. */
  async start(): Promise<number> {
    cluster.setupPrimary({ execArgv: workerFlags(process.execArgv, this.#config.workers) });
    const ports = await Promise.all(Array.from({ length: this.#config.workers }, () => this.#fork()));
    this.#started = true;
    return ports[0] ?? 0;
  }

  sources(): AdminSources {
    return {
      notReady: async () => {
        if (this.#draining) return ['draining'];
        const reasons = heard(await this.#askAll({ what: 'notReady' })) as (readonly string[])[];
        if (reasons.length === 0) return ['no worker is ready'];
        // One that takes sessions is enough.
        return reasons.some((each) => each.length === 0) ? [] : [...new Set(reasons.flat())];
      },
      metrics: async () => ({
        contentType: METRICS_CONTENT_TYPE,
        body: mergeMetrics(heard(await this.#askAll({ what: 'metrics' })) as string[]),
      }),
      sessions: mergedSessions((question) => this.#askAll(question)),
      replica: () => replica(this.#config, this.#surroundings, this.#telemetry),
      drain: this.#surroundings.drain,
      audit: (record) => audit(this.#telemetry, record),
      logLevel: {
        levels: LOG_LEVELS,
        get: () => this.#telemetry.level(),
        set: (level) => {
          if (!this.#telemetry.setLevel(level)) return false;
          this.#level = level;
          void this.#askAll({ what: 'setLevel', level });
          return true;
        },
      },
    };
  }

  async reload(next: GatewayConfig): Promise<Reloaded> {
    const asked = new Set(this.#ready);
    const prices = pricesOf(next);
    const before = { config: this.#lastInput(), prices: this.#prices };
    const after = { config: z.encode(configSchema, next), prices };
    // What does not fit what runs is noticed where calls come in: by the workers.
    const problem = heard(await this.#askAll({ what: 'reload', ...after })).find((answer) => answer !== '');
    if (problem !== undefined) {
      await this.#askAll({ what: 'reload', ...before });
      throw new Error(String(problem));
    }
    this.#prices = prices;
    for (const worker of this.#ready)
      if (!asked.has(worker)) void this.#ask(worker, { what: 'reload', ...after });
    const { kind } = chooseUpstreams(next, this.#surroundings.environment);
    const upstreamsStay = kind === 'simulator' && this.#simulator === undefined;
    const reloaded = compareConfigs(this.#config, this.#last, next, { upstreamsStay });
    this.#last = next;
    this.#reloads += 1;
    return reloaded;
  }

  async drain(admin: AdminServer): Promise<void> {
    this.#draining = true;
    for (const timer of this.#restarts) clearTimeout(timer);
    const workers = Object.values(cluster.workers ?? {}).filter((worker) => worker !== undefined);
    const exits = workers.map((worker) => new Promise((resolve) => worker.once('exit', resolve)));
    for (const worker of workers) tell(worker, { kind: 'drain' });
    await Promise.all(exits);
    await admin.close();
    await this.#cleanUp();
  }

  async kill(): Promise<void> {
    this.#draining = true;
    for (const worker of Object.values(cluster.workers ?? {})) worker?.process.kill('SIGKILL');
    await this.#cleanUp();
  }

  async #cleanUp(): Promise<void> {
    await this.#simulator?.close();
    await this.#telemetry.shutdown();
    if (this.#socketFolder !== undefined) rmSync(this.#socketFolder, { recursive: true, force: true });
  }

  #fork(): Promise<number> {
    let reloads = this.#reloads;
    const worker = cluster.fork();
    closeHandedOver(worker);
    const startedAt = performance.now();
    return new Promise((resolve, reject) => {
      let failure: StartFailure | undefined;
      worker.on('message', (message: FromWorker) => {
        switch (message.kind) {
          case 'booted':
            // Forked just before the drain, too late to be asked to.
            if (this.#draining) return void worker.process.kill('SIGKILL');
            reloads = this.#reloads;
            return tell(worker, this.#startMessage());
          case 'ready':
            this.#ready.add(worker);
            // It was started with the configuration before.
            if (reloads !== this.#reloads)
              void this.#ask(worker, { what: 'reload', config: this.#lastInput(), prices: this.#prices });
            return resolve(message.grpcPort);
          case 'failed':
            failure = message;
            return;
          case 'limits': {
            const value = this.#limits.answer(worker.id, message.call);
            if (value !== undefined) tell(worker, { kind: 'limits', id: message.id, value });
            return;
          }
          case 'answer':
            return this.#answers.get(message.id)?.(message.value);
        }
      });
      worker.once('exit', (code: number, signal: string | null) => {
        this.#ready.delete(worker);
        this.#limits.forget(worker.id);
        reject(
          new WorkerStartError(failure ?? { exitCode: 1, message: 'error: a worker died while it started' }),
        );
        if (!this.#started || this.#draining) return;
        this.#telemetry.logger.error(
          { code: 'worker_died', worker: worker.id, worker_pid: worker.process.pid, exit_code: code, signal },
          'a worker died and is replaced; its sessions are lost, unless they are durable',
        );
        this.#replaceAfter(performance.now() - startedAt < SHORT_LIFE_MS ? RESTART_DELAY_MS : 0);
      });
    });
  }

  #replaceAfter(delayMs: number): void {
    const timer = setTimeout(() => {
      this.#restarts.delete(timer);
      // Its exit has been seen, and brings the next try.
      this.#fork().catch(() => {});
    }, delayMs);
    this.#restarts.add(timer);
  }

  #startMessage(): ToWorker {
    return {
      kind: 'start',
      config: this.#lastInput(),
      prices: this.#prices,
      logLevel: this.#level,
      simulatorUrl: this.#simulator?.url,
      socketFolder: this.#socketFolder,
      secret: this.#secret,
      hostId: this.#hostId,
    };
  }

  #lastInput(): ConfigInput {
    return z.encode(configSchema, this.#last);
  }

  /** One answer for each worker that is ready. */
  #askAll(question: Question): Promise<readonly unknown[]> {
    return Promise.all([...this.#ready].map((worker) => this.#ask(worker, question)));
  }

  #ask(worker: Worker, question: Question): Promise<unknown> {
    this.#questions += 1;
    const id = this.#questions;
    return new Promise((resolve) => {
      const done = (value: unknown): void => {
        clearTimeout(timer);
        this.#answers.delete(id);
        resolve(value);
      };
      const timer = setTimeout(done, ANSWER_TIMEOUT_MS, NO_ANSWER);
      this.#answers.set(id, done);
      tell(worker, { kind: 'ask', id, question });
    });
  }
}

function pricesOf({ prices_file }: GatewayConfig): string | undefined {
  return prices_file === undefined ? undefined : readFileSync(prices_file, 'utf8');
}

/** What the address of a Unix socket holds on macOS; Linux has 4 more. */
const MAX_SOCKET_PATH_BYTES = 103;
/** The name of a socket in the folder, for as many workers as will ever be started. */
const MAX_SOCKET_NAME_BYTES = '/9999999.sock'.length;

/** Only we can enter it. Without it, a resume at the wrong worker starts a new session. */
function makeSocketFolder({ logger }: GatewayTelemetry): string | undefined {
  const folder = join(tmpdir(), 'responses-gateway-');
  if (Buffer.byteLength(`${folder}XXXXXX`) + MAX_SOCKET_NAME_BYTES > MAX_SOCKET_PATH_BYTES) {
    logger.warn(
      { code: 'no_socket_folder' },
      `workers cannot reach each other: ${tmpdir()} is too long for the path of a socket`,
    );
    return undefined;
  }
  try {
    return mkdtempSync(folder);
  } catch (error) {
    logger.warn(
      { code: 'no_socket_folder', err: error },
      `workers cannot reach each other: ${tmpdir()} is not writable`,
    );
    return undefined;
  }
}

/**
 * Node keeps its own copy of a connection that it hands to a worker until the worker says that it has it. One that dies
 * in between never does, and its client would wait for ever on a connection that nobody reads.
 */
function closeHandedOver(worker: Worker): void {
  const child = worker.process;
  const send = child.send.bind(child) as (...args: unknown[]) => boolean;
  let last: { close(): void } | undefined;
  Object.assign(child, {
    send: (message: unknown, handle: unknown, ...rest: unknown[]) => {
      // One at a time: the next goes when the worker has answered.
      if (isNewConnection(message) && isClosable(handle)) last = handle;
      return send(message, handle, ...rest);
    },
  });
  // Closing what was closed before does nothing.
  worker.once('exit', () => last?.close());
}

function isNewConnection(message: unknown): boolean {
  return typeof message === 'object' && message !== null && 'act' in message && message.act === 'newconn';
}

function isClosable(handle: unknown): handle is { close(): void } {
  return (
    typeof handle === 'object' && handle !== null && 'close' in handle && typeof handle.close === 'function'
  );
}

function tell(worker: Worker, message: ToWorker): void {
  if (worker.isConnected()) worker.send(message, () => {});
}
