import { readFileSync } from 'node:fs';
import * as z from 'zod';
import { parseMoney } from '../ground/money.ts';
import { yaml } from './sources.ts';

/** Prices of tokens are given for a million: a decimal of six digits is then a whole number of picos for each. */
const TOKENS = 1_000_000n;
/** Those of calls for a thousand. */
const CALLS = 1_000n;
const MAX_DECIMALS = 6;

/** Numbers of YAML are floating point, which most decimals are not: they are taken as they were written. */
const price = z
  .string('a decimal in quotes, e.g. "1.25"')
  .regex(
    new RegExp(`^\\d{1,9}(\\.\\d{1,${MAX_DECIMALS}})?$`),
    `a decimal with at most ${MAX_DECIMALS} digits after the point`,
  );

const tier = z.strictObject({
  input: price,
  cached_input: price.optional(),
  cache_write: price.optional(),
  output: price,
  reasoning: price.optional(),
});

const priceTable = z.strictObject({
  currency: z.string().regex(/^[A-Z]{3}$/, 'an ISO 4217 code, e.g. USD'),
  as_of: z.string().regex(/^\d{4}-\d{2}-\d{2}$/, 'a date in quotes, e.g. "2026-11-30"'),
  models: z.array(
    z.strictObject({
      model: z.string().min(1),
      upstream: z.string().min(1).default('*'),
      tiers: z
        .record(z.string().min(1), tier)
        .refine((tiers) => Object.hasOwn(tiers, 'default'), 'a tier "default"'),
      calls: z.record(z.string().min(1), price).default({}),
    }),
  ),
});

interface LoadedTier {
  readonly input: bigint;
  readonly cachedInput: bigint | undefined;
  readonly cacheWrite: bigint | undefined;
  readonly output: bigint;
  readonly reasoning: bigint | undefined;
}

export interface LoadedPrices {
  readonly currency: string;
  readonly asOf: string;
  readonly models: readonly {
    readonly model: string;
    readonly upstream: string;
    readonly tiers: ReadonlyMap<string, LoadedTier>;
    readonly calls: ReadonlyMap<string, bigint>;
  }[];
}

/** Throws an Error that says which line of the table is wrong, and what is allowed there. */
export function loadPrices(path: string): LoadedPrices {
  return parsePrices(readFileSync(path, 'utf8'), path);
}

export function parsePrices(text: string, path: string): LoadedPrices {
  const parsed = priceTable.safeParse(yaml().parse(text));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const where = issue === undefined || issue.path.length === 0 ? 'the table' : issue.path.join('.');
    throw new Error(`${path}: ${where}: ${issue?.message ?? 'is wrong'}`);
  }
  const { currency, as_of, models } = parsed.data;
  return {
    currency,
    asOf: as_of,
    models: models.map(({ model, upstream, tiers, calls }) => ({
      model,
      upstream,
      tiers: new Map(
        Object.entries(tiers).map(([name, { input, cached_input, cache_write, output, reasoning }]) => [
          name,
          {
            input: each(input, TOKENS),
            cachedInput: optional(cached_input),
            cacheWrite: optional(cache_write),
            output: each(output, TOKENS),
            reasoning: optional(reasoning),
          },
        ]),
      ),
      calls: new Map(Object.entries(calls).map(([type, text]) => [type, each(text, CALLS)])),
    })),
  };
}

function optional(text: string | undefined): bigint | undefined {
  return text === undefined ? undefined : each(text, TOKENS);
}

/** Exact: the schema allows no more digits than there are zeros in `count`, or room for them in a pico. */
function each(text: string, count: bigint): bigint {
  return (parseMoney(text) ?? 0n) / count;
}
