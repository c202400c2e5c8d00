import { fileURLToPath } from 'node:url';
import { type Attributes, SpanKind, SpanStatusCode, TraceFlags } from '@opentelemetry/api';
import { ProtobufTraceSerializer } from '@opentelemetry/otlp-transformer';
import { resourceFromAttributes } from '@opentelemetry/resources';
import type { ReadableSpan } from '@opentelemetry/sdk-trace';
import fc from 'fast-check';
import protobuf from 'protobufjs';
import { describe, expect, it } from 'vitest';
import { spanSerializer } from '../../src/telemetry/otlp/spans.ts';

const root = new protobuf.Root();
root.resolvePath = (_, path) => fileURLToPath(new URL(`./fixtures/${path}`, import.meta.url));
root.loadSync('opentelemetry/proto/collector/trace/v1/trace_service.proto');
const REQUEST = root.lookupType('opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest');

/** As a collector reads it: absent numbers are zero. */
function read(bytes: Uint8Array | undefined): unknown {
  if (bytes === undefined) throw new Error('nothing was serialized');
  return REQUEST.toObject(REQUEST.decode(bytes), { longs: String, bytes: String, defaults: true });
}

const id = (digits: number) =>
  fc
    .array(fc.constantFrom(...'0123456789abcdef'), { minLength: digits, maxLength: digits })
    .map((all) => all.join(''));
const text = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 200 }),
  // Those that come again and again, which the writer keeps.
  fc.constantFrom('chat', 'openai', 'é'.repeat(70), ''),
);
const value = fc.oneof(
  text,
  fc.boolean(),
  fc.maxSafeInteger(),
  fc.double({ noNaN: true }).filter((number) => !Number.isInteger(number) || Number.isSafeInteger(number)),
  fc.array(text, { maxLength: 4 }),
);
const name = fc.oneof(fc.constantFrom('gen_ai.provider.name', 'server.port', 'a'), text);
const attributes: fc.Arbitrary<Attributes> = fc.dictionary(name, value, {
  maxKeys: 12,
  noNullPrototype: true,
});
const time = fc.tuple(fc.nat(2 ** 33), fc.nat(999_999_999));
const dropped = fc.nat(3);
const context = fc.record(
  {
    traceId: id(32),
    spanId: id(16),
    traceFlags: fc.constantFrom(TraceFlags.NONE, TraceFlags.SAMPLED),
    isRemote: fc.boolean(),
  },
  { requiredKeys: ['traceId', 'spanId', 'traceFlags'] },
);
const resource = resourceFromAttributes({ 'service.name': 'responses-gateway', 'process.pid': 7 });
const scope = { name: 'responses-gateway', version: '1.2.3', schemaUrl: 'https://example.test/schema' };

const span = fc
  .record({
    context,
    parentSpanContext: fc.option(context, { nil: undefined }),
    name: text,
    kind: fc.constantFrom(SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT),
    startTime: time,
    endTime: time,
    attributes,
    events: fc.array(fc.record({ name: text, time, attributes, droppedAttributesCount: dropped }), {
      maxLength: 3,
    }),
    links: fc.array(fc.record({ context, attributes }), { maxLength: 2 }),
    status: fc.oneof(
      fc.constant({ code: SpanStatusCode.UNSET }),
      fc.record({ code: fc.constant(SpanStatusCode.ERROR), message: text }),
    ),
    droppedAttributesCount: dropped,
    droppedEventsCount: dropped,
    droppedLinksCount: dropped,
  })
  .map(({ context: own, ...rest }) => ({
    ...rest,
    spanContext: () => own,
    duration: [0, 0],
    ended: true,
    resource,
    instrumentationScope: scope,
  })) as unknown as fc.Arbitrary<ReadableSpan>;

describe('spans on the wire', () => {
  it('say what the SDK says with its own serializer', () => {
    fc.assert(
      fc.property(fc.array(span, { minLength: 1, maxLength: 20 }), (spans) => {
        expect(read(spanSerializer.serializeRequest(spans))).toEqual(
          read(ProtobufTraceSerializer.serializeRequest(spans)),
        );
      }),
    );
  });

  it('say the right value when one that came twice changes, under every kind of owner', () => {
    const [first] = fc.sample(span, 1);
    if (first === undefined) throw new Error('no span');
    const values = ['openai', 'openai', 'openai', 'azure', 'openai', 'azure', 'azure', 'azure'];
    const spans = values.map((provider) => ({
      ...first,
      attributes: { 'gen_ai.provider.name': provider },
      events: [{ name: 'e', time: [1, 2], attributes: { 'gen_ai.provider.name': provider } }],
    })) as unknown as ReadableSpan[];
    expect(read(spanSerializer.serializeRequest(spans))).toEqual(
      read(ProtobufTraceSerializer.serializeRequest(spans)),
    );
  });

  it('keep scopes apart', () => {
    const spans = fc.sample(span, 2);
    const other = { ...spans[1], instrumentationScope: { name: 'other' } } as ReadableSpan;
    expect(read(spanSerializer.serializeRequest([spans[0] as ReadableSpan, other]))).toMatchObject({
      resourceSpans: [
        { scopeSpans: [{ scope: { name: 'responses-gateway', version: '1.2.3' } }] },
        { scopeSpans: [{ scope: { name: 'other', version: '' } }] },
      ],
    });
  });
});
