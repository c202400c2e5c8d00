import { Window } from '../access/limits.ts';
import { DEFAULT_OWNED_ID_BYTES } from '../access/options.ts';
import { OwnedIds } from '../access/ownership.ts';
import type { CountedLimit, SharedLimits, WindowAnswer, WindowCharge } from '../access/types.ts';
import type { KeyedCalls } from '../store/types.ts';
import { HostKeys, type KeysAnswer, type KeysCall, workerKeys } from './host-keys.ts';

/** What a worker asks or tells the primary about limits, ids and keys. */
export type LimitsCall =
  | {
      readonly what: 'allot';
      readonly tenantId: string;
      readonly name: CountedLimit;
      readonly wanted: number;
      readonly limit: number;
    }
  | {
      readonly what: 'giveBack';
      readonly tenantId: string;
      readonly name: CountedLimit;
      readonly places: number;
    }
  | { readonly what: 'charge'; readonly tenantId: string; readonly charges: readonly WindowCharge[] }
  | {
      readonly what: 'adjust';
      readonly tenantId: string;
      readonly charge: WindowCharge;
      readonly endsAtMs: number | undefined;
    }
  | { readonly what: 'remember'; readonly ids: readonly (readonly [tenantId: string, id: string])[] }
  | { readonly what: 'knows'; readonly tenantIds: readonly string[]; readonly id: string }
  | { readonly what: 'keys'; readonly call: KeysCall };

/** Limits, response ids and idempotency keys of the workers of one machine, kept by their primary. */
export class HostLimits {
  readonly #maxOwnedIdBytes: number;
  /** By limit and tenant, then by worker. */
  readonly #places = new Map<string, Map<number, number>>();
  readonly #windows = new Map<string, Window>();
  readonly #owned = new Map<string, OwnedIds>();
  readonly #keys = new HostKeys(() => performance.now());

  constructor(maxOwnedIdBytes = DEFAULT_OWNED_ID_BYTES) {
    this.#maxOwnedIdBytes = maxOwnedIdBytes;
  }

  answer(workerId: number, call: LimitsCall): number | boolean | WindowAnswer | KeysAnswer | undefined {
    switch (call.what) {
      case 'allot': {
        const places = this.#placesOf(call.name, call.tenantId);
        const held = [...places.values()].reduce((sum, each) => sum + each, 0);
        const given = Math.max(0, Math.min(call.wanted, call.limit - held));
        places.set(workerId, (places.get(workerId) ?? 0) + given);
        return given;
      }
      case 'giveBack': {
        const places = this.#placesOf(call.name, call.tenantId);
        places.set(workerId, Math.max(0, (places.get(workerId) ?? 0) - call.places));
        return undefined;
      }
      case 'charge':
        return this.#charge(call.tenantId, call.charges);
      case 'adjust': {
        const { charge, endsAtMs } = call;
        const window = this.#windowOf(call.tenantId, charge);
        if (charge.points > 0) window.add(charge.points);
        else if (window.endsAtMs === endsAtMs) window.takeBack(-charge.points);
        return undefined;
      }
      case 'remember':
        for (const [tenantId, id] of call.ids) this.#ownedBy(tenantId).add(id);
        return undefined;
      case 'knows':
        return call.tenantIds.some((tenantId) => this.#owned.get(tenantId)?.knows(call.id) === true);
      case 'keys':
        return this.#keys.answer(workerId, call.call);
    }
  }

  /** The worker has died: what it held is free. */
  forget(workerId: number): void {
    for (const places of this.#places.values()) places.delete(workerId);
    this.#keys.forget(workerId);
  }

  #charge(tenantId: string, charges: readonly WindowCharge[]): WindowAnswer {
    const windows = charges.map((charge) => this.#windowOf(tenantId, charge));
    for (const [at, { name, points }] of charges.entries()) {
      const waitMs = windows[at]?.waitFor(points);
      if (waitMs !== undefined) return { kind: 'full', name, waitMs, left: windows[at]?.left };
    }
    for (const [at, { points }] of charges.entries()) windows[at]?.add(points);
    const of = <T>(read: (window: Window | undefined) => T) =>
      Object.fromEntries(charges.map(({ name }, at) => [name, read(windows[at])]));
    return {
      kind: 'taken',
      endsAtMs: of((window) => window?.endsAtMs),
      used: of((window) => window?.used()),
    };
  }

  #placesOf(name: CountedLimit, tenantId: string): Map<number, number> {
    return entry(this.#places, `${name} ${tenantId}`, () => new Map());
  }

  #windowOf(tenantId: string, { name, limit, seconds }: WindowCharge): Window {
    return entry(this.#windows, `${name} ${tenantId}`, () => new Window(limit, seconds));
  }

  #ownedBy(tenantId: string): OwnedIds {
    return entry(this.#owned, tenantId, () => new OwnedIds(this.#maxOwnedIdBytes));
  }
}

/** The primary only passes messages on; one that does not answer for so long stands still. */
const ANSWER_TIMEOUT_MS = 1_000;

/** A worker's side of it. `tell` sends to the primary; what it answers is given to `answered`. */
export class WorkerLimits implements SharedLimits {
  readonly processes: number;
  readonly #tell: (id: number, call: LimitsCall) => void;
  readonly #waiting = new Map<number, (value: unknown) => void>();
  #ids: (readonly [string, string])[] = [];
  #calls = 0;

  constructor(processes: number, tell: (id: number, call: LimitsCall) => void) {
    this.processes = processes;
    this.#tell = tell;
  }

  /** Idempotency keys over the workers. */
  readonly keyedCalls: KeyedCalls = workerKeys({
    ask: (call) => this.#ask({ what: 'keys', call }),
    say: (call) => this.#say({ what: 'keys', call }),
  });

  answered(id: number, value: unknown): void {
    this.#waiting.get(id)?.(value);
  }

  async allot(
    tenantId: string,
    name: CountedLimit,
    wanted: number,
    limit: number,
  ): Promise<number | undefined> {
    return (await this.#ask({ what: 'allot', tenantId, name, wanted, limit })) as number | undefined;
  }

  giveBack(tenantId: string, name: CountedLimit, places: number): void {
    this.#say({ what: 'giveBack', tenantId, name, places });
  }

  /** Messages between processes of one machine are not lost. */
  keep(): void {}

  async charge(tenantId: string, charges: readonly WindowCharge[]): Promise<WindowAnswer | undefined> {
    return (await this.#ask({ what: 'charge', tenantId, charges })) as WindowAnswer | undefined;
  }

  adjust(tenantId: string, charge: WindowCharge, endsAtMs: number | undefined): void {
    this.#say({ what: 'adjust', tenantId, charge, endsAtMs });
  }

  remember(tenantId: string, responseId: string): void {
    if (this.#ids.push([tenantId, responseId]) === 1) setImmediate(() => this.#sayIds());
  }

  async knows(tenantIds: readonly string[], id: string): Promise<boolean> {
    return (await this.#ask({ what: 'knows', tenantIds, id })) === true;
  }

  #sayIds(): void {
    const ids = this.#ids;
    this.#ids = [];
    this.#say({ what: 'remember', ids });
  }

  #say(call: LimitsCall): void {
    this.#calls += 1;
    this.#tell(this.#calls, call);
  }

  #ask(call: LimitsCall): Promise<unknown> {
    this.#say(call);
    const id = this.#calls;
    return new Promise((resolve) => {
      const done = (value: unknown): void => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        resolve(value);
      };
      const timer = setTimeout(done, ANSWER_TIMEOUT_MS, undefined);
      this.#waiting.set(id, done);
    });
  }
}

function entry<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}
