import {
  type Attributes,
  type Context,
  type HrTime,
  type Link,
  type SpanContext,
  type SpanKind,
  type SpanStatus,
  SpanStatusCode,
  TraceFlags,
  trace,
} from '@opentelemetry/api';
import type { Resource } from '@opentelemetry/resources';
import type {
  IdGenerator,
  ReadableSpan,
  Sampler,
  SamplingDecision,
  SpanProcessor,
  TimedEvent,
} from '@opentelemetry/sdk-trace';
import type { SpanLimits } from './options.ts';

/** What all spans of turns share. */
export interface TurnSpanOrigin {
  readonly sampler: Sampler;
  readonly ids: IdGenerator;
  readonly processor: SpanProcessor;
  readonly resource: Resource;
  readonly scope: ReadableSpan['instrumentationScope'];
  readonly limits: SpanLimits;
}

/** Works out the attributes when the span is exported, not when it ends. */
export type Describe = () => Attributes;

const RECORD_AND_SAMPLED: SamplingDecision.RECORD_AND_SAMPLED = 2;
const NO_ATTRIBUTES: Attributes = {};
const UNSET: SpanStatus = { code: SpanStatusCode.UNSET };

/**
 * The spans of a turn: one that every turn has, and one for a caller that traces it. All others are the SDK's. Sampler, ids, processor and exporter are the
 * SDK's here too. What is left out is its own bookkeeping between start and end, and what is put off is the attributes:
 * they are worked out for a whole batch at once, which takes less than one by one between events.
 */
export class TurnSpan implements ReadableSpan {
  readonly kind: SpanKind.CLIENT | SpanKind.SERVER;
  readonly name: string;
  readonly startTime: HrTime;
  readonly context: SpanContext;
  readonly parentSpanContext?: SpanContext;
  readonly links: Link[];
  readonly events: TimedEvent[] = [];
  readonly droppedLinksCount = 0;
  droppedEventsCount = 0;
  ended = false;
  endTime: HrTime = [0, 0];
  status: SpanStatus = UNSET;
  readonly #origin: TurnSpanOrigin;
  #describe: Describe | undefined;
  #attributes: Attributes | undefined;
  #droppedAttributes = 0;

  constructor(
    origin: TurnSpanOrigin,
    name: string,
    startTime: HrTime,
    parent: Context,
    links: Link[],
    kind: SpanKind.CLIENT | SpanKind.SERVER,
  ) {
    const parentContext = trace.getSpanContext(parent);
    const traceId = parentContext?.traceId ?? origin.ids.generateTraceId();
    const { decision } = origin.sampler.shouldSample(parent, traceId, name, kind, NO_ATTRIBUTES, links);
    this.#origin = origin;
    this.name = name;
    this.kind = kind;
    this.startTime = startTime;
    if (parentContext !== undefined) this.parentSpanContext = parentContext;
    this.links = links;
    this.context = {
      traceId,
      spanId: origin.ids.generateSpanId(),
      traceFlags: decision === RECORD_AND_SAMPLED ? TraceFlags.SAMPLED : TraceFlags.NONE,
    };
  }

  get sampled(): boolean {
    return this.context.traceFlags === TraceFlags.SAMPLED;
  }

  event(name: string, time: HrTime, attributes?: Attributes): void {
    if (this.events.length >= this.#origin.limits.eventCountLimit) this.droppedEventsCount += 1;
    else this.events.push(attributes === undefined ? { name, time } : { name, time, attributes });
  }

  /** `failure` is a code, never the upstream's own text. */
  end(time: HrTime, describe: Describe, failure?: string): void {
    if (this.ended || !this.sampled) return;
    this.ended = true;
    this.endTime = time;
    this.#describe = describe;
    if (failure !== undefined) this.status = { code: SpanStatusCode.ERROR, message: failure };
    this.#origin.processor.onEnd(this);
  }

  spanContext(): SpanContext {
    return this.context;
  }

  get attributes(): Attributes {
    this.#attributes ??= this.#limited(this.#describe?.() ?? {});
    return this.#attributes;
  }

  get droppedAttributesCount(): number {
    return this.#droppedAttributes;
  }

  get duration(): HrTime {
    const [seconds, nanos] = [this.endTime[0] - this.startTime[0], this.endTime[1] - this.startTime[1]];
    return nanos < 0 ? [seconds - 1, nanos + 1e9] : [seconds, nanos];
  }

  get resource(): Resource {
    return this.#origin.resource;
  }

  get instrumentationScope(): ReadableSpan['instrumentationScope'] {
    return this.#origin.scope;
  }

  #limited(attributes: Attributes): Attributes {
    const { attributeCountLimit, attributeValueLengthLimit } = this.#origin.limits;
    const names = Object.keys(attributes);
    for (const name of names.slice(attributeCountLimit)) delete attributes[name];
    this.#droppedAttributes = Math.max(0, names.length - attributeCountLimit);
    if (attributeValueLengthLimit === Number.POSITIVE_INFINITY) return attributes;
    for (const [name, value] of Object.entries(attributes)) {
      attributes[name] = Array.isArray(value)
        ? (value.map((entry) => shortened(entry, attributeValueLengthLimit)) as typeof value)
        : shortened(value, attributeValueLengthLimit);
    }
    return attributes;
  }
}

function shortened<T>(value: T, maxLength: number): T | string {
  return typeof value === 'string' && value.length > maxLength ? value.slice(0, maxLength) : value;
}
