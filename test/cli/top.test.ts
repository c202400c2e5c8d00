import { stripVTControlCharacters } from 'node:util';
import { afterEach, expect, test, vi } from 'vitest';
import type { SessionPage } from '../../src/admin/api.ts';
import { renderTop, type TopView } from '../../src/cli/top-screen.ts';
import { TestClient } from '../harness/client.ts';
import { inTerminal, killAll, run, startGateway } from './program.ts';

vi.setConfig({ testTimeout: 120_000 });
afterEach(() => killAll());

test('top --once prints what runs, over all workers', async () => {
  const { grpc, admin } = await startGateway('--workers', '2');
  const client = new TestClient(grpc);
  const stream = client.connect({ client_name: 'my-agent' });
  stream.startTurn({ turn_id: 't1' }, 'Hi');
  await stream.turn('t1');
  const { code, stdout } = await run(['top', '--once', '--admin-listen', admin]);
  client.close();
  expect(code).toBe(0);
  expect(stdout).toMatch(/responses-gateway .* 2 workers {2}ready/);
  expect(stdout).toMatch(/upstream simulator ok/);
  expect(stdout).toMatch(/ses_\w+… +idle +default +my-agent/);
});

test('top without a gateway says where it looked', async () => {
  const { code, stderr } = await run(['top', '--admin-listen', '127.0.0.1:9']);
  expect(code).toBe(1);
  expect(stderr).toMatch(/no answer from http:\/\/127\.0\.0\.1:9/);
});

test('no line is wider than the screen, and names of callers command no terminal', () => {
  const row = {
    id: 'ses_1',
    tenant: 'acme',
    pid: 1,
    method: 'm',
    client: 'evil\x1b]0;title\x07\x1b[2Jagent',
    labels: {},
    state: 'idle',
    startedAtMs: 0,
    activeAtMs: 0,
    lanes: 1,
    turns: {},
    turnsRunning: 0,
    turnsTotal: 1,
    failures: 0,
    inputTokens: 1,
    cachedInputTokens: 0,
    outputTokens: 1,
    bytesUp: 1,
    bytesSaved: 1,
  } satisfies SessionPage['sessions'][number];
  const view: TopView = {
    board: {
      links: [],
      usage: [],
      upstreams: [],
      notReady: [],
      silentProcesses: 0,
      replica: { host: 'h', pid: 1, version: '1', startedAtMs: 0, workers: 1, logLevel: 'info' },
    },
    page: { sessions: [row], total: 1, silentProcesses: 0, offset: 0, limit: 200 },
    open: undefined,
    sort: 'active',
    ascending: false,
    search: '',
    typing: false,
    at: 5,
  };
  for (const columns of [40, 80, 200]) {
    const lines = renderTop(view, { columns, rows: 24, colors: false });
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(columns);
    expect(lines.length).toBeLessThanOrEqual(24);
    expect(lines.join('\n')).toBe(stripVTControlCharacters(lines.join('\n')));
    expect(lines.join('\n')).not.toContain('title');
  }
});

/** Keys reach the program as a terminal sends them: `script` (bsdutils) gives it one. */
test.skipIf(process.platform !== 'linux')(
  'in a terminal, keys sort the sessions, open one and go back',
  async () => {
    const { grpc, admin } = await startGateway();
    const client = new TestClient(grpc);
    for (const [name, turns] of [
      ['busy-agent', 3],
      ['calm-agent', 1],
    ] as const) {
      const stream = client.connect({ client_name: name });
      for (let n = 1; n <= turns; n += 1) {
        stream.startTurn({ turn_id: `${name}-${n}` }, 'Hi');
        await stream.turn(`${name}-${n}`);
      }
    }
    const top = inTerminal(['top', '--admin-listen', admin]);
    // The one that was active last is first.
    await top.screen(/calm-agent[\s\S]*busy-agent/);
    for (let n = 0; n < 3; n += 1) top.press('s');
    await top.screen(/by turns[\s\S]*busy-agent[\s\S]*calm-agent/);
    top.press('r');
    await top.screen(/by turns, ascending[\s\S]*calm-agent[\s\S]*busy-agent/);
    top.press('\x1b[B');
    top.press('\r');
    await top.screen(/busy-agent-3/);
    // Alone it may be the beginning of another key: half a second decides.
    top.press('\x1b');
    await top.screen(/by turns, ascending/);
    top.press('/');
    top.press('calm');
    await top.screen(/with "calm"/);
    top.press('\r');
    top.press('q');
    expect(await top.ended).toBe(0);
    client.close();
    expect(top.output()).toContain('\x1b[?1049h');
    // The terminal is as it was.
    expect(top.output().lastIndexOf('\x1b[?1049l')).toBeGreaterThan(top.output().lastIndexOf('\x1b[?1049h'));
  },
);
