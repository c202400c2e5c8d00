import type { TurnRecord } from '../core/types.ts';
import { short } from './entries.ts';

/** What a tenant had of a model: since the start of the process, and in the last hour. */
export interface UsageRow {
  readonly tenant: string;
  readonly model: string;
  readonly total: UsageNumbers;
  readonly lastHour: UsageNumbers;
  /** Of the price table, once a turn was priced. */
  readonly currency: string | undefined;
}

export interface UsageNumbers {
  readonly turns: number;
  readonly inputTokens: number;
  readonly cachedInputTokens: number;
  readonly outputTokens: number;
  readonly bytesSaved: number;
  /** In the row's currency; rounded as floating-point numbers are. */
  readonly cost: number;
}

const NAMES = ['turns', 'inputTokens', 'cachedInputTokens', 'outputTokens', 'bytesSaved', 'cost'] as const;
const MINUTES = 60;
const MINUTE_MS = 60_000;
/** Models are the callers' words: what comes after so many is counted together. */
const MAX_ROWS = 200;
export const OTHER_MODEL = '_OTHER';

interface Row {
  readonly tenant: string;
  readonly model: string;
  readonly total: Float64Array;
  /** One row of numbers for each minute of the last hour. */
  readonly minutes: Float64Array;
  minute: number;
  currency: string | undefined;
}

export class UsageBoard {
  readonly #rows = new Map<string, Row>();
  /** Turns in a row mostly are of one. */
  #last: Row | undefined;

  add(tenant: string, record: TurnRecord, nowMs: number): void {
    const row = this.#row(tenant, short(record.responseModel ?? record.requestModel) ?? OTHER_MODEL);
    turnTo(row, Math.floor(nowMs / MINUTE_MS));
    const { usage, cost } = record;
    const at = (row.minute % MINUTES) * NAMES.length;
    const count = (index: number, number: number) => {
      row.total[index] = (row.total[index] ?? 0) + number;
      row.minutes[at + index] = (row.minutes[at + index] ?? 0) + number;
    };
    // In the order of NAMES.
    count(0, 1);
    if (usage !== undefined) {
      count(1, usage.inputTokens);
      count(2, usage.cachedInputTokens);
      count(3, usage.outputTokens);
    }
    count(4, Math.max(0, record.fullContextBytes - record.bytesUp));
    if (cost === undefined) return;
    count(5, Number(cost.amount));
    row.currency ??= cost.currency;
  }

  rows(nowMs: number): readonly UsageRow[] {
    return Array.from(this.#rows.values(), (row) => {
      turnTo(row, Math.floor(nowMs / MINUTE_MS));
      const { tenant, model, total, minutes, currency } = row;
      return {
        tenant,
        model,
        currency,
        total: numbers((index) => total[index] ?? 0),
        lastHour: numbers((index) => {
          let sum = 0;
          for (let at = index; at < minutes.length; at += NAMES.length) sum += minutes[at] ?? 0;
          return sum;
        }),
      };
    });
  }

  #row(tenant: string, model: string): Row {
    if (this.#last?.tenant === tenant && this.#last.model === model) return this.#last;
    const row = this.#find(tenant, model);
    this.#last = row;
    return row;
  }

  #find(tenant: string, model: string): Row {
    const known = this.#rows.get(key(tenant, model));
    if (known !== undefined) return known;
    // The tenant's own row of other models is made even then: tenants are the operator's, and few.
    if (this.#rows.size >= MAX_ROWS && model !== OTHER_MODEL) return this.#find(tenant, OTHER_MODEL);
    const row: Row = {
      tenant,
      model,
      total: new Float64Array(NAMES.length),
      minutes: new Float64Array(MINUTES * NAMES.length),
      minute: 0,
      currency: undefined,
    };
    this.#rows.set(key(tenant, model), row);
    return row;
  }
}

/** Of several processes. */
export function addUsage(all: readonly (readonly UsageRow[])[]): readonly UsageRow[] {
  const sums = new Map<string, UsageRow>();
  for (const row of all.flat()) {
    const known = sums.get(key(row.tenant, row.model));
    const sum =
      known === undefined
        ? row
        : {
            ...row,
            currency: known.currency ?? row.currency,
            total: plus(known.total, row.total),
            lastHour: plus(known.lastHour, row.lastHour),
          };
    sums.set(key(row.tenant, row.model), sum);
  }
  return [...sums.values()].sort((one, other) => other.lastHour.inputTokens - one.lastHour.inputTokens);
}

/** Tenants' ids have no line breaks. */
function key(tenant: string, model: string): string {
  return `${tenant}\n${model}`;
}

function plus(one: UsageNumbers, other: UsageNumbers): UsageNumbers {
  return numbers(
    (index) => one[NAMES[index] as keyof UsageNumbers] + other[NAMES[index] as keyof UsageNumbers],
  );
}

function numbers(value: (index: number) => number): UsageNumbers {
  return Object.fromEntries(NAMES.map((name, index) => [name, value(index)])) as unknown as UsageNumbers;
}

/** Minutes that went by without a turn are empty. */
function turnTo(row: Row, minute: number): void {
  const passed = Math.min(MINUTES, minute - row.minute);
  for (let step = 0; step < passed; step += 1) {
    const at = ((minute - step) % MINUTES) * NAMES.length;
    row.minutes.fill(0, at, at + NAMES.length);
  }
  row.minute = Math.max(row.minute, minute);
}
