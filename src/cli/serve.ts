import cluster from 'node:cluster';
import { performance } from 'node:perf_hooks';
import { EXIT } from '../app/exit-codes.ts';
import { type Serving, startGateway } from '../app/gateway.ts';
import { firstSignal } from '../app/shutdown.ts';
import { startFailure, WorkerStartError } from '../app/start-failure.ts';
import { loadConfig } from '../config/load.ts';
import type { GatewayConfig } from '../config/schema.ts';
import { formatHostPort } from '../config/units.ts';
import { floorAbove } from '../ground/node-floors.ts';
import { renderBanner } from './banner.ts';
import { watchConfigFile } from './config-file-watch.ts';
import type { ConfigFlags } from './flags.ts';
import { packageVersion } from './version.ts';

/** How long whoever reads the log may take for the end of it. */
const UNREAD_OUTPUT_MS = 1_000;

/** Runs the gateway until a signal comes; resolves with the exit code. Throws ConfigError before any port opens. */
export async function serveCommand(flags: ConfigFlags, environment: NodeJS.ProcessEnv): Promise<number> {
  const reread = () => loadConfig({ file: flags.file, flags: flags.settings, environment }).config;
  const config = reread();
  const drainAsked = Promise.withResolvers<'admin'>();
  const surroundings = {
    environment,
    version: packageVersion(),
    drain: () => drainAsked.resolve('admin'),
  };
  if (cluster.isWorker) {
    const { runWorker } = await import('../app/worker.ts');
    const exitCode = await runWorker(config, surroundings, reread);
    endThoughUnread();
    return exitCode;
  }

  const stopped = firstSignal();
  let serving: Serving;
  try {
    serving = await (config.workers > 1
      ? (await import('../app/cluster.ts')).startCluster(config, surroundings)
      : startGateway(config, surroundings));
  } catch (error) {
    const { exitCode, message } = error instanceof WorkerStartError ? error.failure : startFailure(error);
    process.stderr.write(`${message}\n`);
    return exitCode;
  }
  endOnBugs(serving);
  warnBelowFloor(serving);
  announce(config, surroundings.version, serving);
  const stopReloading = reloadOnChange(serving, reread, flags.file);
  const signal = await Promise.race([stopped, drainAsked.promise]);
  stopReloading();
  serving.telemetry.logger.info({ signal }, 'draining');
  await serving.drain();
  endThoughUnread();
  return EXIT.ok;
}

/** At SIGHUP and when the file changes. What is wrong is logged, and the configuration that runs stays. */
function reloadOnChange(
  { reload, telemetry: { logger } }: Serving,
  reread: () => GatewayConfig,
  file: string | undefined,
): () => void {
  let last: Promise<void> = Promise.resolve();
  const again = (cause: string): void => {
    last = last.then(async () => {
      try {
        const { changed, needsRestart } = await reload(reread());
        logger.info({ code: 'config_reloaded', cause, changed }, 'the configuration was read again');
        if (needsRestart.length === 0) return;
        logger.warn(
          { code: 'config_needs_restart', settings: needsRestart },
          'these settings have changed and count after the next start only',
        );
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        logger.error(
          { code: 'config_reload_failed', cause, problem: message },
          'the configuration that runs stays',
        );
      }
    });
  };
  const onSignal = () => again('SIGHUP');
  process.on('SIGHUP', onSignal);
  const stopWatching = file === undefined ? undefined : watchConfigFile(file, () => again('file'));
  return () => {
    process.off('SIGHUP', onSignal);
    process.on('SIGHUP', () => {});
    stopWatching?.();
  };
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
