/** Stands in for `src/telemetry/otlp/spans.ts` where the two are compared. */
export { ProtobufTraceSerializer as spanSerializer } from '@opentelemetry/otlp-transformer';
