import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { NO_OUTCOME, type TestClient, type TestStream } from '../harness/client.ts';
import type { Facts } from '../hostile/gateway-process.ts';
import { HostileWorld } from '../hostile/world.ts';

/**
 * `npm run test:soak`: half an hour of sessions, `SOAK_MINUTES=2` for a look; not a part of the normal run. It ends by the
 * clock, on any machine, and says every half minute where it stands. How many sessions that makes is the machine's.
 */
const MINUTES = Number(process.env['SOAK_MINUTES'] ?? 0);
/** Compiled code, pools and caches are not what a session leaves behind. */
const WARM_UP_SHARE = 0.3;
/** Full when the warm-up is over: by default 40,000 responses are remembered, and as many items. */
const MAX_OWNED_ID_BYTES = 256 * 1024;
const AT_ONCE = 20;
const CLIENTS = 4;
const GROWTH = 1.05;
/** A timer or a socket more or less is the moment's. */
const SLACK = 3;
const TELL_EVERY_MS = 30_000;
/** Turns take a second at most; a session that takes longer than this is stuck. */
const USE_TIMEOUT_MS = 120_000;

let world: HostileWorld;

beforeAll(async () => {
  if (MINUTES === 0) return;
  const limits = { resumeGraceMs: 2_000 };
  world = await HostileWorld.start({ limits, maxOwnedIdBytes: MAX_OWNED_ID_BYTES });
}, 300_000);
afterAll(() => world?.close());

it.skipIf(MINUTES === 0)(
  'keeps no memory, descriptor or timer of sessions that are over',
  { timeout: MINUTES * 60_000 + 900_000 },
  async () => {
    const clients = Array.from({ length: CLIENTS }, () => world.client(world.goodKey));
    const failures: string[] = [];
    const startedAtMs = performance.now();
    let begun = 0;
    const workFor = async (share: number) => {
      const untilMs = performance.now() + MINUTES * 60_000 * share;
      const work = async () => {
        while (performance.now() < untilMs) {
          const n = begun++;
          const [name, use] = USES[n % USES.length] as (typeof USES)[number];
          try {
            await inTime(use(clients[n % CLIENTS] as TestClient, `${n}`));
          } catch (cause) {
            failures.push(
              `${name} of session ${n}: ${cause instanceof Error ? cause.message : String(cause)}`,
            );
          }
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
    };
    const tell = async () => {
      const minutes = ((performance.now() - startedAtMs) / 60_000).toFixed(1);
      const facts = figures(await world.facts({ settled: false }));
      console.info(`${minutes} min, ${begun} sessions, ${failures.length} failures: ${facts}`);
    };
    const telling = setInterval(() => void tell(), TELL_EVERY_MS);
    await workFor(WARM_UP_SHARE);
    const before = await settled();
    console.info(`after the warm-up, ${begun} sessions: ${figures(before)}`);
    await workFor(1 - WARM_UP_SHARE);
    const after = await settled();
    clearInterval(telling);
    for (const client of clients) client.close();
    console.info(`at the end, ${begun} sessions: ${figures(after)}`);
    expect(failures).toEqual([]);
    expect(after.bugs).toEqual([]);
    expect(after.sessions).toBe(0);
    expect(after.rssBytes).toBeLessThan(before.rssBytes * GROWTH);
    expect(after.descriptors).toBeLessThanOrEqual(before.descriptors * GROWTH + SLACK);
    expect(after.timers).toBeLessThanOrEqual(before.timers * GROWTH + SLACK);
  },
);

/** When the last session is over, the smallest of a minute's looks: V8 gives memory back after it has been idle for a while. */
async function settled(): Promise<Facts> {
  const untilMs = performance.now() + USE_TIMEOUT_MS;
  while ((await world.facts()).sessions > 0 && performance.now() < untilMs) await delay(100);
  let least = await world.facts();
  for (let look = 0; look < LOOKS; look++) {
    await delay(1_000);
    const facts = await world.facts();
    if (facts.rssBytes < least.rssBytes) least = facts;
  }
  return least;
}

const LOOKS = 60;

async function inTime(work: Promise<void>): Promise<void> {
  const late = new AbortController();
  const timeout = delay(USE_TIMEOUT_MS, undefined, { signal: late.signal }).then(() => {
    throw new Error(`not over after ${USE_TIMEOUT_MS / 1_000} s`);
  });
  // Nobody waits for the loser.
  timeout.catch(() => undefined);
  try {
    await Promise.race([work, timeout]);
  } finally {
    late.abort();
  }
}

function figures({ rssBytes, heapBytes, descriptors, timers, sessions }: Facts): string {
  const mib = (bytes: number) => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
  return `RSS ${mib(rssBytes)}, heap ${mib(heapBytes)}, ${descriptors} descriptors, ${timers} timers, ${sessions} open`;
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
      // On a busy machine the session may be over before its client is back.
      const opened = await stream.opened().catch(async (cause) => {
        if ((await stream.ended()).reason === 'SESSION_EXPIRED') return undefined;
        throw cause;
      });
      if (opened === undefined) return;
      // The turn may have ended in the moment of the cut.
      const isOver = cut.events.some(({ outcome }) => outcome !== NO_OUTCOME);
      if (opened.resume_outcome === 'RESUME_OUTCOME_RESUMED' && !isOver) await stream.turn(id);
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
