import { type Attributes, type HrTime, type SpanContext, TraceFlags } from '@opentelemetry/api';
import type { Resource } from '@opentelemetry/resources';
import type { LogRecordExporter, LogRecordProcessor, ReadableLogRecord } from '@opentelemetry/sdk-logs';
import { schemaUrl } from './genai-names.ts';
import type { TelemetrySettings } from './options.ts';
import { retrying } from './otlp/retrying-exporter.ts';
import { httpUrl } from './otlp/span-exporter.ts';
import { exportResult, type TraceIds } from './tracing.ts';

/** Severity numbers of OpenTelemetry's log records, by pino's names of levels. */
const SEVERITY: Readonly<Record<string, number>> = {
  trace: 1,
  debug: 5,
  info: 9,
  warn: 13,
  error: 17,
  fatal: 21,
};

/** An event of the conventions: a log record with a name and attributes. */
export interface LogEvent {
  readonly name: string;
  readonly level: 'warn' | 'error';
  readonly atMs: number;
  readonly attributes: Attributes;
  readonly ids: TraceIds | undefined;
}

/** The gateway's log lines and events as log records of OpenTelemetry. */
export interface LogExport {
  /** A line of the log, as JSON without secrets. */
  line(json: string): void;
  event(event: LogEvent): void;
  flush(): Promise<void>;
  shutdown(): Promise<void>;
}

/** Undefined when log records are not exported; then nothing of the SDK is loaded. */
export async function createLogExport(
  settings: TelemetrySettings,
  resource: Resource | undefined,
  onExport: (result: 'ok' | 'failed') => void,
): Promise<LogExport | undefined> {
  if (settings.logs.exporter === 'off' || resource === undefined) return undefined;
  const { BatchLogRecordProcessor } = await import('@opentelemetry/sdk-logs');
  const exporter = await createLogExporter(settings.logs);
  const send = exporter.export.bind(exporter);
  exporter.export = (batch, done) =>
    send(batch, (result) => {
      onExport(exportResult(result));
      done(result);
    });
  const processor = new BatchLogRecordProcessor({ exporter, ...settings.logs.batch });
  const scope = {
    name: 'responses-gateway',
    version: settings.serviceVersion,
    schemaUrl: schemaUrl(settings.genaiSemconv),
  };
  const emit = (record: ReadableLogRecord): void =>
    // The processor keeps records as they are; what it would write to them is for processors that change them.
    processor.onEmit(record as Parameters<LogRecordProcessor['onEmit']>[0]);
  return {
    line: (json) => emit(new LineRecord(json, resource, scope)),
    event: (event) => emit(eventRecord(event, resource, scope)),
    flush: () => processor.forceFlush(),
    shutdown: () => processor.shutdown(),
  };
}

type Scope = ReadableLogRecord['instrumentationScope'];

function eventRecord(event: LogEvent, resource: Resource, scope: Scope): ReadableLogRecord {
  const hrTime = hrTimeOf(event.atMs);
  const spanContext = event.ids === undefined ? undefined : spanContextOf(event.ids);
  return {
    hrTime,
    hrTimeObserved: hrTime,
    eventName: event.name,
    severityNumber: SEVERITY[event.level] ?? 0,
    severityText: event.level.toUpperCase(),
    attributes: event.attributes,
    droppedAttributesCount: 0,
    resource,
    instrumentationScope: scope,
    ...(spanContext !== undefined && { spanContext }),
  };
}

interface Line {
  readonly body: string | undefined;
  readonly level: string;
  readonly atMs: number;
  readonly attributes: Attributes;
  readonly spanContext: SpanContext | undefined;
}

/** Read when it is exported, with a batch of others, not when it is written. */
class LineRecord implements ReadableLogRecord {
  readonly hrTimeObserved = hrTimeOf(Date.now());
  readonly droppedAttributesCount = 0;
  readonly resource: Resource;
  readonly instrumentationScope: Scope;
  readonly #json: string;
  #line: Line | undefined;

  constructor(json: string, resource: Resource, scope: Scope) {
    this.#json = json;
    this.resource = resource;
    this.instrumentationScope = scope;
  }

  get hrTime(): HrTime {
    return hrTimeOf(this.#read().atMs);
  }

  get severityNumber(): number {
    return SEVERITY[this.#read().level] ?? 0;
  }

  get severityText(): string {
    return this.#read().level.toUpperCase();
  }

  get body(): string {
    return this.#read().body ?? '';
  }

  get attributes(): Attributes {
    return this.#read().attributes;
  }

  // Of the interface: absent, not undefined, is what it wants of a property; a getter cannot be absent.
  get spanContext(): SpanContext {
    return this.#read().spanContext as SpanContext;
  }

  #read(): Line {
    this.#line ??= parseLine(this.#json);
    return this.#line;
  }
}

/** What is no flat value goes as JSON: attributes of log records may nest, and few backends show it. */
function parseLine(json: string): Line {
  const {
    level,
    time,
    pid: _pid,
    msg,
    trace_id,
    span_id,
    ...fields
  } = JSON.parse(json) as Record<string, unknown>;
  const attributes: Attributes = {};
  for (const [name, value] of Object.entries(fields)) {
    if (value === null || value === undefined) continue;
    attributes[name] = isFlat(value) ? value : JSON.stringify(value);
  }
  const ids =
    typeof trace_id === 'string' && typeof span_id === 'string'
      ? { traceId: trace_id, spanId: span_id, traceFlags: TraceFlags.SAMPLED }
      : undefined;
  return {
    body: typeof msg === 'string' ? msg : undefined,
    level: String(level),
    atMs: Date.parse(String(time)),
    attributes,
    spanContext: ids,
  };
}

function isFlat(value: unknown): value is string | number | boolean {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean';
}

function spanContextOf({ traceId, spanId, sampled }: TraceIds): SpanContext {
  return { traceId, spanId, traceFlags: sampled ? TraceFlags.SAMPLED : TraceFlags.NONE };
}

function hrTimeOf(atMs: number): HrTime {
  const seconds = Math.trunc(atMs / 1_000);
  return [seconds, Math.round((atMs - seconds * 1_000) * 1e6)];
}

export async function createLogExporter({
  exporter,
  endpoint,
}: TelemetrySettings['logs']): Promise<LogRecordExporter> {
  switch (exporter) {
    case 'otlp-grpc': {
      const { OTLPLogExporter } = await import('@opentelemetry/exporter-logs-otlp-grpc');
      return retrying(new OTLPLogExporter(endpoint === undefined ? {} : { url: endpoint }));
    }
    case 'otlp-http': {
      const { OTLPLogExporter } = await import('@opentelemetry/exporter-logs-otlp-proto');
      return new OTLPLogExporter(endpoint === undefined ? {} : { url: httpUrl(endpoint, 'v1/logs') });
    }
    case 'console':
    case 'off': {
      const { ConsoleLogRecordExporter } = await import('@opentelemetry/sdk-logs');
      return new ConsoleLogRecordExporter();
    }
  }
}
