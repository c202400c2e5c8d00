import { readFileSync } from 'node:fs';
import { describe, expect, test, vi } from 'vitest';
import { Prices, usedBy } from '../../src/access/prices.ts';
import { parsePrices } from '../../src/config/prices.ts';
import { formatMoney, parseMoney } from '../../src/ground/money.ts';
import { ANY, BLUE, open, record, refusal, turn, usedOf } from './support.ts';

/** Of nobody's: round numbers, so that a reader can follow. */
const TABLE = `
currency: USD
as_of: "2026-11-30"
models:
  - model: small-*
    tiers:
      default: { input: "2.00", cached_input: "0.50", cache_write: "2.50", output: "8.00" }
      flex: { input: "1.00", cached_input: "0.25", output: "4.00" }
    calls: { web_search_call: "10.00" }
  - model: thinker
    upstream: primary
    tiers:
      default: { input: "0.0375", output: "3.00", reasoning: "6.00" }
  - model: thinker
    tiers:
      default: { input: "1.00", output: "1.00" }
`;

const prices = new Prices(parsePrices(TABLE, 'prices.yaml'));
const tokens = {
  inputTokens: 0,
  cachedInputTokens: 0,
  cacheWriteTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
};

describe('the cost of a turn, worked out by hand', () => {
  test.each([
    // 1,000 × $2.00/M + 100 × $8.00/M = 0.002 + 0.0008
    ['input and output', { model: 'small-1', usage: { inputTokens: 1_000, outputTokens: 100 } }, '0.0028'],
    // (1,000 − 600 − 100) × 2.00 + 600 × 0.50 + 100 × 2.50 = 600 + 300 + 250 millionths, + 100 × 8.00
    [
      'cached and written input are parts of input',
      {
        model: 'small-1',
        usage: { inputTokens: 1_000, cachedInputTokens: 600, cacheWriteTokens: 100, outputTokens: 100 },
      },
      '0.00195',
    ],
    // 1,000 × 1.00 + 100 × 4.00 millionths; writing to the cache costs what input costs where nothing else is said.
    [
      'another tier, where writing has no price of its own',
      {
        model: 'small-1',
        tier: 'flex',
        usage: { inputTokens: 1_000, cacheWriteTokens: 400, outputTokens: 100 },
      },
      '0.0014',
    ],
    // 0 tokens of either, 3 × $10.00/1000
    [
      'calls of tools that the upstream runs',
      { model: 'small-1', hostedCalls: new Map([['web_search_call', 3]]), usage: {} },
      '0.03',
    ],
    // 7 × 0.0375 millionths = 0.0000002625, which no float and no nano holds; 10 − 4 at 3.00, 4 at 6.00.
    [
      'fractions of a nano, and reasoning as a part of output',
      {
        model: 'thinker',
        upstream: 'primary',
        usage: { inputTokens: 7, outputTokens: 10, reasoningTokens: 4 },
      },
      '0.0000422625',
    ],
    [
      'the first entry that fits model and upstream',
      { model: 'thinker', upstream: 'other', usage: { inputTokens: 1_000_000 } },
      '1',
    ],
    // 1 × 2.00 + 9 × 0.50 millionths would be more cached than input: the whole input is cached.
    [
      'more cached than there was',
      { model: 'small-1', usage: { inputTokens: 4, cachedInputTokens: 9 } },
      '0.000002',
    ],
  ])('%s', (_, { usage, ...used }, amount) => {
    const priced = prices.price({
      upstream: undefined,
      tier: undefined,
      ...used,
      usage: { ...tokens, ...usage },
    });
    expect(priced).toMatchObject({ kind: 'priced' });
    if (priced.kind === 'priced')
      expect(prices.cost(priced.picos)).toEqual({ amount, currency: 'USD', pricesAsOf: '2026-11-30' });
  });

  test('sums of a million turns are exact', () => {
    const one = prices.price({
      model: 'thinker',
      upstream: 'primary',
      tier: undefined,
      usage: { ...tokens, inputTokens: 1 },
    });
    expect(one).toEqual({ kind: 'priced', picos: 37_500n });
    expect(formatMoney(37_500n * 1_000_000n)).toBe('0.0375');
  });

  test.each([
    ['model', { model: 'unheard-of' }, 0n],
    ['model', { model: undefined }, 0n],
    ['tier', { model: 'small-1', tier: 'priority' }, 8_000_000_000n],
    ['tool', { model: 'small-1', hostedCalls: new Map([['code_interpreter_call', 1]]) }, 8_000_000_000n],
  ])(
    'an unknown %s has no cost, instead of a wrong one; budgets count what is known of it',
    (why, used, known) => {
      const usage = { ...tokens, outputTokens: 1_000 };
      expect(prices.price({ upstream: undefined, tier: undefined, usage, ...used })).toEqual({
        kind: 'unpriced',
        why,
        known,
      });
    },
  );

  test("a turn is priced by the model that answered, the tier that served and the upstream's name", () => {
    expect(
      usedBy(record({ requestModel: 'small', responseModel: 'small-1', serviceTier: 'flex', usage: tokens })),
    ).toMatchObject({ model: 'small-1', tier: 'flex' });
    expect(usedBy(record({ usage: undefined }))).toBeUndefined();
  });
});

