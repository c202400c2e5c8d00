import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import type { StoreClient } from '../../src/store/client.ts';
import { ANY_SERVER, connectStore, StoreServer } from '../harness/store-server.ts';
import { ClientSession } from './client-session.ts';
import { GatewayProcess, KEYS } from './processes.ts';

const COMPLETED = { outcome: 'TURN_OUTCOME_COMPLETED' };
const RECOVERED = { resume_outcome: 'RESUME_OUTCOME_RECOVERED', durable: true };

describe.runIf(ANY_SERVER !== undefined)('what goes along when a session moves', () => {
  let server: StoreServer;
  let simulator: Simulator;
  let client: StoreClient;
  let gateways: GatewayProcess[];

  beforeAll(async () => {
    server = await StoreServer.start({ kind: ANY_SERVER ?? 'valkey' });
    client = await connectStore(server.url);
    simulator = await startSimulator();
    const start = (apiKey: string, index: number) =>
      GatewayProcess.start({
        storeUrl: server.url,
        upstreamUrl: simulator.url,
        processId: `p${index}`,
        keys: KEYS,
        gateTimeoutMs: 10_000,
        apiKey,
      });
    gateways = await Promise.all(['key-1', 'key-1', 'key-1', 'key-2', 'key-1'].map(start));
  }, 180_000);
  afterAll(async () => {
    for (const gateway of gateways) await gateway[Symbol.asyncDispose]();
    await simulator.close();
    await client.close();
    await server[Symbol.asyncDispose]();
  });

  const kindsOf = async ({ sessionId }: ClientSession) => {
    const key = client.key(`{${sessionId}}`);
    const entries = (await client.command(key, ['XRANGE', key, '-', '+'])) as [string, string[]][];
    return entries.map(([, [kind]]) => kind);
  };

  it('to the same account: its encrypted reasoning; to another one: none that it cannot read', {
    timeout: 60_000,
  }, async () => {
    const [, gateway, same, other] = gateways as [unknown, GatewayProcess, GatewayProcess, GatewayProcess];
    const create = { store: false, reasoning: {} };
    const sessions: ClientSession[] = [];
    for (const _ of [same, other]) {
      const session = await ClientSession.open(gateway);
      session.stream.startTurn({ turn_id: 't1', create }, 'Think. #reasoning');
      expect((await session.stream.turn('t1')).at(-1)).toMatchObject(COMPLETED);
      sessions.push(session);
    }
    await gateway.kill();
    for (const [at, heir] of [same, other].entries()) {
      const session = sessions[at] as ClientSession;
      await session.resume(heir);
      const question = `question ${at}`;
      session.stream.startTurn({ turn_id: 't2', create }, question);
      expect((await session.stream.turn('t2')).at(-1)).toMatchObject(COMPLETED);
      const asked = simulator.journal.entries.filter(({ request }) =>
        JSON.stringify(request?.['input']).includes(question),
      );
      expect(asked).toHaveLength(1);
      expect(JSON.stringify(asked[0]?.request).includes('encrypted_content":"')).toBe(heir === same);
    }
  });

  it('is what a client that was away at a drain had not received, to the last delta', {
    timeout: 60_000,
  }, async () => {
    const [gateway, , heir, , last] = gateways as [
      GatewayProcess,
      unknown,
      GatewayProcess,
      unknown,
      GatewayProcess,
    ];
    const session = await ClientSession.open(gateway);
    session.stream.startTurn({ turn_id: 't1', create: { store: false } }, 'Go on. #deltas=300 #tps=600');
    await session.stream.event('response.output_text.delta', 't1');
    session.stream.cancel();
    await expect.poll(() => kindsOf(session)).toContain('commit');
    await gateway.drain();
    expect(await kindsOf(session)).toEqual(expect.arrayContaining(['outbox', 'release']));

    expect(await session.resume(heir)).toMatchObject(RECOVERED);
    const heard = await session.stream.turn('t1');
    expect(heard.at(-1)).toMatchObject(COMPLETED);
    const deltas = [...session.events, ...session.stream.events].filter(
      ({ type }) => type === 'response.output_text.delta',
    );
    expect(deltas).toHaveLength(300);
    session.checkSeq();

    // The next process has other things to tell.
    session.stream.startTurn({ turn_id: 't2', create: { store: false } }, 'And?');
    expect(String((await session.stream.turn('t2')).at(-1)?.json)).toContain('sees 3 items');
    await heir.kill();
    expect(await session.resume(last)).toMatchObject(RECOVERED);
    session.stream.startTurn({ turn_id: 't3', create: { store: false } }, 'And?');
    expect(String((await session.stream.turn('t3')).at(-1)?.json)).toContain('sees 5 items');
    for (const id of ['t1', 't2', 't3']) expect(session.outcomes(id)).toHaveLength(1);
    session.checkSeq();
  });
});
