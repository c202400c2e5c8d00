import type { Resource } from '@opentelemetry/resources';
import type { MetricProducer, PushMetricExporter } from '@opentelemetry/sdk-metrics';
import type { LinkCensus } from './link-census.ts';
import { createInstruments, type Instruments, NO_INSTRUMENTS, type ObservedSums } from './meters.ts';
import type { TelemetrySettings } from './options.ts';
import { retrying } from './otlp/retrying-exporter.ts';
import { httpUrl } from './otlp/span-exporter.ts';
import { observeProcess } from './process-meters.ts';
import { prometheusText } from './prometheus.ts';
import { SeriesTable } from './series.ts';
import type { BatchCounts } from './session-meters.ts';
import { exportResult } from './tracing.ts';

export interface Metrics {
  readonly instruments: Instruments;
  /** Whether there is a Prometheus page. */
  readonly served: boolean;
  text(): Promise<string>;
  flush(): Promise<void>;
  shutdown(): Promise<void>;
}

export interface MetricSources {
  readonly links: LinkCensus;
  readonly batches: BatchCounts;
  readonly sums: ObservedSums;
  readonly suppressedLogs: () => number;
  readonly droppedLogs: () => number;
}

/** With metrics off, instruments that do nothing, and nothing of the SDK is loaded. */
export async function createMetrics(
  settings: TelemetrySettings,
  resource: Resource | undefined,
  sources: MetricSources,
): Promise<Metrics> {
  const { metrics } = settings;
  if (resource === undefined || (metrics.exporter === 'off' && !metrics.prometheus)) {
    const done = async (): Promise<void> => {};
    return { instruments: NO_INSTRUMENTS, served: false, text: async () => '', flush: done, shutdown: done };
  }
  const { AggregationTemporality, MeterProvider, PeriodicExportingMetricReader } = await import(
    '@opentelemetry/sdk-metrics'
  );
  const series = new SeriesTable();
  const exporter = await createMetricExporter(settings);
  const scope = { name: 'responses-gateway', version: settings.serviceVersion };
  const cumulative = () => AggregationTemporality.CUMULATIVE;
  const page = metrics.prometheus
    ? await createPage(series.producer({ resource, scope, temporalityOf: cumulative }), metrics.unitSuffixes)
    : undefined;
  const provider = new MeterProvider({
    resource,
    readers: [
      ...(page === undefined ? [] : [page.reader]),
      ...(exporter === undefined
        ? []
        : [
            new PeriodicExportingMetricReader({
              exporter,
              metricProducers: [
                series.producer({
                  resource,
                  scope,
                  temporalityOf: (kind) => exporter.selectAggregationTemporality?.(kind) ?? cumulative(),
                }),
              ],
              exportIntervalMillis: metrics.intervalMs,
              // The reader refuses a time-out longer than its interval.
              exportTimeoutMillis: Math.min(metrics.timeoutMs, metrics.intervalMs),
            }),
          ]),
    ],
  });
  const meter = provider.getMeter(scope.name, scope.version);
  const instruments = createInstruments(meter, series, settings);
  if (exporter !== undefined) countExports(exporter, instruments);
  const stopProcess = observeProcess(instruments);
  observeOwn(instruments, sources);
  return {
    instruments,
    served: page !== undefined,
    text: page === undefined ? async () => '' : page.text,
    flush: () => provider.forceFlush(),
    async shutdown() {
      stopProcess();
      await provider.shutdown();
    },
  };
}

function observeOwn(instruments: Instruments, sources: MetricSources): void {
  const { links, batches, sums, suppressedLogs, droppedLogs } = sources;
  instruments.observe('responses_gateway.links', () => links.count());
  instruments.observe('responses_gateway.events', () => batches.events);
  instruments.observe('responses_gateway.batches', () => batches.bySize());
  instruments.observe('responses_gateway.client.bytes', () => batches.bytes);
  instruments.observe('responses_gateway.client.buffer.bytes', () => sums.sum('client.buffer.bytes'));
  instruments.observe('responses_gateway.resume.buffer.bytes', () => sums.sum('resume.buffer.bytes'));
  instruments.observe('responses_gateway.transcript.bytes', () => sums.sum('transcript.bytes'));
  instruments.observe('responses_gateway.connections', () => sums.sum('connections'));
  instruments.observe('responses_gateway.connections.limit', () => sums.sum('connections.limit'));
  instruments.observe('responses_gateway.descriptors', () => sums.sum('descriptors'));
  instruments.observe('responses_gateway.descriptors.limit', () => sums.sum('descriptors.limit'));
  instruments.observe('responses_gateway.sessions.durable', () => sums.sum('sessions.durable'));
  instruments.observe('responses_gateway.processes', () => sums.sum('processes'));
  instruments.observe('responses_gateway.processes.ready', () => sums.sum('ready'));
  instruments.observe('responses_gateway.memory.share', () => sums.sum('memory.share'));
  instruments.observe('responses_gateway.draining', () => Math.min(1, sums.sum('draining')));
  instruments.observe('responses_gateway.logs.suppressed', suppressedLogs);
  instruments.observe('responses_gateway.logs.dropped', droppedLogs);
}

function countExports(exporter: PushMetricExporter, instruments: Instruments): void {
  const send = exporter.export.bind(exporter);
  exporter.export = (batch, done) =>
    send(batch, (result) => {
      instruments.add('responses_gateway.telemetry.exports', 1, {
        signal: 'metrics',
        result: exportResult(result),
      });
      done(result);
    });
}

async function createPage(producer: MetricProducer, unitSuffixes: boolean) {
  const { MetricReader } = await import('@opentelemetry/sdk-metrics');
  const reader = new (class extends MetricReader {
    protected override async onForceFlush(): Promise<void> {}
    protected override async onShutdown(): Promise<void> {}
  })({ metricProducers: [producer] });
  return {
    reader,
    async text() {
      const { resourceMetrics } = await reader.collect();
      return prometheusText(resourceMetrics, unitSuffixes);
    },
  };
}

export async function createMetricExporter(
  settings: TelemetrySettings,
): Promise<PushMetricExporter | undefined> {
  const { exporter, endpoint } = settings.metrics;
  switch (exporter) {
    case 'otlp-grpc': {
      const { OTLPMetricExporter } = await import('@opentelemetry/exporter-metrics-otlp-grpc');
      return retrying(new OTLPMetricExporter(endpoint === undefined ? {} : { url: endpoint }));
    }
    case 'otlp-http': {
      const { OTLPMetricExporter } = await import('@opentelemetry/exporter-metrics-otlp-proto');
      return new OTLPMetricExporter(endpoint === undefined ? {} : { url: httpUrl(endpoint, 'v1/metrics') });
    }
    case 'console': {
      const { ConsoleMetricExporter } = await import('@opentelemetry/sdk-metrics');
      return new ConsoleMetricExporter();
    }
    case 'off':
      return undefined;
  }
}
