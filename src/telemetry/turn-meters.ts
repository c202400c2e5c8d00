import type { Attributes } from '@opentelemetry/api';
import type { LinkRoute, TurnRecord, Usage } from '../core/types.ts';
import { ATTR, METRIC, MODALITY_UNKNOWN, OPERATION_CHAT, providerName } from './genai-names.ts';
import { errorType, OTHER } from './labels.ts';
import type { Instruments } from './meters.ts';
import type { TurnSplit } from './turn-split.ts';
import type { BesideFact } from './types.ts';

/** What tells turns apart in the metrics; values that are labels already. */
export interface TurnKind {
  /** Undefined: no tenant label. */
  readonly tenant: string | undefined;
  /** The gateway's name of it; undefined: it had no link. */
  readonly provider: string | undefined;
  readonly server: Pick<LinkRoute, 'serverAddress' | 'serverPort'> | undefined;
  readonly requestModel: string;
  readonly responseModel: string | undefined;
}

/** Kinds are few; should one day they not be, what is known is found again. */
const MAX_KINDS = 1_000;

/** One `TurnMeters` for each kind of turn that the process has seen. */
export class TurnKinds {
  readonly #instruments: Instruments;
  readonly #known = new Map<string, TurnMeters>();

  constructor(instruments: Instruments) {
    this.#instruments = instruments;
  }

  of(kind: TurnKind): TurnMeters {
    const { tenant, provider, server, requestModel, responseModel } = kind;
    const place = [provider, server?.serverAddress, server?.serverPort];
    const key = [tenant, ...place, requestModel, responseModel].join('\n');
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    if (this.#known.size >= MAX_KINDS) this.#known.clear();
    const made = new TurnMeters(this.#instruments, kind);
    this.#known.set(key, made);
    return made;
  }
}

type Counter = ReturnType<Instruments['counter']>;
type Histogram = ReturnType<Instruments['histogram']>;

/** The series of one kind of turn: looking them up took longer for each turn than counting. */
export class TurnMeters {
  readonly kind: TurnKind;
  readonly #instruments: Instruments;
  readonly #genAi: Attributes;
  readonly #turn: Attributes;
  readonly #tenant: Attributes;
  readonly #outcomes = new Map<string, Counter>();
  readonly #durations: readonly Histogram[];
  readonly #firstOutput: readonly Histogram[];
  readonly #perOutput: readonly Histogram[];
  readonly #inputTokens: readonly Histogram[];
  readonly #outputTokens: readonly Histogram[];
  readonly #usage: Readonly<Record<(typeof COUNTS)[number], Counter>>;
  readonly #tokens: Readonly<Record<(typeof COUNTS)[number], Counter>>;
  readonly #queue: Histogram;
  readonly #gateway: Histogram;
  readonly #addedUp: Histogram;
  readonly #addedDown: Histogram;
  readonly #upstream: Histogram;
  readonly #toolCalls: Counter;
  readonly #bytesUp: Counter;
  readonly #bytesDown: Counter;
  readonly #context: Counter;
  readonly #saved: Counter;

  constructor(instruments: Instruments, kind: TurnKind) {
    const { server, requestModel, responseModel } = kind;
    const provider = {
      [ATTR.provider]: kind.provider === undefined ? OTHER : providerName(kind.provider),
    };
    const tenant: Attributes = kind.tenant === undefined ? {} : { tenant: kind.tenant };
    const turn: Attributes = { ...provider, [ATTR.requestModel]: requestModel };
    const genAi: Attributes = {
      [ATTR.operation]: OPERATION_CHAT,
      ...turn,
      ...(responseModel !== undefined && { [ATTR.responseModel]: responseModel }),
      ...(server !== undefined && {
        'server.address': server.serverAddress,
        'server.port': server.serverPort,
      }),
    };
    this.kind = kind;
    this.#instruments = instruments;
    this.#genAi = genAi;
    this.#turn = turn;
    this.#tenant = tenant;
    const histogram = instruments.histogram;
    const both = (newer: Parameters<typeof histogram>[0], older: Parameters<typeof histogram>[0]) => [
      histogram(newer, genAi),
      histogram(older, genAi),
    ];
    this.#durations = both(METRIC.duration, METRIC.operationDuration);
    this.#firstOutput = both(METRIC.timeToFirstChunk, METRIC.operationTimeToFirstChunk);
    this.#perOutput = both(METRIC.timePerOutputChunk, METRIC.operationTimePerOutputChunk);
    const tokens = (metric: Parameters<typeof histogram>[0], type: string) => [
      histogram(metric, genAi),
      histogram(METRIC.tokenUsage, { ...genAi, [ATTR.tokenType]: type }),
    ];
    this.#inputTokens = tokens(METRIC.inputTokens, 'input');
    this.#outputTokens = tokens(METRIC.outputTokens, 'output');
    const used = { ...genAi, [ATTR.tokenModality]: MODALITY_UNKNOWN };
    const counter = instruments.counter;
    this.#usage = {
      inputTokens: counter(METRIC.inputUsage, used),
      outputTokens: counter(METRIC.outputUsage, used),
      cachedInputTokens: counter(METRIC.cacheReadUsage, used),
      cacheWriteTokens: counter(METRIC.cacheWriteUsage, used),
      reasoningTokens: counter(METRIC.reasoningUsage, used),
    };
    const ofType = (type: string) =>
      counter('responses_gateway.tokens', { ...turn, ...tenant, [ATTR.tokenType]: type });
    this.#tokens = {
      inputTokens: ofType('input'),
      cachedInputTokens: ofType('cached_input'),
      cacheWriteTokens: ofType('cache_write'),
      outputTokens: ofType('output'),
      reasoningTokens: ofType('reasoning'),
    };
    this.#queue = histogram('responses_gateway.turn.queue.duration', turn);
    this.#gateway = histogram('responses_gateway.turn.gateway.duration', turn);
    this.#addedUp = histogram('responses_gateway.turn.added.up', turn);
    this.#addedDown = histogram('responses_gateway.turn.added.down', turn);
    this.#upstream = histogram('responses_gateway.turn.upstream.duration', turn);
    this.#toolCalls = counter('responses_gateway.tool_calls', turn);
    const bytes = { ...provider, ...tenant };
    this.#bytesUp = counter('responses_gateway.upstream.bytes', { ...bytes, direction: 'up' });
    this.#bytesDown = counter('responses_gateway.upstream.bytes', { ...bytes, direction: 'down' });
    this.#context = counter('responses_gateway.context.bytes', bytes);
    this.#saved = counter('responses_gateway.context.saved.bytes', bytes);
  }

