import type { TurnCost, TurnRecord, Usage } from '../core/types.ts';
import { compileGlob, type Glob } from '../ground/glob.ts';
import { formatMoney, type Picos, ZERO } from '../ground/money.ts';

/** What an operator's price table says. Prices of tokens are for one token. */
export interface PriceTable {
  readonly currency: string;
  /** `YYYY-MM-DD`. */
  readonly asOf: string;
  /** In order: the first that fits model and upstream counts. */
  readonly models: readonly ModelPrices[];
}

export interface ModelPrices {
  /** Glob over the name that the upstream answered with, else the one that was asked for. */
  readonly model: string;
  /** Glob over the configured upstreams' names. */
  readonly upstream: string;
  readonly tiers: ReadonlyMap<string, TierPrices>;
  /** For one call, by type of its item, e.g. `web_search_call`. */
  readonly calls: ReadonlyMap<string, Picos>;
}

/** Undefined: as the whole that it is a part of. */
export interface TierPrices {
  readonly input: Picos;
  readonly cachedInput: Picos | undefined;
  readonly cacheWrite: Picos | undefined;
  readonly output: Picos;
  readonly reasoning: Picos | undefined;
}

/** Why there is no cost. */
export type Unpriced = 'model' | 'tier' | 'tool';

export type Priced =
  | { readonly kind: 'priced'; readonly picos: Picos; readonly why?: undefined }
  /** `known`: what budgets count all the same, so that nobody gets past one by what the table lacks. */
  | { readonly kind: 'unpriced'; readonly why: Unpriced; readonly known: Picos };

/** What is priced together: one model's answer. */
export interface PricedUse {
  readonly model: string | undefined;
  readonly upstream: string | undefined;
  /** Undefined: the default one. */
  readonly tier: string | undefined;
  readonly usage: Usage;
  readonly hostedCalls?: ReadonlyMap<string, number> | undefined;
}

const DEFAULT_TIER = 'default';
/** Names of models come from upstreams and callers: what is remembered of them is bounded. */
const MAX_REMEMBERED = 1_000;
const MAX_REMEMBERED_LENGTH = 256;

interface CompiledModel extends ModelPrices {
  readonly fitsModel: Glob;
  readonly fitsUpstream: Glob;
}

export class Prices {
  readonly currency: string;
  readonly #asOf: string;
  readonly #models: readonly CompiledModel[];
  readonly #found = new Map<string, CompiledModel | undefined>();

  constructor(table: PriceTable) {
    this.currency = table.currency;
    this.#asOf = table.asOf;
    this.#models = table.models.map((prices) => ({
      ...prices,
      fitsModel: compileGlob(prices.model),
      fitsUpstream: compileGlob(prices.upstream),
    }));
  }

  price({ model, upstream, tier = DEFAULT_TIER, usage, hostedCalls }: PricedUse): Priced {
    const prices = this.#of(model, upstream);
    if (prices === undefined) return { kind: 'unpriced', why: 'model', known: ZERO };
    const served = prices.tiers.get(tier === 'auto' ? DEFAULT_TIER : tier);
    const tokens = served ?? prices.tiers.get(DEFAULT_TIER);
    let why: Unpriced | undefined = served === undefined ? 'tier' : undefined;
    let picos = tokens === undefined ? ZERO : costOfTokens(tokens, usage);
    for (const [type, count] of hostedCalls ?? []) {
      const each = prices.calls.get(type);
      if (each === undefined) why ??= 'tool';
      else picos += each * BigInt(count);
    }
    return why === undefined ? { kind: 'priced', picos } : { kind: 'unpriced', why, known: picos };
  }

  /** Of a turn, which is told with it. */
  cost(picos: Picos): TurnCost {
    return { amount: formatMoney(picos), currency: this.currency, pricesAsOf: this.#asOf };
  }

  /** What a turn is held for before it runs. Nothing where the model is not known. */
  guess(
    model: string | undefined,
    upstream: string | undefined,
    inputTokens: number,
    outputTokens: number,
  ): Picos {
    const tokens = this.#of(model, upstream)?.tiers.get(DEFAULT_TIER);
    if (tokens === undefined) return ZERO;
    return tokens.input * BigInt(Math.ceil(inputTokens)) + tokens.output * BigInt(Math.ceil(outputTokens));
  }

  #of(model = '', upstream: string | undefined): CompiledModel | undefined {
    const key = `${upstream ?? ''} ${model}`;
    if (this.#found.has(key)) return this.#found.get(key);
    const found = this.#models.find(
      ({ fitsModel, fitsUpstream }) => fitsModel(model) && (upstream === undefined || fitsUpstream(upstream)),
    );
    if (key.length > MAX_REMEMBERED_LENGTH) return found;
    if (this.#found.size >= MAX_REMEMBERED) this.#found.clear();
    this.#found.set(key, found);
    return found;
  }
}

/** Of a turn's end; undefined: there is nothing to price. */
export function usedBy(record: TurnRecord): PricedUse | undefined {
  return record.usage === undefined ? undefined : { ...answeredBy(record), usage: record.usage };
}

/** Whose answer it is, as far as the upstream told before the turn's end, and what it ran. */
export function answeredBy(record: TurnRecord): Omit<PricedUse, 'usage'> {
  return {
    model: record.responseModel ?? record.requestModel,
    upstream: record.route?.upstream,
    tier: record.serviceTier,
    hostedCalls: record.hostedCalls,
  };
}

/** Cached and written input are parts of input, reasoning is a part of output. */
function costOfTokens(prices: TierPrices, usage: Usage): Picos {
  const input = whole(usage.inputTokens);
  const cached = least(whole(usage.cachedInputTokens), input);
  const written = least(whole(usage.cacheWriteTokens), input - cached);
  const output = whole(usage.outputTokens);
  const reasoning = least(whole(usage.reasoningTokens), output);
  return (
    (input - cached - written) * prices.input +
    cached * (prices.cachedInput ?? prices.input) +
    written * (prices.cacheWrite ?? prices.input) +
    (output - reasoning) * prices.output +
    reasoning * (prices.reasoning ?? prices.output)
  );
}

function whole(tokens: number): bigint {
  return BigInt(Math.max(0, Math.trunc(tokens)));
}

function least(left: bigint, right: bigint): bigint {
  return left < right ? left : right;
}
