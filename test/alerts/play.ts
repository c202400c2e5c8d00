import { onTestFinished } from 'vitest';
import { type RunningGateway, startGateway } from '../../src/app/gateway.ts';
import { TestClient, type TestStream } from '../harness/client.ts';
import { configOf } from '../harness/config.ts';
import { pause, type Target, TestPrometheus } from './prometheus.ts';
import type { Situation } from './situations.ts';

export { pause };

const PATIENCE_MS = 150_000;

export interface OpenGateway {
  readonly gateway: RunningGateway;
  readonly prometheus: TestPrometheus;
  readonly client: TestClient;
  readonly stream: TestStream;
  /** A turn id that nobody had. */
  next(): string;
  /** One turn from its start to its end, whatever becomes of it. */
  ask(text?: string): Promise<void>;
  /** A turn that runs until what this resolves with is called. */
  hang(): Promise<() => Promise<void>>;
  /** The process has ended: it cannot be scraped. */
  gone(): void;
}

export interface OpenOptions {
  readonly environment?: Readonly<Record<string, string>> | undefined;
  /** Text of another service that is scraped beside it. */
  readonly otherJob?: string;
  readonly takes?: Target['takes'];
}

export async function open(
  settings: Readonly<Record<string, unknown>>,
  { environment = {}, otherJob, takes = 'askedWithoutLoop' }: OpenOptions = {},
): Promise<OpenGateway> {
  const config = configOf(settings);
  const gateway = await startGateway(config, {
    environment,
    version: 'test',
    logDestination: { write: () => {} },
  });
  const address = `127.0.0.1:${gateway.grpcPort}`;
  const client = new TestClient(address);
  let isGone = false;
  const prometheus = await TestPrometheus.start([
    {
      job: 'responses-gateway',
      takes,
      text: async () => (isGone ? undefined : gateway.telemetry.metricsText()),
    },
    ...(otherJob === undefined
      ? []
      : [{ job: 'other', takes: 'asked' as const, text: async () => otherJob }]),
  ]);
  onTestFinished(async () => {
    await prometheus.close();
    client.close();
    await gateway.close();
  });
  const stream = client.connect();
  let turns = 0;
  const next = (): string => {
    turns += 1;
    return `t${turns}`;
  };
  return {
    gateway,
    prometheus,
    client,
    stream,
    next,
    gone: () => {
      isGone = true;
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

/** Nothing fires before; in it all that should fire does, and nothing that should not; afterwards all goes out. */
export async function play({
  alerts,
  also = [],
  settings = () => ({}),
  environment,
  takes,
  during,
  after,
}: Situation): Promise<void> {
  const gateway = await open(await settings(), { environment, takes: takes ?? 'askedWithoutLoop' });
  const { prometheus } = gateway;
  for (let n = 0; n < 3; n += 1) {
    await pause();
    await expectOnly(prometheus, []);
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
