/**
 * Draws the console as the README shows it, into docs/images/: a gateway with its simulator under a little load, looked at
 * by Debian's Chromium. `CONSOLE_SHOTS=/folder` puts them elsewhere, with more of them.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { chromiumPath } from '../test/console/chromium.ts';
import { agentConversation, startWithAdmin, TestClient } from '../test/console/scenario.ts';

const folder = process.env['CONSOLE_SHOTS'] ?? fileURLToPath(new URL('../docs/images', import.meta.url));
const all = process.env['CONSOLE_SHOTS'] !== undefined;
const LOAD_S = Number(process.env['LOAD_S'] ?? 70);
const AGENTS_AT_ONCE = Number(process.env['AGENTS'] ?? 24);
const MODELS = ['gpt-6-astra', 'gpt-6', 'gpt-5.5-mini'];
const AGENTS = ['review-agent', 'support-bot', 'etl-writer', 'triage'];

const gateway = await startWithAdmin({ 'admin.console.trace_url': 'https://tempo.example/trace/{trace_id}' });
const client = new TestClient(`127.0.0.1:${gateway.grpcPort}`);
const browser = await chromium.launch({ executablePath: chromiumPath(), args: ['--no-sandbox'] });
let going = true;
let conversation: ReturnType<typeof agentConversation> | undefined;
try {
  const agents = Array.from({ length: AGENTS_AT_ONCE }, (_, index) => agent(index));
  await delay(LOAD_S * 1_000);
  const base = `http://127.0.0.1:${gateway.adminPort}/console`;
  for (const theme of all ? (['dark', 'light'] as const) : (['dark'] as const)) {
    const page = await browser.newPage({
      viewport: { width: 1360, height: 1012 },
      deviceScaleFactor: 1.5,
      colorScheme: theme,
    });
    await page.goto(base);
    await page.waitForSelector('.connection.live');
    await delay(2_500);
    await page.screenshot({ path: `${folder}/console-overview${suffix(theme)}.png` });
    // Its lost link is everybody's.
    conversation ??= agentConversation(gateway, client, 1.4);
    const { id } = await conversation;
    await page.goto(`${base}#/sessions/${id}`);
    await page.waitForSelector('[data-turn="again"]');
    await page.click('[data-turn="lost"]');
    await delay(500);
    await page.screenshot({ path: `${folder}/console-waterfall${suffix(theme)}.png` });
    if (all) {
      await page.goto(`${base}#/sessions`);
      await page.waitForSelector('#row-3 a');
      await page.screenshot({ path: `${folder}/console-sessions-${theme}.png` });
      await page.setViewportSize({ width: 390, height: 844 });
      for (const [name, hash] of [
        ['overview', ''],
        ['sessions', '#/sessions'],
        ['waterfall', `#/sessions/${id}`],
      ]) {
        await page.goto(`${base}${hash}`);
        await delay(1_500);
        await page.screenshot({ path: `${folder}/phone-${name}-${theme}.png` });
      }
    }
    await page.close();
  }
  going = false;
  await Promise.all(agents);
} finally {
  going = false;
  await browser.close();
  client.close();
  await gateway.close();
}

/** The README shows the dark ones. */
function suffix(theme: string): string {
  return all ? `-${theme}` : '';
}

async function agent(index: number): Promise<void> {
  const labels = { env: index % 3 === 0 ? 'staging' : 'prod', team: ['search', 'billing'][index % 2] ?? '' };
  const stream = client.connect({ client_name: AGENTS[index % AGENTS.length], metadata: labels });
  await stream.opened();
  for (let turn = 1; going; turn += 1) {
    const fails = (turn * 7 + index) % 41 === 0 ? ' #fail' : '';
    const cuts = (turn * 5 + index) % 37 === 0 ? ' #incomplete' : '';
    const pace = `#ttft=${120 + ((index * 37 + turn * 53) % 420)} #deltas=${30 + ((turn * 31) % 70)} #tps=90`;
    stream.startTurn(
      { turn_id: `turn-${turn}`, create: { model: MODELS[index % MODELS.length] } },
      `${'context '.repeat(200)} step ${turn} ${pace}${fails}${cuts}`,
    );
    await stream.turn(`turn-${turn}`).catch(() => undefined);
    stream.events.length = 0;
    await delay(300 + ((index * 91 + turn * 67) % 900) + 600 * Math.sin(Date.now() / 9_000) ** 2);
  }
  stream.halfClose();
}
