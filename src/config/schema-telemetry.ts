import * as z from 'zod';
import { duration } from './units.ts';

/** The OpenTelemetry specification's default for the periodic reader. */
const DEFAULT_METRICS_INTERVAL = '60s';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

const otlpFields = {
  endpoint: z
    .string()
    .refine(
      (text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol),
      'an http:// or https:// URL',
    )
    .optional()
    .describe('Collector. Unset: OTEL_EXPORTER_OTLP_ENDPOINT, else localhost.'),
  protocol: z
    .enum(['grpc', 'http/protobuf'])
    .default('grpc')
    .describe('OTLP transport. Also OTEL_EXPORTER_OTLP_PROTOCOL.'),
} as const;

export const telemetrySchema = z.strictObject({
  service_name: z
    .string()
    .min(1)
    .default('responses-gateway')
    .describe('service.name of the resource. Also OTEL_SERVICE_NAME.'),
  traces: z
    .strictObject({
      exporter: z
        .enum(['none', 'otlp', 'console'])
        .default('none')
        .describe('Where spans go. Also OTEL_TRACES_EXPORTER.'),
      ...otlpFields,
      sample_ratio: z
        .number()
        .min(0)
        .max(1)
        .default(1)
        .describe('Share of new traces that are recorded; a caller’s own decision is followed.'),
    })
    .prefault({}),
  metrics: z
    .strictObject({
      exporter: z
        .enum(['none', 'otlp'])
        .default('none')
        .describe(
          'Push metrics as well; /metrics on the admin port is always there. Also OTEL_METRICS_EXPORTER.',
        ),
      ...otlpFields,
      interval: duration({ min: '1s' }).prefault(DEFAULT_METRICS_INTERVAL).describe('Pause between pushes.'),
    })
    .prefault({}),
  logs: z
    .strictObject({
      level: z.enum(LOG_LEVELS).default('info').describe('Lowest level that is written; see PUT /loglevel.'),
      format: z
        .enum(['auto', 'json', 'pretty'])
        .default('auto')
        .describe('auto: pretty in a terminal, JSON otherwise.'),
    })
    .prefault({}),
  capture_content: z
    .boolean()
    .default(false)
    .describe('Put prompts and outputs on spans. Off: they never reach telemetry.'),
});
