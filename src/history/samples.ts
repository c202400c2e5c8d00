import { type Latencies, LatencyCounts, sumLatencies } from './latency.ts';

/** What is so at the end of a second. */
export const GAUGES = [
  'sessions',
  'attachedStreams',
  'turnsRunning',
  'lanes',
  'links',
  'eventLoopShare',
  'rssBytes',
] as const;
/** What has happened in a second. */
export const COUNTS = [
  'turnsStarted',
  'completed',
  'incomplete',
  'failed',
  'cancelled',
  'deadlineExceeded',
  'refusals',
  'inputTokens',
  'cachedInputTokens',
  'outputTokens',
  'bytesUp',
  'bytesSaved',
  'recoveries',
  'rotations',
  'replays',
  'resumes',
] as const;

export type GaugeName = (typeof GAUGES)[number];
export type CountName = (typeof COUNTS)[number];

/** One second, or several as one: gauges of the last of them, counts of all. Those of several processes add up. */
export interface Sample {
  /** The second's end, in seconds since the epoch. */
  readonly atS: number;
  readonly spanS: number;
  readonly gauges: Readonly<Record<GaugeName, number>>;
  readonly counts: Readonly<Record<CountName, number>>;
  /** From a turn's acceptance to its first output. */
  readonly firstToken: Latencies;
  /** From a turn's acceptance to its first send. */
  readonly queue: Latencies;
}

/** Of several processes at the same time. */
export function addSamples(samples: readonly Sample[]): Sample | undefined {
  const [first] = samples;
  if (first === undefined) return undefined;
  return {
    atS: Math.max(...samples.map(({ atS }) => atS)),
    spanS: Math.max(...samples.map(({ spanS }) => spanS)),
    gauges: {
      ...sum(
        GAUGES,
        samples.map(({ gauges }) => gauges),
      ),
      // Of the busiest: a share of several loops says nothing.
      eventLoopShare: Math.max(...samples.map(({ gauges }) => gauges.eventLoopShare)),
    },
    ...added(samples),
  };
}

/** What adds up, over processes and over seconds alike. */
function added(samples: readonly Sample[]): Pick<Sample, 'counts' | 'firstToken' | 'queue'> {
  return {
    counts: sum(
      COUNTS,
      samples.map(({ counts }) => counts),
    ),
    firstToken: sumLatencies(samples.map(({ firstToken }) => firstToken)),
    queue: sumLatencies(samples.map(({ queue }) => queue)),
  };
}

function sum<Name extends string>(
  names: readonly Name[],
  all: readonly Readonly<Record<Name, number>>[],
): Record<Name, number> {
  return record(names, (name) => all.reduce((total, values) => total + values[name], 0));
}

function record<Name extends string>(names: readonly Name[], value: (name: Name) => number) {
  return Object.fromEntries(names.map((name) => [name, value(name)])) as Record<Name, number>;
}

const COLUMNS = GAUGES.length + COUNTS.length;

/** Counts a second, and keeps the seconds of the last hour in a block of memory of fixed size. */
export class SampleRing {
  readonly firstToken = new LatencyCounts();
  readonly queue = new LatencyCounts();
  readonly #seconds: number;
  readonly #rows: Float32Array;
  readonly #times: Float64Array;
  readonly #latencies: [Latencies, Latencies][];
  readonly #counts: Record<CountName, number> = record(COUNTS, () => 0);
  #written = 0;

  constructor(seconds: number) {
    this.#seconds = seconds;
    this.#rows = new Float32Array(seconds * COLUMNS);
    this.#times = new Float64Array(seconds);
    this.#latencies = [];
  }

  count(name: CountName, by = 1): void {
    this.#counts[name] += by;
  }

  /** Ends a second. */
  push(atS: number, gauges: Readonly<Record<GaugeName, number>>): void {
    const slot = this.#written % this.#seconds;
    let at = slot * COLUMNS;
    for (const name of GAUGES) this.#rows[at++] = gauges[name];
    for (const name of COUNTS) {
      this.#rows[at++] = this.#counts[name];
      this.#counts[name] = 0;
    }
    this.#times[slot] = atS;
    this.#latencies[slot] = [this.firstToken.take(), this.queue.take()];
    this.#written += 1;
  }

  /** Undefined before the first second has ended. */
  last(): Sample | undefined {
    return this.#written === 0 ? undefined : this.#sample(this.#written - 1);
  }

  /** Oldest first, `stepS` seconds in one; the steps of all processes begin at the same times. */
  past(stepS: number, seconds: number): readonly Sample[] {
    const steps: Sample[][] = [];
    let stepEnd = Number.NEGATIVE_INFINITY;
    for (
      let index = Math.max(0, this.#written - Math.min(this.#seconds, seconds));
      index < this.#written;
      index += 1
    ) {
      const sample = this.#sample(index);
      const end = Math.ceil(sample.atS / stepS) * stepS;
      if (end === stepEnd) steps.at(-1)?.push(sample);
      else steps.push([sample]);
      stepEnd = end;
    }
    return steps.map((samples) => inOne(samples, stepS));
  }

  #sample(index: number): Sample {
    const slot = index % this.#seconds;
    const row = slot * COLUMNS;
    const [firstToken = [], queue = []] = this.#latencies[slot] ?? [];
    return {
      atS: this.#times[slot] ?? 0,
      spanS: 1,
      gauges: record(GAUGES, (name) => this.#rows[row + GAUGES.indexOf(name)] ?? 0),
      counts: record(COUNTS, (name) => this.#rows[row + GAUGES.length + COUNTS.indexOf(name)] ?? 0),
      firstToken,
      queue,
    };
  }
}

function inOne(samples: readonly Sample[], stepS: number): Sample {
  const last = samples.at(-1) as Sample;
  return {
    atS: Math.ceil(last.atS / stepS) * stepS,
    spanS: stepS,
    gauges: last.gauges,
    ...added(samples),
  };
}
