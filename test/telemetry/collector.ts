import { fileURLToPath } from 'node:url';
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

export interface ReceivedSpan {
  readonly name: string;
  readonly kind: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly startMs: number;
  readonly endMs: number;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly events: readonly {
    readonly name: string;
    readonly atMs: number;
    readonly attributes: Readonly<Record<string, unknown>>;
  }[];
  readonly links: readonly {
    readonly traceId: string;
    readonly spanId: string;
    readonly attributes: Readonly<Record<string, unknown>>;
  }[];
  readonly status: { readonly code: string; readonly message: string };
  readonly resource: Readonly<Record<string, unknown>>;
}

export interface ReceivedLog {
  /** Of an event; empty for a line of the log. */
  readonly eventName: string;
  readonly severity: string;
  readonly body: unknown;
  readonly traceId: string;
  readonly spanId: string;
  readonly attributes: Readonly<Record<string, unknown>>;
}

export interface Collector extends AsyncDisposable {
  /** `http://127.0.0.1:<port>`, for the OTLP/gRPC exporters. */
  readonly endpoint: string;
  readonly spans: readonly ReceivedSpan[];
  readonly logs: readonly ReceivedLog[];
  /** Schema URLs of what came. */
  readonly schemaUrls: ReadonlySet<string>;
  /** Names of the metrics that came by OTLP. */
  readonly metricNames: ReadonlySet<string>;
  /** Everything that was received, decoded and written out, to look for what must not be there. */
  dump(): string;
  span(name: string): ReceivedSpan;
  /** Resolves as soon as such a span has come. */
  waitForSpan(matches: (span: ReceivedSpan) => boolean): Promise<ReceivedSpan>;
  close(): Promise<void>;
}

const ROOT = fileURLToPath(new URL('./fixtures', import.meta.url));
const SERVICES = [
  'opentelemetry/proto/collector/trace/v1/trace_service.proto',
  'opentelemetry/proto/collector/metrics/v1/metrics_service.proto',
  'opentelemetry/proto/collector/logs/v1/logs_service.proto',
];

/** A collector: the protocol's own services, by default on a port of its own. */
export async function startCollector(port = 0): Promise<Collector> {
  const spans: ReceivedSpan[] = [];
  const logs: ReceivedLog[] = [];
  const schemaUrls = new Set<string>();
  const requests: unknown[] = [];
  const metricNames = new Set<string>();
  const waiting = new Set<() => void>();
  const server = new grpc.Server();
  server.addService(service('trace', 'TraceService'), {
    Export(call: grpc.ServerUnaryCall<TraceRequest, object>, done: grpc.sendUnaryData<object>) {
      requests.push(call.request);
      spans.push(...call.request.resource_spans.flatMap(toSpans));
      for (const { scope_spans } of call.request.resource_spans)
        for (const { schema_url } of scope_spans) schemaUrls.add(schema_url);
      done(null, {});
      for (const look of waiting) look();
    },
  });
  server.addService(service('metrics', 'MetricsService'), {
    Export(call: grpc.ServerUnaryCall<MetricsRequest, object>, done: grpc.sendUnaryData<object>) {
      requests.push(call.request);
      for (const { scope_metrics } of call.request.resource_metrics) {
        for (const { metrics } of scope_metrics) for (const { name } of metrics) metricNames.add(name);
      }
      done(null, {});
    },
  });
  server.addService(service('logs', 'LogsService'), {
    Export(call: grpc.ServerUnaryCall<LogsRequest, object>, done: grpc.sendUnaryData<object>) {
      requests.push(call.request);
      logs.push(...call.request.resource_logs.flatMap(toLogs));
      done(null, {});
      for (const look of waiting) look();
    },
  });
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error, at) =>
      error === null ? resolve(at) : reject(error),
    );
  });
  const close = async (): Promise<void> => server.forceShutdown();
  return {
    endpoint: `http://127.0.0.1:${bound}`,
    spans,
    logs,
    schemaUrls,
    metricNames,
    dump: () => JSON.stringify(requests),
    span(name) {
      const found = spans.filter((span) => span.name === name);
      if (found.length !== 1 || found[0] === undefined) {
        throw new Error(
          `${found.length} spans named ${name} among: ${spans.map((span) => span.name).join(', ')}`,
        );
      }
      return found[0];
    },
    waitForSpan: (matches) =>
      new Promise((resolve) => {
        const look = (): void => {
          const found = spans.find(matches);
          if (found === undefined) return;
          waiting.delete(look);
          resolve(found);
        };
        waiting.add(look);
        look();
      }),
    close,
    [Symbol.asyncDispose]: close,
  };
}

