import { GatewayError } from '../errors.ts';
import { formatMoney, fromNanos, toNanos, ZERO } from '../ground/money.ts';
import type { LimitName, Limits } from './options.ts';
import type { BudgetLow, Use } from './types.ts';

export const NOTHING: Use = { tokens: 0, money: ZERO };

export type Scope = 'tenant' | 'process';
export type CountedLimit = 'sessions' | 'lanes' | 'turnsInFlight';
export type RateLimit =
  | 'turnsPerMinute'
  | 'tokensPerMinute'
  | 'tokensPerDay'
  | 'tokensPerMonth'
  | 'moneyPerDay'
  | 'moneyPerMonth';

const MINUTE = 60;
const DAY = 86_400;

/** Length of each window, and what it counts: turns, tokens, or nanos of the price table's currency. */
export const RATES: Readonly<
  Record<RateLimit, { readonly seconds: number; readonly unit: 'turns' | 'tokens' | 'money' }>
> = {
  turnsPerMinute: { seconds: MINUTE, unit: 'turns' },
  tokensPerMinute: { seconds: MINUTE, unit: 'tokens' },
  tokensPerDay: { seconds: DAY, unit: 'tokens' },
  tokensPerMonth: { seconds: 30 * DAY, unit: 'tokens' },
  moneyPerDay: { seconds: DAY, unit: 'money' },
  moneyPerMonth: { seconds: 30 * DAY, unit: 'money' },
};
export const RATE_NAMES = Object.keys(RATES) as RateLimit[];

/** What counts in a window of turns, tokens or money. */
export function pointsOf(name: RateLimit, { tokens, money }: Use): number {
  switch (RATES[name].unit) {
    case 'turns':
      return 1;
    case 'tokens':
      return Math.ceil(tokens);
    case 'money':
      return toNanos(money);
  }
}

/** Something has to end first, and nobody knows when: a second keeps the retries cheap. */
export const RETRY_COUNTED_MS = 1_000;

/** The names in errors, for machines and dashboards. */
const PUBLIC_NAMES: Readonly<Record<LimitName, string>> = {
  sessions: 'sessions',
  lanes: 'lanes',
  turnsInFlight: 'turns_in_flight',
  messageBytes: 'message_bytes',
  turnsPerMinute: 'turns_per_minute',
  tokensPerMinute: 'tokens_per_minute',
  tokensPerDay: 'tokens_per_day',
  tokensPerMonth: 'tokens_per_month',
  moneyPerDay: 'money_per_day',
  moneyPerMonth: 'money_per_month',
};

/** What is held for one turn in the windows that were open when it began. */
export interface UseHold {
  /** Replaces what is held by what is known now; nothing used gives everything back. */
  settle(use: Use): void;
  /** On top of what was settled. */
  add(use: Use): void;
}

/** Points of one window. */
export interface PointHold {
  settle(points: number): void;
  add(points: number): void;
}

export function useHold(name: RateLimit, hold: PointHold): UseHold {
  return {
    settle: (use) => hold.settle(pointsOf(name, use)),
    add: (use) => hold.add(pointsOf(name, use)),
  };
}

const NONE_LOW: readonly BudgetLow[] = [];

/** Without a window nothing is held. */
export const NO_HOLD: UseHold = { settle() {}, add() {} };

/** What one tenant, or the process, uses of its limits. Look with `refuse…` first, then take: nothing is half taken. */
export class Ledger {
  readonly #scope: Scope;
  #limits: Limits;
  readonly #counts = { sessions: 0, lanes: 0, turnsInFlight: 0 };
  #turns: Window | undefined;
  #uses: readonly (readonly [RateLimit, Window])[];
  readonly #lowTold = new Map<RateLimit, number>();

