/**
 * Latencies as counts of classes that grow by a quarter, from a millisecond to a quarter of an hour. Counts of several
 * processes and seconds add up, which percentiles do not; a percentile read from them is at most an eighth off.
 */

const FIRST_MS = 1;
const GROWTH = 1.25;
const LOG_GROWTH = Math.log(GROWTH);
/** The last class holds all that is longer. */
export const LATENCY_CLASSES = 62;

/** Class and count, one after the other: most seconds have seen few classes. */
export type Latencies = readonly number[];

export function latencyClass(ms: number): number {
  if (ms <= FIRST_MS) return 0;
  return Math.min(LATENCY_CLASSES - 1, Math.ceil(Math.log(ms / FIRST_MS) / LOG_GROWTH));
}

/** The middle of a class, in milliseconds. */
function classMs(index: number): number {
  return index === 0 ? FIRST_MS / 2 : FIRST_MS * GROWTH ** (index - 0.5);
}

/** Undefined: nothing was counted. */
export function percentileMs(latencies: Latencies, share: number): number | undefined {
  let total = 0;
  for (let at = 1; at < latencies.length; at += 2) total += latencies[at] ?? 0;
  if (total === 0) return undefined;
  let left = share * total;
  for (let at = 0; at < latencies.length; at += 2) {
    left -= latencies[at + 1] ?? 0;
    if (left <= 0) return classMs(latencies[at] ?? 0);
  }
  return classMs(latencies.at(-2) ?? 0);
}

/** In the order of classes. */
export function sumLatencies(all: Iterable<Latencies>): Latencies {
  const counts = new LatencyCounts();
  for (const latencies of all) counts.addAll(latencies);
  return counts.take();
}

export class LatencyCounts {
  readonly #counts = new Uint32Array(LATENCY_CLASSES);
  #any = false;

  add(ms: number): void {
    const index = latencyClass(ms);
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
    this.#any = true;
  }

  addAll(latencies: Latencies): void {
    for (let at = 0; at + 1 < latencies.length; at += 2) {
      const index = latencies[at] ?? 0;
      this.#counts[index] = (this.#counts[index] ?? 0) + (latencies[at + 1] ?? 0);
      this.#any = true;
    }
  }

  /** What was counted; counting starts anew. */
  take(): Latencies {
    if (!this.#any) return NOTHING;
    const latencies: number[] = [];
    this.#counts.forEach((count, index) => {
      if (count > 0) latencies.push(index, count);
    });
    this.#counts.fill(0);
    this.#any = false;
    return latencies;
  }
}

const NOTHING: Latencies = [];
