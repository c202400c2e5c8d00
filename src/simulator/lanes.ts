import { type ApiError, invalidStreamId, streamLimitReached } from './errors.ts';
import type { Switches } from './options.ts';
import { unsupportedParameter } from './request.ts';
import type { EndedResponse } from './steering.ts';
import type { ResponseRecord } from './store.ts';
import type { Run, Steer } from './turn.ts';

/** A lane: at most one response running, and the most recent one remembered. Its name is never freed. */
export interface Lane {
  /** Empty for the default lane. */
  readonly name: string;
  run: Run | null;
  cached: ResponseRecord | null;
  /** Accepted steers whose target waits for tool outputs from the client. */
  waiting: { targetId: string; ended: EndedResponse; steers: readonly Steer[] } | null;
}

/** The lanes of one connection and what it remembers: one most recent response each, and prompt prefixes. */
export class LaneTable {
  readonly #lanes = new Map<string, Lane>();
  readonly #prefixes = new Map<string, number>();

  /** Token counts of the contexts seen here, by their hash: the prompt cache. */
  get prefixes(): ReadonlyMap<string, number> {
    return this.#prefixes;
  }

  get(name: string): Lane | undefined {
    return this.#lanes.get(name);
  }

  /** Whether a name is new and beyond the limit. */
  limitError(name: string, maxLanes: number): ApiError | null {
    if (name === '' || this.#lanes.has(name)) return null;
    const named = this.#lanes.size - (this.#lanes.has('') ? 1 : 0);
    return named >= maxLanes ? streamLimitReached(maxLanes) : null;
  }

  open(name: string): Lane {
    const lane = this.#lanes.get(name) ?? { name, run: null, cached: null, waiting: null };
    this.#lanes.set(name, lane);
    return lane;
  }

  /** Looks through all lanes: any of them may continue from another's response. */
  cached(id: string): ResponseRecord | undefined {
    for (const lane of this.#lanes.values()) if (lane.cached?.id === id) return lane.cached;
    return undefined;
  }

  remember(lane: Lane, record: ResponseRecord): void {
    lane.cached = record;
    this.#prefixes.set(record.context.hash, record.context.tokens);
    const oldest = this.#prefixes.keys().next().value;
    if (this.#prefixes.size > MAX_PREFIXES && oldest !== undefined) this.#prefixes.delete(oldest);
  }

  /** A failed same-lane continuation drops its parent from the cache; a failed fork keeps it. */
  evict(lane: Lane, parentId: string | null, rule: Switches['evictOnError']): void {
    if (parentId === null || rule === 'never') return;
    for (const holder of rule === 'any-lane' ? this.#lanes.values() : [lane]) {
      if (holder.cached?.id === parentId) holder.cached = null;
    }
  }

  clear(): void {
    this.#lanes.clear();
    this.#prefixes.clear();
  }
}

/** The lane that a create's `stream_id` names, or the error for a name that is none. */
export function laneNameOf(given: unknown, switches: Switches): string | ApiError {
  if (given === undefined || (given === null && switches.nullStreamId === 'default-lane')) return '';
  if (!switches.lanes) return unsupportedParameter('stream_id');
  return typeof given === 'string' && LANE_NAME.test(given) ? given : invalidStreamId();
}

const LANE_NAME = /^[A-Za-z0-9_.-]{1,256}$/;
/** A prompt cache that remembers everything would be a leak, and the real one forgets too. */
const MAX_PREFIXES = 1024;
