import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import type { TestEvent } from '../harness/client.ts';
import { ANY_SERVER, StoreServer } from '../harness/store-server.ts';
import { ClientSession } from './client-session.ts';
import { GatewayProcess, KEYS } from './processes.ts';

const SESSIONS = Number(process.env['STORM_SESSIONS'] ?? 100);
const TURNS = Number(process.env['STORM_TURNS'] ?? 8);

describe.runIf(ANY_SERVER !== undefined)('a storm', () => {
  let server: StoreServer;
  let simulator: Simulator;
  let gateways: GatewayProcess[];

  beforeAll(async () => {
    server = await StoreServer.start({ kind: ANY_SERVER ?? 'valkey' });
    simulator = await startSimulator({
      journal: { maxEntries: 100_000, maxBytes: 1e9 },
      timing: { timeToFirstTokenMs: 20, tokensPerSecond: 200 },
    });
    gateways = await Promise.all(
      [0, 1, 2].map((n) =>
        GatewayProcess.start({
          storeUrl: server.url,
          upstreamUrl: simulator.url,
          processId: `p${n}`,
          // Longer than a busy machine keeps a session waiting: what is not durable may be lost, and that is another test.
          gateTimeoutMs: 60_000,
          dialTimeoutMs: 60_000,
          keys: KEYS,
        }),
      ),
    );
  }, 180_000);
  afterAll(async () => {
    for (const gateway of gateways) await gateway[Symbol.asyncDispose]();
    await simulator.close();
    await server[Symbol.asyncDispose]();
  });

  it(`of ${SESSIONS} sessions and two kills loses nothing, runs nothing twice and confuses no conversation`, async () => {
    const living = [...gateways];
    const pick = (n: number) => living[n % living.length] as GatewayProcess;
    const done = { turns: 0, unknown: 0, moves: 0 };

    const live = async (index: number): Promise<void> => {
      const session = await ClientSession.open(pick(index));
      const store = index % 2 === 0;
      let completed = 0;
      for (let n = 1; n <= TURNS; n += 1) {
        const id = `s${index}-t${n}`;
        const last = await runTurn(session, index, id, store);
        done.turns += 1;
        if (last.outcome === 'TURN_OUTCOME_COMPLETED') {
          expect(String(last.json)).toContain(`sees ${1 + 2 * completed} items`);
          completed += 1;
          continue;
        }
        // Nothing fails but what was running where the process was killed.
        expect(last.turn_failed).toMatchObject({
          reason: 'UPSTREAM_LINK_LOST',
          replay: 'REPLAY_VERDICT_UNKNOWN',
        });
        done.unknown += 1;
      }
      session.checkSeq();
      for (let n = 1; n <= TURNS; n += 1) expect(session.outcomes(`s${index}-t${n}`)).toHaveLength(1);
      session.stream.cancel();
    };

    const runTurn = async (
      session: ClientSession,
      index: number,
      id: string,
      store: boolean,
    ): Promise<TestEvent> => {
      for (;;) {
        // What nothing was heard of is asked for again.
        if (!session.hasHeardOf(id))
          session.stream.startTurn({ turn_id: id, create: { store } }, `${id} please`);
        try {
          return (await session.stream.turn(id)).at(-1) as TestEvent;
        } catch {
          done.moves += 1;
          await move(session, index);
        }
      }
    };

    const move = async (session: ClientSession, index: number): Promise<void> => {
      for (let attempt = 0; ; attempt += 1) {
        try {
          const opened = await session.resume(pick(index + attempt));
          expect(opened['resume_outcome']).toBe('RESUME_OUTCOME_RECOVERED');
          return;
        } catch (error) {
          if (attempt > 20 || !String(error).includes('stream ended')) throw error;
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      }
    };

    const kills = async (): Promise<void> => {
      for (const share of [0.3, 0.6]) {
        await expect
          .poll(() => done.turns, { timeout: 240_000, interval: 5 })
          .toBeGreaterThan(share * SESSIONS * TURNS);
        await (living.shift() as GatewayProcess).kill();
      }
    };

    await Promise.all([kills(), ...Array.from({ length: SESSIONS }, (_, index) => live(index))]);
    const asked = new Map<string, number>();
    for (const { request } of simulator.journal.entries) {
      const [text] = /s\d+-t\d+ please(?!.*please)/s.exec(JSON.stringify(request?.['input'])) ?? [];
      if (text !== undefined) asked.set(text, (asked.get(text) ?? 0) + 1);
    }
    expect([...asked].filter(([, times]) => times > 1)).toEqual([]);
    expect(done.turns).toBe(SESSIONS * TURNS);
    expect(done.moves).toBeGreaterThan(0);
    // A process takes one running turn of a session along.
    expect(done.unknown).toBeLessThanOrEqual(done.moves);
    console.log(`storm: ${done.turns} turns, ${done.moves} moves, ${done.unknown} unknown`);
  }, 300_000);
});
