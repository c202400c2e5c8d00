import { DEFAULT_GENAI_SEMCONV, type GenAiSemconv } from './genai-names.ts';
import { endpointComplaint } from './otlp-endpoint.ts';
import { type KnownLabels, NOTHING_KNOWN } from './start-labels.ts';

export type Exporter = 'otlp-grpc' | 'otlp-http' | 'console' | 'off';
export type Carried = 'traceparent' | 'tracestate' | 'baggage';

/**
 * All optional. The standard `OTEL_*` variables win over these, as the environment wins over a file.
 */
export interface TelemetryOptions {
  readonly serviceVersion?: string | undefined;
  readonly traces?:
    | {
        /** Default: OTLP when an `OTEL_EXPORTER_OTLP_*ENDPOINT` is set, else off. */
        readonly exporter?: Exporter | undefined;
        /** Base URL of the collector, e.g. `http://collector:4317` (gRPC) or `http://collector:4318` (HTTP). */
        readonly endpoint?: string | undefined;
        /** Share of traces kept, 0 to 1. Default 1. */
        readonly sampleRatio?: number | undefined;
        /**
         * Whether a caller's "sampled" flag alone makes a trace kept. Default false: the ratio decides for callers'
         * traces too, so that a client cannot force tracing on.
         */
        readonly trustCaller?: boolean | undefined;
        /** What goes on to the upstream. Default: nothing. */
        readonly propagate?: readonly Carried[] | undefined;
      }
    | undefined;
  readonly metrics?:
    | {
        /** Serves Prometheus text by `metricsHandler`. Default true. */
        readonly prometheus?: boolean | undefined;
        /** Pushes as well. Default as for traces. */
        readonly exporter?: Exporter | undefined;
        readonly endpoint?: string | undefined;
        /** Default 60 000. */
        readonly intervalMs?: number | undefined;
        /** Models that get a label of their own; undefined: the first that completed a turn, up to the limit. */
        readonly models?: readonly string[] | undefined;
        /** Default 50. */
        readonly maxModels?: number | undefined;
        /** Distinct tenants that get a label of their own. Default 0: no tenant label. */
        readonly maxTenants?: number | undefined;
        /** Units at the end of Prometheus names. Default true; false are the names of release 0.1. */
        readonly unitSuffixes?: boolean | undefined;
        /** What counters start with, at 0. Default: nothing is known. */
        readonly known?: KnownLabels | undefined;
      }
    | undefined;
  readonly logs?:
    | {
        /** Sends lines and events to a collector as well. Default as for traces. */
        readonly exporter?: Exporter | undefined;
        readonly endpoint?: string | undefined;
        /** Default `info`. */
        readonly level?: string | undefined;
        /** Default: when the stream is a terminal. */
        readonly pretty?: boolean | undefined;
        /** Default: standard error. */
        readonly destination?: { write(line: string): void } | undefined;
        /** A warning is repeated at most this often. Default 10 000. */
        readonly repeatWarnMs?: number | undefined;
      }
    | undefined;
  /** Version of the GenAI conventions that names metrics, attributes and events. Default `0.1.0`. */
  readonly genaiSemconv?: GenAiSemconv | undefined;
  /** Prompts and outputs on turn spans, for tenants that have it switched on. Default `off`. */
  readonly captureContent?: 'off' | 'full' | undefined;
  /** Per turn and part. Default 32 KiB. */
  readonly maxContentBytes?: number | undefined;
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
}

export interface TelemetrySettings {
  readonly serviceName: string | undefined;
  readonly serviceVersion: string;
  readonly traces: {
    readonly exporter: Exporter;
    /** Undefined: the exporter finds it in the environment, or takes its own default. */
    readonly endpoint: string | undefined;
    readonly sampler: SamplerSettings;
    readonly propagate: ReadonlySet<Carried>;
    readonly acceptsCallers: boolean;
    readonly batch: BatchSettings;
    readonly limits: SpanLimits;
  };
  readonly metrics: {
    readonly prometheus: boolean;
    readonly exporter: Exporter;
    readonly endpoint: string | undefined;
    readonly intervalMs: number;
    readonly timeoutMs: number;
    readonly models: readonly string[] | undefined;
    readonly maxModels: number;
    readonly maxTenants: number;
    readonly unitSuffixes: boolean;
    readonly known: KnownLabels;
  };
  readonly logs: {
    readonly exporter: Exporter;
    readonly endpoint: string | undefined;
    readonly batch: BatchSettings;
    readonly level: string;
    readonly pretty: boolean | undefined;
    readonly destination: { write(line: string): void } | undefined;
    readonly repeatWarnMs: number;
  };
  readonly genaiSemconv: GenAiSemconv;
  readonly captureContent: 'off' | 'full';
  readonly maxContentBytes: number;
  /** What was found in the environment and not understood; to be logged. */
  readonly complaints: readonly string[];
}

