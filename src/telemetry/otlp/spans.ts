import type { SpanContext } from '@opentelemetry/api';
import { type ISerializer, ProtobufTraceSerializer } from '@opentelemetry/otlp-transformer';
import type { ReadableSpan } from '@opentelemetry/sdk-trace';
import { BYTES, FIXED32, FIXED64, OtlpWriter, tag, VARINT } from './writer.ts';

type TraceSerializer = typeof ProtobufTraceSerializer;
/** A turn's span without content takes about 800. */
const EXPECTED_SPAN_BYTES = 1_024;

/**
 * Spans → `ExportTraceServiceRequest` of OTLP. The SDK's own serializer does the same and takes more than twice as long:
 * it goes over everything twice and writes each character by itself, and most of what a turn's span says (names of
 * attributes, provider, model) is what the last one said.
 *
 * https://github.com/open-telemetry/opentelemetry-proto/blob/v1.7.0/opentelemetry/proto/trace/v1/trace.proto
 */
export const spanSerializer: ISerializer<
  ReadableSpan[],
  ReturnType<TraceSerializer['deserializeResponse']>
> = {
  serializeRequest: (spans) => {
    const out = new OtlpWriter((spans.length + 1) * EXPECTED_SPAN_BYTES);
    for (const group of byScope(spans).values()) resourceSpans(out, group);
    return out.bytes();
  },
  deserializeResponse: (bytes) => ProtobufTraceSerializer.deserializeResponse(bytes),
};

/** The process has one resource, and scopes of one name differ in nothing else. */
function byScope(spans: readonly ReadableSpan[]): Map<string, ReadableSpan[]> {
  return Map.groupBy(spans, (span) => span.instrumentationScope.name);
}

function resourceSpans(out: OtlpWriter, spans: readonly ReadableSpan[]): void {
  const [first] = spans;
  if (first === undefined) return;
  const scope = first.instrumentationScope;
  const whole = out.open(tag(1, BYTES));
  const resource = out.open(tag(1, BYTES));
  out.attributes(tag(1, BYTES), first.resource.attributes);
  out.close(resource);
  const scopeSpans = out.open(tag(2, BYTES));
  const scopeInfo = out.open(tag(1, BYTES));
  out.string(tag(1, BYTES), scope.name);
  if (scope.version !== undefined) out.string(tag(2, BYTES), scope.version);
  out.close(scopeInfo);
  for (const span of spans) spanMessage(out, span);
  if (scope.schemaUrl !== undefined) out.string(tag(3, BYTES), scope.schemaUrl);
  out.close(scopeSpans);
  out.close(whole);
}

function spanMessage(out: OtlpWriter, span: ReadableSpan): void {
  const context = span.spanContext();
  const whole = out.open(tag(2, BYTES));
  out.hex(tag(1, BYTES), context.traceId);
  out.hex(tag(2, BYTES), context.spanId);
  traceState(out, tag(3, BYTES), context);
  if (span.parentSpanContext !== undefined) out.hex(tag(4, BYTES), span.parentSpanContext.spanId);
  out.string(tag(5, BYTES), span.name);
  // The API counts kinds from 0, the protocol from 1.
  out.varint(tag(6, VARINT), span.kind + 1);
  out.time(tag(7, FIXED64), span.startTime);
  out.time(tag(8, FIXED64), span.endTime);
  out.attributes(tag(9, BYTES), span.attributes);
  out.varint(tag(10, VARINT), span.droppedAttributesCount);
  for (const event of span.events) {
    const message = out.open(tag(11, BYTES));
    out.time(tag(1, FIXED64), event.time);
    out.string(tag(2, BYTES), event.name);
    if (event.attributes !== undefined) out.attributes(tag(3, BYTES), event.attributes);
    out.varint(tag(4, VARINT), event.droppedAttributesCount ?? 0);
    out.close(message);
  }
  out.varint(tag(12, VARINT), span.droppedEventsCount);
  for (const link of span.links) {
    const message = out.open(tag(13, BYTES));
    out.hex(tag(1, BYTES), link.context.traceId);
    out.hex(tag(2, BYTES), link.context.spanId);
    traceState(out, tag(3, BYTES), link.context);
    if (link.attributes !== undefined) out.attributes(tag(4, BYTES), link.attributes);
    out.varint(tag(5, VARINT), link.droppedAttributesCount ?? 0);
    out.fixed32(tag(6, FIXED32), flags(link.context.traceFlags, link.context.isRemote));
    out.close(message);
  }
  out.varint(tag(14, VARINT), span.droppedLinksCount);
  const status = out.open(tag(15, BYTES));
  if (span.status.message !== undefined) out.string(tag(2, BYTES), span.status.message);
  out.varint(tag(3, VARINT), span.status.code);
  out.close(status);
  out.fixed32(tag(16, FIXED32), flags(context.traceFlags, span.parentSpanContext?.isRemote));
  out.close(whole);
}

function traceState(out: OtlpWriter, key: number, context: SpanContext): void {
  const text = context.traceState?.serialize();
  if (text !== undefined && text !== '') out.string(key, text);
}

/** Bits 8 and 9: whether the parent is known to be remote, and whether it is. */
function flags(traceFlags: number, isRemote: boolean | undefined): number {
  return (traceFlags & 0xff) | 0x100 | (isRemote === true ? 0x200 : 0);
}
