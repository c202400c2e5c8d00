/** A simulator that can be killed: `node simulator-process.ts PORT`. Says `listening` on its standard output. */
import { startSimulator } from '../../src/simulator/index.ts';

const port = Number(process.argv[2]);
const simulator = await startSimulator({ port, timing: { timeToFirstTokenMs: 5, tokensPerSecond: 200 } });
process.stdout.write(`listening ${simulator.port}\n`);
