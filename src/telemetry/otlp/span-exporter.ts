import type { SpanExporter } from '@opentelemetry/sdk-trace';
import type { TelemetrySettings } from '../options.ts';
import { retrying } from './retrying-exporter.ts';

const EXPORT_SPANS = '/opentelemetry.proto.collector.trace.v1.TraceService/Export';

/** The SDK's exporters, put together as theirs are, with a serializer of our own. */
export async function createSpanExporter(traces: TelemetrySettings['traces']): Promise<SpanExporter> {
  const { exporter, endpoint } = traces;
  switch (exporter) {
    case 'otlp-grpc': {
      const { spanSerializer } = await import('./spans.ts');
      const { TraceExporterMetricsHelper } = await import('@opentelemetry/otlp-transformer');
      const { OTLPExporterBase } = await import('@opentelemetry/otlp-exporter-base');
      const otlp = await import('@opentelemetry/otlp-grpc-exporter-base');
      return retrying(
        new OTLPExporterBase(
          otlp.createOtlpGrpcExportDelegate(
            otlp.convertLegacyOtlpGrpcOptions(endpoint === undefined ? {} : { url: endpoint }, 'TRACES'),
            spanSerializer,
            'otlp_grpc_span_exporter',
            TraceExporterMetricsHelper,
            undefined,
            'TraceExportService',
            EXPORT_SPANS,
          ),
        ),
      );
    }
    case 'otlp-http': {
      const { spanSerializer } = await import('./spans.ts');
      const { TraceExporterMetricsHelper } = await import('@opentelemetry/otlp-transformer');
      const { OTLPExporterBase } = await import('@opentelemetry/otlp-exporter-base');
      const otlp = await import('@opentelemetry/otlp-exporter-base/node-http');
      const options = endpoint === undefined ? {} : { url: httpUrl(endpoint, 'v1/traces') };
      return new OTLPExporterBase(
        otlp.createOtlpHttpExportDelegate(
          otlp.convertLegacyHttpOptions(options, 'TRACES', 'v1/traces', {
            'Content-Type': 'application/x-protobuf',
          }),
          spanSerializer,
          'otlp_http_span_exporter',
          TraceExporterMetricsHelper,
          undefined,
        ),
      );
    }
    case 'console':
    case 'off': {
      const { ConsoleSpanExporter } = await import('@opentelemetry/sdk-trace');
      return new ConsoleSpanExporter();
    }
  }
}

/** The signal's path under the collector's base URL, as the OTLP specification builds it. */
export function httpUrl(endpoint: string, path: string): string {
  return new URL(path, endpoint.endsWith('/') ? endpoint : `${endpoint}/`).href;
}
