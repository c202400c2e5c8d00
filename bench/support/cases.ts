/** What users feel, one case each. A case runs on one gateway and tells its numbers; `compare.ts` puts builds side by side. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { startChaosProxy } from '../../test/harness/chaos-proxy.ts';
import {
  type ClientAccess,
  encodeRequest,
  LightClient,
  type LightStream,
  userMessage,
} from './light-client.ts';
import { exactCpuUs, rssBytes, type Service } from './processes.ts';
import { median, quantile } from './report.ts';

export interface Target {
  readonly gateway: Service;
  readonly access: ClientAccess | undefined;
}

export type Numbers = Readonly<Record<string, number>>;

export interface Case {
  readonly title: string;
  /** The gateway is started anew for each round. */
  readonly fresh?: boolean;
  run(target: Target): Promise<Numbers>;
}

const MIB = 1024 * 1024;
const FULL_HISTORY = 2;
/** A path to the other side of an ocean. */
export const ROUND_TRIP_MS = 50;

export const CASES: Readonly<Record<string, Case>> = {
  burst: { title: 'burst of text deltas', run: (target) => burst(target, 'text', 8, 10_000) },
  obfuscation: { title: 'burst with obfuscation', run: (target) => burst(target, 'obfuscation', 8, 10_000) },
  code: { title: 'burst of code, 200 bytes with escapes', run: (target) => burst(target, 'code', 8, 5_000) },
  logprobs: { title: 'burst with logprobs', run: (target) => burst(target, 'logprobs', 8, 3_000) },
  prose20k: { title: 'frames of 20 KB prose', run: (target) => burst(target, 'text #size=20000', 4, 300) },
  code22k: { title: 'frames of 22 KB code', run: (target) => burst(target, 'code #size=19000', 4, 300) },
  frame1m: { title: 'frames of 1.1 MB code', run: (target) => burst(target, 'code #size=950000', 2, 15) },
  lone: { title: 'lone events, 64 × 50/s', run: lone },
  short: { title: 'short turn, 64 at once', run: (target) => turns(target, 64, 40, '#kind=text #deltas=1') },
  echo: {
    title: 'tool turn, 20 KB echoed three times',
    run: (target) => turns(target, 16, 40, '#kind=text #deltas=1 #echo=20000'),
  },
  bare: {
    title: 'the same, Open.echo NONE',
    run: (target) => turns(target, 16, 40, '#kind=text #deltas=1 #echo=20000', 'NONE'),
  },
  session: { title: 'session: open, one turn, close', run: sessions },
  history1: { title: 'full-history turn, 1 MB', run: (target) => history(target, MIB, 12) },
  history5: { title: 'full-history turn, 5 MB', run: (target) => history(target, 5 * MIB, 8) },
  upload: { title: 'upload of 3 MB, 50 ms away', run: upload },
  memory: { title: 'sessions with 1 MiB of conversation', fresh: true, run: memory },
  start: { title: 'start', fresh: true, run: start },
};

async function burst(target: Target, kind: string, streams: number, deltas: number): Promise<Numbers> {
  const open = await openSessions(target, streams, 'connection each');
  const create = createOf(`#kind=${kind} #deltas=${deltas}`);
  const before = exactCpuUs(target.gateway.pid);
  await Promise.all(open.map(({ stream }) => stream.turn({ turnId: 't', create })));
  const used = exactCpuUs(target.gateway.pid) - before;
  await closeAll(open);
  return { 'CPU µs/event': used / (streams * (deltas + 2)) };
}

async function lone(target: Target): Promise<Numbers> {
  const open = await openSessions(target, 64, 'one connection');
  const times: number[] = [];
  const rate = 50;
  const seconds = 3;
  for (const { stream } of open) {
    stream.onEventBytes = (_turn, type, event) => {
      if (!type.endsWith('.delta')) return;
      const at = event.indexOf(' xxxxxxxx');
      const sent = Number(event.toString('latin1', at - 17, at));
      times.push(performance.timeOrigin + performance.now() - sent);
    };
  }
  const create = createOf(`#kind=text #deltas=${rate * seconds} #rate=${rate}`);
  const before = exactCpuUs(target.gateway.pid);
  await Promise.all(open.map(({ stream }) => stream.turn({ turnId: 't', create })));
  const used = exactCpuUs(target.gateway.pid) - before;
  await closeAll(open);
  return {
    'CPU µs/event': used / (64 * rate * seconds),
    'p50 ms': median(times),
    'p99 ms': quantile(times, 0.99),
  };
}

