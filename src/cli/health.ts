import { request } from 'node:http';
import { EXIT } from '../app/exit-codes.ts';
import { loadConfig } from '../config/load.ts';
import { formatHostPort, type HostPort, reachable } from '../config/units.ts';
import type { ConfigFlags } from './flags.ts';

/** Container engines give a health check 30 s by default; a gateway that needs seconds to answer is not well. */
const HEALTH_TIMEOUT_MS = 5_000;

/** Asks /readyz of the admin port that the same configuration gives. 0 when ready, 1 when not. */
export async function healthCommand(flags: ConfigFlags, environment: NodeJS.ProcessEnv): Promise<number> {
  const { config } = loadConfig({ file: flags.file, flags: flags.settings, environment });
  const address = reachable(config.admin.listen);
  try {
    const { status, body } = await get(address, '/readyz');
    process.stdout.write(`${body.trim()}\n`);
    return status === 200 ? EXIT.ok : EXIT.failure;
  } catch (error) {
    process.stderr.write(
      `no answer from http://${formatHostPort(address)}/readyz: ${(error as Error).message}\n`,
    );
    return EXIT.failure;
  }
}

function get({ host, port }: HostPort, path: string): Promise<{ status: number | undefined; body: string }> {
  return new Promise((resolve, reject) => {
    const call = request({ host, port, path, agent: false, timeout: HEALTH_TIMEOUT_MS }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode, body }));
      response.on('error', reject);
    });
    call.on('timeout', () => call.destroy(new Error(`nothing within ${HEALTH_TIMEOUT_MS} ms`)));
    call.on('error', reject);
    call.end();
  });
}