describe('a budget of money', () => {
  const table = parsePrices(TABLE, 'prices.yaml');
  function openSession(moneyPerDay: number) {
    const { access } = open({ prices: table }, [{ id: 'blue', limits: { moneyPerDay } }, { id: 'red' }]);
    return {
      session: access.admitSession(BLUE, ANY),
      spent: () => usedOf(access, 'money_per_day', 'small-1'),
    };
  }

  test('is not passed by what the table lacks', () => {
    const { session, spent } = openSession(1_800_000);
    const usage = { ...tokens, outputTokens: 100 };
    const first = session.admitTurn(turn({ model: 'small-1' }));
    first.settle(record({ responseModel: 'small-1', serviceTier: 'priority', usage }));
    const second = session.admitTurn(turn({ model: 'small-1' }));
    const hostedCalls = new Map([['code_interpreter_call', 1]]);
    second.settle(record({ responseModel: 'small-1', hostedCalls, usage }));
    // 100 × 8.00 millionths, twice, in nanos
    expect(spent()).toBeCloseTo(0.0016, 9);
    second.lateUsage(usage);
    // Also for a turn of which nobody knows yet which model will answer.
    expect(refusal(() => session.admitTurn(turn({ model: undefined }))).metadata).toMatchObject({
      limit: 'money_per_day',
      left: '0',
    });
    session.admitTurn(turn({ model: undefined, runsModel: false }));
  });

  test('what a cancelled turn used is priced as it was served, with the calls that the upstream ran', () => {
    const { session, spent } = openSession(1_000_000_000);
    const lease = session.admitTurn(turn({ model: 'thinker' }));
    lease.settle(
      record({
        outcome: 'CANCELLED',
        requestModel: 'thinker',
        responseModel: 'small-1',
        serviceTier: 'flex',
        hostedCalls: new Map([['web_search_call', 1]]),
      }),
    );
    // 100 × 4.00 millionths and 10.00 / 1,000; the call once.
    expect(lease.lateUsage({ ...tokens, outputTokens: 100 }).cost?.amount).toBe('0.0104');
    expect(lease.lateUsage({ ...tokens, outputTokens: 100 }).cost?.amount).toBe('0.0004');
    expect(spent()).toBeCloseTo(0.0108, 9);
  });
});

test('names of models are remembered as far as they are short', () => {
  const added = vi.spyOn(Map.prototype, 'set');
  const priced = prices.price({
    model: `small-${'x'.repeat(100_000)}`,
    upstream: undefined,
    tier: undefined,
    usage: { ...tokens, outputTokens: 1 },
  });
  const remembered = added.mock.calls.some(([key]) => String(key).length > 100_000);
  added.mockRestore();
  expect(priced.kind).toBe('priced');
  expect(remembered).toBe(false);
});

describe('a price table', () => {
  test.each([
    [
      'as a number, which may not be exact',
      'input: "2.00"',
      'input: 2.00',
      /models\.0\.tiers\.default\.input: .*quotes/,
    ],
    ['finer than a millionth', 'input: "2.00"', 'input: "2.0000001"', /at most 6 digits/],
    ['without a default tier', 'default: { input: "2.00"', 'normal: { input: "2.00"', /a tier "default"/],
    ['with a name that is not known', 'cached_input: "0.50"', 'cached: "0.50"', /models\.0\.tiers\.default/],
    ['without its date', 'as_of: "2026-11-30"', '', /as_of/],
  ])('is refused with a price %s', (_, good, bad, message) => {
    expect(() => parsePrices(TABLE.replace(good, bad), 'prices.yaml')).toThrow(message);
  });
});

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

describe('docs/costs.md', () => {
  const text = read('docs/costs.md');
  const table = new Prices(
    parsePrices(/```yaml\n(currency[\s\S]*?)```/.exec(text)?.[1] ?? '', 'docs/costs.md'),
  );

  test('works its example out as the gateway does', () => {
    const used = {
      inputTokens: 1_000,
      cachedInputTokens: 600,
      cacheWriteTokens: 100,
      outputTokens: 100,
      reasoningTokens: 0,
    };
    const priced = table.price({
      model: 'my-model-1',
      upstream: 'any',
      tier: 'default',
      usage: used,
      hostedCalls: new Map([['web_search_call', 1]]),
    });
    expect(priced.kind === 'priced' && formatMoney(priced.picos)).toBe('0.01195');
    expect(text).toContain('`0.01195`');
  });

  test('ships a table that prices nothing until it is filled in', () => {
    const example = parsePrices(read('deploy/prices.example.yaml'), 'prices.example.yaml');
    expect(example).toMatchObject({ asOf: '2026-11-30', models: [] });
  });
});

test.each([
  ['0.50', 500_000_000_000n, '0.5'],
  ['12', 12_000_000_000_000n, '12'],
  ['0.000000000001', 1n, '0.000000000001'],
])('%s is money', (text, picos, shown) => {
  expect(parseMoney(text)).toBe(picos);
  expect(formatMoney(picos)).toBe(shown);
});

test.each(['', '-1', '1e3', '.5', '1,5', '0x1', ' 1', '0.0000000000001'])('%j is none', (text) => {
  expect(parseMoney(text)).toBeUndefined();
});