export interface SamplerSettings {
  readonly parentBased: boolean;
  readonly ratio: number;
  readonly trustCaller: boolean;
}

export interface BatchSettings {
  readonly scheduledDelayMillis: number;
  readonly maxQueueSize: number;
  readonly maxExportBatchSize: number;
  readonly exportTimeoutMillis: number;
}

export interface SpanLimits {
  readonly attributeCountLimit: number;
  readonly attributeValueLengthLimit: number;
  readonly eventCountLimit: number;
  readonly linkCountLimit: number;
}

const DEFAULT_MAX_MODELS = 50;
const DEFAULT_MAX_CONTENT_BYTES = 32 * 1024;
const DEFAULT_REPEAT_WARN_MS = 10_000;
// Those below are the OpenTelemetry specification's.
const DEFAULT_BSP_DELAY_MS = 5_000;
const DEFAULT_BLRP_DELAY_MS = 1_000;
const DEFAULT_BSP_QUEUE = 2_048;
const DEFAULT_BSP_BATCH = 512;
const DEFAULT_EXPORT_TIMEOUT_MS = 30_000;
const DEFAULT_METRIC_INTERVAL_MS = 60_000;
const DEFAULT_SPAN_COUNT_LIMIT = 128;

export function parseTelemetryOptions(options: TelemetryOptions): TelemetrySettings {
  const env = new Environment(options.env ?? process.env);
  const disabled = env.text('OTEL_SDK_DISABLED')?.toLowerCase() === 'true';
  const traceExporter = env.exporter('TRACES', options.traces?.exporter);
  const metricExporter = env.exporter('METRICS', options.metrics?.exporter);
  const logExporter = env.exporter('LOGS', options.logs?.exporter);
  if (!disabled) {
    env.complainAboutEndpoint('TRACES', traceExporter.exporter, options.traces?.endpoint);
    env.complainAboutEndpoint('METRICS', metricExporter.exporter, options.metrics?.endpoint);
    env.complainAboutEndpoint('LOGS', logExporter.exporter, options.logs?.endpoint);
  }
  const propagators = env.list('OTEL_PROPAGATORS') ?? ['tracecontext', 'baggage'];
  env.complainAbout('OTEL_PROPAGATORS', propagators, ['tracecontext', 'baggage', 'none']);
  const capture =
    env.text('OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT')?.toLowerCase() === 'true'
      ? 'full'
      : (options.captureContent ?? 'off');
  return Object.freeze({
    serviceName: env.text('OTEL_SERVICE_NAME'),
    serviceVersion: options.serviceVersion ?? '0.0.0',
    traces: {
      exporter: disabled ? 'off' : traceExporter.exporter,
      endpoint: env.hasEndpoint('TRACES') ? undefined : options.traces?.endpoint,
      sampler: env.sampler(options.traces?.sampleRatio ?? 1, options.traces?.trustCaller ?? false),
      propagate: new Set(options.traces?.propagate ?? []),
      acceptsCallers: propagators.includes('tracecontext'),
      batch: {
        scheduledDelayMillis: env.count('OTEL_BSP_SCHEDULE_DELAY', DEFAULT_BSP_DELAY_MS),
        maxQueueSize: env.count('OTEL_BSP_MAX_QUEUE_SIZE', DEFAULT_BSP_QUEUE),
        maxExportBatchSize: env.count('OTEL_BSP_MAX_EXPORT_BATCH_SIZE', DEFAULT_BSP_BATCH),
        exportTimeoutMillis: env.count('OTEL_BSP_EXPORT_TIMEOUT', DEFAULT_EXPORT_TIMEOUT_MS),
      },
      limits: {
        attributeCountLimit: env.limit('ATTRIBUTE_COUNT_LIMIT', DEFAULT_SPAN_COUNT_LIMIT),
        attributeValueLengthLimit: env.limit('ATTRIBUTE_VALUE_LENGTH_LIMIT', Number.POSITIVE_INFINITY),
        eventCountLimit: env.count('OTEL_SPAN_EVENT_COUNT_LIMIT', DEFAULT_SPAN_COUNT_LIMIT),
        linkCountLimit: env.count('OTEL_SPAN_LINK_COUNT_LIMIT', DEFAULT_SPAN_COUNT_LIMIT),
      },
    },
    metrics: {
      // "none" means none; any other value says what is pushed, and the page stays as configured.
      prometheus:
        !disabled &&
        !metricExporter.none &&
        (metricExporter.prometheus || (options.metrics?.prometheus ?? true)),
      exporter: disabled ? 'off' : metricExporter.exporter,
      endpoint: env.hasEndpoint('METRICS') ? undefined : options.metrics?.endpoint,
      intervalMs: env.count(
        'OTEL_METRIC_EXPORT_INTERVAL',
        options.metrics?.intervalMs ?? DEFAULT_METRIC_INTERVAL_MS,
      ),
      timeoutMs: env.count('OTEL_METRIC_EXPORT_TIMEOUT', DEFAULT_EXPORT_TIMEOUT_MS),
      models: options.metrics?.models,
      maxModels: options.metrics?.maxModels ?? DEFAULT_MAX_MODELS,
      maxTenants: options.metrics?.maxTenants ?? 0,
      unitSuffixes: options.metrics?.unitSuffixes ?? true,
      known: options.metrics?.known ?? NOTHING_KNOWN,
    },
    logs: {
      exporter: disabled ? 'off' : logExporter.exporter,
      endpoint: env.hasEndpoint('LOGS') ? undefined : options.logs?.endpoint,
      batch: {
        scheduledDelayMillis: env.count('OTEL_BLRP_SCHEDULE_DELAY', DEFAULT_BLRP_DELAY_MS),
        maxQueueSize: env.count('OTEL_BLRP_MAX_QUEUE_SIZE', DEFAULT_BSP_QUEUE),
        maxExportBatchSize: env.count('OTEL_BLRP_MAX_EXPORT_BATCH_SIZE', DEFAULT_BSP_BATCH),
        exportTimeoutMillis: env.count('OTEL_BLRP_EXPORT_TIMEOUT', DEFAULT_EXPORT_TIMEOUT_MS),
      },
      level: options.logs?.level ?? 'info',
      pretty: options.logs?.pretty,
      destination: options.logs?.destination,
      repeatWarnMs: options.logs?.repeatWarnMs ?? DEFAULT_REPEAT_WARN_MS,
    },
    genaiSemconv: env.semconv(options.genaiSemconv ?? DEFAULT_GENAI_SEMCONV),
    captureContent: capture,
    maxContentBytes: options.maxContentBytes ?? DEFAULT_MAX_CONTENT_BYTES,
    complaints: env.complaints,
  } satisfies TelemetrySettings);
}

