import cluster from 'node:cluster';
import { performance } from 'node:perf_hooks';
import { EXIT } from '../app/exit-codes.ts';
import { type Serving, startGateway } from '../app/gateway.ts';
import { readConfig } from '../app/read-config.ts';
import { firstSignal } from '../app/shutdown.ts';
import { startFailure, WorkerStartError } from '../app/start-failure.ts';
import { filesIn } from '../config/load.ts';
import { ConfigError } from '../config/problems.ts';
import type { GatewayConfig } from '../config/schema.ts';
import { formatHostPort } from '../config/units.ts';
import { floorAbove } from '../ground/node-floors.ts';
import { renderBanner } from './banner.ts';
import { watchFiles } from './config-file-watch.ts';
import type { ConfigFlags } from './flags.ts';
import { packageVersion } from './version.ts';

/** How long whoever reads the log may take for the end of it. */
const UNREAD_OUTPUT_MS = 1_000;

/** Runs the gateway until a signal comes; resolves with the exit code. Throws ConfigError before any port opens. */
export async function serveCommand(flags: ConfigFlags, environment: NodeJS.ProcessEnv): Promise<number> {
  const drainAsked = Promise.withResolvers<'admin'>();
  const surroundings = {
    environment,
    version: packageVersion(),
    drain: () => drainAsked.resolve('admin'),
  };
  if (cluster.isWorker) {
    const { runWorker } = await import('../app/worker.ts');
    const exitCode = await runWorker(surroundings);
    endThoughUnread();
    return exitCode;
  }
  const read = async () =>
    (await readConfig({ file: flags.file, flags: flags.settings, environment })).config;
  // Before the first look: what changes while the gateway starts is not missed.
  const changes = new ConfigChanges(flags.file);
  const config = await read();

  const stopped = firstSignal();
  let serving: Serving;
  try {
    serving = await (config.workers > 1
      ? (await import('../app/cluster.ts')).startCluster(config, surroundings)
      : startGateway(config, surroundings));
  } catch (error) {
    const { exitCode, message } = error instanceof WorkerStartError ? error.failure : startFailure(error);
    process.stderr.write(`${message}\n`);
    changes.close();
    return exitCode;
  }
  endOnBugs(serving);
  warnBelowFloor(serving);
  announce(config, surroundings.version, serving);
  changes.begin(config, (cause) => reload(serving, read, cause));
  const signal = await Promise.race([stopped, drainAsked.promise]);
  changes.close();
  serving.telemetry.logger.info({ signal }, 'draining');
  await serving.drain();
  endThoughUnread();
  return EXIT.ok;
}

/** What a reload has read. `config` is undefined when it failed, and one of `files` may be what is mended next. */
interface Reading {
  readonly config: GatewayConfig | undefined;
  readonly files: readonly string[];
}

/** SIGHUP, and changes of the file and of those that it names. They wait for the start, and for each other. */
class ConfigChanges {
  readonly #file: string | undefined;
  readonly #startedAtMs = Date.now();
  readonly #files = watchFiles(() => this.#changed('file'));
  readonly #onSignal = () => this.#changed('SIGHUP');
  #reload: ((cause: string) => Promise<Reading>) | undefined;
  /** Of the configuration that runs. */
  #running: readonly string[] = [];
  #missed: string | undefined;
  #last: Promise<void> = Promise.resolve();

  constructor(file: string | undefined) {
    this.#file = file;
    this.#watch([], this.#startedAtMs);
    process.on('SIGHUP', this.#onSignal);
  }

  begin(started: GatewayConfig, reload: (cause: string) => Promise<Reading>): void {
    this.#running = filesReadOnce(started);
    this.#watch([], this.#startedAtMs);
    this.#reload = reload;
    if (this.#missed !== undefined) this.#changed(this.#missed);
  }

  /** SIGHUP does nothing from now on; by itself it would end the process. */
  close(): void {
    process.off('SIGHUP', this.#onSignal);
    process.on('SIGHUP', () => {});
    this.#files.close();
  }

  #changed(cause: string): void {
    const reload = this.#reload;
    if (reload === undefined) {
      this.#missed = cause;
      return;
    }
    this.#last = this.#last.then(async () => {
      const startedAtMs = Date.now();
      const { config, files } = await reload(cause);
      if (config !== undefined) this.#running = filesReadOnce(config);
      this.#watch(config === undefined ? files : [], startedAtMs);
    });
  }

  #watch(more: readonly string[], sinceMs: number): void {
    const file = this.#file === undefined ? [] : [this.#file];
    this.#files.watch([...file, ...this.#running, ...more], sinceMs);
  }
}

/** What is wrong is logged, and the configuration that runs stays. */
async function reload(serving: Serving, read: () => Promise<GatewayConfig>, cause: string): Promise<Reading> {
  const { logger } = serving.telemetry;
  let next: GatewayConfig | undefined;
  try {
    next = await read();
    const { changed, needsRestart } = await serving.reload(next);
    logger.info({ code: 'config_reloaded', cause, changed }, 'the configuration was read again');
    if (needsRestart.length > 0) {
      logger.warn(
        { code: 'config_needs_restart', settings: needsRestart },
        'these settings have changed and count after the next start only',
      );
    }
    return { config: next, files: filesIn(next) };
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    logger.error({ code: 'config_reload_failed', cause, problem }, 'the configuration that runs stays');
    return { config: undefined, files: error instanceof ConfigError ? error.files : filesIn(next) };
  }
}

/** Beside the configuration: certificates, key files and JWKS files are looked at by those who use them. */
function filesReadOnce({ prices_file, auth, upstream, upstreams }: GatewayConfig): string[] {
  return [
    prices_file,
    ...auth.map((method) => (method.kind === 'jwt' ? method.public_key_file : undefined)),
    ...[upstream, ...upstreams].map((each) => each?.ca_file),
  ].filter((file) => file !== undefined);
}

/** Lines that nobody reads would keep a process that has nothing else to do. */
function endThoughUnread(): void {
  setTimeout(() => process.exit(EXIT.ok), UNREAD_OUTPUT_MS).unref();
}

/** A bug outside of any session: nothing is known to be right any more. The text may hold content, so it is not shown. */
function endOnBugs({ telemetry }: Serving): void {
  process.on('uncaughtException', (error) => {
    telemetry.logger.fatal({ err: error }, 'a bug ended the process');
    process.exit(EXIT.failure);
  });
}

/** An old Node serves all the same: whether its holes matter depends on who can reach the port. */
function warnBelowFloor({ telemetry }: Serving): void {
  const floor = floorAbove(process.versions.node);
  if (floor === undefined) return;
  telemetry.logger.warn(
    { code: 'node_below_floor', node: process.versions.node, floor },
    'this Node has known holes in HTTP/2 and TLS that callers can reach; update it',
  );
}

/** For people on standard output, in a terminal or not; for machines one line of log. */
function announce(config: GatewayConfig, version: string, serving: Serving): void {
  const readyMs = Math.round(performance.now());
  const { grpcPort, adminPort, upstreams, telemetry } = serving;
  process.stdout.write(renderBanner({ config, version, readyMs, grpcPort, adminPort, upstreams }));
  telemetry.logger.info(
    {
      version,
      readyMs,
      grpc: formatHostPort({ ...config.listen, port: grpcPort }),
      admin: formatHostPort({ ...config.admin.listen, port: adminPort ?? 0 }),
      upstream:
        upstreams.kind === 'simulator' ? 'simulator' : upstreams.upstreams.map(({ name }) => name).join(','),
    },
    'ready',
  );
}
