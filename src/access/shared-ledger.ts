import type { GatewayError } from '../errors.ts';
import {
  type CountedLimit,
  limitExceeded,
  type RateLimit,
  RETRY_COUNTED_MS,
  SECONDS,
  type TokenHold,
  Window,
} from './limits.ts';
import type { LimitName, Limits } from './options.ts';
import type { HeldCount, Reservation, SharedLimits, WindowCharge } from './types.ts';

/** Above 64 times this share of a limit, a process takes several places at once: a limit may stay that much unused. */
const CHUNK_SHARE = 1 / 64;

const COUNTED: readonly CountedLimit[] = ['sessions', 'lanes', 'turnsInFlight'];
const RATES: readonly RateLimit[] = ['turnsPerMinute', 'tokensPerMinute', 'tokensPerDay'];

/**
 * What one tenant uses of its limits over all processes. A place is taken before the work is admitted, since others
 * have to be asked; without an answer this process goes on with its part of the limit.
 */
export class SharedLedger {
  readonly #tenantId: string;
  readonly #limits: Limits;
  readonly #shared: SharedLimits;
  readonly #counts: ReadonlyMap<CountedLimit, SharedCount>;
  /** For times without an answer. */
  readonly #local = new Map<RateLimit, Window>();

  constructor(tenantId: string, limits: Limits, shared: SharedLimits) {
    this.#tenantId = tenantId;
    this.#limits = limits;
    this.#shared = shared;
    this.#counts = new Map(
      COUNTED.flatMap((name) => {
        const limit = limits[name];
        return limit === undefined || limit === null
          ? []
          : [[name, new SharedCount(tenantId, name, limit, shared)] as const];
      }),
    );
  }

  reserveSession(): Place | Promise<Place> {
    return this.#reserve(['sessions'], []);
  }

  /** `tokens` is the guess that the turn is held for. */
  reserveTurn(tokens: number, newLane: boolean): Place | Promise<Place> {
    // A guess above a window's limit holds the whole window: such a turn runs when nothing else did.
    const charges = this.#charges(tokens).map((each) => ({
      ...each,
      points: Math.min(each.points, each.limit),
    }));
    return this.#reserve(newLane ? ['lanes', 'turnsInFlight'] : ['turnsInFlight'], charges);
  }

  /** Counts what nobody was asked for, as a session that comes from another process. Never refused. */
  force(name: CountedLimit): void {
    this.#counts.get(name)?.force();
  }

  give(name: CountedLimit): void {
    this.#counts.get(name)?.give();
  }

  /** Tokens that no turn holds. */
  spend(tokens: number): void {
    for (const charge of this.#charges(tokens)) {
      if (charge.name !== 'turnsPerMinute') this.#shared.adjust(this.#tenantId, charge, undefined);
    }
  }

  /** What this process holds, for those who count for all. */
  *held(): Iterable<HeldCount> {
    for (const count of this.#counts.values()) yield* count.held();
  }

  close(): void {
    for (const window of this.#local.values()) window.close();
  }

  #charges(tokens: number): WindowCharge[] {
    return RATES.flatMap((name): WindowCharge[] => {
      const limit = this.#limits[name];
      if (limit === undefined || limit === null) return [];
      const points = name === 'turnsPerMinute' ? 1 : Math.ceil(tokens);
      return points > 0 ? [{ name, seconds: SECONDS[name], points, limit }] : [];
    });
  }

  #reserve(names: readonly CountedLimit[], charges: readonly WindowCharge[]): Place | Promise<Place> {
    const taken: CountedLimit[] = [];
    for (const name of names) {
      const count = this.#counts.get(name);
      if (count?.tryTake() === false) return this.#reserveSlowly(names, taken, charges);
      taken.push(name);
    }
    if (charges.length > 0) return this.#reserveSlowly(names, taken, charges);
    return new Place(this, taken, undefined, undefined);
  }

  async #reserveSlowly(
    names: readonly CountedLimit[],
    taken: CountedLimit[],
    charges: readonly WindowCharge[],
  ): Promise<Place> {
    for (const name of names.slice(taken.length)) {
      const count = this.#counts.get(name);
      if (count !== undefined && !(await count.take())) {
        return this.#refused(taken, name, RETRY_COUNTED_MS);
      }
      taken.push(name);
    }
    if (charges.length === 0) return new Place(this, taken, undefined, undefined);
    const answer = await this.#shared.charge(this.#tenantId, charges);
    if (answer === undefined) return this.#chargeLocally(taken, charges);
    if (answer.kind === 'full') return this.#refused(taken, answer.name, answer.waitMs);
    const holds = charges.map((charge) => this.#sharedHold(charge, answer.endsAtMs[charge.name]));
    return new Place(this, taken, undefined, split(charges, holds));
  }

  #chargeLocally(taken: readonly CountedLimit[], charges: readonly WindowCharge[]): Place {
    const windows = charges.map(({ name, limit }) => this.#localWindow(name, limit));
    for (const [at, window] of windows.entries()) {
      const { name, points } = charges[at] as WindowCharge;
      const waitMs = window.waitFor(Math.min(points, window.limit));
      if (waitMs !== undefined) return this.#refused(taken, name, waitMs);
    }
    const holds = windows.map((window, at) => window.hold((charges[at] as WindowCharge).points));
    return new Place(this, taken, undefined, split(charges, holds));
  }

  #localWindow(name: RateLimit, limit: number): Window {
    const part = Math.max(1, Math.floor(limit / this.#shared.processes));
    const known = this.#local.get(name);
    if (known !== undefined) {
      known.limit = part;
      return known;
    }
    const window = new Window(part, SECONDS[name]);
    this.#local.set(name, window);
    return window;
  }

  #sharedHold(charge: WindowCharge, endsAtMs: number | undefined): TokenHold {
    let held = charge.points;
    // Without an answer later on, this process has had this much of its part already.
    const own = this.#localWindow(charge.name, charge.limit).hold(held);
    const adjust = (by: number): void => {
      held += by;
      if (by !== 0) this.#shared.adjust(this.#tenantId, { ...charge, points: by }, endsAtMs);
    };
    return {
      settle: (actual) => {
        own.settle(Math.ceil(actual));
        adjust(Math.ceil(actual) - held);
      },
      add: (more) => {
        own.add(Math.ceil(more));
        adjust(Math.ceil(more));
      },
    };
  }

  #refused(taken: readonly CountedLimit[], name: LimitName, waitMs: number): Place {
    for (const each of taken) this.give(each);
    const error = limitExceeded('tenant', name, this.#limits[name] ?? 0, waitMs);
    return new Place(this, [], error, undefined);
  }
}