/** Turns of few events in sessions that stay. */
async function turns(
  target: Target,
  count: number,
  each: number,
  wish: string,
  echo: 'FULL' | 'NONE' = 'FULL',
): Promise<Numbers> {
  const open = await openSessions(target, count, 'one connection', echo);
  const create = createOf(wish);
  const run = async ({ stream }: Open, from: number, to: number) => {
    for (let n = from; n < to; n += 1) await stream.turn({ turnId: `t${n}`, create });
  };
  await Promise.all(open.map((each) => run(each, 0, 5)));
  const before = exactCpuUs(target.gateway.pid);
  await Promise.all(open.map((one) => run(one, 5, 5 + each)));
  const used = exactCpuUs(target.gateway.pid) - before;
  await closeAll(open);
  return { 'CPU µs/turn': used / (count * each) };
}

async function sessions(target: Target): Promise<Numbers> {
  const count = 200;
  const atOnce = 4;
  const create = createOf('#kind=text #deltas=1');
  const client = new LightClient(target.gateway.address, target.access);
  const closing: number[] = [];
  const turning: number[] = [];
  const one = async () => {
    const stream = await client.open();
    const began = performance.now();
    await stream.turn({ turnId: 't', create });
    const ended = performance.now();
    turning.push(ended - began);
    await stream.close();
    closing.push(performance.now() - ended);
  };
  const several = async (total: number) => {
    let left = total;
    await Promise.all(
      Array.from({ length: atOnce }, async () => {
        while (left-- > 0) await one();
      }),
    );
  };
  await several(40);
  closing.length = 0;
  const before = exactCpuUs(target.gateway.pid);
  await several(count);
  const used = exactCpuUs(target.gateway.pid) - before;
  client.close();
  return {
    'CPU ms/session': used / count / 1_000,
    'turn ms': median(turning),
    'half-close → status ms': median(closing),
  };
}

/** The whole conversation with each turn, as agents without a memory of their own send it. */
async function history(target: Target, bytes: number, count: number): Promise<Numbers> {
  const [open] = await openSessions(target, 1, 'one connection');
  const { stream } = open as Open;
  const item = 'The quick brown fox jumps over the lazy dog, "and goes home".\n'.repeat(60);
  const items: object[] = [];
  for (let size = 0; size < bytes; size += item.length) items.push(userMessage(item));
  const turn = async (n: number) => {
    const turnId = `t${n}`;
    items.push(userMessage(`#kind=text #deltas=1 turn ${n}`));
    const create = { model: 'gpt-5.5', store: false, input: items };
    const message = encodeRequest({
      start_turn: { turn_id: turnId, lane_id: '', create, input_mode: FULL_HISTORY },
    });
    const started = performance.now();
    const before = exactCpuUs(target.gateway.pid);
    const { endMs } = await stream.encodedTurn(turnId, message);
    const took = endMs - started;
    await sleep(30);
    items.push(assistantMessage('Done.'));
    return { took, used: exactCpuUs(target.gateway.pid) - before };
  };
  const first = await turn(0);
  await turn(1);
  const neighbour = await startNeighbour(target);
  const results: Awaited<ReturnType<typeof turn>>[] = [];
  const calm = await neighbour.take(400);
  for (let n = 2; n < count + 2; n += 1) {
    results.push(await turn(n));
    await sleep(50);
  }
  const beside = await neighbour.take(0);
  await neighbour.stop();
  // What the neighbour costs meanwhile belongs to it.
  const idle = exactCpuUs(target.gateway.pid);
  await sleep(200);
  const idleUs = exactCpuUs(target.gateway.pid) - idle;
  await closeAll([open as Open]);
  return {
    'first turn CPU ms': first.used / 1_000,
    'CPU ms/turn': (median(results.map(({ used }) => used)) - (idleUs / 200) * 30) / 1_000,
    'p50 ms': median(results.map(({ took }) => took)),
    'neighbours p99 + ms': quantile(beside, 0.99) - quantile(calm, 0.99),
    'neighbours max ms': Math.max(...beside),
  };
}

