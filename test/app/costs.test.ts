import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import type { SessionDetail, TurnView } from '../../src/admin/api.ts';
import { startGateway } from '../../src/app/gateway.ts';
import { parseMoney } from '../../src/ground/money.ts';
import { TestClient, type TestEvent } from '../harness/client.ts';
import { configOf } from '../harness/config.ts';
import { Page } from '../telemetry/prometheus.ts';

const TABLE = `
currency: EUR
as_of: "2026-11-30"
models:
  - model: gpt-6*
    tiers:
      default: { input: "2.00", cached_input: "0.50", output: "8.00" }
`;

test('a turn is told with what it cost: in its last event, its log line and the metrics', async () => {
  const { connect, lines, page } = await open({});
  const stream = connect();
  stream.startTurn({ turn_id: 'a' }, 'What is a lane?');
  const last = (await stream.turn('a')).at(-1) as TestEvent;
  const { usage } = (last['response_completed'] as { readonly response: { readonly usage: Usage } }).response;
  const cached = Number(usage.input_tokens_details?.cached_tokens ?? 0);
  const picos =
    (Number(usage.input_tokens) - cached) * 2_000_000 +
    cached * 500_000 +
    Number(usage.output_tokens) * 8_000_000;
  expect(picos).toBeGreaterThan(0);
  const cost = last['cost'] as { amount: string; currency: string; prices_as_of: string };
  expect(cost).toMatchObject({ currency: 'EUR', prices_as_of: '2026-11-30' });
  expect(parseMoney(cost.amount)).toBe(BigInt(picos));
  expect(lines('turn ended')[0]).toMatchObject({ cost: cost.amount, currency: 'EUR' });

  stream.startTurn({ turn_id: 'b', create: { model: 'other-model' } }, 'x');
  expect((await stream.turn('b')).at(-1)?.['cost'] ?? null).toBeNull();
  const p = await page();
  expect(p.sum('responses_gateway_cost_total', { currency: 'EUR' })).toBeCloseTo(picos / 1e12, 9);
  expect(p.sum('responses_gateway_turns_unpriced_total', { why: 'model' })).toBe(1);
});

test.each([
  ['turns', { turns: 1 }, '1'],
  ['tokens', { tokens: 1 }, '1'],
  ['money', { money: '0.000001' }, '0.000001'],
])(
  'a session ends its budget of %s: a notice, then a refusal with what is left',
  async (name, budget, value) => {
    const { connect } = await open({});
    const stream = connect({ budget });
    stream.startTurn({ turn_id: 'a' }, 'x');
    expect((await stream.turn('a')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect((await stream.event('gateway.notice')).notice).toMatchObject({ kind: 'budget_low', reason: name });
    stream.startTurn({ turn_id: 'b' }, 'x');
    expect((await stream.turn('b')).at(-1)?.turn_failed).toMatchObject({
      reason: 'LIMIT_EXCEEDED',
      metadata: { limit: `budget_${name}`, value, left: '0', scope: 'session' },
    });
  },
);

test("a tenant's month ends in the same way", async () => {
  const { connect } = await open({ tenants: [{ id: 'default', limits: { money_per_month: '0.00001' } }] });
  const stream = connect();
  stream.startTurn({ turn_id: 'a' }, 'x');
  await stream.turn('a');
  expect((await stream.event('gateway.notice')).notice).toMatchObject({
    kind: 'budget_low',
    reason: 'money_per_month',
  });
  stream.startTurn({ turn_id: 'b' }, 'x');
  const failed = (await stream.turn('b')).at(-1)?.turn_failed;
  expect(failed).toMatchObject({
    reason: 'LIMIT_EXCEEDED',
    metadata: { limit: 'money_per_month', value: '0.00001', left: '0', scope: 'tenant' },
  });
  expect(Number(failed?.retry_after?.seconds)).toBeGreaterThan(29 * 86_400);
});

test.each([
  [{ money: 'a lot' }, /open\.budget\.money: found "a lot"; allowed: a decimal/],
  // It must not mean that anything may be spent.
  [{ money: '0.00' }, /open\.budget\.money: found "0\.00"; allowed: a decimal above 0/],
  [{ money: '-1' }, /open\.budget\.money/],
])('a budget of %j is refused', async (budget, message) => {
  const { connect } = await open({});
  expect((await connect({ budget }).ended()).message).toMatch(message);
});

test('money without a price table is refused, tokens are not', async () => {
  const { connect } = await open({ prices_file: undefined });
  expect((await connect({ budget: { money: '1' } }).ended()).message).toMatch(/has no price table/);
  const stream = connect({ budget: { tokens: 1_000_000 } });
  stream.startTurn({ turn_id: 'a' }, 'x');
  const last = (await stream.turn('a')).at(-1);
  expect(last).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
  expect(last?.['cost'] ?? null).toBeNull();
});

interface Usage {
  readonly input_tokens: string | number;
  readonly output_tokens: string | number;
  readonly input_tokens_details?: { readonly cached_tokens: string | number };
}

test("a session's view has the cost of each item and tool that the upstream attributes tokens to", async () => {
  const { connect, admin } = await open({});
  const stream = connect();
  const { session_id: id } = await stream.opened();
  const tools = [{ function: { name: 'look_up', parameters_json: '{"type":"object"}' } }];
  stream.startTurn({ turn_id: 'a', create: { instructions: 'Be brief.', tools } }, 'look it up #tools=2');
  await stream.turn('a');
  const { turns } = (await admin(`/sessions/${id}/turns`)) as unknown as { turns: TurnView[] };
  const parts = turns[0]?.attribution ?? [];
  const calls = parts.filter(({ tool }) => tool === 'look_up');
  expect(calls.length).toBeGreaterThan(0);
  for (const { cost, outputTokens, inputTokens } of calls) {
    expect(outputTokens).toBeGreaterThan(0);
    expect(parseMoney(cost ?? '')).toBe(BigInt(inputTokens) * 2_000_000n + BigInt(outputTokens) * 8_000_000n);
  }
  expect(parts.filter(({ of }) => of === 'field').map(({ name }) => name)).toEqual(
    expect.arrayContaining(['instructions', 'tools']),
  );
  const detail = (await admin(`/sessions/${id}`)) as unknown as SessionDetail;
  const sum = calls.reduce((total, { cost }) => total + (parseMoney(cost ?? '') ?? 0n), 0n);
  expect(detail.tools).toMatchObject([{ tool: 'look_up', calls: calls.length }]);
  expect(parseMoney(detail.tools[0]?.cost ?? '')).toBe(sum);
});

async function open(settings: Readonly<Record<string, unknown>>) {
  const folder = mkdtempSync(join(tmpdir(), 'costs-'));
  const file = join(folder, 'prices.yaml');
  writeFileSync(file, TABLE);
  const written: string[] = [];
  const config = configOf({ prices_file: file, ...settings });
  const gateway = await startGateway(config, {
    environment: {},
    version: 'test',
    logDestination: { write: (line) => void written.push(line) },
  });
  const client = new TestClient(`127.0.0.1:${gateway.grpcPort}`);
  onTestFinished(async () => {
    client.close();
    await gateway.close();
    rmSync(folder, { recursive: true });
  });
  return {
    connect: (openMessage = {}) => client.connect(openMessage),
    admin: async (path: string) =>
      (await fetch(`http://127.0.0.1:${gateway.adminPort}${path}`)).json() as Promise<Record<string, never>>,
    page: async () => new Page(await gateway.telemetry.metricsText()),
    lines: (message: string) =>
      written.map((line) => JSON.parse(line) as Record<string, unknown>).filter(({ msg }) => msg === message),
  };
}
