import {
  type Context,
  type HrTime,
  type Link,
  ROOT_CONTEXT,
  SpanKind,
  TraceFlags,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import type { Resource } from '@opentelemetry/resources';
import type { ReadableSpan, Sampler, SpanExporter, SpanProcessor } from '@opentelemetry/sdk-trace';
import type { TraceContext } from '../core/types.ts';
import { schemaUrl } from './genai-names.ts';
import type { SamplerSettings, TelemetrySettings } from './options.ts';
import { createSpanExporter } from './otlp/span-exporter.ts';
import { TurnSpan } from './turn-span.ts';

export interface Tracing {
  /** Of all spans but those of turns. */
  readonly tracer: Tracer;
  turnSpan(name: string, startTime: HrTime, parent: Context, links: Link[]): TurnSpan;
  /** What a caller's span has below it: the turn as one call of a service. */
  callSpan(name: string, startTime: HrTime, parent: Context): TurnSpan;
  flush(): Promise<void>;
  shutdown(): Promise<void>;
}

type OnExport = (result: 'ok' | 'failed') => void;

/** Undefined when traces are off; then nothing of the SDK is loaded. */
export async function createTracing(
  settings: TelemetrySettings,
  resource: Resource | undefined,
  onExport: OnExport,
): Promise<Tracing | undefined> {
  const { traces } = settings;
  if (traces.exporter === 'off' || resource === undefined) return undefined;
  const sdk = await import('@opentelemetry/sdk-trace');
  const exporter = counted(await createSpanExporter(settings.traces), onExport);
  const processor: SpanProcessor =
    traces.exporter === 'console'
      ? new sdk.SimpleSpanProcessor({ exporter })
      : new sdk.BatchSpanProcessor({ exporter, ...traces.batch });
  const sampler = createSampler(sdk, traces.sampler);
  const provider = new sdk.TracerProvider({
    resource,
    sampler,
    spanLimits: traces.limits,
    spanProcessors: [processor],
  });
  const scope = {
    name: 'responses-gateway',
    version: settings.serviceVersion,
    schemaUrl: schemaUrl(settings.genaiSemconv),
  };
  const ids = new sdk.RandomIdGenerator();
  const origin = { sampler, ids, processor, resource, scope, limits: traces.limits };
  return {
    tracer: provider.getTracer(scope.name, scope.version, { schemaUrl: scope.schemaUrl }),
    turnSpan: (name, startTime, parent, links) =>
      new TurnSpan(origin, name, startTime, parent, links, SpanKind.CLIENT),
    callSpan: (name, startTime, parent) => new TurnSpan(origin, name, startTime, parent, [], SpanKind.SERVER),
    flush: () => provider.forceFlush(),
    shutdown: () => provider.shutdown(),
  };
}

/**
 * A caller's "sampled" flag is a wish: unless the operator trusts callers, the ratio decides for their traces as for
 * others, and "not sampled" is always kept to.
 */
function createSampler(sdk: typeof import('@opentelemetry/sdk-trace'), settings: SamplerSettings): Sampler {
  const own = ratioSampler(sdk, settings.ratio);
  if (!settings.parentBased) return own;
  return new sdk.ParentBasedSampler({
    root: own,
    remoteParentSampled: settings.trustCaller ? new sdk.AlwaysOnSampler() : own,
  });
}

function ratioSampler(sdk: typeof import('@opentelemetry/sdk-trace'), ratio: number): Sampler {
  if (ratio >= 1) return new sdk.AlwaysOnSampler();
  return ratio <= 0 ? new sdk.AlwaysOffSampler() : new sdk.TraceIdRatioBasedSampler(ratio);
}

function counted(exporter: SpanExporter, onExport: OnExport): SpanExporter {
  return {
    export(spans: ReadableSpan[], done) {
      exporter.export(spans, (result) => {
        onExport(exportResult(result));
        done(result);
      });
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
  };
}

/** 0 is ExportResultCode.SUCCESS of `@opentelemetry/core`, which nothing else needs here. */
export function exportResult(result: { readonly code: number }): 'ok' | 'failed' {
  return result.code === 0 ? 'ok' : 'failed';
}

const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.{0,64})?$/;
// The W3C caps: a tracestate of 512 characters must be passed on, baggage ends at 8192 bytes.
const MAX_TRACESTATE = 512;
const MAX_BAGGAGE = 8_192;
const PRINTABLE = /^[\x20-\x7e]*$/;

export interface TraceIds {
  readonly traceId: string;
  readonly spanId: string;
  readonly sampled: boolean;
}

/** Undefined for a traceparent that the W3C format does not allow: a broken caller gets a trace of its own. */
export function parseTraceparent(carried: TraceContext | undefined): TraceIds | undefined {
  const match = carried === undefined ? null : TRACEPARENT.exec(carried.traceparent);
  const [, traceId, spanId, flags] = match ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & TraceFlags.SAMPLED) !== 0 };
}

/** The parent of a span that a caller asked for. */
export function remoteContext(caller: TraceIds | undefined): Context {
  if (caller === undefined) return ROOT_CONTEXT;
  const { traceId, spanId, sampled } = caller;
  const traceFlags = sampled ? TraceFlags.SAMPLED : TraceFlags.NONE;
  return trace.setSpanContext(ROOT_CONTEXT, { traceId, spanId, traceFlags, isRemote: true });
}

/** What goes upstream: our own span as the parent, and of the caller's the parts that the operator let through. */
export function outgoingContext(
  ids: TraceIds | undefined,
  carried: TraceContext | undefined,
  propagate: TelemetrySettings['traces']['propagate'],
): TraceContext | undefined {
  if (!propagate.has('traceparent') || ids === undefined) return undefined;
  const tracestate = propagate.has('tracestate') ? safe(carried?.tracestate, MAX_TRACESTATE) : undefined;
  const baggage = propagate.has('baggage') ? safe(carried?.baggage, MAX_BAGGAGE) : undefined;
  return {
    traceparent: `00-${ids.traceId}-${ids.spanId}-${ids.sampled ? '01' : '00'}`,
    ...(tracestate !== undefined && { tracestate }),
    ...(baggage !== undefined && { baggage }),
  };
}

function safe(value: string | undefined, maxLength: number): string | undefined {
  return value !== undefined && value.length <= maxLength && PRINTABLE.test(value) ? value : undefined;
}
