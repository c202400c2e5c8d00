import type { Attributes } from '@opentelemetry/api';
import type { Fact, LinkRoute, TurnRecord, Usage } from '../core/types.ts';
import type { StatusCode } from '../errors.ts';
import { ATTR, METRIC, MODALITY_UNKNOWN, OPERATION_CHAT, providerName } from './genai-names.ts';
import { errorType, type LabelValues, OTHER } from './labels.ts';
import type { LastScrape } from './last-scrape.ts';
import type { LinkCensus } from './link-census.ts';
import type { Instruments } from './meters.ts';
import { withEntry, without } from './optional-map.ts';
import type { ReturnedCalls } from './tool-times.ts';
import type { TurnSplit } from './turn-split.ts';
import type { BesideFact } from './types.ts';

/** What all sessions of the process share. */
export interface MeterShare {
  readonly instruments: Instruments;
  readonly models: LabelValues;
  readonly tools: LabelValues;
  /** Undefined: no tenant label. */
  readonly tenants: LabelValues | undefined;
  readonly reason: (reason: string) => string;
  readonly links: LinkCensus;
  readonly batches: BatchCounts;
  readonly lastScrape: LastScrape;
}

interface OpenLink {
  readonly atMs: number;
  readonly route: LinkRoute;
}

/** Labels for the tokens of a turn. */
interface TurnLabels {
  readonly genAi: Attributes;
  readonly turn: Attributes;
}

/** A turn that may still cost something: one that was steered has several responses. */
interface AwaitedUsage extends TurnLabels {
  readonly heard: Set<string>;
}

// Usage of a cancelled turn comes soon or never; more than a few are not waited for.
const MAX_AWAITED_USAGES = 16;
const NO_TENANT: Attributes = {};
const MODEL_PART: Attributes = { part: 'model' };
const GATEWAY_PART: Attributes = { part: 'gateway' };
const TOOLS_PART: Attributes = { part: 'tools' };

export class SessionMeters {
  readonly #share: MeterShare;
  readonly #tenant: Attributes;
  readonly #startedAt = performance.now();
  #links: Map<number, OpenLink> | undefined;
  #awaitedUsage: Map<string, AwaitedUsage> | undefined;
  #lanes = 0;
  #turns = 0;
  #pausedAtMs: number | undefined;

  constructor(share: MeterShare, tenantId: string) {
    this.#share = share;
    share.tenants?.learn(tenantId);
    this.#tenant = share.tenants === undefined ? NO_TENANT : { tenant: share.tenants.of(tenantId) };
    share.instruments.move('responses_gateway.sessions.active', 1);
  }

