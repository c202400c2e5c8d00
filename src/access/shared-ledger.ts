import type { GatewayError } from '../errors.ts';
import {
  type CountedLimit,
  isBudget,
  isLow,
  limitExceeded,
  lowOf,
  NOTHING,
  type PointHold,
  pointsOf,
  RATE_NAMES,
  RATES,
  type RateLimit,
  RETRY_COUNTED_MS,
  type UseHold,
  useHold,
  Window,
} from './limits.ts';
import type { LimitName, Limits } from './options.ts';
import type { BudgetLow, HeldCount, Reservation, SharedLimits, Use, WindowCharge } from './types.ts';

/** Above 64 times this share of a limit, a process takes several places at once: a limit may stay that much unused. */
const CHUNK_SHARE = 1 / 64;
/** Ends of one window differ by less, whichever process works them out. */
const SAME_WINDOW_MS = 60_000;

const COUNTED: readonly CountedLimit[] = ['sessions', 'lanes', 'turnsInFlight'];

/**
 * What one tenant uses of its limits over all processes. A place is taken before the work is admitted, since others
 * have to be asked; without an answer this process goes on with its part of the limit.
 */
export class SharedLedger {
  readonly #tenantId: string;
  readonly #shared: SharedLimits;
  readonly #counts: ReadonlyMap<CountedLimit, SharedCount>;
  #limits: Limits;
  /** For times without an answer. */
  readonly #local = new Map<RateLimit, Window>();
  /** Ends of the windows of which it was told that they are nearly used up. */
  readonly #lowTold = new Map<RateLimit, number>();
  #low: BudgetLow[] = [];

