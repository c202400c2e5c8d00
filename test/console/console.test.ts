import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import type { RunningGateway } from '../../src/app/gateway.ts';
import { History } from '../../src/history/history.ts';
import { splitTurn } from '../../src/telemetry/turn-split.ts';
import { accepted, ROUTE, record, start } from '../telemetry/facts.ts';
import { chromiumPath } from './chromium.ts';
import { agentConversation, startWithAdmin, TestClient } from './scenario.ts';

// A browser on two busy cores.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const AXE = readFileSync(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8');

let browser: Browser;
beforeAll(async () => {
  execFileSync(process.execPath, ['scripts/build-console.ts'], { cwd: ROOT });
  browser = await chromium.launch({ executablePath: chromiumPath(), args: ['--no-sandbox'] });
});
afterAll(() => browser?.close());

const opened: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

async function gatewayWith(settings: Readonly<Record<string, unknown>> = {}, drain?: () => void) {
  const gateway = await startWithAdmin(settings, drain);
  opened.push(() => gateway.close());
  const client = new TestClient(`127.0.0.1:${gateway.grpcPort}`);
  opened.push(async () => client.close());
  return { gateway, client };
}

/** A page of the console that fails the test for whatever the browser complains about. */
async function look(gateway: RunningGateway, hash = '', options: BrowserContextOptions = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  opened.push(() => context.close());
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => {
    // What the admin port refuses is told to the person, and logged by the browser besides.
    if (message.type() === 'error' && !message.text().includes('Failed to load resource'))
      complaints.push(message.text());
  });
  page.on('request', (request) => {
    if (new URL(request.url()).port !== String(gateway.adminPort) && !request.url().startsWith('data:'))
      complaints.push(`asked elsewhere: ${request.url()}`);
  });
  await page.goto(`http://127.0.0.1:${gateway.adminPort}/console${hash}`);
  return { page, complaints };
}

/** WCAG 2.1 A and AA. Axe is put in by the debugger, which the page's policy does not bind. */
async function violations(page: Page): Promise<readonly string[]> {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const { axe } = globalThis as unknown as {
      axe: {
        run(
          options: object,
        ): Promise<{ violations: { id: string; nodes: { target: string[]; failureSummary: string }[] }[] }>;
      };
    };
    const { violations: found } = await axe.run({
      runOnly: { type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] },
    });
    return found.flatMap(({ id, nodes }) =>
      nodes.map(({ target, failureSummary }) => `${id} ${target.join(' ')} ${failureSummary}`),
    );
  });
}

test('the overview counts what happens, live', async () => {
  const { gateway, client } = await gatewayWith();
  const { page, complaints } = await look(gateway);
  await page.waitForSelector('.connection.live');
  const tile = (name: string) => page.locator(`[data-test=tile-${name}] .value`);
  await expect.poll(() => tile('sessions').textContent()).toBe('0');
  const streams = Array.from({ length: 3 }, () => client.connect());
  for (const stream of streams) {
    stream.startTurn({ turn_id: 't' }, 'Hi');
    await stream.turn('t');
  }
  await expect.poll(() => tile('sessions').textContent(), { timeout: 15_000 }).toBe('3');
  await expect.poll(() => page.locator('.usage td.num').first().textContent(), { timeout: 15_000 }).toBe('3');
  expect(await page.locator('[data-test=breaker]').allTextContents()).toEqual(['ok']);
  expect(await page.locator('.replica').textContent()).toContain(`pid ${process.pid}`);
  await page.getByRole('button', { name: '1 hour' }).click();
  expect(await page.locator('canvas').count()).toBe(4);
  expect(complaints).toEqual([]);
});