type Signal = 'TRACES' | 'METRICS' | 'LOGS';

interface ChosenExporter {
  readonly exporter: Exporter;
  readonly prometheus: boolean;
  readonly none: boolean;
}

const LATEST_GENAI = 'gen_ai_latest_experimental';
const SAMPLERS = [
  'always_on',
  'always_off',
  'traceidratio',
  'parentbased_always_on',
  'parentbased_always_off',
  'parentbased_traceidratio',
];

class Environment {
  readonly #values: Readonly<Record<string, string | undefined>>;
  readonly complaints: string[] = [];

  constructor(values: Readonly<Record<string, string | undefined>>) {
    this.#values = values;
  }

  /** An empty variable counts as unset, as the specification has it. */
  text(name: string): string | undefined {
    const value = this.#values[name]?.trim();
    return value === '' ? undefined : value;
  }

  list(name: string): string[] | undefined {
    return this.text(name)
      ?.split(',')
      .map((part) => part.trim().toLowerCase())
      .filter((part) => part !== '');
  }

  count(name: string, fallback: number): number {
    const text = this.text(name);
    if (text === undefined) return fallback;
    const value = Number(text);
    if (Number.isSafeInteger(value) && value > 0) return value;
    this.complaints.push(`${name}: found ${JSON.stringify(text)}; allowed: a positive whole number`);
    return fallback;
  }

  /** The limit for spans, else the general one. */
  limit(name: string, fallback: number): number {
    return this.count(`OTEL_SPAN_${name}`, this.count(`OTEL_${name}`, fallback));
  }

