import { create } from '@bufbuild/protobuf';
import { type TraceContext, TraceContextSchema } from './gen/responses/gateway/v1/event_pb.ts';

/** OpenTelemetry is optional: without its API there is no current span to tell of. */
const api = await import('@opentelemetry/api').catch(() => undefined);

/**
 * The current OpenTelemetry span and baggage as W3C trace context, which the gateway takes whatever propagator the
 * program has set; undefined if there is none.
 */
export function currentTraceContext(): TraceContext | undefined {
  if (!api) return undefined;
  const span = api.trace.getSpanContext(api.context.active());
  const entries = api.propagation.getActiveBaggage()?.getAllEntries() ?? [];
  const valid = span !== undefined && api.isSpanContextValid(span);
  if (!valid && entries.length === 0) return undefined;
  return create(TraceContextSchema, {
    traceparent: valid
      ? `00-${span.traceId}-${span.spanId}-${(span.traceFlags & 0xff).toString(16).padStart(2, '0')}`
      : '',
    tracestate: valid ? (span.traceState?.serialize() ?? '') : '',
    baggage: entries
      .map(([key, { value, metadata }]) => {
        const pair = `${encodeURIComponent(key)}=${encodeURIComponent(value)}`;
        return metadata ? `${pair};${metadata.toString()}` : pair;
      })
      .join(','),
  });
}

/** Runs `work` within a span around the call of a function, by the conventions of GenAI. */
export function inToolSpan<T>(name: string, callId: string, work: () => Promise<T>): Promise<T> {
  if (!api) return work();
  const attributes = {
    'gen_ai.operation.name': 'execute_tool',
    'gen_ai.tool.name': name,
    'gen_ai.tool.call.id': callId,
    'gen_ai.tool.type': 'function',
  };
  const tracer = api.trace.getTracer('@responses-gateway/client');
  return tracer.startActiveSpan(`execute_tool ${name}`, { attributes }, async (span) => {
    try {
      return await work();
    } catch (error) {
      span.setStatus({ code: api.SpanStatusCode.ERROR });
      throw error;
    } finally {
      span.end();
    }
  });
}