function service(signal: string, name: string): grpc.ServiceDefinition {
  const definition = loadSync(SERVICES, {
    includeDirs: [ROOT],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  })[`opentelemetry.proto.collector.${signal}.v1.${name}`];
  if (definition === undefined || 'format' in definition) throw new Error(`no service ${name}`);
  return definition as grpc.ServiceDefinition;
}

interface KeyValue {
  readonly key: string;
  readonly value: AnyValue;
}
interface AnyValue {
  readonly value: string;
  readonly array_value?: { readonly values: readonly AnyValue[] };
  readonly [kind: string]: unknown;
}
interface WireSpan {
  readonly name: string;
  readonly kind: string;
  readonly trace_id: Buffer;
  readonly span_id: Buffer;
  readonly parent_span_id: Buffer;
  readonly start_time_unix_nano: string;
  readonly end_time_unix_nano: string;
  readonly attributes: readonly KeyValue[];
  readonly events: readonly {
    readonly name: string;
    readonly time_unix_nano: string;
    readonly attributes: readonly KeyValue[];
  }[];
  readonly links: readonly {
    readonly trace_id: Buffer;
    readonly span_id: Buffer;
    readonly attributes: readonly KeyValue[];
  }[];
  readonly status: { readonly code: string; readonly message: string } | null;
}
interface ResourceSpans {
  readonly resource: { readonly attributes: readonly KeyValue[] };
  readonly scope_spans: readonly { readonly schema_url: string; readonly spans: readonly WireSpan[] }[];
}
interface TraceRequest {
  readonly resource_spans: readonly ResourceSpans[];
}
interface MetricsRequest {
  readonly resource_metrics: readonly {
    readonly scope_metrics: readonly { readonly metrics: readonly { readonly name: string }[] }[];
  }[];
}

interface LogsRequest {
  readonly resource_logs: readonly ResourceLogs[];
}
interface ResourceLogs {
  readonly scope_logs: readonly {
    readonly log_records: readonly {
      readonly event_name: string;
      readonly severity_text: string;
      readonly body: AnyValue | null;
      readonly trace_id: Buffer;
      readonly span_id: Buffer;
      readonly attributes: readonly KeyValue[];
    }[];
  }[];
}

function toLogs({ scope_logs }: ResourceLogs): ReceivedLog[] {
  return scope_logs.flatMap(({ log_records }) =>
    log_records.map((log) => ({
      eventName: log.event_name,
      severity: log.severity_text,
      body: log.body === null ? undefined : plain(log.body),
      traceId: log.trace_id.toString('hex'),
      spanId: log.span_id.toString('hex'),
      attributes: record(log.attributes),
    })),
  );
}

function toSpans({ resource, scope_spans }: ResourceSpans): ReceivedSpan[] {
  const attributes = record(resource.attributes);
  return scope_spans.flatMap(({ spans }) =>
    spans.map((span) => ({
      name: span.name,
      kind: span.kind.replace('SPAN_KIND_', ''),
      traceId: span.trace_id.toString('hex'),
      spanId: span.span_id.toString('hex'),
      parentSpanId: span.parent_span_id.toString('hex'),
      startMs: Number(BigInt(span.start_time_unix_nano) / 1_000_000n),
      endMs: Number(BigInt(span.end_time_unix_nano) / 1_000_000n),
      attributes: record(span.attributes),
      events: span.events.map((event) => ({
        name: event.name,
        atMs: Number(BigInt(event.time_unix_nano) / 1_000_000n),
        attributes: record(event.attributes),
      })),
      links: span.links.map((link) => ({
        traceId: link.trace_id.toString('hex'),
        spanId: link.span_id.toString('hex'),
        attributes: record(link.attributes),
      })),
      status: {
        code: (span.status?.code ?? 'STATUS_CODE_UNSET').replace('STATUS_CODE_', ''),
        message: span.status?.message ?? '',
      },
      resource: attributes,
    })),
  );
}

function record(pairs: readonly KeyValue[]): Record<string, unknown> {
  return Object.fromEntries(pairs.map(({ key, value }) => [key, plain(value)]));
}

function plain(value: AnyValue): unknown {
  if (value.value === 'array_value') return value.array_value?.values.map(plain);
  return value.value === 'int_value' ? Number(value[value.value]) : value[value.value];
}