  constructor(tenantId: string, limits: Limits, shared: SharedLimits) {
    this.#tenantId = tenantId;
    this.#limits = limits;
    this.#shared = shared;
    this.#counts = new Map(
      COUNTED.map((name) => [name, new SharedCount(tenantId, name, limits[name] ?? undefined, shared)]),
    );
  }

  /** What is used stays used. */
  setLimits(limits: Limits): void {
    this.#limits = limits;
    for (const [name, count] of this.#counts) count.setLimit(limits[name] ?? undefined);
  }

  reserveSession(): Place | Promise<Place> {
    return this.#reserve(['sessions'], []);
  }

  /** `guess` is what the turn is held for. */
  reserveTurn(guess: Use, newLane: boolean): Place | Promise<Place> {
    // A guess above a window's limit holds the whole window: such a turn runs when nothing else did.
    const charges = this.#charges(guess).map((each) => ({
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

  /** Windows of which this process saw that they are nearly used up; each is told once. */
  takeLow(): readonly BudgetLow[] {
    if (this.#low.length === 0) return [];
    const low = this.#low;
    this.#low = [];
    return low;
  }

  /** What no turn holds. */
  spend(use: Use): void {
    for (const charge of this.#charges(use)) {
      if (charge.name !== 'turnsPerMinute') this.#shared.adjust(this.#tenantId, charge, undefined);
    }
  }

  /** What this process holds, for those who count for all. */
  *held(): Iterable<HeldCount> {
    for (const count of this.#counts.values()) yield* count.held();
  }

  #charges(use: Use): WindowCharge[] {
    return RATE_NAMES.flatMap((name): WindowCharge[] => {
      const limit = this.#limits[name];
      if (limit === undefined || limit === null) return [];
      const points = pointsOf(name, use);
      return points > 0 ? [{ name, seconds: RATES[name].seconds, points, limit }] : [];
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
    if (answer.kind === 'full') return this.#refused(taken, answer.name, answer.waitMs, answer.left);
    for (const charge of charges)
      this.#noteLow(charge, answer.used?.[charge.name], answer.endsAtMs[charge.name]);
    const holds = charges.map((charge) => this.#sharedHold(charge, answer.endsAtMs[charge.name]));
    return new Place(this, taken, undefined, split(charges, holds));
  }

  #chargeLocally(taken: readonly CountedLimit[], charges: readonly WindowCharge[]): Place {
    const windows = charges.map(({ name, limit }) => this.#localWindow(name, limit));
    for (const [at, window] of windows.entries()) {
      const { name, points } = charges[at] as WindowCharge;
      const waitMs = window.waitFor(Math.min(points, window.limit));
      if (waitMs !== undefined) return this.#refused(taken, name, waitMs, window.left);
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
    const window = new Window(part, RATES[name].seconds);
    this.#local.set(name, window);
    return window;
  }

  #noteLow({ name, limit }: WindowCharge, used = 0, endsAtMs = 0): void {
    // Windows are told apart by their ends, of which each process has its own idea.
    const last = this.#lowTold.get(name) ?? 0;
    if (!isBudget(name) || !isLow(used, limit) || endsAtMs - last < SAME_WINDOW_MS) return;
    this.#lowTold.set(name, endsAtMs);
    this.#low.push(lowOf(name, used, limit));
  }

  #sharedHold(charge: WindowCharge, endsAtMs: number | undefined): PointHold {
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

  #refused(
    taken: readonly CountedLimit[],
    name: LimitName,
    waitMs: number,
    left?: number | undefined,
  ): Place {
    for (const each of taken) this.give(each);
    const error = limitExceeded('tenant', name, this.#limits[name] ?? 0, waitMs, left);
    return new Place(this, [], error, undefined);
  }
}

/** The turn's own window apart from those of what it uses, whose holds are settled later. */
function split(charges: readonly WindowCharge[], holds: readonly PointHold[]): Holds {
  const turns: PointHold[] = [];
  const uses: UseHold[] = [];
  for (const [at, hold] of holds.entries()) {
    const { name } = charges[at] as WindowCharge;
    if (name === 'turnsPerMinute') turns.push(hold);
    else uses.push(useHold(name, hold));
  }
  return { turns, uses };
}

interface Holds {
  readonly turns: readonly PointHold[];
  readonly uses: readonly UseHold[];
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
    this.#holds = holds ?? { turns: [], uses: [] };
  }

  /** Whoever takes it gives it back by itself. Throws the refusal. */
  take(name: CountedLimit): void {
    if (this.refusal !== undefined) throw this.refusal;
    if (!this.#names.delete(name)) this.#ledger.force(name);
  }

  get uses(): readonly UseHold[] {
    return this.#holds.uses;
  }

  /** The turn never ran. */
  uncountTurn(): void {
    for (const hold of this.#holds.turns) hold.settle(0);
  }

  release(): void {
    if (this.#names.has('turnsInFlight')) {
      this.uncountTurn();
      for (const hold of this.#holds.uses) hold.settle(NOTHING);
    }
    for (const name of this.#names) this.#ledger.give(name);
    this.#names.clear();
  }
}

/** One counted limit of one tenant: places that this process holds, and asks for more of. */
class SharedCount {
  readonly #tenantId: string;
  readonly #name: CountedLimit;
  readonly #shared: SharedLimits;
  /** Undefined: there is none. What is used is counted all the same, for when there is one. */
  #limit: number | undefined;
  #used = 0;
  #held = 0;
  #asking: Promise<number | undefined> | undefined;
  #waiting = 0;

  constructor(tenantId: string, name: CountedLimit, limit: number | undefined, shared: SharedLimits) {
    this.#tenantId = tenantId;
    this.#name = name;
    this.#limit = limit;
    this.#shared = shared;
  }

  /** Places that wait here were given under the old limit. */
  setLimit(limit: number | undefined): void {
    if (limit === this.#limit) return;
    this.#limit = limit;
    const spare = this.#held - this.#used;
    if (spare <= 0) return;
    this.#held -= spare;
    this.#shared.giveBack(this.#tenantId, this.#name, spare);
  }

  get #chunk(): number {
    return Math.max(1, Math.floor((this.#limit ?? 0) * CHUNK_SHARE));
  }

  /** False: others have to be asked. */
  tryTake(): boolean {
    if (this.#limit !== undefined && this.#used >= this.#held) return false;
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
    if (this.#asking !== undefined || this.#limit === undefined) return;
    // What was taken without an answer counts from now on.
    this.#held = Math.max(this.#held, this.#used);
    if (this.#held > 0) yield { tenantId: this.#tenantId, name: this.#name, held: this.#held };
  }

  /** Those who wait meanwhile share the answer. */
  #ask(): Promise<number | undefined> {
    this.#asking ??= this.#shared
      .allot(
        this.#tenantId,
        this.#name,
        Math.max(this.#chunk, this.#waiting),
        this.#limit ?? Number.MAX_SAFE_INTEGER,
      )
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
    const limit = this.#limit ?? Number.POSITIVE_INFINITY;
    if (this.#used >= Math.max(1, Math.floor(limit / this.#shared.processes))) return false;
    this.#used += 1;
    return true;
  }
}
