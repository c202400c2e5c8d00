import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { NO_OUTCOME, type TestClient, type TestStream } from '../harness/client.ts';
import type { Facts } from '../hostile/gateway-process.ts';
import { HostileWorld } from '../hostile/world.ts';

/** `npm run test:soak`: half an hour or 20,000 sessions, whichever is later. Not a part of the normal run. */
const SECONDS = Number(process.env['SOAK_SECONDS'] ?? 0);
const SESSIONS = Number(process.env['SOAK_SESSIONS'] ?? 0);
/** Of all sessions: compiled code, pools and caches are not what a session leaves behind. */
const WARM_UP_SHARE = 0.3;
const AT_ONCE = 20;
const CLIENTS = 4;
const GROWTH = 1.05;
/** A timer or a socket more or less is the moment's. */
const SLACK = 3;

let world: HostileWorld;

beforeAll(async () => {
  if (SECONDS > 0) world = await HostileWorld.start({ limits: { resumeGraceMs: 500 } });
}, 60_000);
afterAll(() => world?.close());

it.skipIf(SECONDS === 0)(
  'keeps no memory, descriptor or timer of sessions that are over',
  { timeout: SECONDS * 3_000 + 600_000 },
  async () => {
    const clients = Array.from({ length: CLIENTS }, () => world.client(world.goodKey));
    const counts = new Map<string, number>();
    let begun = 0;
    const run = async (sessions: number, untilMs: number) => {
      const last = begun + sessions;
      const work = async () => {
        while (begun < last || performance.now() < untilMs) {
          const n = begun++;
          const [name, use] = USES[n % USES.length] as (typeof USES)[number];
          await use(clients[n % CLIENTS] as TestClient, `${n}`);
          counts.set(name, (counts.get(name) ?? 0) + 1);
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
    };
    const startedAtMs = performance.now();
    await run(SESSIONS * WARM_UP_SHARE, startedAtMs + SECONDS * 1_000 * WARM_UP_SHARE);
    const before = await settled();
    await run(SESSIONS * (1 - WARM_UP_SHARE), startedAtMs + SECONDS * 1_000);
    const after = await settled();
    for (const client of clients) client.close();
    console.info(
      `${begun} sessions: ${JSON.stringify(Object.fromEntries(counts))}\nbefore ${figures(before)}\nafter  ${figures(after)}`,
    );
    expect(after.bugs).toEqual([]);
    expect(after.rssBytes).toBeLessThan(before.rssBytes * GROWTH);
    expect(after.descriptors).toBeLessThanOrEqual(before.descriptors * GROWTH + SLACK);
    expect(after.timers).toBeLessThanOrEqual(before.timers * GROWTH + SLACK);
  },
);

/** When the last session is over, the smallest of a few looks: garbage goes when it likes. */
async function settled(): Promise<Facts> {
  while ((await world.facts()).sessions > 0) await delay(100);
  let least = await world.facts();
  for (let look = 0; look < 20; look++) {
    await delay(250);
    const facts = await world.facts();
    if (facts.rssBytes < least.rssBytes) least = facts;
  }
  return least;
}

function figures({ rssBytes, heapBytes, descriptors, timers }: Facts): string {
  const mib = (bytes: number) => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
  return `RSS ${mib(rssBytes)}, heap ${mib(heapBytes)}, ${descriptors} descriptors, ${timers} timers`;
}

type Use = (client: TestClient, id: string) => Promise<void>;

const USES: readonly (readonly [string, Use])[] = [
  [
    'turns',
    (client, id) =>
      inSession(client, async (stream) => {
        for (const turn of ['a', 'b']) await completed(stream, id + turn, 'hello #deltas=20');
      }),
  ],
  [
    'lanes',
    (client, id) =>
      inSession(client, async (stream) => {
        const lanes = ['l1', 'l2', 'l3', 'l4'];
        for (const lane_id of lanes) stream.startTurn({ turn_id: id + lane_id, lane_id }, 'hello #deltas=10');
        await Promise.all(lanes.map((lane) => stream.turn(id + lane)));
      }),
  ],
  [
    'cancel',
    (client, id) =>
      inSession(client, async (stream) => {
        stream.startTurn({ turn_id: id }, 'long #deltas=500');
        await stream.event('response.created', id);
        stream.send({ cancel_turn: { turn_id: id } });
        expect((await stream.turn(id)).at(-1)?.outcome).not.toBe(NO_OUTCOME);
        await completed(stream, `${id}again`, 'hello');
      }),
  ],
  [
    'steer',
    (client, id) =>
      inSession(client, async (stream) => {
        stream.startTurn({ turn_id: id }, 'long #deltas=50');
        await stream.event('response.created', id);
        const text = { input_text: { text: 'the other way' } };
        stream.send({ steer_turn: { turn_id: id, input: [{ message: { role: 'user', content: [text] } }] } });
        await stream.turn(id);
      }),
  ],
  [
    'resume',
    async (client, id) => {
      const cut = client.connect();
      const { resume_token: token } = await cut.opened();
      cut.startTurn({ turn_id: id }, 'long #deltas=200');
      await cut.event('response.created', id);
      cut.cancel();
      await cut.ended();
      const stream = client.connect({ resume: { token, last_seq: cut.events.at(-1)?.seq ?? 0 } });
      await stream.opened();
      // It may have ended in the moment of the cut.
      if (cut.events.every(({ outcome }) => outcome === NO_OUTCOME)) await stream.turn(id);
      stream.halfClose();
      await stream.ended();
    },
  ],
  [
    'vanish',
    async (client, id) => {
      const stream = client.connect();
      await stream.opened();
      stream.startTurn({ turn_id: id }, 'long #deltas=200');
      await stream.event('response.created', id);
      stream.cancel();
      await stream.ended();
    },
  ],
  [
    'failure',
    (client, id) =>
      inSession(client, async (stream) => {
        stream.startTurn({ turn_id: id }, 'hello #error=500');
        await stream.turn(id);
      }),
  ],
  [
    'cut',
    async (_, id) => {
      // A connection of its own, that breaks.
      const client = world.client(world.goodKey);
      const stream = client.connect();
      await stream.opened();
      stream.startTurn({ turn_id: id }, 'long #deltas=200');
      await stream.event('response.created', id);
      client.close();
      stream.cancel();
      await stream.ended();
    },
  ],
];

async function inSession(client: TestClient, use: (stream: TestStream) => Promise<void>): Promise<void> {
  const stream = client.connect();
  await stream.opened();
  await use(stream);
  stream.halfClose();
  await stream.ended();
}

async function completed(stream: TestStream, turnId: string, text: string): Promise<void> {
  stream.startTurn({ turn_id: turnId, create: { store: false } }, text);
  expect((await stream.turn(turnId)).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
}
