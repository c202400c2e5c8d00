import { performance } from 'node:perf_hooks';
import { AccessOptionsError } from '../access/options.ts';
import { type GatewaySurroundings, ListenError, type RunningGateway, startGateway } from '../app/gateway.ts';
import { firstSignal } from '../app/shutdown.ts';
import { loadConfig } from '../config/load.ts';
import type { GatewayConfig } from '../config/schema.ts';
import { formatHostPort } from '../config/units.ts';
import { GatewayError } from '../errors.ts';
import { renderBanner } from './banner.ts';
import { EXIT } from './exit-codes.ts';
import type { ConfigFlags } from './flags.ts';
import { explainStartError } from './start-error.ts';
import { packageVersion } from './version.ts';

/** Runs the gateway until a signal comes; resolves with the exit code. Throws ConfigError before any port opens. */
export async function serveCommand(flags: ConfigFlags, environment: NodeJS.ProcessEnv): Promise<number> {
  const { config } = loadConfig({ file: flags.file, flags: flags.settings, environment });
  const stopped = firstSignal();
  const surroundings = { environment, version: packageVersion() };
  let gateway: RunningGateway;
  try {
    gateway = await start(config, surroundings);
  } catch (error) {
    if (!(error instanceof StartFailure)) throw error;
    process.stderr.write(`${error.message}\n`);
    return error.exitCode;
  }
  crashOnBugs(gateway);
  announce(config, surroundings.version, gateway);
  const signal = await stopped;
  gateway.telemetry.logger.info({ signal }, 'draining');
  await gateway.drain();
  return EXIT.ok;
}

/** What keeps the gateway from starting, with the exit code that it means. */
class StartFailure extends Error {
  readonly exitCode: number;

  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

async function start(config: GatewayConfig, surroundings: GatewaySurroundings): Promise<RunningGateway> {
  try {
    return await startGateway(config, surroundings);
  } catch (error) {
    if (error instanceof ListenError) {
      throw new StartFailure(EXIT.failure, explainStartError(error.cause, error.address));
    }
    // What the schema cannot see: unusable keys, certificates that do not fit, headers that are not allowed.
    if (error instanceof AccessOptionsError || error instanceof RangeError || error instanceof GatewayError) {
      throw new StartFailure(EXIT.usage, `error: ${error.message}`);
    }
    throw error;
  }
}

/** A bug outside of any session: nothing is known to be right any more. The text may hold content, so it is not shown. */
function crashOnBugs(gateway: RunningGateway): void {
  process.on('uncaughtException', (error) => {
    gateway.telemetry.logger.fatal({ err: error }, 'a bug ended the process');
    process.exit(EXIT.failure);
  });
}

/** For people on standard output, in a terminal or not; for machines one line of log. */
function announce(config: GatewayConfig, version: string, gateway: RunningGateway): void {
  const readyMs = Math.round(performance.now());
  const { grpcPort, adminPort, upstreams } = gateway;
  process.stdout.write(renderBanner({ config, version, readyMs, grpcPort, adminPort, upstreams }));
  gateway.telemetry.logger.info(
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
