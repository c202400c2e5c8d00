/**
 * Lets the model call a function within a span. The span is the parent of what the gateway does for each turn and of the
 * function's call; all of it goes to a collector: OTEL_EXPORTER_OTLP_ENDPOINT, http://localhost:4317 by default.
 *
 *     npm start                                  # a gateway with its simulator
 *     node clients/typescript/examples/traced.ts
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import {
  type Context,
  context,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-grpc';
import { BatchSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';
import { z } from 'zod';
import { Client, tool } from '../src/index.ts';

// A program has this from its OpenTelemetry set-up.
const current = new AsyncLocalStorage<Context>();
context.setGlobalContextManager({
  active: () => current.getStore() ?? ROOT_CONTEXT,
  with: (active, run, self, ...args) => current.run(active, () => run.apply(self, args)),
  bind: (_active, target) => target,
  enable() {
    return this;
  },
  disable() {
    return this;
  },
});
const provider = new TracerProvider({
  spanProcessors: [new BatchSpanProcessor({ exporter: new OTLPTraceExporter() })],
});
trace.setGlobalTracerProvider(provider);

const weather = tool({
  name: 'weather',
  description: 'Tells the weather of a city.',
  input: z.object({ city: z.string().describe('Name of the city') }),
  run: ({ city }) => ({ city, sky: 'clear' }),
});

using client = new Client();
// A client's span: service graphs draw an edge from it to the gateway's spans below it.
const options = { kind: SpanKind.CLIENT };
await trace.getTracer('traced-example').startActiveSpan('question', options, async (span: Span) => {
  await using session = await client.connect({ model: 'gpt-5.5', clientName: 'traced-example' });
  try {
    const request = { input: 'What is the weather in Oslo?' };
    const result = await session.lane('').runTools(request, { functions: [weather] });
    console.log(result.text);
    console.log(`trace ${span.spanContext().traceId}`);
  } catch (error) {
    span.setStatus({ code: SpanStatusCode.ERROR });
    throw error;
  } finally {
    span.end();
  }
});
await provider.shutdown();