  /** Every fact but the end of a turn. */
  fact(fact: Fact, beside?: BesideFact): void {
    const { instruments, links: census } = this.#share;
    switch (fact.kind) {
      case 'turnAccepted':
        this.#turns += 1;
        instruments.move('responses_gateway.turns.active', 1);
        return;
      case 'lateUsage': {
        return this.#lateUsage(fact, beside);
      }
      case 'durabilityLost':
        instruments.add('responses_gateway.sessions.durability_lost', 1, { reason: fact.reason });
        return;
      case 'laneOpened':
        this.#lanes += 1;
        instruments.move('responses_gateway.lanes.active', 1);
        return;
      case 'laneClosed':
        this.#lanes -= 1;
        instruments.move('responses_gateway.lanes.active', -1);
        return;
      case 'linkDialing':
        // Numbers of links are the session's own; the census counts over all sessions.
        census.dialing(fact.linkId, this);
        return;
      case 'linkUp':
        this.#links = withEntry(this.#links, fact.linkId, { atMs: fact.atMs, route: fact.route });
        census.opened(fact.linkId, this);
        return;
      case 'linkDown':
        return this.#linkDown(fact);
      case 'recovered':
      case 'rotated':
      case 'replayed':
        return this.#rebuilt(fact);
      case 'strayFrame':
        return instruments.add('responses_gateway.upstream.stray_frames', 1, {
          type: this.#share.reason(fact.type),
        });
      case 'paused':
        if (this.#pausedAtMs === undefined) instruments.move('responses_gateway.sessions.paused', 1);
        this.#pausedAtMs ??= fact.atMs;
        return;
      case 'unpaused':
        return this.#unpaused(fact.atMs);
      case 'refused': {
        const { reason, metadata } = fact.error;
        instruments.add('responses_gateway.refusals', 1, {
          request: fact.request,
          reason,
          ...(reason === 'LIMIT_EXCEEDED' && { limit: metadata['limit'] ?? OTHER }),
          ...this.#tenant,
        });
        return;
      }
      case 'turnSent':
      case 'responseCreated':
      case 'firstOutput':
      case 'toolCalled':
      case 'itemDone':
      case 'turnEnded':
      case 'lanesProven':
      case 'lanesRefuted':
        return;
    }
  }

  turnEnded(record: TurnRecord, split: TurnSplit, tools?: ReturnedCalls | 'called'): void {
    const { instruments, models } = this.#share;
    this.#turns -= 1;
    instruments.move('responses_gateway.turns.active', -1);
    if (record.outcome === 'COMPLETED' || record.outcome === 'INCOMPLETE') {
      models.learn(record.requestModel);
      models.learn(record.responseModel);
    }
    const { failed, route, usage } = record;
    const provider = { [ATTR.provider]: route === undefined ? OTHER : providerName(route.provider) };
    const turn: Attributes = { ...provider, [ATTR.requestModel]: models.of(record.requestModel) };
    const genAi: Attributes = {
      [ATTR.operation]: OPERATION_CHAT,
      ...turn,
      ...(record.responseModel !== undefined && {
        [ATTR.responseModel]: models.of(record.responseModel),
      }),
      ...(route !== undefined && { 'server.address': route.serverAddress, 'server.port': route.serverPort }),
    };
    const error =
      failed === undefined
        ? {}
        : { 'error.type': errorType(failed.error.reason, failed.error.upstream?.code) };

    const withError = { ...genAi, ...error };
    instruments.record(METRIC.duration, split.totalSeconds, withError);
    instruments.record(METRIC.operationDuration, split.totalSeconds, withError);
    if (split.firstOutputSeconds !== undefined) {
      instruments.record(METRIC.timeToFirstChunk, split.firstOutputSeconds, genAi);
      instruments.record(METRIC.operationTimeToFirstChunk, split.firstOutputSeconds, genAi);
    }
    if (split.perOutputSeconds !== undefined) {
      instruments.record(METRIC.timePerOutputChunk, split.perOutputSeconds, genAi);
      instruments.record(METRIC.operationTimePerOutputChunk, split.perOutputSeconds, genAi);
    }
    if (usage !== undefined) this.#tokens({ genAi, turn }, usage);
    this.#cost(turn, record);
    const runsOn = record.outcome === 'CANCELLED' || record.outcome === 'DEADLINE_EXCEEDED';
    if (record.sentAtMs !== undefined && (usage === undefined || runsOn))
      this.#awaitUsage(record.turnId, { genAi, turn, heard: new Set() });

    instruments.add('responses_gateway.turns', 1, {
      ...turn,
      ...this.#tenant,
      outcome: record.outcome,
    });
    if (failed !== undefined) {
      if (failed.error.fault !== 'client') this.#share.lastScrape.turnFailed();
      instruments.add('responses_gateway.turn.faults', 1, { fault: failed.error.fault });
      instruments.add('responses_gateway.turn.failures', 1, {
        ...error,
        fault: failed.error.fault,
        phase: failed.phase,
        replay: failed.replay,
      });
    }
    instruments.record('responses_gateway.turn.queue.duration', split.queueSeconds, turn);
    if (record.sentAtMs === undefined) return;
    instruments.record('responses_gateway.turn.gateway.duration', split.gatewaySeconds, turn);
    if (split.addedUpSeconds !== undefined)
      instruments.record('responses_gateway.turn.added.up', split.addedUpSeconds, turn);
    if (split.addedDownSeconds !== undefined)
      instruments.record('responses_gateway.turn.added.down', split.addedDownSeconds, turn);
    instruments.record('responses_gateway.turn.upstream.duration', split.upstreamSeconds, turn);
    if (tools !== undefined) this.#loop(split, tools);
    if (record.toolCalls > 0) instruments.add('responses_gateway.tool_calls', record.toolCalls, turn);
    const bytes = { ...provider, ...this.#tenant };
    instruments.add('responses_gateway.upstream.bytes', record.bytesUp, { ...bytes, direction: 'up' });
    instruments.add('responses_gateway.upstream.bytes', record.bytesDown, { ...bytes, direction: 'down' });
    instruments.add('responses_gateway.context.bytes', record.fullContextBytes, bytes);
    instruments.add(
      'responses_gateway.context.saved.bytes',
      Math.max(0, record.fullContextBytes - record.bytesUp),
      bytes,
    );
  }

  batch(events: number, bytes: number): void {
    this.#share.batches.add(events, bytes);
  }

  resumed(outcome: string): void {
    this.#share.instruments.add('responses_gateway.resumes', 1, { outcome: outcome });
  }

  end(status: StatusCode | 'OK'): void {
    const { instruments, links: census } = this.#share;
    for (; this.#lanes > 0; this.#lanes -= 1) instruments.move('responses_gateway.lanes.active', -1);
    for (; this.#turns > 0; this.#turns -= 1) instruments.move('responses_gateway.turns.active', -1);
    census.forget(this);
    this.#links = undefined;
    if (this.#pausedAtMs !== undefined) instruments.move('responses_gateway.sessions.paused', -1);
    this.#pausedAtMs = undefined;
    instruments.move('responses_gateway.sessions.active', -1);
    instruments.record('responses_gateway.session.duration', (performance.now() - this.#startedAt) / 1_000, {
      'rpc.status_code': status,
    });
  }

  #linkDown(fact: Extract<Fact, { kind: 'linkDown' }>): void {
    const { instruments, links: census, reason } = this.#share;
    const link = this.#links?.get(fact.linkId);
    this.#links = without(this.#links, fact.linkId);
    census.closed(fact.linkId, this);
    if (link === undefined) return;
    instruments.record('responses_gateway.link.duration', Math.max(0, fact.atMs - link.atMs) / 1_000, {
      [ATTR.provider]: providerName(link.route.provider),
      reason: reason(fact.reason),
    });
  }

  #rebuilt(fact: Extract<Fact, { startedAtMs: number }>): void {
    const { instruments, reason } = this.#share;
    const labels = { reason: reason(fact.reason) };
    const seconds = Math.max(0, fact.endedAtMs - fact.startedAtMs) / 1_000;
    switch (fact.kind) {
      case 'recovered':
        instruments.add('responses_gateway.recoveries', 1, labels);
        instruments.record('responses_gateway.recovery.duration', seconds, labels);
        break;
      case 'rotated':
        instruments.add('responses_gateway.rotations', 1, labels);
        instruments.record('responses_gateway.rotation.duration', seconds, labels);
        break;
      case 'replayed':
        instruments.add('responses_gateway.replays', 1, labels);
        instruments.add('responses_gateway.replay.bytes', fact.bytes, labels);
        break;
    }
  }

  #unpaused(atMs: number): void {
    if (this.#pausedAtMs === undefined) return;
    const { instruments } = this.#share;
    instruments.move('responses_gateway.sessions.paused', -1);
    instruments.record(
      'responses_gateway.backpressure.duration',
      Math.max(0, atMs - this.#pausedAtMs) / 1_000,
    );
    this.#pausedAtMs = undefined;
  }

  #tokens({ genAi, turn }: TurnLabels, usage: Usage): void {
    const { instruments } = this.#share;
    instruments.record(METRIC.inputTokens, usage.inputTokens, genAi);
    instruments.record(METRIC.outputTokens, usage.outputTokens, genAi);
    if (instruments.emits(METRIC.tokenUsage)) {
      instruments.record(METRIC.tokenUsage, usage.inputTokens, { ...genAi, [ATTR.tokenType]: 'input' });
      instruments.record(METRIC.tokenUsage, usage.outputTokens, { ...genAi, [ATTR.tokenType]: 'output' });
    }
    if (instruments.emits(METRIC.inputUsage)) {
      const used = { ...genAi, [ATTR.tokenModality]: MODALITY_UNKNOWN };
      instruments.add(METRIC.inputUsage, usage.inputTokens, used);
      instruments.add(METRIC.outputUsage, usage.outputTokens, used);
      instruments.add(METRIC.cacheReadUsage, usage.cachedInputTokens, used);
      instruments.add(METRIC.cacheWriteUsage, usage.cacheWriteTokens, used);
      instruments.add(METRIC.reasoningUsage, usage.reasoningTokens, used);
    }
    const counts: [string, number][] = [
      ['input', usage.inputTokens],
      ['cached_input', usage.cachedInputTokens],
      ['cache_write', usage.cacheWriteTokens],
      ['output', usage.outputTokens],
      ['reasoning', usage.reasoningTokens],
    ];
    for (const [type, count] of counts) {
      if (count > 0) {
        instruments.add('responses_gateway.tokens', count, {
          ...turn,
          ...this.#tenant,
          [ATTR.tokenType]: type,
        });
      }
    }
  }

  /** Of a turn that called tools or brought their outputs: what the loop around it spent where. */
  #loop(split: TurnSplit, tools: ReturnedCalls | 'called'): void {
    const { instruments, tools: names } = this.#share;
    const gateway =
      split.queueSeconds + split.gatewaySeconds + (split.addedUpSeconds ?? 0) + (split.addedDownSeconds ?? 0);
    instruments.add('responses_gateway.loop.time', split.upstreamSeconds, MODEL_PART);
    instruments.add('responses_gateway.loop.time', gateway, GATEWAY_PART);
    if (tools === 'called') return;
    instruments.add('responses_gateway.loop.time', tools.seconds, TOOLS_PART);
    for (const { name, seconds } of tools.calls) {
      names.learn(name);
      instruments.record('responses_gateway.tool.duration', seconds, { [ATTR.toolName]: names.of(name) });
    }
  }

  #cost(turn: Attributes, { cost, unpriced }: Pick<BesideFact, 'cost' | 'unpriced'>): void {
    const { instruments } = this.#share;
    if (unpriced !== undefined)
      instruments.add('responses_gateway.turns.unpriced', 1, { ...turn, why: unpriced });
    if (cost === undefined) return;
    instruments.add('responses_gateway.cost', Number(cost.amount), {
      ...turn,
      ...this.#tenant,
      currency: cost.currency,
    });
  }

  #lateUsage(
    { turnId, responseId = '', usage }: Extract<Fact, { kind: 'lateUsage' }>,
    beside: BesideFact | undefined,
  ): void {
    if (turnId === '') return this.#tokens(this.#ownLabels(), usage);
    const awaited = this.#awaitedUsage?.get(turnId);
    if (awaited === undefined || awaited.heard.has(responseId)) return;
    awaited.heard.add(responseId);
    this.#tokens(awaited, usage);
    if (beside !== undefined) this.#cost(awaited.turn, beside);
  }

