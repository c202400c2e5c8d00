import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { startSimulator } from '../../src/simulator/index.ts';
import { answer, startHostileUpstream } from '../hostile/upstream.ts';
import { open, pause, play, until } from './play.ts';
import { ALERTS } from './prometheus.ts';
import { BY_PROMTOOL_ALONE, FULL_EVENT_LOOP, situations, upstreamAt } from './situations.ts';

/** `npm run test:alerts` sets it once Prometheus is there: without, nothing here could be tried. */
const THERE = process.env['TEST_ALERTS'] !== undefined;
const PAGES = new Set(
  [...ALERTS.matchAll(/- alert: (\w+)(?:(?!- alert:)[\s\S])*?severity: page/g)].map(([, name]) => name),
);
const NAMES = [...ALERTS.matchAll(/- alert: (\w+)/g)].map(([, name = '']) => name);

describe.skipIf(!THERE)('the shipped alerts', () => {
  test('are rules that Prometheus takes, each with a unit test that passes', () => {
    const deploy = new URL('../../deploy/', import.meta.url);
    execFileSync('promtool', ['check', 'rules', 'alerts.yaml'], { cwd: deploy });
    execFileSync('promtool', ['test', 'rules', 'alerts.test.yaml'], { cwd: deploy });
    const tests = readFileSync(new URL('alerts.test.yaml', deploy), 'utf8');
    const tested = new Set([...tests.matchAll(/alertname: (\w+)/g)].map(([, name]) => name));
    expect(NAMES.filter((name) => !tested.has(name))).toEqual([]);
  });

  test('are each played below, or by promtool alone for a reason', () => {
    const played = new Set([...Object.values(PLAYED), FULL_EVENT_LOOP].flatMap(({ alerts }) => alerts));
    expect([...played, ...Object.keys(BY_PROMTOOL_ALONE)].toSorted()).toEqual(NAMES.toSorted());
  });
});

const PLAYED = situations();

describe
  .skipIf(!THERE)
  .concurrent('fire in their situation, and go out after it', { timeout: 600_000 }, () => {
    test.for(Object.entries(PLAYED))('%s', ([, situation], { onTestFinished }) =>
      play(situation, onTestFinished),
    );

    test('none, while all is well, whatever users stop and other services do', async ({ onTestFinished }) => {
      const { ask, hang, prometheus } = await open(
        onTestFinished,
        {},
        { otherJob: 'nodejs_eventloop_utilization_ratio 1\n' },
      );
      for (let n = 0; n < 60; n += 1) {
        await ask();
        await (await hang())();
        expect(await prometheus.firing()).toEqual([]);
        await pause();
      }
    });

    test('none that pages, when two turns fail four minutes apart', async ({ onTestFinished }) => {
      let refuses = false;
      const upstream = await startHostileUpstream({
        onHandshake: () => (refuses ? 'HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n' : undefined),
        onCreate: (socket, create) => answer(socket, create),
      });
      onTestFinished(() => upstream.close());
      const { client, prometheus } = await open(onTestFinished, {
        ...upstreamAt(upstream.url),
        session: { max_dial_attempts: 1 },
        dial: { pool_size: 0 },
      });
      const once = () => client.createResponse({ create: { model: 'gpt-6' } }).result;
      for (const waits of [12, 30]) {
        refuses = true;
        expect((await once()).ended.reason).toBe('UPSTREAM_AUTH');
        refuses = false;
        for (let n = 0; n < waits; n += 1) {
          await once();
          expect((await prometheus.firing()).filter((name) => PAGES.has(name))).toEqual([]);
          await pause();
        }
      }
    });

    test('none, over an upstream of HTTP, and where links are replaced in time', async ({
      onTestFinished,
    }) => {
      const simulator = await startSimulator({ switches: { connectionAgeMs: 20_000 } });
      onTestFinished(() => simulator.close());
      const { upstream } = upstreamAt(simulator.url);
      const quiet = async (changes: Readonly<Record<string, unknown>>) => {
        const { ask, prometheus } = await open(onTestFinished, {
          upstream: { ...upstream, ...changes },
        });
        for (let n = 0; n < 60; n += 1) {
          await ask();
          expect(await prometheus.firing()).toEqual([]);
          await pause();
        }
      };
      await Promise.all([
        quiet({ transport: 'sse' }),
        quiet({ capabilities: { rotate_after: '5s', max_age: '20s' } }),
      ]);
    });
  });

describe.skipIf(!THERE)('alone', { timeout: 400_000 }, () => {
  test('a full event loop', ({ onTestFinished }) => play(FULL_EVENT_LOOP, onTestFinished));

  test('each panel of the dashboard is an expression that Prometheus takes, and those of a turn have data', async ({
    onTestFinished,
  }) => {
    const { ask, prometheus } = await open(onTestFinished, {}, { takes: 'all' });
    const dashboard = JSON.parse(
      readFileSync(
        new URL('../../deploy/grafana/dashboards/responses-gateway.json', import.meta.url),
        'utf8',
      ),
    ) as { panels: { title: string; targets?: { expr: string }[] }[] };
    const empty = new Set<string>();
    await until(async () => {
      for (let n = 0; n < 5; n += 1) await ask();
      empty.clear();
      for (const { title, targets = [] } of dashboard.panels) {
        for (const { expr } of targets) {
          const expression = expr
            .replaceAll('$job', 'responses-gateway')
            .replaceAll('$__rate_interval', '15s');
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
    }, 'the panels of a turn have data');
  });
});