  turnEnded(record: TurnRecord, split: TurnSplit): void {
    const { failed, usage } = record;
    if (failed === undefined) tell(this.#durations, split.totalSeconds);
    else this.#failed(failed, split);
    if (split.firstOutputSeconds !== undefined) tell(this.#firstOutput, split.firstOutputSeconds);
    if (split.perOutputSeconds !== undefined) tell(this.#perOutput, split.perOutputSeconds);
    if (usage !== undefined) this.tokens(usage);
    this.cost(record);
    this.#outcome(record.outcome).add(1);
    this.#queue.record(split.queueSeconds);
    if (record.sentAtMs === undefined) return;
    this.#gateway.record(split.gatewaySeconds);
    if (split.addedUpSeconds !== undefined) this.#addedUp.record(split.addedUpSeconds);
    if (split.addedDownSeconds !== undefined) this.#addedDown.record(split.addedDownSeconds);
    this.#upstream.record(split.upstreamSeconds);
    if (record.toolCalls > 0) this.#toolCalls.add(record.toolCalls);
    this.#bytesUp.add(record.bytesUp);
    this.#bytesDown.add(record.bytesDown);
    this.#context.add(record.fullContextBytes);
    this.#saved.add(Math.max(0, record.fullContextBytes - record.bytesUp));
  }

  tokens(usage: Usage): void {
    tell(this.#inputTokens, usage.inputTokens);
    tell(this.#outputTokens, usage.outputTokens);
    for (const name of COUNTS) {
      this.#usage[name].add(usage[name]);
      if (usage[name] > 0) this.#tokens[name].add(usage[name]);
    }
  }

  cost({ cost, unpriced }: Pick<BesideFact, 'cost' | 'unpriced'>): void {
    const instruments = this.#instruments;
    if (unpriced !== undefined)
      instruments.add('responses_gateway.turns.unpriced', 1, { ...this.#turn, why: unpriced });
    if (cost === undefined) return;
    instruments.add('responses_gateway.cost', Number(cost.amount), {
      ...this.#turn,
      ...this.#tenant,
      currency: cost.currency,
    });
  }

  #outcome(outcome: TurnRecord['outcome']): Counter {
    let counter = this.#outcomes.get(outcome);
    if (counter === undefined) {
      const labels = { ...this.#turn, ...this.#tenant, outcome };
      counter = this.#instruments.counter('responses_gateway.turns', labels);
      this.#outcomes.set(outcome, counter);
    }
    return counter;
  }

  #failed({ error, phase, replay }: NonNullable<TurnRecord['failed']>, split: TurnSplit): void {
    const instruments = this.#instruments;
    const type = { 'error.type': errorType(error.reason, error.upstream?.code) };
    const labels = { ...this.#genAi, ...type };
    instruments.record(METRIC.duration, split.totalSeconds, labels);
    instruments.record(METRIC.operationDuration, split.totalSeconds, labels);
    const { fault } = error;
    instruments.add('responses_gateway.turn.faults', 1, { fault });
    instruments.add('responses_gateway.turn.failures', 1, { ...type, fault, phase, replay });
  }
}

const COUNTS = [
  'inputTokens',
  'outputTokens',
  'cachedInputTokens',
  'cacheWriteTokens',
  'reasoningTokens',
] as const satisfies readonly (keyof Usage)[];

/** To the histograms of both versions of the conventions, of which the one that is not chosen takes nothing. */
function tell(histograms: readonly Histogram[], value: number): void {
  for (const histogram of histograms) histogram.record(value);
}
