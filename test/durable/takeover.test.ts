import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import type { TestEvent, TestStream } from '../harness/client.ts';
import { ANY_SERVER, StoreServer } from '../harness/store-server.ts';
import { GatewayProcess, KEYS } from './processes.ts';

/** What the client of a session keeps: what it has heard, over all its streams. */
class Session {
  readonly events: TestEvent[] = [];
  stream: TestStream;
  token = '';

  constructor(stream: TestStream) {
    this.stream = stream;
  }

  static async open(gateway: GatewayProcess): Promise<Session> {
    const session = new Session(gateway.client().connect({ payload: 'PAYLOAD_FORMAT_BOTH' }));
    const opened = await session.stream.opened();
    session.token = opened.resume_token;
    expect(opened).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_NEW', durable: true });
    return session;
  }

  get lastSeq(): number {
    return Math.max(this.#heard.at(-1)?.seq ?? 0, 0);
  }

  get lastCommit(): number {
    return Math.max(0, ...this.#heard.map(({ commit }) => Number(commit)));
  }

  get #heard(): TestEvent[] {
    return [...this.events, ...this.stream.events];
  }

  async resume(gateway: GatewayProcess): Promise<Record<string, unknown>> {
    const { lastSeq, lastCommit } = this;
    this.events.push(...this.stream.events);
    this.stream = gateway.client().connect({
      payload: 'PAYLOAD_FORMAT_BOTH',
      resume: { token: this.token, last_seq: lastSeq, last_commit: lastCommit },
    });
    const opened = await this.stream.opened();
    this.token = opened.resume_token;
    return opened;
  }

  /** Numbers without gap or repeat over all streams. */
  checkSeq(): void {
    expect(this.#heard.map(({ seq }) => seq)).toEqual(this.#heard.map((_, index) => index + 1));
  }
}

describe.runIf(ANY_SERVER !== undefined)('a session whose gateway was killed', () => {
  let server: StoreServer;
  let simulator: Simulator;
  let processes = 0;

  beforeAll(async () => {
    server = await StoreServer.start({ kind: ANY_SERVER ?? 'redis' });
    simulator = await startSimulator({ timing: { timeToFirstTokenMs: 5, tokensPerSecond: 200 } });
  });
  afterAll(async () => {
    await simulator.close();
    await server[Symbol.asyncDispose]();
  });

  const start = (keys = KEYS) =>
    GatewayProcess.start({
      storeUrl: server.url,
      upstreamUrl: `${simulator.url}`,
      processId: `p${++processes}`,
      keys,
    });

  it.each([true, false])('goes on with its conversation when idle (store: %s)', async (store) => {
    await using left = await start();
    await using right = await start();
    const session = await Session.open(left);
    session.stream.startTurn({ turn_id: 't1', create: { store } }, 'My name is Ada.');
    await session.stream.turn('t1');
    await left.kill();
    const opened = await session.resume(right);
    expect(opened).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RECOVERED', durable: true });
    session.stream.startTurn({ turn_id: 't2', create: { store } }, 'What is my name?');
    const t2 = await session.stream.turn('t2');
    expect(t2.at(-1)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
    expect(String(t2.at(-1)?.json)).toContain('sees 3 items');
    session.checkSeq();
  });
});
