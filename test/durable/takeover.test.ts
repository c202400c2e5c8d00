import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import type { StoreClient } from '../../src/store/client.ts';
import { NO_OUTCOME } from '../harness/client.ts';
import { StoreRelay } from '../harness/store-relay.ts';
import { ANY_SERVER, connectStore, StoreServer } from '../harness/store-server.ts';
import { ClientSession } from './client-session.ts';
import { GatewayProcess, KEYS } from './processes.ts';

const UNKNOWN = {
  outcome: 'TURN_OUTCOME_FAILED',
  turn_failed: { reason: 'UPSTREAM_LINK_LOST', replay: 'REPLAY_VERDICT_UNKNOWN' },
};
const COMPLETED = { outcome: 'TURN_OUTCOME_COMPLETED' };
const RECOVERED = { resume_outcome: 'RESUME_OUTCOME_RECOVERED', durable: true };
const SLOW = 'Count. #deltas=2000 #tps=200';

describe.runIf(ANY_SERVER !== undefined)('a session whose gateway is killed', () => {
  let server: StoreServer;
  let simulator: Simulator;
  let relays: StoreRelay[];
  /** Killed one after the other; `heir` lives. */
  let gateways: GatewayProcess[];
  let heir: GatewayProcess;
  let client: StoreClient;

  beforeAll(async () => {
    server = await StoreServer.start({ kind: ANY_SERVER ?? 'redis' });
    client = await connectStore(server.url);
    simulator = await startSimulator();
    relays = await Promise.all([1, 2].map(() => StoreRelay.start(server.port)));
    const urls = [server.url, ...relays.map(({ url }) => url), server.url, server.url];
    const processes = await Promise.all(
      urls.map((storeUrl, index) =>
        GatewayProcess.start({
          storeUrl,
          upstreamUrl: simulator.url,
          processId: `p${index}`,
          keys: KEYS,
          gateTimeoutMs: 60_000,
        }),
      ),
    );
    gateways = processes.slice(0, 4);
    heir = processes[4] as GatewayProcess;
  }, 180_000);
  afterAll(async () => {
    for (const gateway of [...gateways, heir]) await gateway[Symbol.asyncDispose]();
    for (const relay of relays) await relay[Symbol.asyncDispose]();
    await simulator.close();
    await client.close();
    await server[Symbol.asyncDispose]();
  });

  const commitsOf = async ({ sessionId }: ClientSession) => {
    const key = client.key(`{${sessionId}}`);
    const entries = (await client.command(key, ['XRANGE', key, '-', '+'])) as [string, string[]][];
    return entries.filter(([, [kind]]) => kind === 'commit').length;
  };

  /** How often the upstream was asked this. */
  const timesAsked = (text: string) =>
    simulator.journal.entries.filter(({ request }) => JSON.stringify(request?.['input']).includes(text))
      .length;

  it('goes on elsewhere, whatever it was doing', async () => {
    const gateway = gateways[0] as GatewayProcess;
    const [idle, unstored, running, queued, detached, fresh] = (await Promise.all(
      [1, 2, 3, 4, 5, 6].map(() => ClientSession.open(gateway)),
    )) as [ClientSession, ClientSession, ClientSession, ClientSession, ClientSession, ClientSession];
    for (const [session, store] of [
      [idle, true],
      [unstored, false],
      [running, false],
      [queued, true],
      [detached, false],
    ] as const) {
      session.stream.startTurn({ turn_id: 't1', create: { store } }, 'My name is Ada.');
      await session.stream.turn('t1');
    }
    running.stream.startTurn({ turn_id: 't2', create: { store: false } }, `running ${SLOW}`);
    await running.stream.event('response.output_text.delta', 't2');
    queued.stream.startTurn({ turn_id: 't2' }, `before ${SLOW}`);
    await queued.stream.event('response.output_text.delta', 't2');
    queued.stream.startTurn({ turn_id: 't3' }, 'queued turn');
    detached.stream.startTurn({ turn_id: 't2', create: { store: false } }, 'away #deltas=20 #ttft=200');
    await detached.stream.event('response.created', 't2');
    detached.stream.cancel();
    // Its end is written although nobody hears it.
    await expect.poll(() => commitsOf(detached)).toBe(2);
    await gateway.kill();

    expect(await idle.resume(heir)).toMatchObject(RECOVERED);
    idle.stream.startTurn({ turn_id: 't2' }, 'What is my name?');
    expect((await idle.stream.turn('t2')).at(-1)).toMatchObject(COMPLETED);
    expect(await unstored.resume(heir)).toMatchObject(RECOVERED);
    unstored.stream.startTurn({ turn_id: 't2', create: { store: false } }, 'What is my name?');
    for (const session of [idle, unstored])
      expect(String((await session.stream.turn('t2')).at(-1)?.json)).toContain('sees 3 items');

    expect(await running.resume(heir)).toMatchObject(RECOVERED);
    expect((await running.stream.turn('t2')).at(-1)).toMatchObject(UNKNOWN);
    running.stream.startTurn({ turn_id: 't3', create: { store: false } }, 'What is my name?');
    // What failed leaves no trace.
    expect(String((await running.stream.turn('t3')).at(-1)?.json)).toContain('sees 3 items');

    expect(await queued.resume(heir)).toMatchObject({ ...RECOVERED, active_turns: [] });
    expect((await queued.stream.turn('t2')).at(-1)).toMatchObject(UNKNOWN);
    expect(timesAsked('queued turn')).toBe(0);
    queued.stream.startTurn({ turn_id: 't3' }, 'queued turn');
    expect((await queued.stream.turn('t3')).at(-1)).toMatchObject(COMPLETED);
    expect(timesAsked('queued turn')).toBe(1);

    expect(await detached.resume(heir)).toMatchObject(RECOVERED);
    const told = (await detached.stream.turn('t2')).at(-1);
    expect(told).toMatchObject(COMPLETED);
    expect(String(told?.json)).toContain('response.completed');
    detached.stream.startTurn({ turn_id: 't3', create: { store: false } }, 'And now?');
    expect(String((await detached.stream.turn('t3')).at(-1)?.json)).toContain('sees 5 items');

    expect(await fresh.resume(heir)).toMatchObject(RECOVERED);
    fresh.stream.startTurn({ turn_id: 't1' }, 'Hello.');
    expect((await fresh.stream.turn('t1')).at(-1)).toMatchObject(COMPLETED);
    for (const session of [idle, unstored, running, queued, detached, fresh]) session.checkSeq();
  });

  it('reports a turn whose beginning was written and not acknowledged, which was never sent', async () => {
    const gateway = gateways[1] as GatewayProcess;
    const session = await ClientSession.open(gateway);
    const passed = relays[0]?.holdAnswersFrom('begin');
    session.stream.startTurn({ turn_id: 't1' }, 'begin held');
    await passed;
    await gateway.kill();
    expect(timesAsked('begin held')).toBe(0);
    expect(await session.resume(heir)).toMatchObject(RECOVERED);
    expect((await session.stream.turn('t1')).at(-1)).toMatchObject(UNKNOWN);
    // The same request again is known to have ended.
    session.stream.startTurn({ turn_id: 't1' }, 'begin held');
    session.stream.startTurn({ turn_id: 't2' }, 'go on');
    await session.stream.turn('t2');
    expect(session.outcomes('t1')).toHaveLength(1);
    expect(timesAsked('begin held')).toBe(0);
    session.checkSeq();
  });

  it('tells an outcome that was held back when the gateway died', async () => {
    const gateway = gateways[2] as GatewayProcess;
    const session = await ClientSession.open(gateway);
    const passed = relays[1]?.holdAnswersFrom('commit');
    session.stream.startTurn({ turn_id: 't1' }, 'terminal held');
    await passed;
    await gateway.kill();
    expect(session.outcomes('t1')).toEqual([]);
    expect(await session.resume(heir)).toMatchObject(RECOVERED);
    expect((await session.stream.turn('t1')).at(-1)).toMatchObject(COMPLETED);
    session.stream.startTurn({ turn_id: 't2' }, 'And now?');
    expect(String((await session.stream.turn('t2')).at(-1)?.json)).toContain('sees 3 items');
    expect(session.outcomes('t1')).toHaveLength(1);
    expect(timesAsked('terminal held')).toBe(1);
    session.checkSeq();
  });

  it('is not heard any more when it was only stopped, and wakes up', async () => {
    const gateway = gateways[3] as GatewayProcess;
    const session = await ClientSession.open(gateway);
    session.stream.startTurn({ turn_id: 't1', create: { store: false } }, 'My name is Ada.');
    await session.stream.turn('t1');
    session.stream.startTurn({ turn_id: 't2', create: { store: false } }, 'stopped #deltas=40 #tps=100');
    await session.stream.event('response.output_text.delta', 't2');
    gateway.stall();
    const old = session.stream;
    expect(await session.resume(heir)).toMatchObject(RECOVERED);
    expect((await session.stream.turn('t2')).at(-1)).toMatchObject(UNKNOWN);
    session.stream.startTurn({ turn_id: 't3', create: { store: false } }, 'What is my name?');
    expect(String((await session.stream.turn('t3')).at(-1)?.json)).toContain('sees 3 items');
    gateway.goOn();
    // Its upstream has finished the turn meanwhile: nobody hears of it.
    await expect.poll(() => old.endedWith?.reason, { timeout: 30_000 }).toBe('SESSION_SUPERSEDED');
    expect(old.events.filter(({ turn_id, outcome }) => turn_id === 't2' && outcome !== NO_OUTCOME)).toEqual(
      [],
    );
    session.stream.startTurn({ turn_id: 't4', create: { store: false } }, 'And now?');
    expect(String((await session.stream.turn('t4')).at(-1)?.json)).toContain('sees 5 items');
    expect(timesAsked('stopped')).toBe(1);
  });
});
