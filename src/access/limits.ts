import { RateLimiterMemory } from 'rate-limiter-flexible';
import { GatewayError } from '../errors.ts';
import type { LimitName, Limits } from './options.ts';

export type Scope = 'tenant' | 'process';
export type CountedLimit = 'sessions' | 'lanes' | 'turnsInFlight';
export type RateLimit = 'turnsPerMinute' | 'tokensPerMinute' | 'tokensPerDay';

/** Lengths of the windows. */
export const SECONDS: Readonly<Record<RateLimit, number>> = {
  turnsPerMinute: 60,
  tokensPerMinute: 60,
  tokensPerDay: 86_400,
};

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
};

/** Tokens held for one turn in the windows that were open when it began. */
export interface TokenHold {
  /** Replaces what is held by what is known now; zero gives everything back. */
  settle(tokens: number): void;
  /** Tokens on top of what was settled. */
  add(tokens: number): void;
}

export interface LedgerCounts {
  readonly sessions: number;
  readonly lanes: number;
  readonly turnsInFlight: number;
}

/** What one tenant, or the process, uses of its limits. Look with `refuse…` first, then take: nothing is half taken. */
export class Ledger {
  readonly #scope: Scope;
  readonly #limits: Limits;
  readonly #counts = { sessions: 0, lanes: 0, turnsInFlight: 0 };
  readonly #turns: Window | undefined;
  readonly #tokens: readonly (readonly [RateLimit, Window])[];

  constructor(scope: Scope, limits: Limits) {
    this.#scope = scope;
    this.#limits = limits;
    this.#turns = openWindow(limits, 'turnsPerMinute');
    this.#tokens = (['tokensPerMinute', 'tokensPerDay'] as const).flatMap((name) => {
      const window = openWindow(limits, name);
      return window === undefined ? [] : [[name, window] as const];
    });
  }

  get counts(): LedgerCounts {
    return { ...this.#counts };
  }

  /** What is used of the current windows; undefined for rates without a limit. */
  get used(): { readonly [name in RateLimit]?: number } {
    const windows = [
      ...(this.#turns === undefined ? [] : [['turnsPerMinute', this.#turns] as const]),
      ...this.#tokens,
    ];
    return Object.fromEntries(windows.map(([name, window]) => [name, window.used()]));
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

  refuseTurnRate(tokens: number): GatewayError | undefined {
    const turnsWait = this.#turns?.waitFor(1);
    if (this.#turns !== undefined && turnsWait !== undefined) {
      return this.#error('turnsPerMinute', this.#turns.limit, turnsWait);
    }
    return this.refuseTokens(tokens);
  }

  refuseTokens(tokens: number): GatewayError | undefined {
    for (const [name, window] of this.#tokens) {
      const wait = window.waitFor(Math.min(tokens, window.limit));
      if (wait !== undefined) return this.#error(name, window.limit, wait);
    }
    return undefined;
  }

  countTurn(): void {
    this.#turns?.add(1);
  }

  /** Gives the turn back when it never ran. */
  uncountTurn(): void {
    this.#turns?.takeBack(1);
  }

  /** A guess above a window's limit holds the whole window: such a turn runs when nothing else did. */
  holdTokens(tokens: number): TokenHold {
    const holds = this.#tokens.map(([, window]) => window.hold(Math.min(tokens, window.limit)));
    return {
      settle: (settled) => {
        for (const hold of holds) hold.settle(settled);
      },
      add: (more) => {
        for (const hold of holds) hold.add(more);
      },
    };
  }

  close(): void {
    this.#turns?.close();
    for (const [, window] of this.#tokens) window.close();
  }

  #error(name: LimitName, value: number, retryAfterMs: number | undefined): GatewayError {
    return limitExceeded(this.#scope, name, value, retryAfterMs);
  }
}

/** `retryAfterMs` undefined: it does not help to wait. */
export function limitExceeded(
  scope: Scope,
  name: LimitName,
  value: number,
  retryAfterMs: number | undefined,
): GatewayError {
  const limit = PUBLIC_NAMES[name];
  const whose = scope === 'tenant' ? 'of this tenant' : 'of this gateway';
  return new GatewayError('LIMIT_EXCEEDED', `the limit ${limit} ${whose} is ${value}`, {
    metadata: { limit, value: String(value), scope },
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

const KEY = 'used';

/**
 * A fixed window that begins with its first use. The library answers with promises, but its memory store counts
 * before `penalty` returns and `dump` looks without waiting; both are public, and a test holds it to that.
 */
export class Window {
  limit: number;
  readonly #limiter: RateLimiterMemory;

  constructor(limit: number, seconds: number) {
    this.limit = limit;
    this.#limiter = new RateLimiterMemory({ points: limit, duration: seconds });
  }

  used(): number {
    return this.#current()?.used ?? 0;
  }

  /** Undefined: nothing was used. */
  get endsAtMs(): number | undefined {
    return this.#current()?.endsAtMs;
  }

  /** Milliseconds until `points` may fit; undefined: they fit now. */
  waitFor(points: number): number | undefined {
    const current = this.#current();
    if (current === undefined || current.used + points <= this.limit) return undefined;
    return Math.max(1, current.endsAtMs - Date.now());
  }

  add(points: number): void {
    if (points > 0) void this.#limiter.penalty(KEY, points);
  }

  takeBack(points: number): void {
    const used = this.used();
    if (points > 0 && used > 0) void this.#limiter.reward(KEY, Math.min(points, used));
  }

  hold(points: number): TokenHold {
    this.add(points);
    const window = this.#current()?.endsAtMs;
    let held = points;
    return {
      settle: (actual) => {
        const more = actual - held;
        held = actual;
        if (more > 0) this.add(more);
        // What is given back belongs to the window it was taken from, and not to the next.
        else if (this.#current()?.endsAtMs === window) this.takeBack(-more);
      },
      add: (more) => {
        held += more;
        this.add(more);
      },
    };
  }

  /** Stops the timer with which the library forgets the window. */
  close(): void {
    void this.#limiter.delete(KEY);
  }

  #current(): { readonly used: number; readonly endsAtMs: number } | undefined {
    const record = this.#limiter.dump().storage[0];
    if (record === undefined || record.expiresAt === null || record.expiresAt <= Date.now()) return undefined;
    return { used: record.value, endsAtMs: record.expiresAt };
  }
}

function openWindow(limits: Limits, name: RateLimit): Window | undefined {
  const limit = limits[name];
  return limit === undefined || limit === null ? undefined : new Window(limit, SECONDS[name]);
}