/** The turn's own window apart from those of its tokens, whose holds are settled later. */
function split(charges: readonly WindowCharge[], holds: readonly TokenHold[]): Holds {
  const of = (isTurns: boolean) =>
    holds.filter((_, at) => (charges[at]?.name === 'turnsPerMinute') === isTurns);
  return { turns: of(true), tokens: of(false) };
}

interface Holds {
  readonly turns: readonly TokenHold[];
  readonly tokens: readonly TokenHold[];
}

/** Places that were reserved together, or why there are none. */
export class Place implements Reservation {
  readonly refusal: GatewayError | undefined;
  readonly #ledger: SharedLedger;
  readonly #holds: Holds;
  readonly #names: Set<CountedLimit>;

  constructor(
    ledger: SharedLedger,
    names: readonly CountedLimit[],
    refusal: GatewayError | undefined,
    holds: Holds | undefined,
  ) {
    this.#ledger = ledger;
    this.#names = new Set(names);
    this.refusal = refusal;
    this.#holds = holds ?? { turns: [], tokens: [] };
  }

  /** Whoever takes it gives it back by itself. Throws the refusal. */
  take(name: CountedLimit): void {
    if (this.refusal !== undefined) throw this.refusal;
    if (!this.#names.delete(name)) this.#ledger.force(name);
  }

  get tokens(): readonly TokenHold[] {
    return this.#holds.tokens;
  }

  /** The turn never ran. */
  uncountTurn(): void {
    for (const hold of this.#holds.turns) hold.settle(0);
  }

  release(): void {
    if (this.#names.has('turnsInFlight')) {
      this.uncountTurn();
      for (const hold of this.#holds.tokens) hold.settle(0);
    }
    for (const name of this.#names) this.#ledger.give(name);
    this.#names.clear();
  }
}

/** One counted limit of one tenant: places that this process holds, and asks for more of. */
class SharedCount {
  readonly #tenantId: string;
  readonly #name: CountedLimit;
  readonly #limit: number;
  readonly #shared: SharedLimits;
  readonly #chunk: number;
  #used = 0;
  #held = 0;
  #asking: Promise<number | undefined> | undefined;
  #waiting = 0;

  constructor(tenantId: string, name: CountedLimit, limit: number, shared: SharedLimits) {
    this.#tenantId = tenantId;
    this.#name = name;
    this.#limit = limit;
    this.#shared = shared;
    this.#chunk = Math.max(1, Math.floor(limit * CHUNK_SHARE));
  }

  /** False: others have to be asked. */
  tryTake(): boolean {
    if (this.#used >= this.#held) return false;
    this.#used += 1;
    return true;
  }

  async take(): Promise<boolean> {
    while (!this.tryTake()) {
      this.#waiting += 1;
      const given = await this.#ask();
      this.#waiting -= 1;
      if (given === undefined) return this.#takeLocally();
      if (given === 0 && this.#used >= this.#held) return false;
    }
    return true;
  }

  force(): void {
    this.#used += 1;
  }

  give(): void {
    this.#used -= 1;
    const spare = this.#held - this.#used;
    const keep = this.#chunk === 1 ? 0 : this.#chunk;
    if (spare <= 2 * keep) return;
    this.#held -= spare - keep;
    this.#shared.giveBack(this.#tenantId, this.#name, spare - keep);
  }

  /** Nothing while an answer is on its way: it would change what is told. */
  *held(): Iterable<HeldCount> {
    if (this.#asking !== undefined) return;
    // What was taken without an answer counts from now on.
    this.#held = Math.max(this.#held, this.#used);
    if (this.#held > 0) yield { tenantId: this.#tenantId, name: this.#name, held: this.#held };
  }

  /** Those who wait meanwhile share the answer. */
  #ask(): Promise<number | undefined> {
    this.#asking ??= this.#shared
      .allot(this.#tenantId, this.#name, Math.max(this.#chunk, this.#waiting), this.#limit)
      .then((given) => {
        this.#held += given ?? 0;
        return given;
      })
      .finally(() => {
        this.#asking = undefined;
      });
    return this.#asking;
  }

  #takeLocally(): boolean {
    if (this.#used >= Math.max(1, Math.floor(this.#limit / this.#shared.processes))) return false;
    this.#used += 1;
    return true;
  }
}