test('sessions are found by id, label, client, lane and response id', async () => {
  const { gateway, client } = await gatewayWith();
  const { id } = await agentConversation(gateway, client, 0.1);
  const other = client.connect({ client_name: 'billing', metadata: { env: 'staging' } });
  other.startTurn({ turn_id: 'other-turn' }, 'Hi');
  const { session_id: otherId } = await other.opened();
  await other.turn('other-turn');
  const api = `http://127.0.0.1:${gateway.adminPort}`;
  const { turns } = (await (await fetch(`${api}/sessions/${id}/turns`)).json()) as {
    turns: { responseIds: string[] }[];
  };
  const { page, complaints } = await look(gateway);
  const search = page.getByRole('searchbox', { name: 'Search' });
  // A page that has just been shown may not listen to the keyboard yet.
  await expect
    .poll(
      async () => {
        const focused = await page.evaluate('document.activeElement.id');
        if (focused !== 'search') await page.keyboard.press('/');
        return focused;
      },
      { timeout: 15_000 },
    )
    .toBe('search');
  const first = () => page.locator('[data-test=total]').or(page.locator('#row-0 a')).allTextContents();
  const finds = async (text: string, wanted: string) => {
    await search.fill(text);
    await expect.poll(first, { timeout: 15_000 }).toEqual(['1 found', wanted]);
  };
  await finds(id.slice(4, 20), id);
  await finds('label:env=staging', otherId);
  await finds('client:review', id);
  await finds('label:env=staging', otherId);
  await finds('lane:critic', id);
  await finds('other-turn', otherId);
  await finds(`response:${turns[3]?.responseIds[0]}`, id);
  await search.fill('nobody-has-this');
  await expect.poll(() => page.locator('[data-test=total]').textContent()).toBe('0 found');
  await search.fill('');
  await expect.poll(() => page.locator('[data-test=total]').textContent()).toBe('2 found');
  await page.getByRole('grid').focus();
  await page.keyboard.press('End');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.waterfall');
  expect(complaints).toEqual([]);
});

test('a conversation is a waterfall: tools, a fork, a steer, a recovery, and what each turn was', async () => {
  const { gateway, client } = await gatewayWith({
    'admin.console.trace_url': 'https://traces.example/{trace_id}',
    'telemetry.traces.exporter': 'console',
    'telemetry.logs.level': 'silent',
  });
  const { id } = await agentConversation(gateway, client, 0.5);
  const { page, complaints } = await look(gateway, `#/sessions/${id}`);
  await page.waitForSelector('[data-turn=again]');
  expect(await page.locator('.names div').allTextContents()).toEqual(['main', 'critic', 'link 1', 'link 2']);
  expect(await page.locator('.bar').count()).toBe(10);
  expect(await page.locator('.tools').count()).toBe(4);
  expect(await page.locator('[data-fork=critic-1]').count()).toBe(1);
  expect(await page.locator('.steer').count()).toBe(1);
  expect(await page.locator('[data-mark=recovered]').count()).toBe(1);
  expect(await page.locator('.bar.failed').count()).toBe(1);
  await page.locator('[data-turn=lost]').click();
  const detail = page.locator('[data-test=turn-detail]');
  expect(await detail.locator('.failure').textContent()).toMatch(/UPSTREAM_LINK_LOST.*replay: UNSAFE/);
  await page.locator('[data-turn=plan-2]').click();
  expect(await detail.textContent()).toMatch(/Tools before.*Input tokens.*cached/s);
  expect(await detail.getByRole('link', { name: /Trace/ }).getAttribute('href')).toMatch(
    /^https:\/\/traces\.example\/[0-9a-f]{32}$/,
  );
  // Not a word of what was said.
  const everything = await page.content();
  for (const said of ['review this change', 'shorter, please', 'what is wrong', '"ok":true'])
    expect(everything).not.toContain(said);
  expect(complaints).toEqual([]);
});

