/**
 * Gateway and simulator in a process of their own: `node --expose-gc gateway-process.ts`. Every message is answered
 * with the bytes that are still in use after a full collection.
 */
import { startGateway } from '../harness/gateway.ts';
import { SilentTelemetry } from './silent-telemetry.ts';

const gateway = await startGateway({
  simulator: { journal: { maxEntries: 1, maxBytes: 0 } },
  telemetry: new SilentTelemetry(),
});
process.on('message', () => {
  // What the permissive access control of the harness notes down is not the gateway's.
  const { callers, admitted, settled, late, owned } = gateway.access;
  for (const notes of [callers, admitted, settled, late, owned]) notes.length = 0;
  for (let n = 0; n < 3; n += 1) (globalThis as { gc?: () => void }).gc?.();
  const { heapUsed, external, arrayBuffers } = process.memoryUsage();
  process.send?.({ bytes: heapUsed + external, arrayBuffers, bugs: gateway.bugs.length });
});
process.on('disconnect', () => process.exit(0));
process.send?.({ port: gateway.port });
