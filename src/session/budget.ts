import type { BudgetLow, Use } from '../access/types.ts';
import type { Spent } from '../core/types.ts';
import { GatewayError } from '../errors.ts';
import { formatMoney, type Picos, parseMoney, ZERO } from '../ground/money.ts';

/** What a session may use in its life; undefined: as much as it likes. */
export interface Budget {
  readonly turns?: number | undefined;
  readonly tokens?: number | undefined;
  readonly money?: Picos | undefined;
}

type BudgetName = 'turns' | 'tokens' | 'money';

/** From this share on the client is told, once for each of the three. */
const LOW_PERCENT = 80n;
const MAX_GUESSED = 256;
const NOTHING: Use = { tokens: 0, money: ZERO };

/**
 * A session's budget. A turn is let in while something is left beside what other running turns are held for; what it
 * is held for is a guess, so that a turn alone may end above the budget, and the next is refused.
 */
export class SessionBudget {
  readonly #limits: ReadonlyMap<BudgetName, bigint>;
  readonly #used: Record<BudgetName, bigint>;
  readonly #held = new Map<string, Use>();
  /** Of turns of which it is not known what they used: the guess counts until it is. */
  readonly #guessed = new Map<string, Use>();
  readonly #told = new Set<BudgetName>();

  constructor({ turns, tokens, money }: Budget, spent?: Spent | undefined) {
    const limits: [BudgetName, bigint | undefined][] = [
      ['turns', turns === undefined ? undefined : BigInt(turns)],
      ['tokens', tokens === undefined ? undefined : BigInt(tokens)],
      ['money', money],
    ];
    this.#limits = new Map(limits.filter((entry): entry is [BudgetName, bigint] => entry[1] !== undefined));
    this.#used = {
      turns: BigInt(spent?.turns ?? 0),
      tokens: BigInt(spent?.tokens ?? 0),
      money: parseMoney(spent?.money ?? '0') ?? ZERO,
    };
  }

  /** Throws LIMIT_EXCEEDED, with what is left. */
  reserve(turnId: string, guess: Use): void {
    const held = this.#heldByAll();
    for (const [name, limit] of this.#limits) {
      const taken = this.#used[name] + held[name];
      const free = held[name] === 0n ? taken < limit : taken + amountOf(guess, name) <= limit;
      if (!free) throw exceeded(name, limit, limit - this.#used[name]);
    }
    this.#held.set(turnId, guess);
  }

  /** More for a turn that runs. Throws LIMIT_EXCEEDED, with what is left. */
  holdMore(turnId: string, more: Use): void {
    const own = this.#held.get(turnId);
    if (own === undefined) return;
    const held = this.#heldByAll();
    for (const [name, limit] of this.#limits) {
      if (name === 'turns' || this.#used[name] + held[name] + amountOf(more, name) <= limit) continue;
      throw exceeded(name, limit, limit - this.#used[name]);
    }
    this.#held.set(turnId, { tokens: own.tokens + more.tokens, money: own.money + more.money });
  }

  /** The turn never ran. */
  release(turnId: string): void {
    this.#held.delete(turnId);
  }

  /** `use` undefined: it may have run, and nobody knows what it used. */
  settle(turnId: string, use: Use | undefined): void {
    const guess = this.#held.get(turnId);
    if (this.#held.delete(turnId)) this.#used.turns += 1n;
    if (use !== undefined || guess === undefined) return this.add(use ?? NOTHING);
    this.add(guess);
    this.#guessed.set(turnId, guess);
    if (this.#guessed.size <= MAX_GUESSED) return;
    for (const oldest of this.#guessed.keys()) {
      this.#guessed.delete(oldest);
      return;
    }
  }

  /** What a turn used that had ended before. */
  late(turnId: string, use: Use): void {
    const guess = this.#guessed.get(turnId);
    this.#guessed.delete(turnId);
    if (guess !== undefined) this.add({ tokens: -guess.tokens, money: -guess.money });
    this.add(use);
  }

  /** What was used beside turns, or is known only now. */
  add({ tokens, money }: Use): void {
    this.#used.tokens += BigInt(tokens);
    this.#used.money += money;
  }

  get spent(): Spent {
    const { turns, tokens, money } = this.#used;
    return { turns: Number(turns), tokens: Number(tokens), money: formatMoney(money) };
  }

  /** Those that became low since the last call. */
  takeLow(): readonly BudgetLow[] {
    const low: BudgetLow[] = [];
    for (const [name, limit] of this.#limits) {
      if (this.#told.has(name) || this.#used[name] * 100n < limit * LOW_PERCENT) continue;
      this.#told.add(name);
      low.push({ name, used: textOf(name, this.#used[name]), limit: textOf(name, limit) });
    }
    return low;
  }

  #heldByAll(): Record<BudgetName, bigint> {
    const sum = { turns: 0n, tokens: 0n, money: ZERO };
    for (const use of this.#held.values()) {
      for (const name of ['turns', 'tokens', 'money'] as const) sum[name] += amountOf(use, name);
    }
    return sum;
  }
}

function amountOf({ tokens, money }: Use, name: BudgetName): bigint {
  if (name === 'turns') return 1n;
  return name === 'tokens' ? BigInt(tokens) : money;
}

function textOf(name: BudgetName, amount: bigint): string {
  return name === 'money' ? formatMoney(amount) : amount.toString();
}

function exceeded(name: BudgetName, limit: bigint, left: bigint): GatewayError {
  const leftText = textOf(name, left > 0n ? left : 0n);
  const limitText = textOf(name, limit);
  return new GatewayError(
    'LIMIT_EXCEEDED',
    `the session's budget of ${limitText} ${name} has ${leftText} left`,
    {
      metadata: { limit: `budget_${name}`, value: limitText, left: leftText, scope: 'session' },
    },
  );
}