async function upload(target: Target): Promise<Numbers> {
  const [host = '', port = ''] = target.gateway.address.split(':');
  const latencyMs = ROUND_TRIP_MS / 2;
  const readAheadBytes = 64 * MIB;
  const proxy = await startChaosProxy({
    target: { host, port: Number(port) },
    up: { latencyMs, readAheadBytes },
    down: { latencyMs, readAheadBytes },
  });
  const client = new LightClient(`${host}:${proxy.port}`, target.access);
  const stream = await client.open();
  await stream.turn({ turnId: 'warm', create: createOf('#kind=text #deltas=1') });
  const input = [userMessage('x'.repeat(3_000_000)), userMessage('#kind=text #deltas=1')];
  const message = encodeRequest({
    start_turn: { turn_id: 't', lane_id: 'big', create: { model: 'gpt-5.5', store: false, input } },
  });
  const started = performance.now();
  const { endMs } = await stream.encodedTurn('t', message);
  await stream.close();
  client.close();
  await proxy.close();
  return { 'turn ms': endMs - started };
}

async function memory(target: Target): Promise<Numbers> {
  const count = 60;
  const bytes = 64 * 1024;
  const perSession = 16;
  const grow = async (open: readonly Open[], from: number, to: number) => {
    const text = 'The quick brown fox jumps over the lazy dog. '.repeat(bytes / 45);
    for (let n = from; n < to; n += 1) {
      const create = {
        model: 'gpt-5.5',
        store: false,
        input: [userMessage(text), userMessage('#kind=text #deltas=1')],
      };
      for (const { stream } of open) await stream.turn({ turnId: `t${n}`, create });
    }
  };
  // What the process takes once is none of a session's.
  const warm = await openSessions(target, 20, 'one connection');
  await grow(warm, 0, 8);
  await closeAll(warm);
  const start = await settledRss(target);
  const open = await openSessions(target, count, 'one connection');
  await grow(open, 0, perSession);
  const loaded = await settledRss(target);
  await closeAll(open);
  const after = await settledRss(target);
  const conversation = count * ((perSession * bytes) / MIB);
  return {
    'RSS MiB/MiB': (loaded - start) / MIB / conversation,
    'left after closing MiB/MiB': (after - start) / MIB / conversation,
  };
}

async function start({ gateway }: Target): Promise<Numbers> {
  await sleep(500);
  return { 'ready ms': gateway.readyMs, 'RSS MiB': rssBytes(gateway.pid) / MIB };
}

interface Open {
  readonly client: LightClient;
  readonly stream: LightStream;
}

async function openSessions(
  { gateway, access }: Target,
  count: number,
  how: 'one connection' | 'connection each',
  echo: 'FULL' | 'NONE' = 'FULL',
): Promise<Open[]> {
  const shared = how === 'one connection' ? new LightClient(gateway.address, access) : undefined;
  return Promise.all(
    Array.from({ length: count }, async () => {
      const client = shared ?? new LightClient(gateway.address, access);
      return { client, stream: await client.open('TYPED', undefined, echo) };
    }),
  );
}

async function closeAll(open: readonly Open[]): Promise<void> {
  await Promise.all(open.map(({ stream }) => stream.close()));
  for (const client of new Set(open.map(({ client }) => client))) client.close();
}

function createOf(wish: string): object {
  return { model: 'gpt-5.5', store: false, input: [userMessage(wish)] };
}

/** As the upstream said it: the last output of its turn. */
function assistantMessage(text: string): object {
  return {
    message: {
      role: 'assistant',
      id: 'msg_67ccd3acc8d48190a77525dc6de64b4104becb25c45c1d41',
      status: 'completed',
      content: [{ output_text: { text } }],
    },
  };
}

/** Sessions of 50 events a second in a thread of their own, so that what this one does not show in their times. */
async function startNeighbour({ gateway, access }: Target) {
  const worker = new Worker(new URL('neighbour.ts', import.meta.url), {
    workerData: { address: gateway.address, access },
  });
  await new Promise((resolve) => worker.once('message', resolve));
  return {
    /** The times of all events since the last call, after waiting for some more. */
    async take(waitMs: number): Promise<readonly number[]> {
      await sleep(waitMs);
      worker.postMessage('take');
      return new Promise((resolve) => worker.once('message', resolve));
    },
    async stop(): Promise<void> {
      await worker.terminate();
    },
  };
}

/** The figure once it has stopped moving: two readings in a row within 1 %. */
async function settledRss({ gateway }: Target): Promise<number> {
  let last = rssBytes(gateway.pid);
  for (let n = 0; n < 12; n += 1) {
    await sleep(1_000);
    const now = rssBytes(gateway.pid);
    if (n > 1 && Math.abs(now - last) < last / 100) return now;
    last = now;
  }
  return last;
}
