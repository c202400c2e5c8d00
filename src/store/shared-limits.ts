import { RateLimiterRedis, type RateLimiterRes } from 'rate-limiter-flexible';
import type { CountedLimit, HeldCount, SharedLimits, WindowAnswer, WindowCharge } from '../access/types.ts';
import type { StoreClient } from './client.ts';
import { OwnedIdBuckets } from './owned-ids.ts';

/** After a command without an answer nobody waits for the next one before this is over. */
const AWAY_MS = 1_000;
/** Places and processes of which nobody has heard for this long are free and gone. */
const LIFETIME_MS = 30_000;
const BEAT_MS = 2_000;
/** A window this close to its end may be another one when the command arrives. */
const WINDOW_MARGIN_MS = 250;

/**
 * Places of one limit of one tenant: a hash with a field for each process, "held:until" by the server's clock. Adds
 * up what those hold that are there, gives what is left, and forgets the others.
 * ARGV: process, wanted (negative: given back), limit, lifetime in ms, what it holds for certain (-1: not told).
 */
const ALLOT = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local me, wanted, limit, life = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local sum, mine = 0, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local held, untilMs = string.match(all[i + 1], '^(%d+):(%d+)$')
  if all[i] == me then mine = tonumber(held)
  elseif tonumber(untilMs) < now then redis.call('HDEL', KEYS[1], all[i])
  else sum = sum + tonumber(held) end
end
if ARGV[5] ~= '-1' then mine = tonumber(ARGV[5]) end
local given = wanted
if wanted > 0 then given = math.max(0, math.min(wanted, limit - sum - mine)) end
mine = math.max(0, mine + given)
if mine > 0 then redis.call('HSET', KEYS[1], me, string.format('%d:%d', mine, now + life))
else redis.call('HDEL', KEYS[1], me) end
redis.call('PEXPIRE', KEYS[1], life)
return given`;

/** Processes that are there. ARGV: process, lifetime in ms; a lifetime of 0 says that it goes. */
const BEAT = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local life = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if life > 0 then
  redis.call('ZADD', KEYS[1], now + life, ARGV[1])
  redis.call('PEXPIRE', KEYS[1], life)
else redis.call('ZREM', KEYS[1], ARGV[1]) end
return redis.call('ZCARD', KEYS[1])`;

export interface SharedLimitsOptions {
  readonly client: StoreClient;
  /** New at every start. */
  readonly processId: string;
  /** How long a turn may wait for an answer. Milliseconds. */
  readonly timeoutMs: number;
  readonly ownedIdDays: number;
  /** A decision had to be made without the store. */
  readonly onAlone?: () => void;
}

export interface OpenSharedLimits extends SharedLimits {
  /** Deletes what is known of a tenant. Rejects with StoreError. */
  forget(tenantId: string): Promise<void>;
  /** Resolves when what was said is written, or cannot be. */
  close(): Promise<void>;
}

/** Limits and response ids over all processes that use one store. */
export function openSharedLimits(options: SharedLimitsOptions): OpenSharedLimits {
  return new StoredLimits(options);
}

class StoredLimits implements OpenSharedLimits {
  readonly #options: SharedLimitsOptions;
  readonly #client: StoreClient;
  readonly #ids: OwnedIdBuckets;
  readonly #limiters = new Map<string, RateLimiterRedis>();
  readonly #beat: NodeJS.Timeout;
  readonly #stopListening: () => void;
  #held: () => Iterable<HeldCount> = () => [];
  #awayUntilMs = 0;
  #processes = 1;

  constructor(options: SharedLimitsOptions) {
    this.#options = options;
    this.#client = options.client;
    this.#ids = new OwnedIdBuckets(options.client, options.ownedIdDays);
    this.#beat = setInterval(() => this.#say(), BEAT_MS).unref();
    this.#stopListening = options.client.onEpoch(() => this.#say());
    this.#say();
  }

  get processes(): number {
    return this.#processes;
  }

  async allot(
    tenantId: string,
    name: CountedLimit,
    wanted: number,
    limit: number,
  ): Promise<number | undefined> {
    return this.#ask(() => this.#allot(tenantId, name, wanted, limit, -1));
  }

  giveBack(tenantId: string, name: CountedLimit, places: number): void {
    // What is lost is told again with the next beat.
    this.#allot(tenantId, name, -places, 0, -1).catch(() => {});
  }

  keep(held: () => Iterable<HeldCount>): void {
    this.#held = held;
  }

