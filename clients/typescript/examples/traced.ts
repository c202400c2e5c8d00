/**
 * One traced call: the span that is current when a turn starts becomes the parent of the gateway's span.
 *
 *     npm start                                  # a gateway with its simulator
 *     node clients/typescript/examples/traced.ts
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { type Context, context, ROOT_CONTEXT, type Span, SpanStatusCode, trace } from '@opentelemetry/api';
import { ConsoleSpanExporter, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';
import { Client } from '../src/index.ts';

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
  spanProcessors: [new SimpleSpanProcessor({ exporter: new ConsoleSpanExporter() })],
});
trace.setGlobalTracerProvider(provider);

using client = new Client();
await trace.getTracer('traced-example').startActiveSpan('question', async (span: Span) => {
  await using session = await client.connect({ model: 'gpt-5.5', clientName: 'traced-example' });
  try {
    const turn = await session.start({ input: 'Hello' });
    console.log((await turn.final()).text);
    console.log(`trace ${span.spanContext().traceId}`);
  } catch (error) {
    span.setStatus({ code: SpanStatusCode.ERROR });
    throw error;
  } finally {
    span.end();
  }
});
await provider.shutdown();