  /** Of what the gateway spends by itself, and of no turn any more. */
  #ownLabels(): TurnLabels {
    const route = this.#links?.values().next().value?.route;
    const provider = { [ATTR.provider]: route === undefined ? OTHER : providerName(route.provider) };
    const turn = { ...provider, [ATTR.requestModel]: OTHER };
    return { genAi: { [ATTR.operation]: OPERATION_CHAT, ...turn }, turn };
  }

  #awaitUsage(turnId: string, labels: AwaitedUsage): void {
    this.#awaitedUsage = withEntry(this.#awaitedUsage, turnId, labels);
    if (this.#awaitedUsage.size <= MAX_AWAITED_USAGES) return;
    for (const oldest of this.#awaitedUsage.keys()) {
      this.#awaitedUsage.delete(oldest);
      break;
    }
  }
}

/** Plain numbers: this is told for every write to a client, which may hold a single delta. */
export interface BatchCounts {
  add(events: number, bytes: number): void;
  readonly events: number;
  readonly bytes: number;
  bySize(): Iterable<readonly [number, Attributes]>;
}

// 1, 2–4, 5–16, 17–64, more: powers of four, told by the position of the highest bit.
const SIZES = ['1', '2-4', '5-16', '17-64', '65+'];

export function createBatchCounts(): BatchCounts {
  const counts = SIZES.map(() => 0);
  const sums = { events: 0, bytes: 0 };
  return {
    add(events, bytes) {
      sums.events += events;
      sums.bytes += bytes;
      const size = events <= 1 ? 0 : Math.min(4, (33 - Math.clz32(events - 1)) >> 1);
      counts[size] = (counts[size] ?? 0) + 1;
    },
    get events() {
      return sums.events;
    },
    get bytes() {
      return sums.bytes;
    },
    bySize: () => counts.map((count, at) => [count, { size: SIZES[at] ?? OTHER }] as const),
  };
}
