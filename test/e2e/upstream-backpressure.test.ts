import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { type ChaosProxy, startChaosProxy } from '../harness/chaos-proxy.ts';
import { checkSeq } from '../harness/client.ts';
import { startGateway, type TestGateway } from '../harness/gateway.ts';

const MIB = 1024 * 1024;

let simulator: Simulator;
let proxy: ChaosProxy;
let gateway: TestGateway;

beforeEach(async () => {
  simulator = await startSimulator();
  proxy = await startChaosProxy({ target: { host: '127.0.0.1', port: simulator.port } });
  gateway = await startGateway({
    upstreamUrl: `ws://127.0.0.1:${proxy.port}/v1`,
    // No spare link: the session's own is the proxy's first connection.
    dialer: { pool: { size: 0 } },
  });
});

afterEach(async () => {
  await gateway.close();
  await proxy.close();
  await simulator.close();
  expect(gateway.bugs).toEqual([]);
});

const tick = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('an upstream that takes nothing', () => {
  it("stops its own client's sends and nobody else's, and lets them go on", async () => {
    const client = gateway.client();
    const stuck = client.connect();
    await stuck.opened();
    stuck.startTurn({ turn_id: 't0' }, 'hello');
    await stuck.turn('t0');
    const [session] = gateway.server.registry.sessions();
    const [connection] = proxy.connections;
    connection?.set({ up: { stall: true } });

    for (let turn = 1; turn <= 6; turn++) {
      stuck.startTurn({ lane_id: `l${turn}`, turn_id: `t${turn}` }, 'x'.repeat(10 * MIB));
    }
    while (session?.driver.inputBlocked !== true) await tick();
    // What the client has sent beyond that waits in its own memory, and the windows between.
    expect(session.core.inspect().turns.length).toBeLessThanOrEqual(3);

    // Another session over the same client connection does not notice.
    const other = client.connect();
    other.startTurn({ turn_id: 'o1' }, 'quick');
    expect((await other.turn('o1')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');

    connection?.set({});
    for (let turn = 1; turn <= 6; turn++) {
      expect((await stuck.turn(`t${turn}`)).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
    }
    expect(session.driver.inputBlocked).toBe(false);
    checkSeq(stuck.events);
    expect(simulator.journal.entries.filter((entry) => entry.status === 'completed')).toHaveLength(8);
  }, 60_000);

  it('does not keep its client from giving up', async () => {
    const stuck = gateway.client().connect();
    await stuck.opened();
    // A named lane, so that the others come to the same link.
    stuck.startTurn({ lane_id: 'l0', turn_id: 't0' }, 'hello');
    await stuck.turn('t0');
    const [session] = gateway.server.registry.sessions();
    // The next link as well, which a cancelled turn may give the others.
    proxy.set({ up: { stall: true } });
    for (let turn = 1; turn <= 4; turn++) {
      stuck.startTurn({ lane_id: `l${turn}`, turn_id: `t${turn}` }, 'x'.repeat(10 * MIB));
    }
    while (session?.driver.inputBlocked !== true) await tick();
    for (const turn of [1, 4, 2, 3]) {
      stuck.send({ cancel_turn: { lane_id: `l${turn}`, turn_id: `t${turn}` } });
      expect((await stuck.turn(`t${turn}`)).at(-1)?.outcome).toBe('TURN_OUTCOME_CANCELLED');
    }
    checkSeq(stuck.events);
  }, 60_000);
});
