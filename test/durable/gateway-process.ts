/**
 * A gateway whose sessions are durable, to be killed: `node gateway-process.ts OPTIONS` with OPTIONS as JSON. Says
 * `listening PORT` on its standard output; `drain` on its standard input drains it.
 */
import { createDurability } from '../../src/app/durability.ts';
import { createCredential } from '../../src/upstream/credential.ts';
import { SilentTelemetry } from '../chaos/silent-telemetry.ts';
import { startGateway } from '../harness/gateway.ts';
import { connectStore } from '../harness/store-server.ts';
import type { GatewayProcessOptions } from './processes.ts';

const {
  storeUrl,
  upstreamUrl,
  processId,
  keys,
  limits = {},
  apiKey,
  gateTimeoutMs = 250,
  dialTimeoutMs,
} = JSON.parse(process.argv[2] ?? '{}') as GatewayProcessOptions;

const client = await connectStore(storeUrl);
const durability = createDurability({
  client,
  heartbeats: { addressOf: async () => undefined },
  owner: { process: processId, address: '' },
  keys: keys.map(({ id, secret }) => ({ id, secret: Buffer.from(secret, 'hex') })),
  onFailure: 'local',
  gateTimeoutMs,
  resumeGraceMs: limits.resumeGraceMs ?? 60_000,
  onBug: (error) => console.error(error),
});
const gateway = await startGateway({
  upstreamUrl,
  upstream: {
    ...(apiKey !== undefined && { credential: createCredential(apiKey) }),
    ...(dialTimeoutMs !== undefined && { limits: { handshakeTimeoutMs: dialTimeoutMs } }),
  },
  telemetry: new SilentTelemetry(),
  limits,
  server: { durability, onBug: (error) => console.error(error) },
});
process.stdin.on('data', async () => {
  await gateway.server.drain(5_000);
  await durability.close();
  process.exit(0);
});
process.stdin.on('end', () => process.exit(0));
process.stdout.write(`listening ${gateway.port}\n`);
