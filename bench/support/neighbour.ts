/** Sessions with lone events, beside which something else happens. Answers each message with the times since the last. */
import { parentPort, workerData } from 'node:worker_threads';
import { type ClientAccess, LightClient, userMessage } from './light-client.ts';

const { address, access } = workerData as { address: string; access: ClientAccess | undefined };
const client = new LightClient(address, access);
let times: number[] = [];
const streams = await Promise.all(Array.from({ length: 8 }, () => client.open()));
for (const stream of streams) {
  stream.onEventBytes = (_turn, type, event) => {
    if (!type.endsWith('.delta')) return;
    const at = event.indexOf(' xxxxxxxx');
    times.push(performance.timeOrigin + performance.now() - Number(event.toString('latin1', at - 17, at)));
  };
  const input = [userMessage('#kind=text #deltas=3000 #rate=50')];
  void stream.turn({ turnId: 't', create: { model: 'gpt-5.5', store: false, input } });
}
parentPort?.on('message', () => {
  parentPort?.postMessage(times);
  times = [];
});
// The first events find cold code.
await new Promise((resolve) => setTimeout(resolve, 300));
times = [];
parentPort?.postMessage('ready');
