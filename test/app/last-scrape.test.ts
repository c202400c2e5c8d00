import { expect, onTestFinished, test } from 'vitest';
import { startGateway } from '../../src/app/gateway.ts';
import { LastScrape } from '../../src/telemetry/last-scrape.ts';
import { TestClient } from '../harness/client.ts';
import { configOf } from '../harness/config.ts';
import { Page } from '../telemetry/prometheus.ts';

async function open() {
  const config = configOf({ drain: { timeout: '100ms', last_scrape: '1h' } });
  const gateway = await startGateway(config, {
    environment: {},
    version: 'test',
    logDestination: { write: () => {} },
  });
  const client = new TestClient(`127.0.0.1:${gateway.grpcPort}`);
  onTestFinished(async () => {
    client.close();
    await gateway.close();
  });
  const stream = client.connect();
  stream.startTurn({ turn_id: 'lost' }, '#hang');
  await stream.event('response.created', 'lost');
  const scrape = async (): Promise<Page> =>
    new Page(await (await fetch(`http://127.0.0.1:${gateway.adminPort}/metrics`)).text());
  return { gateway, stream, scrape };
}

test("turns lost at the drain's deadline are in the scrape that the process waits for", async () => {
  const { gateway, stream, scrape } = await open();
  const lost = { fault: 'gateway' };
  expect((await scrape()).sum('responses_gateway_turn_faults_total', lost)).toBe(0);
  const drained = gateway.drain();
  expect((await stream.turn('lost')).at(-1)?.turn_failed).toMatchObject({ reason: 'DRAINING' });
  await stream.ended();
  expect((await scrape()).sum('responses_gateway_turn_faults_total', lost)).toBe(1);
  await drained;
  await expect(scrape()).rejects.toThrow();
});

test('a process that nobody scrapes waits for nobody', async () => {
  const { gateway } = await open();
  await gateway.drain();
});

test('the wait is bounded, and is for scrapes that still come', async () => {
  let nowMs = 0;
  const last = new LastScrape(() => nowMs);
  expect(await last.settled(3_600_000)).toBe('seen');
  last.turnFailed();
  expect(await last.settled(3_600_000)).toBe('unseen');
  last.scraped();
  expect(await last.settled(3_600_000)).toBe('seen');
  last.turnFailed();
  expect(await last.settled(0)).toBe('unseen');
  expect(await last.settled(20)).toBe('unseen');
  nowMs += 121_000;
  expect(await last.settled(3_600_000)).toBe('unseen');
});
