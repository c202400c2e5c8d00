/** This client's part of clients/conformance/soak.ts: runs turns in all ways while its connection is cut. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { Client, GatewayError, type Session, tool } from '../src/index.ts';

const TURNS = Number(process.env['SOAK_TURNS']);
const WORKERS = 8;
/** One turn, whatever is done with it, ends within this. */
const MOST_MS = 60_000;
const WAYS = [
  'final',
  'read',
  'slow',
  'cancel',
  'drop',
  'close',
  'loop',
  'raising',
  'limit',
  'leave',
  'steer',
] as const;

let next = Number(process.env['SOAK_SEED']);
const random = () => {
  next = (next * 48_271) % 2_147_483_647;
  return next / 2_147_483_647;
};
const input = z.object({ query: z.string() });
const look = tool({ name: 'look', input, run: ({ query }) => query });
const fails = tool({
  name: 'fails',
  input,
  run: () => {
    throw random() < 0.5 ? new Error('no luck') : 'not even an error';
  },
});

const outcomes: Record<string, number> = {};
const complaints: string[] = [];
process.on('unhandledRejection', (error) => complaints.push(`unhandled: ${error}`));

const client = new Client({ logger: () => undefined });
const session = await client.connect({ model: 'gpt-5.5' });
await Promise.all(
  Array.from({ length: WORKERS }, (_, worker) => play(session, worker, Math.ceil(TURNS / WORKERS))),
);
const { resumes } = session.stats;
await session.close();
client.close();
await sleep(500);
const handles = process
  .getActiveResourcesInfo()
  .filter((name) => !/^(PipeWrap|TTYWrap|FSReqPromise)$/.test(name));
const turns = Object.values(outcomes).reduce((sum, each) => sum + each, 0);
console.log(JSON.stringify({ turns, outcomes, resumes, left: [...handles, ...complaints] }));

async function play(on: Session, worker: number, count: number): Promise<void> {
  for (let n = 0; n < count; n += 1) {
    const late = sleep(MOST_MS, 'late', { ref: false });
    const ended = await Promise.race([
      one(on, worker).catch((error: unknown) =>
        error instanceof GatewayError ? error.reason : Promise.reject(error),
      ),
      late,
    ]);
    if (ended === 'late') throw new Error('a turn did not end');
    outcomes[ended] = (outcomes[ended] ?? 0) + 1;
  }
}

async function one(on: Session, worker: number): Promise<string> {
  let way = WAYS[Math.floor(random() * WAYS.length)];
  const lane = on.lane(`lane-${worker}-${Math.floor(random() * 3)}`);
  const deltas = `#deltas=${5 + Math.floor(random() * 295)}`;
  if (way === 'loop' || way === 'raising' || way === 'limit') {
    const loop = { functions: [way === 'raising' ? fails : look], maxTurns: way === 'limit' ? 2 : 32 };
    return (await lane.runTools({ input: `#tools=3 ${deltas}` }, loop)).outcome ?? '';
  }
  if (way === 'leave') {
    for await (const _ of lane.toolTurns({ input: `#tools=1 ${deltas}` }, { functions: [look] })) break;
    return 'left';
  }
  const turn = await lane.start({ input: deltas });
  if (way === 'drop') return 'dropped';
  if (way !== 'final') {
    for await (const event of turn) {
      if (way === 'slow') await sleep(random() * 2);
      if (event.type !== 'response.output_text.delta') continue;
      if (way === 'cancel') turn.cancel();
      if (way === 'close') turn.close();
      if (way === 'steer') {
        await turn.steer('and another thing');
        way = 'read';
      }
    }
  }
  return (await turn.final()).outcome ?? '';
}