test('what befell links and session stands as marks: rotation, replay, resume and takeover, each with its reason', async () => {
  const { gateway } = await gatewayWith();
  const history = new History({ maxEntries: 1_000, maxTurnsPerSession: 100, maxEndedSessions: 10 });
  const at = Date.now() - 60_000;
  const session = history.session(start({ sessionId: 'ses_moved', takenOverSinceMs: at }));
  session.stream(true);
  session.fact({ kind: 'laneOpened', laneId: '' });
  session.fact({ kind: 'linkDialing', linkId: 1, purpose: 'session', atMs: at });
  session.fact({ kind: 'linkUp', linkId: 1, route: ROUTE, atMs: at + 50 });
  session.fact(accepted({ turnId: 'priced', atMs: at + 100 }));
  session.fact({ kind: 'turnSent', turnId: 'priced', linkId: 1, atMs: at + 200 });
  session.fact({ kind: 'itemDone', itemId: 'fc_1' });
  session.fact({ kind: 'toolCalled', turnId: 'priced', name: 'look_up', atMs: at + 500 });
  const ended = record({
    turnId: 'priced',
    acceptedAtMs: at + 100,
    toolCalls: 1,
    cost: { amount: '0.25', currency: 'EUR', pricesAsOf: '2026-11-30' },
  });
  const used = { inputTokens: 0, cachedInputTokens: 0, cacheWriteTokens: 0, outputTokens: 30 };
  session.turnEnded(
    ended,
    splitTurn(ended, 0),
    { traceId: 'a'.repeat(32), spanId: 'b'.repeat(16), sampled: true },
    [
      { of: 'item', name: 'fc_1', ...used, cost: '0.2' },
      { of: 'field', name: 'tools', ...used, inputTokens: 9, outputTokens: 0, cost: '0.05' },
    ],
  );
  for (const [kind, reason] of [
    ['rotated', 'max_age'],
    ['replayed', 'link_lost'],
    ['recovered', 'connection_limit'],
  ] as const)
    session.fact({
      kind,
      linkId: 1,
      turnId: undefined,
      reason,
      bytes: 7_000,
      startedAtMs: at + 2_000,
      endedAtMs: at + 2_100,
    });
  session.resumed('RESUMED');
  const { sessionSource } = await import('../../src/app/session-source.ts');
  const { SessionRegistry } = await import('../../src/session/registry.ts');
  const one = sessionSource({
    history,
    registry: new SessionRegistry(),
    telemetry: gateway.telemetry,
    clock: () => at + 60_000,
    traceUrl: 'https://traces.example/{trace_id}',
    drainTimeoutMs: 0,
  });
  Object.assign(gateway.sources.sessions, {
    session: one.session,
    turns: one.turns,
    board: async () => ({ ...(await one.board()), silentProcesses: 1 }),
  });
  const { page, complaints } = await look(gateway, '#/sessions/ses_moved');
  for (const [kind, reason] of [
    ['takenOver', ''],
    ['rotated', 'max_age'],
    ['replayed', 'link_lost'],
    ['recovered', 'connection_limit'],
    ['resumed', 'RESUMED'],
  ]) {
    const mark = page.locator(`[data-mark=${kind}]`);
    await mark.first().waitFor();
    expect(await mark.first().getAttribute('title')).toContain(reason);
  }
  // What a worker that says nothing has is missing, and that is told.
  await expect.poll(() => page.locator('[data-test=silent]').textContent()).toContain('silent');
  await page.locator('[data-turn=priced]').click();
  const detail = page.locator('[data-test=turn-detail]');
  expect(await detail.textContent()).toContain('0.25 EUR');
  expect(await detail.getByRole('link', { name: /Trace/ }).getAttribute('href')).toBe(
    `https://traces.example/${'a'.repeat(32)}`,
  );
  expect(await page.locator('[data-test=attribution] tbody tr').first().textContent()).toBe(
    'fc_1look_up00300.2',
  );
  expect(await page.locator('[data-test=tools] tbody tr').textContent()).toBe('look_up130000.2');
  expect(complaints).toEqual([]);
});

test('a turn is cancelled by its button once that is confirmed, a session is drained, the level changed', async () => {
  const drained = vi.fn();
  const { gateway, client } = await gatewayWith({}, drained);
  const stream = client.connect();
  const { session_id: id } = await stream.opened();
  stream.startTurn({ turn_id: 'endless' }, 'Hi #hang #deltas=50');
  await stream.event('response.output_text.delta', 'endless');
  const { page, complaints } = await look(gateway, `#/sessions/${id}`);
  await page.locator('[data-turn=endless]').click();
  await page.getByRole('button', { name: /Cancel turn/ }).click();
  await page.getByRole('button', { name: 'Keep as it is' }).click();
  await page.getByRole('button', { name: /Cancel turn/ }).click();
  await page.getByRole('button', { name: 'Cancel the turn', exact: true }).click();
  expect((await stream.turn('endless')).at(-1)?.outcome).toBe('TURN_OUTCOME_CANCELLED');
  await page.waitForSelector('.bar.cancelled');

  await page.getByText('Operate').click();
  await page.getByLabel('Log level').selectOption('fatal');
  await page.getByRole('button', { name: 'Change the level' }).click();
  await expect.poll(() => gateway.sources.logLevel.get()).toBe('fatal');
  await page.getByText('Operate').click();
  await page.getByRole('button', { name: /Drain this gateway/ }).click();
  const sure = page.getByRole('button', { name: 'Drain the gateway' });
  expect(await sure.isDisabled()).toBe(true);
  await page.getByLabel(/Type/).fill('drain');
  await sure.click();
  await expect.poll(() => drained.mock.calls.length).toBe(1);

  await page.getByRole('button', { name: /Drain session/ }).click();
  await page.getByRole('button', { name: 'Drain the session' }).click();
  await stream.until(() => stream.goAways.length > 0);
  expect(complaints).toEqual([]);
});

