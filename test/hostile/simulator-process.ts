/** The upstream in a process of its own: what it keeps is not the gateway's memory, and its work not the gateway's. */
import { startSimulator } from '../../src/simulator/index.ts';

process.on('disconnect', () => process.exit(0));

const { url } = await startSimulator({ journal: { maxEntries: 1, maxBytes: 0 } });
process.send?.({ url });
