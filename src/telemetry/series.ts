import type { Attributes, HrTime } from '@opentelemetry/api';
import type { Resource } from '@opentelemetry/resources';
import type {
  AggregationTemporality,
  CollectionResult,
  DataPoint,
  DataPointType,
  Histogram,
  InstrumentType,
  MetricData,
  MetricProducer,
  ScopeMetrics,
} from '@opentelemetry/sdk-metrics';
import type { MetricFacts } from './metrics-table.ts';

/**
 * What is counted for each turn, added up here and handed to the SDK's readers when they ask (its `MetricProducer`). The
 * SDK's own instruments sort and print all labels of every value to find its series, which took a tenth of a short turn.
 * Here a series is found by the values of the labels that the table names.
 */
export class SeriesTable {
  readonly #metrics = new Map<string, Metric>();
  readonly #startTime = now();

  define(name: string, facts: MetricFacts): void {
    this.#metrics.set(name, { name, facts, series: new Map() });
  }

  add(name: string, value: number, labels: Attributes = NO_LABELS): void {
    const metric = this.#metrics.get(name);
    if (metric !== undefined) seriesOf(metric, labels).sum += value;
  }

  record(name: string, value: number, labels: Attributes = NO_LABELS): void {
    const metric = this.#metrics.get(name);
    if (metric !== undefined && value >= 0) recordIn(metric, seriesOf(metric, labels), value);
  }

  /** For labels that come again and again: the series is looked for once. */
  bind(name: string, labels: Attributes): BoundSeries {
    return new BoundSeries(this.#metrics.get(name), labels);
  }

  /** For one reader: with delta temporality each is told what is new since it last asked. */
  producer({ resource, scope, temporalityOf }: ProducerOptions): MetricProducer {
    const told = new Map<Series, Series>();
    let since = this.#startTime;
    const collect = (): CollectionResult => {
      const endTime = now();
      const metrics = [...this.#metrics.values()].flatMap(({ name, facts, series }): MetricData[] => {
        if (series.size === 0) return [];
        const temporality = temporalityOf(INSTRUMENT[facts.kind as Recorded] as InstrumentType);
        const isDelta = temporality === DELTA;
        const points = [...series.values()].flatMap((each): DataPoint<Series>[] => {
          const value = isDelta ? difference(each, told.get(each)) : each;
          if (isDelta) told.set(each, { ...each, buckets: [...each.buckets] });
          if (isDelta && value.sum === 0 && value.buckets.every((count) => count === 0)) return [];
          return [{ attributes: each.labels, startTime: isDelta ? since : this.#startTime, endTime, value }];
        });
        return points.length === 0 ? [] : [dataOf(name, facts, temporality, points)];
      });
      since = endTime;
      return { resourceMetrics: { resource, scopeMetrics: [{ scope, metrics }] }, errors: [] };
    };
    return { collect: async () => collect() };
  }
}

/** A series that begins with its first value. */
export class BoundSeries {
  readonly #metric: Metric | undefined;
  readonly #labels: Attributes;
  #series: Series | undefined;

  constructor(metric: Metric | undefined, labels: Attributes) {
    this.#metric = metric;
    this.#labels = labels;
  }

  add(value: number): void {
    if (this.#metric !== undefined) this.#found(this.#metric).sum += value;
  }

  record(value: number): void {
    if (this.#metric !== undefined && value >= 0) recordIn(this.#metric, this.#found(this.#metric), value);
  }

  #found(metric: Metric): Series {
    this.#series ??= seriesOf(metric, this.#labels);
    return this.#series;
  }
}

export interface ProducerOptions {
  readonly resource: Resource;
  readonly scope: ScopeMetrics['scope'];
  readonly temporalityOf: (kind: InstrumentType) => AggregationTemporality;
}

type Recorded = 'counter' | 'upDown' | 'histogram';

interface Metric {
  readonly name: string;
  readonly facts: MetricFacts;
  readonly series: Map<string, Series>;
}

interface Series {
  readonly labels: Attributes;
  sum: number;
  /** Of a histogram: how many values each bucket has. */
  readonly buckets: number[];
}

const NO_LABELS: Attributes = {};
/** The SDK's own bound: labels come from short lists, and this holds should one not. */
const MAX_SERIES = 2_000;
const OVERFLOW: Attributes = { 'otel.metric.overflow': true };

function seriesOf({ facts, series }: Metric, labels: Attributes): Series {
  let key = '';
  for (const name of facts.labels) key += `${labels[name] as string}\n`;
  const known = series.get(key);
  if (known !== undefined) return known;
  const isFull = series.size >= MAX_SERIES - 1;
  const place = isFull ? 'overflow' : key;
  const made = series.get(place) ?? {
    labels: isFull ? OVERFLOW : labels,
    sum: 0,
    buckets:
      facts.kind === 'histogram' ? Array.from({ length: (facts.boundaries?.length ?? 0) + 1 }, () => 0) : [],
  };
  series.set(place, made);
  return made;
}

function recordIn({ facts }: Metric, series: Series, value: number): void {
  const { boundaries = [] } = facts;
  let bucket = 0;
  while (bucket < boundaries.length && value > (boundaries[bucket] as number)) bucket += 1;
  series.buckets[bucket] = (series.buckets[bucket] ?? 0) + 1;
  series.sum += value;
}

function difference({ labels, sum, buckets }: Series, before: Series | undefined): Series {
  if (before === undefined) return { labels, sum, buckets };
  return {
    labels,
    sum: sum - before.sum,
    buckets: buckets.map((count, at) => count - (before.buckets[at] ?? 0)),
  };
}

function dataOf(
  name: string,
  { kind, unit, description, boundaries = [] }: MetricFacts,
  aggregationTemporality: AggregationTemporality,
  points: readonly DataPoint<Series>[],
): MetricData {
  const descriptor = { name, unit, description, valueType: DOUBLE };
  if (kind !== 'histogram') {
    return {
      descriptor,
      aggregationTemporality,
      dataPointType: SUM,
      isMonotonic: kind === 'counter',
      dataPoints: points.map((point) => ({ ...point, value: point.value.sum })),
    };
  }
  return {
    descriptor,
    aggregationTemporality,
    dataPointType: HISTOGRAM,
    dataPoints: points.map((point) => ({ ...point, value: histogramOf(point.value, boundaries) })),
  };
}

function histogramOf({ sum, buckets }: Series, boundaries: readonly number[]): Histogram {
  return {
    buckets: { boundaries: [...boundaries], counts: [...buckets] },
    count: buckets.reduce((total, count) => total + count, 0),
    sum,
  };
}

function now(): HrTime {
  const ms = performance.timeOrigin + performance.now();
  return [Math.trunc(ms / 1_000), Math.trunc((ms % 1_000) * 1e6)];
}

/** The SDK's enumerations, by value: with metrics off it is not loaded. */
const INSTRUMENT: Readonly<Record<Recorded, string>> = {
  counter: 'COUNTER',
  upDown: 'UP_DOWN_COUNTER',
  histogram: 'HISTOGRAM',
};
const DELTA = 0 as AggregationTemporality.DELTA;
const HISTOGRAM = 0 as DataPointType.HISTOGRAM;
const SUM = 3 as DataPointType.SUM;
const DOUBLE = 1;
