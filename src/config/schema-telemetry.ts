import * as z from 'zod';
import { byteSize, duration } from './units.ts';

/** The OpenTelemetry specification's default for the periodic reader. */
const DEFAULT_METRICS_INTERVAL = '60s';
/** Every model name is a label value of some twenty series. */
const DEFAULT_MAX_MODELS = 50;
const DEFAULT_MAX_CONTENT = '32KiB';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

const exporter = z.enum(['otlp-grpc', 'otlp-http', 'console', 'off']).optional();
const endpoint = z
  .string()
  .refine(
    (text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol),
    'an http:// or https:// URL',
  )
  .optional()
  .describe('Base URL of the collector. OTEL_EXPORTER_OTLP_ENDPOINT wins.');

const tracesSchema = z.strictObject({
  exporter: exporter.describe(
    'Where spans go; OTEL_TRACES_EXPORTER wins. Unset: off, or OTLP if it has an endpoint.',
  ),
  endpoint,
  sample_ratio: z.number().min(0).max(1).default(1).describe('Share of traces that are kept.'),
  trust_caller: z
    .boolean()
    .default(false)
    .describe('Keep every trace that the caller has marked as sampled, whatever the ratio.'),
  propagate: z
    .array(z.enum(['traceparent', 'tracestate', 'baggage']))
    .default([])
    .describe('What goes on to the upstream with the handshake. Nothing: a provider has no use for it.'),
});

const metricsSchema = z.strictObject({
  prometheus: z.boolean().default(true).describe('Serve /metrics on the admin port.'),
  exporter: exporter.describe(
    'Push as well; OTEL_METRICS_EXPORTER wins. Unset: off, or OTLP if it has an endpoint.',
  ),
  endpoint,
  interval: duration({ min: '1s' }).prefault(DEFAULT_METRICS_INTERVAL).describe('Pause between pushes.'),
  models: z
    .array(z.string())
    .optional()
    .describe('Models with a label of their own. Unset: the first ones seen, up to max_models.'),
  max_models: z
    .int()
    .min(0)
    .max(10_000)
    .default(DEFAULT_MAX_MODELS)
    .describe('The others are counted as _OTHER.'),
  max_tenants: z
    .int()
    .min(0)
    .max(10_000)
    .default(0)
    .describe('Tenants with a label of their own. 0: metrics do not tell tenants apart.'),
  unit_suffixes: z
    .boolean()
    .default(true)
    .describe(
      'Units at the end of Prometheus names (_seconds, _bytes, _ratio). False: the names of 0.1, for one more release.',
    ),
});

const logsSchema = z.strictObject({
  exporter: exporter.describe(
    'Send lines and events to a collector too; OTEL_LOGS_EXPORTER wins. Unset: off, or OTLP if it has an endpoint.',
  ),
  endpoint,
  level: z.enum(LOG_LEVELS).default('info').describe('Lowest level that is written; see PUT /loglevel.'),
  format: z
    .enum(['auto', 'json', 'pretty'])
    .default('auto')
    .describe('auto: pretty in a terminal, JSON otherwise. Logs go to standard error.'),
});

export const telemetrySchema = z.strictObject({
  traces: tracesSchema.prefault({}),
  metrics: metricsSchema.prefault({}),
  logs: logsSchema.prefault({}),
  genai_semconv: z
    .enum(['0.1.0', '1.41', 'both'])
    .default('0.1.0')
    .describe(
      'Version of the GenAI conventions that names metrics, attributes and events. OTEL_SEMCONV_STABILITY_OPT_IN wins.',
    ),
  capture_content: z
    .enum(['off', 'full'])
    .default('off')
    .describe('full: prompts and outputs on spans, for tenants that allow it. Off: never in telemetry.'),
  max_content: byteSize().prefault(DEFAULT_MAX_CONTENT).describe('Captured content per turn and part.'),
});
