import { afterEach, expect, it } from 'vitest';
import { type JournalEntry, type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { type ChaosProxy, startChaosProxy } from '../harness/chaos-proxy.ts';
import { TestClient } from '../harness/client.ts';
import { startGateway } from '../harness/gateway.ts';
import { ChaoticClient, type FinishedTurn } from './chaotic-client.ts';

/** `npm run check -- chaos` plays for CHAOS_SECONDS; the normal run plays a thousand turns. */
const SECONDS = Number(process.env.CHAOS_SECONDS ?? 0);
const SEED = Number(process.env.CHAOS_SEED ?? Math.floor(Math.random() * 2 ** 31));
const SESSIONS = 8;
const LANES = ['', 'left', 'right', 'far', 'near'];
const TURNS_PER_LANE = SECONDS > 0 ? Number.POSITIVE_INFINITY : 25;

const running: { close(): Promise<unknown> | unknown }[] = [];
afterEach(async () => {
  for (const part of running.splice(0).reverse()) await part.close();
});

it(`ends every turn once, in order, with the truth, while connections die (CHAOS_SEED=${SEED})`, {
  timeout: 120_000 + SECONDS * 1000,
}, async () => {
  const simulator = await startSimulator({
    timing: { timeToFirstTokenMs: 3, tokensPerSecond: 1_500 },
    journal: { maxEntries: 1_000_000, maxBytes: 1_000_000_000 },
  });
  running.push(simulator);
  const up = await startChaosProxy({ target: { host: '127.0.0.1', port: simulator.port }, seed: SEED });
  running.push(up);
  const gateway = await startGateway({
    upstreamUrl: `ws://127.0.0.1:${up.port}/v1`,
    limits: { maxDialAttempts: 1_000 },
  });
  running.push(gateway);
  const down = await startChaosProxy({ target: { host: '127.0.0.1', port: gateway.port }, seed: SEED + 1 });
  running.push(down);

  const until = Date.now() + SECONDS * 1000;
  const more = () => SECONDS === 0 || Date.now() < until;
  const clients = await openClients(down);
  const chaos = new Chaos(up, down, SEED);
  running.push({ close: () => chaos.stop() });
  chaos.start();
  await Promise.all(
    clients.flatMap((client) => LANES.map((lane) => client.converse(lane, TURNS_PER_LANE, more))),
  );
  chaos.stop();

  const turns = clients.flatMap(({ finished }) => finished);
  if (SECONDS === 0) expect(turns).toHaveLength(SESSIONS * LANES.length * TURNS_PER_LANE);
  expect(gateway.bugs).toEqual([]);
  check(turns, simulator);
  // A run in which nothing was cut proves nothing.
  expect(chaos.cuts).toBeGreaterThan(10);
  expect(clients.reduce((sum, { reconnects }) => sum + reconnects, 0)).toBeGreaterThan(0);
  expect(
    clients.flatMap(({ notices }) => notices).filter((notice) => notice.startsWith('replayed:')).length,
  ).toBeGreaterThan(0);
  report(turns, clients, chaos);
});

async function openClients(down: ChaosProxy): Promise<ChaoticClient[]> {
  const clients: ChaoticClient[] = [];
  for (let n = 0; n < SESSIONS; n += 1) {
    const connection = new TestClient(`127.0.0.1:${down.port}`, {
      channel: { 'grpc.initial_reconnect_backoff_ms': 20, 'grpc.max_reconnect_backoff_ms': 100 },
    });
    running.push(connection);
    const client = new ChaoticClient(connection, `s${n}`);
    running.push(client);
    await client.open();
    clients.push(client);
  }
  return clients;
}

/** The client's account against the simulator's journal. */
function check(turns: readonly FinishedTurn[], simulator: Simulator): void {
  const byText = new Map<string, JournalEntry[]>();
  const byResponse = new Map<string, JournalEntry>();
  for (const entry of simulator.journal.entries) {
    if (entry.responseId !== null) byResponse.set(entry.responseId, entry);
    const text = lastText(entry);
    if (entry.responseId === null || entry.warmUp || text === undefined) continue;
    byText.set(text, [...(byText.get(text) ?? []), entry]);
  }
  for (const turn of turns) {
    const ran = byText.get(turn.text) ?? [];
    expect([turn.turnId, ran.length <= 1]).toEqual([turn.turnId, true]);
    if (turn.outcome === 'COMPLETED') {
      const entry = byResponse.get(turn.responseId as string);
      expect([turn.turnId, turn.said, turn.contextHash]).toEqual([
        turn.turnId,
        entry?.finalText,
        entry?.contextHash,
      ]);
    } else {
      expect([turn.turnId, turn.outcome]).toEqual([turn.turnId, 'FAILED']);
      // SAFE is a promise: nothing ran.
      if (turn.replay === 'SAFE')
        expect([turn.turnId, turn.reason, ran.length]).toEqual([turn.turnId, turn.reason, 0]);
      else expect(['UNSAFE', 'UNKNOWN']).toContain(turn.replay);
    }
  }
}

function lastText(entry: JournalEntry): string | undefined {
  const input = entry.request?.input;
  if (!Array.isArray(input)) return undefined;
  const last = input.at(-1) as { content?: { text?: string }[] } | undefined;
  return last?.content?.[0]?.text;
}

function report(turns: readonly FinishedTurn[], clients: readonly ChaoticClient[], chaos: Chaos): void {
  const count = (key: (turn: FinishedTurn) => string) => {
    const counts: Record<string, number> = {};
    for (const turn of turns) counts[key(turn)] = (counts[key(turn)] ?? 0) + 1;
    return JSON.stringify(counts);
  };
  console.info(
    `${turns.length} turns, ${count((turn) => `${turn.outcome}${turn.replay === undefined ? '' : ` ${turn.replay}`}`)}; ` +
      `${chaos.cuts} cuts, ${clients.reduce((sum, { reconnects }) => sum + reconnects, 0)} resumes, ` +
      `${clients.flatMap(({ notices }) => notices).filter((notice) => notice.startsWith('replayed')).length} replays`,
  );
}

/** Does something bad every few milliseconds, and mends what would otherwise stay broken. */
class Chaos {
  cuts = 0;
  readonly #up: ChaosProxy;
  readonly #down: ChaosProxy;
  #state: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(up: ChaosProxy, down: ChaosProxy, seed: number) {
    this.#up = up;
    this.#down = down;
    this.#state = seed >>> 0;
  }

  start(): void {
    this.#timer = setTimeout(() => {
      this.#act();
      this.start();
    }, 10 + this.#next(60));
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#up.set({});
    this.#down.set({});
  }

  #act(): void {
    const proxy = this.#next(3) === 0 ? this.#down : this.#up;
    const { connections } = proxy;
    const victim = connections[this.#next(Math.max(1, connections.length))];
    const kind = this.#next(8);
    if (victim === undefined) return;
    if (kind < 3) this.#cut(victim);
    else if (kind === 3)
      proxy.set({ up: { latencyMs: 5, jitterMs: 5 }, down: { latencyMs: 5, jitterMs: 5 } });
    else if (kind === 4) proxy.set({ down: { slice: { bytes: 7 } } });
    else if (kind === 5) victim.set({ up: { stall: true }, down: { stall: true } });
    else if (kind === 6) {
      // Half-open: it takes everything and answers nothing, until somebody notices.
      victim.set({ up: { swallow: true }, down: { swallow: true } });
      setTimeout(() => this.#cut(victim), 30);
    } else proxy.set({});
  }

  #cut(victim: { cut(): void }): void {
    this.cuts += 1;
    victim.cut();
  }

  #next(below: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * below);
  }
}
