import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { startGateway } from '../../src/app/gateway.ts';
import { loadConfig } from '../../src/config/load.ts';
import { TestClient } from '../harness/client.ts';
import { startHostileUpstream } from '../hostile/upstream.ts';
import { pause, TestPrometheus } from './prometheus.ts';

/** `npm run test:alerts` sets it once Prometheus is there: without, nothing here could be tried. */
const THERE = process.env['TEST_ALERTS'] !== undefined;
const PATIENCE_MS = 90_000;

describe.skipIf(!THERE)('the shipped alerts', () => {
  test('are rules that Prometheus takes, each with a unit test that passes', () => {
    const deploy = new URL('../../deploy/', import.meta.url);
    execFileSync('promtool', ['check', 'rules', 'alerts.yaml'], { cwd: deploy });
    execFileSync('promtool', ['test', 'rules', 'alerts.test.yaml'], { cwd: deploy });
    const read = (name: string): string => readFileSync(new URL(name, deploy), 'utf8');
    const alerts = [...read('alerts.yaml').matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
    const tested = new Set(
      [...read('alerts.test.yaml').matchAll(/alertname: (\w+)/g)].map(([, name]) => name),
    );
    expect(alerts.filter((name) => !tested.has(name))).toEqual([]);
  });

  test('are quiet while all is well, whatever users stop and other services do', async () => {
    const { ask, cancel, prometheus } = await open(
      {},
      { otherJob: 'nodejs_eventloop_utilization_ratio 1\n' },
    );
    const until = Date.now() + 12_000;
    while (Date.now() < until) {
      await ask('x');
      await cancel();
      expect(await prometheus.firing()).toEqual([]);
    }
  });

  test('a key that the provider refuses pages as our failure, and stops when it is right again', async () => {
    let refuses = true;
    const upstream = await startHostileUpstream({
      onHandshake: () =>
        refuses ? 'HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n' : 'HTTP/1.1 503 Later\r\n\r\n',
    });
    onTestFinished(() => upstream.close());
    const { ask, prometheus } = await open({
      upstream: {
        url: upstream.url,
        provider: 'openai',
        api_key_env: null,
        transport: 'websocket',
        allow_plaintext: true,
      },
      session: { max_dial_attempts: 1 },
    });
    await whileAsking(ask, async () => (await prometheus.firing()).includes('GatewayFailsTurns'));
    refuses = false;
    await until(async () => !(await prometheus.firing()).includes('GatewayFailsTurns'));
  });

  test('an upstream that is gone is told as one that does not answer, and whose turns fail', async () => {
    const upstream = await startHostileUpstream({});
    await upstream.close();
    const { ask, prometheus } = await open({
      upstream: {
        url: upstream.url,
        provider: 'openai',
        api_key_env: null,
        transport: 'websocket',
        allow_plaintext: true,
      },
      session: { max_dial_attempts: 1 },
    });
    await whileAsking(ask, async () => {
      const firing = await prometheus.firing();
      return ['UpstreamDoesNotAnswer', 'UpstreamFailsTurns'].every((name) => firing.includes(name));
    });
    expect(await prometheus.firing()).not.toContain('GatewayFailsTurns');
    await until(async () => !(await prometheus.firing()).includes('UpstreamFailsTurns'));
  });

  test('a gateway that turns callers away is told, and a drain', async () => {
    const { ask, hang, prometheus, gateway } = await open({
      tenants: [{ id: 'default', limits: { turns_per_minute: 1 } }],
      drain: { timeout: '60s' },
    });
    const cancel = await hang();
    await whileAsking(ask, async () => (await prometheus.firing()).includes('CallersTurnedAway'));
    const drained = gateway.drain();
    await until(async () => (await prometheus.firing()).includes('NotReady'));
    await cancel();
    await drained;
  });

  test('each panel of the dashboard is an expression that Prometheus takes, and those of a turn have data', async () => {
    const { ask, prometheus } = await open({});
    const dashboard = JSON.parse(
      readFileSync(
        new URL('../../deploy/grafana/dashboards/responses-gateway.json', import.meta.url),
        'utf8',
      ),
    ) as { panels: { title: string; targets?: { expr: string }[] }[] };
    const empty = new Set<string>();
    await whileAsking(ask, async () => {
      empty.clear();
      for (const { title, targets = [] } of dashboard.panels) {
        for (const { expr } of targets) {
          const expression = expr
            .replaceAll('$job', 'responses-gateway')
            .replaceAll('$__rate_interval', '5s');
          if ((await prometheus.seriesOf(expression)) === 0) empty.add(title);
        }
      }
      return ![
        'Turns by outcome',
        'Duration of turns',
        'Tokens a second',
        'Links',
        'Memory',
        'Refusals by reason',
      ].some((title) => empty.has(title));
    });
  });
});

async function open(settings: Readonly<Record<string, unknown>>, { otherJob }: { otherJob?: string } = {}) {
  const values = { listen: '127.0.0.1:0', admin: { listen: '127.0.0.1:0' }, ...settings };
  const { config } = loadConfig({
    file: undefined,
    environment: {},
    flags: Object.entries(values).map(([path, value]) => ({
      path: [path],
      value,
      origin: { kind: 'default' },
    })),
  });
  const gateway = await startGateway(config, {
    environment: {},
    version: 'test',
    logDestination: { write: () => {} },
  });
  const client = new TestClient(`127.0.0.1:${gateway.grpcPort}`);
  const prometheus = await TestPrometheus.start([
    { job: 'responses-gateway', text: () => gateway.telemetry.metricsText() },
    ...(otherJob === undefined ? [] : [{ job: 'other', text: async () => otherJob }]),
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
  /** A turn that runs until what this resolves with is called. */
  const hang = async () => {
    const turnId = next();
    stream.startTurn({ turn_id: turnId }, '#hang');
    await stream.event('response.created', turnId);
    return async () => {
      stream.send({ cancel_turn: { turn_id: turnId } });
      await stream.turn(turnId);
    };
  };
  return {
    gateway,
    prometheus,
    ask: async (text: string) => {
      const turnId = next();
      stream.startTurn({ turn_id: turnId }, text);
      await stream.turn(turnId);
    },
    cancel: async () => (await hang())(),
    hang,
  };
}

async function whileAsking(
  ask: (text: string) => Promise<void>,
  done: () => Promise<boolean>,
): Promise<void> {
  await until(async () => {
    for (let n = 0; n < 5; n += 1) await ask('x');
    return done();
  });
}

async function until(done: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!(await done())) {
    if (Date.now() > end) throw new Error('not within the time of patience');
    await pause();
  }
}