  hasEndpoint(signal: Signal): boolean {
    return (
      this.text('OTEL_EXPORTER_OTLP_ENDPOINT') !== undefined ||
      this.text(`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`) !== undefined
    );
  }

  exporter(signal: Signal, configured: Exporter | undefined): ChosenExporter {
    const name = `OTEL_${signal}_EXPORTER`;
    const asked = this.list(name);
    if (asked === undefined) {
      const exporter = configured ?? (this.hasEndpoint(signal) ? this.#otlp(signal) : 'off');
      return { exporter, prometheus: false, none: false };
    }
    const known =
      signal === 'METRICS' ? ['otlp', 'console', 'prometheus', 'none'] : ['otlp', 'console', 'none'];
    this.complainAbout(name, asked, known);
    const exporter = asked.includes('otlp')
      ? this.#otlp(signal)
      : asked.includes('console')
        ? 'console'
        : 'off';
    return { exporter, prometheus: asked.includes('prometheus'), none: asked.includes('none') };
  }

  /** Other categories of the list are for other instrumentations: the gateway has the stable names of those alone. */
  semconv(configured: GenAiSemconv): GenAiSemconv {
    const name = 'OTEL_SEMCONV_STABILITY_OPT_IN';
    const asked = (this.list(name) ?? []).filter((value) => value.startsWith('gen_ai'));
    this.complainAbout(name, asked, [LATEST_GENAI, `${LATEST_GENAI}/dup`]);
    if (asked.includes(`${LATEST_GENAI}/dup`)) return 'both';
    return asked.includes(LATEST_GENAI) ? '0.1.0' : configured;
  }

  sampler(ratio: number, trustCaller: boolean): SamplerSettings {
    const name = this.text('OTEL_TRACES_SAMPLER');
    if (name === undefined) return { parentBased: true, ratio, trustCaller };
    this.complainAbout('OTEL_TRACES_SAMPLER', [name], SAMPLERS);
    const parentBased = name.startsWith('parentbased_') || !SAMPLERS.includes(name);
    if (name.endsWith('always_off')) return { parentBased, ratio: 0, trustCaller };
    if (!name.endsWith('traceidratio')) return { parentBased, ratio: 1, trustCaller };
    return { parentBased, ratio: this.#ratio(ratio), trustCaller };
  }

  complainAbout(name: string, found: readonly string[], known: readonly string[]): void {
    const unknown = found.filter((value) => !known.includes(value));
    if (unknown.length > 0) {
      this.complaints.push(
        `${name}: found ${JSON.stringify(unknown.join(','))}; allowed: ${known.join(', ')}`,
      );
    }
  }

  complainAboutEndpoint(signal: Signal, exporter: Exporter, configured: string | undefined): void {
    if (exporter !== 'otlp-grpc' && exporter !== 'otlp-http') return;
    const own = `OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`;
    const shared = 'OTEL_EXPORTER_OTLP_ENDPOINT';
    const lower = signal.toLowerCase();
    const [name, value, ownPath] =
      this.text(own) !== undefined
        ? [own, this.text(own), `v1/${lower}`]
        : this.text(shared) !== undefined
          ? [shared, this.text(shared), undefined]
          : [`telemetry.${lower}.endpoint`, configured, undefined];
    if (value === undefined) return;
    const complaint = endpointComplaint({ name, value, exporter, ownPath });
    if (complaint !== undefined && !this.complaints.includes(complaint)) this.complaints.push(complaint);
  }

  #ratio(fallback: number): number {
    const text = this.text('OTEL_TRACES_SAMPLER_ARG');
    if (text === undefined) return fallback;
    const value = Number(text);
    if (value >= 0 && value <= 1) return value;
    this.complaints.push(`OTEL_TRACES_SAMPLER_ARG: found ${JSON.stringify(text)}; allowed: 0 to 1`);
    return fallback;
  }

  #otlp(signal: Signal): Exporter {
    const protocol =
      this.text(`OTEL_EXPORTER_OTLP_${signal}_PROTOCOL`) ?? this.text('OTEL_EXPORTER_OTLP_PROTOCOL');
    if (protocol === 'grpc') return 'otlp-grpc';
    if (protocol !== undefined)
      this.complainAbout('OTEL_EXPORTER_OTLP_PROTOCOL', [protocol], ['grpc', 'http/protobuf']);
    return 'otlp-http';
  }
}