test('without the token nothing is shown, and a wrong one is refused', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'console-'));
  opened.push(async () => rmSync(folder, { recursive: true }));
  const file = join(folder, 'token');
  writeFileSync(file, 's3cret\n');
  const { gateway } = await gatewayWith({ 'admin.token_file': file });
  const { page, complaints } = await look(gateway);
  await page.getByRole('heading', { name: 'Admin token' }).waitFor();
  expect(await page.locator('.tile').count()).toBe(0);
  await page.locator('#token').fill('wrong');
  await page.getByRole('button', { name: 'Open' }).click();
  await page.getByRole('alert').waitFor();
  await page.locator('#token').fill('s3cret');
  await page.getByRole('button', { name: 'Open' }).click();
  await page.waitForSelector('.connection.live');
  expect(await page.evaluate('document.cookie')).toBe('');
  expect(complaints).toEqual([]);
});

test('ten thousand sessions scroll smoothly: few rows are drawn, and few are asked for', async () => {
  const { gateway } = await gatewayWith();
  const history = new History({ maxEntries: 20_000, maxTurnsPerSession: 10, maxEndedSessions: 0 });
  for (let index = 0; index < 10_000; index += 1) {
    const session = history.session(start({ sessionId: `ses_${String(index).padStart(5, '0')}` }));
    session.fact(accepted({ turnId: 't', atMs: index }));
  }
  const { sessionSource } = await import('../../src/app/session-source.ts');
  const { SessionRegistry } = await import('../../src/session/registry.ts');
  const many = sessionSource({
    history,
    registry: new SessionRegistry(),
    telemetry: gateway.telemetry,
    clock: () => 20_000,
    traceUrl: undefined,
    drainTimeoutMs: 0,
  });
  Object.assign(gateway.sources.sessions, { keys: many.keys, rows: many.rows });
  const { page, complaints } = await look(gateway, '#/sessions');
  await expect
    .poll(() => page.locator('[data-test=total]').textContent(), { timeout: 15_000 })
    .toBe('10,000 found');
  await page.getByRole('button', { name: /Started/ }).click();
  const grid = page.getByRole('grid');
  await grid.evaluate((element) => element.scrollTo(0, element.scrollHeight));
  await page.waitForSelector('#row-9999 a');
  expect(await page.locator('.grid .row').count()).toBeLessThan(60);
  await grid.evaluate((element) => element.scrollTo(0, element.scrollHeight / 2));
  await page.waitForSelector('#row-5000 a');
  const frames = await page.evaluate(`(async () => {
    const grid = document.querySelector('[role=grid]');
    const gaps = [];
    for (let frame = 0; frame < 40; frame += 1) {
      const since = performance.now();
      grid.scrollTop += 400;
      await new Promise(requestAnimationFrame);
      gaps.push(performance.now() - since);
    }
    return gaps.sort((one, other) => one - other);
  })()`);
  console.log(
    `a frame of scrolling through 10,000 sessions: ${(frames as number[])[20]?.toFixed(1)} ms (median)`,
  );
  expect(complaints).toEqual([]);
});

test.each(['dark', 'light'] as const)(
  '%s, every page keeps to WCAG AA, and a phone needs no sideways scrolling',
  async (colorScheme) => {
    const { gateway, client } = await gatewayWith();
    const { id } = await agentConversation(gateway, client, 0.1);
    for (const hash of ['', '#/sessions', `#/sessions/${id}`]) {
      const { page } = await look(gateway, hash, { colorScheme });
      await page.waitForSelector('.connection.live');
      await page.waitForSelector({ '': '.usage td', '#/sessions': '#row-0 a' }[hash] ?? '[data-turn=lost]');
      if (hash.startsWith('#/sessions/')) await page.locator('[data-turn=lost]').click();
      expect(await violations(page)).toEqual([]);
      await page.setViewportSize({ width: 390, height: 844 });
      const wide = () => page.evaluate('document.documentElement.scrollWidth - innerWidth');
      await expect.poll(wide).toBeLessThanOrEqual(0);
    }
  },
);
