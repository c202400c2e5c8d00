import { performance } from 'node:perf_hooks';
import { type GatewaySurroundings, ListenError, type RunningGateway, startGateway } from '../app/gateway.ts';
import { firstSignal } from '../app/shutdown.ts';
import { loadConfig } from '../config/load.ts';
import type { GatewayConfig } from '../config/schema.ts';
import { formatHostPort } from '../config/units.ts';
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
  const gateway = await start(config, surroundings);
  if (gateway === undefined) return EXIT.failure;
  announce(config, surroundings.version, gateway);
  const signal = await stopped;
  gateway.telemetry.logger.info({ signal }, 'draining');
  await gateway.drain();
  return EXIT.ok;
}

/** Undefined, with a line for the operator, when a port cannot be had. */
async function start(
  config: GatewayConfig,
  surroundings: GatewaySurroundings,
): Promise<RunningGateway | undefined> {
  try {
    return await startGateway(config, surroundings);
  } catch (error) {
    if (!(error instanceof ListenError)) throw error;
    process.stderr.write(`${explainStartError(error.cause, error.address)}\n`);
    return undefined;
  }
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
