import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, onTestFinished, test, vi } from 'vitest';
import { parse, stringify } from 'yaml';
import { TestClient, userMessage } from '../harness/client.ts';
import { killAll, run, startGateway } from './program.ts';

// Every test starts several processes.
vi.setConfig({ testTimeout: 300_000 });

const clients: TestClient[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
  killAll();
});

async function newKey() {
  const { stdout, stderr } = await run(['keys', 'create', '--tenant', 'team']);
  const { auth } = parse(stderr.slice(stderr.indexOf('auth:'))) as {
    readonly auth: [{ readonly keys: [object] }];
  };
  return { text: stdout.trim(), entry: auth[0].keys[0] };
}

type Key = Awaited<ReturnType<typeof newKey>>;

const configOf = (keys: readonly Key[], more: object = {}) =>
  stringify({
    auth: [{ kind: 'api_keys', keys: keys.map(({ entry }) => entry) }],
    tenants: [{ id: 'team' }],
    ...more,
  });

function file(text: string) {
  const folder = mkdtempSync(join(tmpdir(), 'reload-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'gateway.yaml');
  writeFileSync(path, text);
  return {
    path,
    /** As editors and Kubernetes do. */
    replace: (next: string) => {
      writeFileSync(`${path}.new`, next);
      renameSync(`${path}.new`, path);
    },
    beside: (name: string, text: string) => {
      writeFileSync(join(folder, name), text);
      return join(folder, name);
    },
  };
}

/** A connection of its own: with workers the next goes to another. */
async function answerTo(address: string, { text }: Key) {
  const client = new TestClient(address, { metadata: { authorization: `Bearer ${text}` } });
  clients.push(client);
  const { ended, events } = await client.createResponse({
    create: { model: 'gpt-5.5', input: [userMessage('#say=fine')] },
  }).result;
  return { ...ended, cost: events.at(-1)?.['cost'] };
}

test('keys are rotated by the file alone, a file that is wrong changes nothing, and what needs a restart is named', async () => {
  const [old, fresh] = [await newKey(), await newKey()];
  const config = file(configOf([old]));
  const gateway = await startGateway('--config', config.path);
  const { grpc, child } = gateway;
  expect(await answerTo(grpc, fresh)).toMatchObject({ reason: 'UNAUTHENTICATED' });

  config.replace(configOf([old, fresh]));
  await gateway.until('stderr', /"config_reloaded".*"cause":"file".*keys\[1\]/);
  for (const key of [old, fresh]) expect(await answerTo(grpc, key)).toMatchObject({ code: 0 });

  config.replace(
    configOf([fresh], { tenants: [{ id: 'team', upstreams: ['nowhere'] }], tls: { cert_file: 'x' } }),
  );
  child.kill('SIGHUP');
  const [failed] = await gateway.until('stderr', /.*"config_reload_failed".*/);
  const { problem } = JSON.parse(failed) as { readonly problem: string };
  expect(problem).toMatch(/tls\.key_file/);
  expect(problem).toMatch(/tenants\[0\]\.upstreams[\s\S]*gateway\.yaml:\d+:\d+/);
  for (const key of [old, fresh]) expect(await answerTo(grpc, key)).toMatchObject({ code: 0 });

  config.replace(configOf([fresh], { session: { max_lanes: 7 }, drain: { timeout: '1s' } }));
  child.kill('SIGHUP');
  const [needs] = await gateway.until('stderr', /.*"config_needs_restart".*/);
  expect(JSON.parse(needs)).toMatchObject({ settings: ['session.max_lanes', 'drain.timeout'] });
  expect(await answerTo(grpc, old)).toMatchObject({ reason: 'UNAUTHENTICATED' });
  expect(await answerTo(grpc, fresh)).toMatchObject({ code: 0 });
  child.kill('SIGTERM');
  expect((await gateway.ended).code).toBe(0);
});

test('another price table counts from the next turn on', async () => {
  const key = await newKey();
  const config = file('');
  const table = (output: string) =>
    stringify({
      currency: 'USD',
      as_of: '2026-11-30',
      models: [{ model: '*', tiers: { default: { input: '0', output } } }],
    });
  const prices = config.beside('prices.yaml', table('0'));
  config.replace(configOf([key], { prices_file: prices }));
  const gateway = await startGateway('--config', config.path);
  expect(await answerTo(gateway.grpc, key)).toMatchObject({ cost: { amount: '0' } });
  config.beside('prices.yaml', table('1000000'));
  await gateway.until('stderr', /"config_reloaded".*"cause":"file"/);
  const { cost } = await answerTo(gateway.grpc, key);
  expect(Number((cost as { readonly amount: string }).amount)).toBeGreaterThanOrEqual(1);
});

test('files that a configuration names, and is refused for, are followed until it is taken', async () => {
  const key = await newKey();
  const config = file(configOf([key]));
  const gateway = await startGateway('--config', config.path);
  const prices = `${config.path}.prices`;
  const provider = `${config.path}.provider-key`;
  const upstream = { url: 'wss://upstream.invalid/v1', provider: 'compatible', api_key_file: provider };
  config.replace(configOf([key], { prices_file: prices, upstream }));
  const [both] = await gateway.until('stderr', /.*"config_reload_failed".*/);
  expect(both).toMatch(/prices_file/);
  expect(both).toMatch(/upstream\.api_key_file/);
  expect(await answerTo(gateway.grpc, key)).toMatchObject({ code: 0 });

  writeFileSync(prices, 'currency: USD\nas_of: "2026-11-30"\nmodels: []\n');
  await gateway.until('stderr', /"config_reload_failed"[^\n]*1 problem/);
  writeFileSync(provider, 'sk-provider');
  await gateway.until('stderr', /"config_reloaded".*"cause":"file"/);
});

test('with workers: limits count for all of them, and one that is replaced while the file is wrong goes by the last good one', async () => {
  const [old, fresh] = [await newKey(), await newKey()];
  const config = file(configOf([old]));
  const gateway = await startGateway('--config', config.path, '--workers', '2');
  const { grpc, child } = gateway;
  const tenants = [{ id: 'team', limits: { tokens_per_day: 1 } }];
  const prices = config.beside('prices.yaml', 'currency: USD\nas_of: "2026-11-30"\nmodels: []\n');
  config.replace(configOf([fresh], { tenants, prices_file: prices }));
  child.kill('SIGHUP');
  await gateway.until('stderr', /"config_reloaded"/);
  expect(gateway.output.stderr).not.toContain('config_needs_restart');

  config.replace('auth: [');
  config.beside('prices.yaml', 'nothing');
  child.kill('SIGHUP');
  await gateway.until('stderr', /"config_reload_failed"/);

  const open = async () => {
    const client = new TestClient(grpc, { metadata: { authorization: `Bearer ${fresh.text}` } });
    clients.push(client);
    await client.connect().opened();
  };
  const pids = async () => {
    const answer = await fetch(`http://${gateway.admin}/sessions`);
    const { sessions } = (await answer.json()) as { readonly sessions: readonly { readonly pid: number }[] };
    return [...new Set(sessions.map(({ pid }) => pid))];
  };
  await vi.waitFor(
    async () => {
      await open();
      expect(await pids()).toHaveLength(2);
    },
    { timeout: 120_000 },
  );
  const before = await pids();
  process.kill(before[0] as number, 'SIGKILL');
  await gateway.until('stderr', /"worker_died"/);
  await vi.waitFor(
    async () => {
      await open();
      const now = await pids();
      expect(now.filter((pid) => !before.includes(pid))).toHaveLength(1);
    },
    { timeout: 120_000, interval: 200 },
  );

  // Connections alternate between the workers.
  const answers = [];
  for (const key of [old, fresh, fresh, old, fresh, fresh, fresh, fresh])
    answers.push(await answerTo(grpc, key));
  const reasons = answers.map(({ reason }) => reason);
  expect(reasons.filter((reason) => reason === 'UNAUTHENTICATED')).toHaveLength(2);
  expect(reasons.filter((reason) => reason === 'LIMIT_EXCEEDED')).toHaveLength(5);
});
