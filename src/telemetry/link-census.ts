import type { Attributes } from '@opentelemetry/api';

/** Counts the links of all sessions by state and age, when asked. A link is named by its session and its number. */
export interface LinkCensus {
  dialing(linkId: number, owner: object): void;
  opened(linkId: number, owner: object): void;
  closed(linkId: number, owner: object): void;
  forget(owner: object): void;
  count(): Iterable<readonly [number, Attributes]>;
}

interface Entry {
  open: boolean;
  sinceMs: number;
}

const MINUTE_MS = 60_000;
// The upstream ends a link at 60 minutes; rotation should have replaced it before the last class is reached.
const AGES = [
  { label: 'lt_1m', belowMs: MINUTE_MS },
  { label: 'lt_10m', belowMs: 10 * MINUTE_MS },
  { label: 'lt_30m', belowMs: 30 * MINUTE_MS },
  { label: 'lt_55m', belowMs: 55 * MINUTE_MS },
  { label: 'ge_55m', belowMs: Number.POSITIVE_INFINITY },
] as const;
const STATES = ['connecting', 'open'] as const;

export function createLinkCensus(nowMs: () => number = () => performance.now()): LinkCensus {
  const owners = new Map<object, Map<number, Entry>>();

  function enter(linkId: number, owner: object, open: boolean): void {
    const links = owners.get(owner) ?? new Map<number, Entry>();
    owners.set(owner, links.set(linkId, { open, sinceMs: nowMs() }));
  }

  return {
    dialing: (linkId, owner) => enter(linkId, owner, false),
    opened: (linkId, owner) => enter(linkId, owner, true),
    closed(linkId, owner) {
      const links = owners.get(owner);
      links?.delete(linkId);
      if (links?.size === 0) owners.delete(owner);
    },
    forget: (owner) => void owners.delete(owner),
    count() {
      const now = nowMs();
      // Every class is told every time, so that one which empties reads zero instead of its last number.
      const counts = STATES.map(() => AGES.map(() => 0));
      for (const links of owners.values()) {
        for (const { open, sinceMs } of links.values()) {
          const row = counts[open ? 1 : 0];
          const age = AGES.findIndex(({ belowMs }) => now - sinceMs < belowMs);
          if (row !== undefined) row[age] = (row[age] ?? 0) + 1;
        }
      }
      return STATES.flatMap((state, row) =>
        AGES.map(({ label }, age) => [counts[row]?.[age] ?? 0, { state: state, age: label }] as const),
      );
    },
  };
}
