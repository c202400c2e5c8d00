import { startGateway } from '../../src/app/gateway.ts';
import type { Simulator } from '../../src/simulator/index.ts';
import { TestClient, type TestStream } from '../harness/client.ts';
import { configOf } from '../harness/config.ts';
import { type ProcessLimits, startLimitedGateway } from './limited-gateway.ts';
import { pause, type Target, TestPrometheus } from './prometheus.ts';
import type { Situation } from './situations.ts';

export { pause };

/** An hour of the alerts, and more. */
const PATIENCE_MS = 240_000;

/** Remembers what has to be closed at the end of the test: the one that asks, of several that run at once. */
export type Defer = (close: () => void | Promise<void>) => void;

interface Served {
  readonly grpcPort: number;
  readonly simulator: Simulator | undefined;
  metricsText(): Promise<string>;
  drain(): Promise<void>;
  close(): Promise<void>;
}

export interface OpenGateway {
  /** Where clients connect, on loopback. */
  readonly port: number;
  readonly prometheus: TestPrometheus;
  /** The built-in one, where the settings name no upstream and the gateway runs in this process. */
  readonly simulator: Simulator | undefined;
  readonly client: TestClient;
  readonly stream: TestStream;
  readonly defer: Defer;
  /** One more connection; closed with the gateway. */
  connect(): TestClient;
  /** A turn id that nobody had. */
  next(): string;
  /** One turn from its start to its end, whatever becomes of it. */
  ask(text?: string): Promise<void>;
  /** A turn that runs until what this resolves with is called. */
  hang(): Promise<() => Promise<void>>;
  drain(): Promise<void>;
  /** The value of a metric without labels, as it is now. */
  read(metric: string): Promise<number>;
  /** All that happens until this is done happens between two scrapes. */
  betweenScrapes(work: () => Promise<unknown>): Promise<void>;
  /** The process has ended: it cannot be scraped. */
  gone(): void;
}

export interface OpenOptions {
  readonly environment?: Readonly<Record<string, string>> | undefined;
  /** Text of another service that is scraped beside it. */
  readonly otherJob?: string;
  readonly takes?: Target['takes'];
  /** In a process of its own, which has no more than this. */
  readonly limits?: ProcessLimits | undefined;
}

export async function open(
  defer: Defer,
  settings: Readonly<Record<string, unknown>>,
  { environment = {}, otherJob, takes = 'askedWithoutLoop', limits }: OpenOptions = {},
): Promise<OpenGateway> {
  const served =
    limits === undefined
      ? await serveHere(settings, environment)
      : await startLimitedGateway(settings, limits);
  const clients: TestClient[] = [];
  const connect = (): TestClient => {
    const client = new TestClient(`127.0.0.1:${served.grpcPort}`);
    clients.push(client);
    return client;
  };
  let isGone = false;
  let held: string | undefined;
  const prometheus = await TestPrometheus.start([
    {
      job: 'responses-gateway',
      takes,
      text: async () => (isGone ? undefined : (held ?? served.metricsText())),
    },
    ...(otherJob === undefined
      ? []
      : [{ job: 'other', takes: 'asked' as const, text: async () => otherJob }]),
  ]);
  defer(async () => {
    await prometheus.close();
    for (const client of clients) client.close();
    await served.close();
  });
  const client = connect();
  const stream = client.connect();
  let turns = 0;
  const next = (): string => {
    turns += 1;
    return `t${turns}`;
  };
  return {
    port: served.grpcPort,
    prometheus,
    simulator: served.simulator,
    client,
    stream,
    defer,
    connect,
    next,
    gone: () => {
      isGone = true;
    },
    drain: () => served.drain(),
    read: async (metric) => sampleOf(await served.metricsText(), metric),
    betweenScrapes: async (work) => {
      held = await served.metricsText();
      // The last page before, at least once.
      await pause();
      await pause();
      await work();
      held = undefined;
    },
    ask: async (text = 'x') => {
      const turnId = next();
      stream.startTurn({ turn_id: turnId }, text);
      await stream.turn(turnId);
    },
    hang: async () => {
      const turnId = next();
      stream.startTurn({ turn_id: turnId }, '#hang');
      await stream.event('response.created', turnId);
      return async () => {
        stream.send({ cancel_turn: { turn_id: turnId } });
        await stream.turn(turnId);
      };
    },
  };
}

/** A gateway of this process that nobody scrapes, such as another replica; closed with the test. */
export async function beside(defer: Defer, settings: Readonly<Record<string, unknown>>) {
  const served = await serveHere(settings, {});
  const client = new TestClient(`127.0.0.1:${served.grpcPort}`);
  const close = async () => {
    client.close();
    await served.close();
  };
  defer(close);
  return { client, close };
}

async function serveHere(
  settings: Readonly<Record<string, unknown>>,
  environment: Readonly<Record<string, string>>,
): Promise<Served> {
  const gateway = await startGateway(configOf(settings), {
    environment,
    version: 'test',
    logDestination: { write: () => {} },
  });
  return {
    grpcPort: gateway.grpcPort,
    simulator: gateway.simulator,
    metricsText: () => gateway.telemetry.metricsText(),
    drain: () => gateway.drain(),
    close: () => gateway.close(),
  };
}

function sampleOf(page: string, metric: string): number {
  const [, value] = new RegExp(`^${metric}(?:\\{.*\\})? (\\S+)`, 'm').exec(page) ?? [];
  if (value === undefined) throw new Error(`no ${metric} on the page`);
  return Number(value);
}

/** Nothing that it is about fires before; in it all that should fire does, and nothing that should not; afterwards all goes out. */
export async function play(
  { alerts, also = [], settings = () => ({}), environment, takes, limits, during, after }: Situation,
  defer: Defer,
): Promise<void> {
  const gateway = await open(defer, await settings(defer), {
    environment,
    takes: takes ?? 'askedWithoutLoop',
    limits,
  });
  const { prometheus } = gateway;
  for (let n = 0; n < 3; n += 1) {
    await pause();
    await expectOnly(prometheus, also);
  }
  const seen = new Set<string>();
  await until(async () => {
    await during(gateway);
    for (const name of await expectOnly(prometheus, [...alerts, ...also])) seen.add(name);
    return alerts.every((name) => seen.has(name));
  }, `${alerts} should fire`);
  await after?.(gateway);
  await until(async () => {
    await pause();
    return (await expectOnly(prometheus, [...alerts, ...also])).length === 0;
  }, `${alerts} should go out`);
}

async function expectOnly(
  prometheus: TestPrometheus,
  allowed: readonly string[],
): Promise<readonly string[]> {
  const firing = await prometheus.firing();
  const wrong = firing.filter((name) => !allowed.includes(name));
  if (wrong.length > 0) throw new Error(`fires, and should not: ${wrong}`);
  return firing;
}

export async function until(done: () => Promise<boolean>, what: string): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!(await done())) {
    if (Date.now() > end) throw new Error(`not within the time of patience: ${what}`);
  }
}
