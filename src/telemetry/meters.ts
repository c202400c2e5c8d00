import type { Attributes, Meter, Observable } from '@opentelemetry/api';
import { isChosen } from './genai-names.ts';
import { METRICS, type MetricFacts, type MetricName } from './metrics-table.ts';
import type { TelemetrySettings } from './options.ts';
import { BoundSeries, type SeriesTable } from './series.ts';
import { startLabels } from './start-labels.ts';
import type { ObservedValue } from './types.ts';

type NamesOf<Kind> = {
  [Name in MetricName]: (typeof METRICS)[Name]['kind'] extends Kind ? Name : never;
}[MetricName];
export type CounterName = NamesOf<'counter'>;
export type UpDownName = NamesOf<'upDown'>;
export type HistogramName = NamesOf<'histogram'>;
export type ObservedName = NamesOf<'observedCounter' | 'observedUpDown' | 'observedGauge'>;

/** Reads one observed instrument; several values when it has labels. */
export type Read = () => number | Iterable<readonly [number, Attributes]>;

/** Every instrument of the table, by name. */
export interface Instruments {
  add(name: CounterName, value: number, labels?: Attributes): void;
  move(name: UpDownName, by: 1 | -1): void;
  record(name: HistogramName, value: number, labels?: Attributes): void;
  /** One series, for who tells it often. */
  counter(name: CounterName, labels: Attributes): Pick<BoundSeries, 'add'>;
  histogram(name: HistogramName, labels: Attributes): Pick<BoundSeries, 'record'>;
  observe(name: ObservedName, read: Read): void;
}

const NO_SERIES = new BoundSeries(undefined, {});

export const NO_INSTRUMENTS: Instruments = {
  add() {},
  move() {},
  record() {},
  counter: () => NO_SERIES,
  histogram: () => NO_SERIES,
  observe() {},
};

/** What is told as it happens goes to `series`, what is read when metrics are collected to the SDK's `meter`. */
export function createInstruments(
  meter: Meter,
  series: SeriesTable,
  { genaiSemconv, metrics }: Pick<TelemetrySettings, 'genaiSemconv' | 'metrics'>,
): Instruments {
  const observables = new Map<string, Observable>();
  for (const [name, facts] of Object.entries<MetricFacts>(METRICS)) {
    if (!isChosen(facts.semconv, genaiSemconv)) continue;
    const options = { unit: facts.unit, description: facts.description };
    switch (facts.kind) {
      case 'counter':
        series.define(name, facts);
        for (const set of startLabels(facts.labels, facts.fromStart, metrics.known)) series.add(name, 0, set);
        break;
      case 'upDown':
        series.define(name, facts);
        series.add(name, 0);
        break;
      case 'histogram':
        series.define(name, facts);
        break;
      case 'observedCounter':
        observables.set(name, meter.createObservableCounter(name, options));
        break;
      case 'observedUpDown':
        observables.set(name, meter.createObservableUpDownCounter(name, options));
        break;
      case 'observedGauge':
        observables.set(name, meter.createObservableGauge(name, options));
        break;
    }
  }
  return {
    add: (name, value, labels) => series.add(name, value, labels),
    move: (name, by) => series.add(name, by),
    record: (name, value, labels) => series.record(name, value, labels),
    counter: (name, labels) => series.bind(name, labels),
    histogram: (name, labels) => series.bind(name, labels),
    observe: (name, read) =>
      observables.get(name)?.addCallback((result) => {
        const values = read();
        if (typeof values === 'number') result.observe(values);
        else for (const [value, labels] of values) result.observe(value, labels);
      }),
  };
}

/** The sums behind the gauges that other parts report into. */
export interface ObservedSums {
  register(value: ObservedValue, read: () => number): () => void;
  sum(value: ObservedValue): number;
}

export function createObservedSums(): ObservedSums {
  const sources = new Map<ObservedValue, Set<() => number>>();
  return {
    register(value, read) {
      const reads = sources.get(value) ?? new Set();
      // A wrapper of its own, so that registering a function twice counts twice.
      const source = () => read();
      sources.set(value, reads.add(source));
      return () => reads.delete(source);
    },
    sum(value) {
      let total = 0;
      for (const read of sources.get(value) ?? []) total += read();
      return total;
    },
  };
}
