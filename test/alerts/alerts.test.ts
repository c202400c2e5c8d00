import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { open, pause, play, until } from './play.ts';
import { ALERTS } from './prometheus.ts';
import { BY_PROMTOOL_ALONE, FULL_EVENT_LOOP, situations } from './situations.ts';

/** `npm run test:alerts` sets it once Prometheus is there: without, nothing here could be tried. */
const THERE = process.env['TEST_ALERTS'] !== undefined;
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
    const played = [...Object.values(PLAYED), FULL_EVENT_LOOP].flatMap(({ alerts }) => alerts);
    expect([...played, ...Object.keys(BY_PROMTOOL_ALONE)].toSorted()).toEqual(NAMES.toSorted());
  });
});

const PLAYED = situations();

describe
  .skipIf(!THERE)
  .concurrent('fire in their situation, and go out after it', { timeout: 400_000 }, () => {
    test.each(Object.entries(PLAYED))('%s', (_, situation) => play(situation));

    test('none, while all is well, whatever users stop and other services do', async () => {
      const { ask, hang, prometheus } = await open(
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
  });

describe.skipIf(!THERE)('alone', { timeout: 400_000 }, () => {
  test('a full event loop', () => play(FULL_EVENT_LOOP));

  test('each panel of the dashboard is an expression that Prometheus takes, and those of a turn have data', async () => {
    const { ask, prometheus } = await open({}, { takes: 'all' });
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
    }, 'the panels of a turn have data');
  });
});