  constructor(scope: Scope, limits: Limits) {
    this.#scope = scope;
    this.#limits = limits;
    this.#turns = openWindow(limits, 'turnsPerMinute');
    this.#uses = RATE_NAMES.filter((name) => name !== 'turnsPerMinute').flatMap((name) => {
      const window = openWindow(limits, name);
      return window === undefined ? [] : [[name, window] as const];
    });
  }

  /** From now on. What is used of a window stays used; sessions above a lower limit go on. */
  setLimits(limits: Limits): void {
    const known = new Map<RateLimit, Window>(this.#uses);
    if (this.#turns !== undefined) known.set('turnsPerMinute', this.#turns);
    const moved = (name: RateLimit): Window | undefined => {
      const limit = limits[name];
      const window = known.get(name);
      if (window === undefined) return openWindow(limits, name);
      if (limit === undefined || limit === null) return undefined;
      window.limit = limit;
      return window;
    };
    this.#limits = limits;
    this.#turns = moved('turnsPerMinute');
    this.#uses = RATE_NAMES.filter((name) => name !== 'turnsPerMinute').flatMap((name) => {
      const window = moved(name);
      return window === undefined ? [] : [[name, window] as const];
    });
  }

  refuseCounted(name: CountedLimit): GatewayError | undefined {
    const limit = this.#limits[name] ?? Number.POSITIVE_INFINITY;
    return this.#counts[name] < limit ? undefined : this.#error(name, limit, RETRY_COUNTED_MS);
  }

  take(name: CountedLimit): void {
    this.#counts[name] += 1;
  }

  give(name: CountedLimit): void {
    this.#counts[name] -= 1;
  }

  refuseMessage(bytes: number): GatewayError | undefined {
    const limit = this.#limits.messageBytes ?? Number.POSITIVE_INFINITY;
    // No time to wait is named: the same message will never fit.
    return bytes <= limit ? undefined : this.#error('messageBytes', limit, undefined);
  }

  refuseTurnRate(use: Use): GatewayError | undefined {
    const turnsWait = this.#turns?.waitFor(1);
    if (this.#turns !== undefined && turnsWait !== undefined) {
      return this.#error('turnsPerMinute', this.#turns.limit, turnsWait, this.#turns.left);
    }
    return this.refuseUse(use);
  }

  refuseUse(use: Use): GatewayError | undefined {
    for (const [name, window] of this.#uses) {
      const points = pointsOf(name, use);
      // What costs nothing is not refused for what others have used.
      const wait = points === 0 ? undefined : window.waitFor(Math.min(points, window.limit));
      if (wait !== undefined) return this.#error(name, window.limit, wait, window.left);
    }
    return undefined;
  }

  /** Windows that are nearly used up; each is told once. */
  takeLow(): readonly BudgetLow[] {
    if (this.#uses.length === 0) return NONE_LOW;
    return this.#uses.flatMap(([name, window]) => {
      const { endsAtMs } = window;
      if (endsAtMs === undefined || !isBudget(name) || !isLow(window.used(), window.limit)) return [];
      if (this.#lowTold.get(name) === endsAtMs) return [];
      this.#lowTold.set(name, endsAtMs);
      return [lowOf(name, window.used(), window.limit)];
    });
  }

  countTurn(): void {
    this.#turns?.add(1);
  }

  /** Gives the turn back when it never ran. */
  uncountTurn(): void {
    this.#turns?.takeBack(1);
  }

  /** A guess above a window's limit holds the whole window: such a turn runs when nothing else did. */
  hold(use: Use): UseHold {
    if (this.#uses.length === 0) return NO_HOLD;
    const holds = this.#uses.map(([name, window]) =>
      useHold(name, window.hold(Math.min(pointsOf(name, use), window.limit))),
    );
    return {
      settle: (settled) => {
        for (const hold of holds) hold.settle(settled);
      },
      add: (more) => {
        for (const hold of holds) hold.add(more);
      },
    };
  }

  #error(
    name: LimitName,
    value: number,
    retryAfterMs: number | undefined,
    left?: number | undefined,
  ): GatewayError {
    return limitExceeded(this.#scope, name, value, retryAfterMs, left);
  }
}

/** `retryAfterMs` undefined: it does not help to wait. `left`: of a window. */
export function limitExceeded(
  scope: Scope,
  name: LimitName,
  value: number,
  retryAfterMs: number | undefined,
  left?: number | undefined,
): GatewayError {
  const limit = PUBLIC_NAMES[name];
  const whose = scope === 'tenant' ? 'of this tenant' : 'of this gateway';
  const text = (points: number): string => amountText(name, points);
  const rest = left === undefined ? '' : `, of which ${text(left)} is left`;
  return new GatewayError('LIMIT_EXCEEDED', `the limit ${limit} ${whose} is ${text(value)}${rest}`, {
    metadata: { limit, value: text(value), scope, ...(left !== undefined && { left: text(left) }) },
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

function amountText(name: LimitName, points: number): string {
  const rate = (RATES as Readonly<Partial<Record<LimitName, { readonly unit: string }>>>)[name];
  return rate?.unit === 'money' ? formatMoney(fromNanos(points)) : String(points);
}

const LOW_SHARE = 0.8;

export function isLow(used: number, limit: number): boolean {
  return used >= limit * LOW_SHARE;
}

/** A minute's window fills and empties all the time: nobody wants to hear of that. */
export function isBudget(name: RateLimit): boolean {
  return RATES[name].seconds >= DAY;
}

export function lowOf(name: RateLimit, used: number, limit: number): BudgetLow {
  return { name: PUBLIC_NAMES[name], used: amountText(name, used), limit: amountText(name, limit) };
}

/** A fixed window that begins with its first use. Its ends are by `now` of the process that has it. */
export class Window {
  limit: number;
  readonly #lengthMs: number;
  #used = 0;
  #endsAtMs = 0;

  constructor(limit: number, seconds: number) {
    this.limit = limit;
    this.#lengthMs = seconds * 1_000;
  }

  used(): number {
    return now() < this.#endsAtMs ? this.#used : 0;
  }

  get left(): number {
    return Math.max(0, this.limit - this.used());
  }

  /** Undefined: nothing was used. */
  get endsAtMs(): number | undefined {
    return now() < this.#endsAtMs ? this.#endsAtMs : undefined;
  }

  /** Milliseconds until `points` may fit; undefined: they fit now. */
  waitFor(points: number): number | undefined {
    const used = this.used();
    if (used === 0 || used + points <= this.limit) return undefined;
    return Math.max(1, this.#endsAtMs - now());
  }

  add(points: number): void {
    if (points <= 0) return;
    const atMs = now();
    if (atMs >= this.#endsAtMs) {
      this.#used = 0;
      this.#endsAtMs = atMs + this.#lengthMs;
    }
    this.#used += points;
  }

  takeBack(points: number): void {
    this.#used = Math.max(0, this.#used - Math.max(0, points));
  }

  hold(points: number): PointHold {
    this.add(points);
    const window = this.endsAtMs;
    let held = points;
    return {
      settle: (actual) => {
        const more = actual - held;
        held = actual;
        if (more > 0) this.add(more);
        // What is given back belongs to the window it was taken from, and not to the next.
        else if (this.endsAtMs === window) this.takeBack(-more);
      },
      add: (more) => {
        held += more;
        this.add(more);
      },
    };
  }
}

/** Of a clock that nobody sets: a window neither ends early nor stays for years. */
function now(): number {
  return Math.trunc(performance.now());
}

function openWindow(limits: Limits, name: RateLimit): Window | undefined {
  const limit = limits[name];
  return limit === undefined || limit === null ? undefined : new Window(limit, RATES[name].seconds);
}