  async charge(tenantId: string, charges: readonly WindowCharge[]): Promise<WindowAnswer | undefined> {
    const answers = await this.#ask(() =>
      Promise.all(charges.map((charge) => this.#consume(tenantId, charge))),
    );
    if (answers === undefined) return undefined;
    const full = answers.findIndex(({ fits }) => !fits);
    if (full < 0) {
      const of = (value: 'endsAtMs' | 'used') =>
        Object.fromEntries(answers.map((answer, at) => [charges[at]?.name, answer[value]]));
      return { kind: 'taken', endsAtMs: of('endsAtMs'), used: of('used') };
    }
    // The library counts what it refuses.
    charges.forEach((charge, at) => {
      const { points } = charge;
      this.adjust(tenantId, { ...charge, points: -points }, answers[at]?.endsAtMs);
    });
    const waitMs = Math.max(1, (answers[full]?.endsAtMs ?? 0) - Date.now());
    const { name, limit, points } = charges[full] as WindowCharge;
    const left = Math.max(0, limit - ((answers[full]?.used ?? 0) - points));
    return { kind: 'full', name, waitMs, left };
  }

  adjust(tenantId: string, charge: WindowCharge, endsAtMs: number | undefined): void {
    const { points } = charge;
    const limiter = this.#limiter(charge);
    if (points > 0) return void limiter.penalty(tenantId, points).catch(() => {});
    if (points === 0 || endsAtMs === undefined || Date.now() > endsAtMs - WINDOW_MARGIN_MS) return;
    limiter.reward(tenantId, -points).catch(() => {});
  }

  remember(tenantId: string, responseId: string): void {
    this.#ids.add(tenantId, responseId);
  }

  async knows(tenantIds: readonly string[], responseId: string): Promise<boolean> {
    const looks = () => Promise.all(tenantIds.map((tenantId) => this.#ids.has(tenantId, responseId)));
    return (await this.#ask(looks))?.includes(true) ?? false;
  }

  async forget(tenantId: string): Promise<void> {
    await this.#ids.forget(tenantId);
  }

  async close(): Promise<void> {
    clearInterval(this.#beat);
    this.#stopListening();
    const going = this.#sayBeat(0).catch(() => {});
    await Promise.all([going, this.#ids.flush(), ...this.#sayHeld('nothing')]);
  }

  /** Undefined: no answer. Then nobody is kept waiting for the next one for a while. */
  async #ask<T>(command: () => Promise<T>): Promise<T | undefined> {
    if (this.#client.ready && performance.now() >= this.#awayUntilMs) {
      try {
        return await command();
      } catch {
        this.#awayUntilMs = performance.now() + AWAY_MS;
      }
    }
    this.#options.onAlone?.();
    return undefined;
  }

  async #allot(
    tenantId: string,
    name: CountedLimit,
    wanted: number,
    limit: number,
    held: number,
  ): Promise<number> {
    const key = this.#client.key(`places:${name}:${tenantId}`);
    const args = [this.#options.processId, wanted, limit, LIFETIME_MS, held].map(String);
    return Number(await this.#eval(ALLOT, key, args));
  }

  async #consume(
    tenantId: string,
    charge: WindowCharge,
  ): Promise<{ readonly fits: boolean; readonly endsAtMs: number; readonly used: number }> {
    const until = ({ msBeforeNext }: RateLimiterRes) => Date.now() + msBeforeNext;
    try {
      const answer = await this.#limiter(charge).consume(tenantId, charge.points);
      return { fits: true, endsAtMs: until(answer), used: answer.consumedPoints };
    } catch (refusal) {
      // What is no error is the library's answer.
      if (refusal instanceof Error) throw refusal;
      const answer = refusal as RateLimiterRes;
      return { fits: false, endsAtMs: until(answer), used: answer.consumedPoints };
    }
  }

  /** Tenants with one limit share a limiter; the windows are theirs. */
  #limiter({ name, seconds, limit }: WindowCharge): RateLimiterRedis {
    const id = `${name}:${limit}`;
    const known = this.#limiters.get(id);
    if (known !== undefined) return known;
    const limiter = new RateLimiterRedis({
      storeClient: {
        eval: (script: string, call: EvalCall) => this.#eval(script, call.keys[0], call.arguments),
      },
      useRedisPackage: true,
      keyPrefix: this.#client.key(`window:${name}`),
      points: limit,
      duration: seconds,
    });
    this.#limiters.set(id, limiter);
    return limiter;
  }

  #eval(script: string, key: string, args: readonly string[]): Promise<unknown> {
    const { timeoutMs } = this.#options;
    return this.#client.command(key, ['EVAL', script, '1', key, ...args], { timeoutMs });
  }

  #say(): void {
    void this.#sayBeat(LIFETIME_MS).catch(() => {});
    void Promise.all(this.#sayHeld('held'));
  }

  async #sayBeat(lifetimeMs: number): Promise<void> {
    const key = this.#client.key('processes');
    const count = await this.#eval(BEAT, key, [this.#options.processId, String(lifetimeMs)]);
    this.#processes = Math.max(1, Number(count));
  }

  #sayHeld(what: 'held' | 'nothing'): Promise<unknown>[] {
    return Array.from(this.#held(), ({ tenantId, name, held }) =>
      this.#allot(tenantId, name, 0, 0, what === 'held' ? held : 0).catch(() => {}),
    );
  }
}

interface EvalCall {
  readonly keys: readonly [string];
  readonly arguments: readonly string[];
}
