import type { AggregationTemporality, Histogram } from '@opentelemetry/sdk-metrics';
import { beforeEach, expect, it } from 'vitest';
import type { MetricFacts } from '../../src/telemetry/metrics-table.ts';
import { SeriesTable } from '../../src/telemetry/series.ts';

const DELTA = 0 as AggregationTemporality;
const CUMULATIVE = 1 as AggregationTemporality;
const FACTS = { unit: 's', description: 'd', labels: ['a', 'b'] } as const;
const COUNTER: MetricFacts = { ...FACTS, kind: 'counter' };
const HISTOGRAM: MetricFacts = { ...FACTS, kind: 'histogram', boundaries: [1, 2] };

let table: SeriesTable;
beforeEach(() => {
  table = new SeriesTable();
  table.define('count', COUNTER);
  table.define('time', HISTOGRAM);
});

function reader(temporality: AggregationTemporality) {
  const producer = table.producer({
    resource: { attributes: {} } as never,
    scope: { name: 'test' },
    temporalityOf: () => temporality,
  });
  return async () => {
    const { resourceMetrics } = await producer.collect();
    const points = resourceMetrics.scopeMetrics.flatMap(({ metrics }) =>
      metrics.flatMap((each) => each.dataPoints.map(({ attributes, value }) => ({ attributes, value }))),
    );
    return points as { attributes: object; value: number | Histogram }[];
  };
}

it('finds a series by the values of its labels, whatever their order', async () => {
  table.add('count', 2, { a: 'x', b: 'y' });
  table.add('count', 3, { b: 'y', a: 'x' });
  table.add('count', 4, { a: 'x' });
  expect(await reader(CUMULATIVE)()).toEqual([
    { attributes: { a: 'x', b: 'y' }, value: 5 },
    { attributes: { a: 'x' }, value: 4 },
  ]);
});

it('puts a value that equals a boundary below it, and refuses what is no duration', async () => {
  for (const value of [0, 1, 1.5, 2, 3, -1, Number.NaN]) table.record('time', value);
  expect(await reader(CUMULATIVE)()).toEqual([
    { attributes: {}, value: { buckets: { boundaries: [1, 2], counts: [2, 2, 1] }, count: 5, sum: 7.5 } },
  ]);
});

it('tells each reader with delta temporality what is new to it, and others everything', async () => {
  const [first, second, all] = [reader(DELTA), reader(DELTA), reader(CUMULATIVE)];
  table.add('count', 2);
  table.record('time', 1);
  expect((await first()).map(({ value }) => value)).toEqual([2, expect.objectContaining({ count: 1 })]);
  table.add('count', 3);
  expect((await first()).map(({ value }) => value)).toEqual([3]);
  expect(await first()).toEqual([]);
  expect((await second()).map(({ value }) => value)).toEqual([5, expect.objectContaining({ count: 1 })]);
  expect((await all()).map(({ value }) => value)).toEqual([5, expect.objectContaining({ count: 1 })]);
});

it('holds no more than 2,000 series of a metric', async () => {
  for (let n = 0; n < 5_000; n += 1) table.add('count', 1, { a: `${n}` });
  const points = await reader(CUMULATIVE)();
  expect(points).toHaveLength(2_000);
  expect(points.at(-1)).toEqual({ attributes: { 'otel.metric.overflow': true }, value: 3_001 });
});
