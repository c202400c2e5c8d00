import type { Attributes } from '@opentelemetry/api';
import type { Fact, LinkRoute, TurnRecord } from '../core/types.ts';
import type { StatusCode } from '../errors.ts';
import type { FewMap } from '../ground/few-map.ts';
import { ATTR, providerName } from './genai-names.ts';
import { type LabelValues, OTHER } from './labels.ts';
import type { LastScrape } from './last-scrape.ts';
import type { LinkCensus } from './link-census.ts';
import type { Instruments } from './meters.ts';
import { withEntry, without } from './optional-map.ts';
import type { ReturnedCalls } from './tool-times.ts';
import type { TurnKinds, TurnMeters } from './turn-meters.ts';
import type { TurnSplit } from './turn-split.ts';
import type { BesideFact } from './types.ts';

/** What all sessions of the process share. */
export interface MeterShare {
  readonly instruments: Instruments;
  readonly kinds: TurnKinds;
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

/** A turn that may still cost something: one that was steered has several responses. */
interface AwaitedUsage {
  readonly meters: TurnMeters;
  readonly heard: Set<string>;
}

// Usage of a cancelled turn comes soon or never; more than a few are not waited for.
const MAX_AWAITED_USAGES = 16;
const MODEL_PART: Attributes = { part: 'model' };
const GATEWAY_PART: Attributes = { part: 'gateway' };
const TOOLS_PART: Attributes = { part: 'tools' };

export class SessionMeters {
  readonly #share: MeterShare;
  /** The label's value; undefined: there is no such label. */
  readonly #tenant: string | undefined;
  readonly #startedAt = performance.now();
  #links: FewMap<number, OpenLink> | undefined;
  #awaitedUsage: FewMap<string, AwaitedUsage> | undefined;
  #lastMeters: TurnMeters | undefined;
  #lastRoute: LinkRoute | undefined;
  #lanes = 0;
  #turns = 0;
  #pausedAtMs: number | undefined;

  constructor(share: MeterShare, tenantId: string) {
    this.#share = share;
    share.tenants?.learn(tenantId);
    this.#tenant = share.tenants?.of(tenantId);
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
          ...(this.#tenant !== undefined && { tenant: this.#tenant }),
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
    const { outcome, usage, sentAtMs } = record;
    if (outcome === 'COMPLETED' || outcome === 'INCOMPLETE') {
      models.learn(record.requestModel);
      models.learn(record.responseModel);
    }
    const meters = this.#metersOf(record);
    meters.turnEnded(record, split);
    if (record.failed !== undefined && record.failed.error.fault !== 'client')
      this.#share.lastScrape.turnFailed();
    if (sentAtMs === undefined) return;
    const runsOn = outcome === 'CANCELLED' || outcome === 'DEADLINE_EXCEEDED';
    if (usage === undefined || runsOn) this.#awaitUsage(record.turnId, { meters, heard: new Set() });
    if (tools !== undefined) this.#loop(split, tools);
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

  #lateUsage(
    { turnId, responseId = '', usage }: Extract<Fact, { kind: 'lateUsage' }>,
    beside: BesideFact | undefined,
  ): void {
    if (turnId === '') return this.#ownMeters().tokens(usage);
    const awaited = this.#awaitedUsage?.get(turnId);
    if (awaited === undefined || awaited.heard.has(responseId)) return;
    awaited.heard.add(responseId);
    awaited.meters.tokens(usage);
    if (beside !== undefined) awaited.meters.cost(beside);
  }

  /** Turns of a session mostly are of one kind. */
  #metersOf({ requestModel, responseModel, route }: TurnRecord): TurnMeters {
    const { models, kinds } = this.#share;
    const request = models.of(requestModel);
    const response = responseModel === undefined ? undefined : models.of(responseModel);
    const last = this.#lastMeters;
    const { requestModel: lastRequest, responseModel: lastResponse } = last?.kind ?? {};
    if (
      last !== undefined &&
      route === this.#lastRoute &&
      request === lastRequest &&
      response === lastResponse
    )
      return last;
    const found = kinds.of({
      tenant: this.#tenant,
      provider: route?.provider,
      server: route,
      requestModel: request,
      responseModel: response,
    });
    this.#lastMeters = found;
    this.#lastRoute = route;
    return found;
  }

  /** Of what the gateway spends by itself, and of no turn any more. */
  #ownMeters(): TurnMeters {
    const linkId = this.#links?.oldest;
    const link = linkId === undefined ? undefined : this.#links?.get(linkId);
    return this.#share.kinds.of({
      tenant: this.#tenant,
      provider: link?.route.provider,
      server: undefined,
      requestModel: OTHER,
      responseModel: undefined,
    });
  }

  #awaitUsage(turnId: string, awaited: AwaitedUsage): void {
    this.#awaitedUsage = withEntry(this.#awaitedUsage, turnId, awaited);
    const { size, oldest } = this.#awaitedUsage;
    if (size > MAX_AWAITED_USAGES && oldest !== undefined) this.#awaitedUsage.delete(oldest);
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
