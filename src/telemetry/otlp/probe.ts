import type { ResourceMetrics } from '@opentelemetry/sdk-metrics';
import { createLogExporter } from '../log-export.ts';
import { createMetricExporter } from '../metrics.ts';
import type { TelemetrySettings } from '../options.ts';
import type { ExportResult } from './retrying-exporter.ts';
import { createSpanExporter } from './span-exporter.ts';

/**
 * Sends an export with nothing in it, as the gateway would send a full one: same exporter, address, headers and
 * certificates. Resolves with what is wrong; undefined: the collector took it.
 */
export async function probeCollector(
  settings: TelemetrySettings,
  signal: 'traces' | 'metrics' | 'logs',
  timeoutMs: number,
): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const done = ({ code, error }: ExportResult): void =>
    resolve(code === 0 ? undefined : error === undefined ? 'the export failed' : told(error));
  const exporter = await start(settings, signal, done);
  const timer = setTimeout(resolve, timeoutMs, `no answer to an empty export in ${timeoutMs / 1_000} s`);
  const trouble = await promise;
  clearTimeout(timer);
  // One that waits to try again is not waited for.
  void exporter?.shutdown().catch(() => {});
  return trouble;
}

async function start(
  settings: TelemetrySettings,
  signal: 'traces' | 'metrics' | 'logs',
  done: (result: ExportResult) => void,
): Promise<{ shutdown(): Promise<void> } | undefined> {
  switch (signal) {
    case 'traces': {
      const exporter = await createSpanExporter(settings.traces);
      exporter.export([], done);
      return exporter;
    }
    case 'metrics': {
      const exporter = await createMetricExporter(settings);
      const nothing = { resource: { attributes: {} }, scopeMetrics: [] } as unknown as ResourceMetrics;
      exporter?.export(nothing, done);
      return exporter;
    }
    case 'logs': {
      const exporter = await createLogExporter(settings.logs);
      exporter.export([], done);
      return exporter;
    }
  }
}

/** HTTP status or number of the gRPC code where there is one; texts of collectors may be pages long. */
function told(error: Error): string {
  const code = 'code' in error && error.code !== undefined ? ` (${String(error.code)})` : '';
  return `${error.message.split('\n')[0]?.slice(0, 200)}${code}`;
}
