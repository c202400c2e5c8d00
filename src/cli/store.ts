import { randomBytes } from 'node:crypto';
import { EXIT } from '../app/exit-codes.ts';
import { openClusterClient } from '../app/replicas.ts';
import { loadConfig } from '../config/load.ts';
import { checkStore } from '../store/check.ts';
import { type StoreClient, whenReady } from '../store/client.ts';
import { openSharedLimits } from '../store/shared-limits.ts';
import { StoreError } from '../store/store-error.ts';
import { TenantSalts } from '../store/tenant-salts.ts';
import type { ConfigFlags } from './flags.ts';

const CONNECT_TIMEOUT_MS = 5_000;
const COMMAND_TIMEOUT_MS = 10_000;

/** Looks at the store of the configuration. 0: sessions can be durable there. */
export function checkStoreCommand(flags: ConfigFlags, environment: NodeJS.ProcessEnv): Promise<number> {
  return withStore(flags, environment, async (client) => {
    const findings = await checkStore(client);
    for (const { severity, message } of findings) process.stdout.write(`${severity}: ${message}\n`);
    const isFit = findings.every(({ severity }) => severity !== 'error');
    process.stderr.write(
      isFit ? 'The store is fit for durable sessions.\n' : 'The store would lose sessions.\n',
    );
    return isFit ? EXIT.ok : EXIT.failure;
  });
}

/** Forgets a tenant: its response ids, and the salt without which nothing that was sealed for it can be read. */
export function forgetTenantCommand(
  tenantId: string,
  flags: ConfigFlags,
  environment: NodeJS.ProcessEnv,
): Promise<number> {
  return withStore(flags, environment, async (client, ownedIdDays) => {
    const processId = randomBytes(8).toString('hex');
    const limits = openSharedLimits({ client, processId, timeoutMs: COMMAND_TIMEOUT_MS, ownedIdDays });
    try {
      await new TenantSalts(client).forget(tenantId);
      await limits.forget(tenantId);
    } finally {
      await limits.close();
    }
    process.stderr.write(
      `The store has forgotten the tenant ${tenantId}. Gateways that run know what they learned until they end.\n`,
    );
    return EXIT.ok;
  });
}

async function withStore(
  flags: ConfigFlags,
  environment: NodeJS.ProcessEnv,
  work: (client: StoreClient, ownedIdDays: number) => Promise<number>,
): Promise<number> {
  const { cluster } = loadConfig({ file: flags.file, flags: flags.settings, environment }).config;
  if (cluster === undefined) {
    process.stderr.write('There is no store: cluster.url is not set.\n');
    return EXIT.usage;
  }
  let trouble = 'no answer';
  const client = await openClusterClient(cluster, {
    commandTimeoutMs: COMMAND_TIMEOUT_MS,
    onError: (error) => {
      trouble = error.message;
    },
  });
  try {
    if (await whenReady(client, CONNECT_TIMEOUT_MS)) return await work(client, cluster.owned_id_days);
    process.stderr.write(`The store cannot be reached: ${trouble}\n`);
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    process.stderr.write(`The store failed: ${error.message}\n`);
  } finally {
    await client.close();
  }
  return EXIT.failure;
}
