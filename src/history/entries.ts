import type { TurnCost, TurnOutcome, TurnRecord, Usage } from '../core/types.ts';
import { knownUpstreamCode } from '../ground/upstream-codes.ts';
import type { TraceIds, TurnSplit } from '../telemetry/types.ts';
import type { AttributedPart } from './attribution.ts';

/** Longer than any name or id that is meant to be one. */
const MAX_CHARACTERS = 256;

/** Names are the callers' and the upstream's words, of any length. */
export function short<Text extends string | undefined>(text: Text): Text;
export function short(text: string | undefined): string | undefined {
  if (text === undefined || text.length <= MAX_CHARACTERS) return text;
  // V8 cuts a text by pointing into it, which would keep the whole.
  return Buffer.from(text.slice(0, MAX_CHARACTERS)).toString();
}

/** What is kept of a turn: names, times and numbers; never what was said. Times are milliseconds since the epoch. */
export class TurnEntry {
  readonly turnId: string;
  readonly laneId: string;
  readonly acceptedAtMs: number;
  model: string | undefined;
  /** The response that the client named to go on from. */
  fromResponseId: string | undefined;
  sentAtMs: number | undefined = undefined;
  firstOutputAtMs: number | undefined = undefined;
  endedAtMs: number | undefined = undefined;
  /** Link of the last send. */
  linkId: number | undefined = undefined;
  /** Oldest first; a turn that was steered has several. */
  responseIds: string | string[] | undefined = undefined;
  tools: string[] | undefined = undefined;
  end: TurnEnd | undefined = undefined;

  constructor(turnId: string, laneId: string, acceptedAtMs: number, model: string | undefined) {
    this.turnId = turnId;
    this.laneId = laneId;
    this.acceptedAtMs = acceptedAtMs;
    this.model = model;
    this.fromResponseId = undefined;
  }
}

export type TurnTokens = Omit<Usage, 'attribution'>;

/** What the end of a turn tells. Made once, from what telemetry has worked out. */
export interface TurnEnd {
  readonly outcome: TurnOutcome;
  readonly queueMs: number;
  readonly rebuildMs: number;
  readonly upstreamMs: number;
  readonly addedUpMs: number | undefined;
  readonly addedDownMs: number | undefined;
  readonly failure:
    | {
        readonly reason: string;
        readonly upstreamCode: string | undefined;
        readonly fault: string;
        readonly phase: string;
        readonly replay: string;
      }
    | undefined;
  readonly responseModel: string | undefined;
  readonly serviceTier: string | undefined;
  readonly finishReason: string | undefined;
  readonly upstream: string | undefined;
  readonly usage: TurnTokens | undefined;
  /** By the operator's price table; undefined: there is none, or it does not have the model. */
  readonly cost: TurnCost | undefined;
  /** What its tokens went to: the parts with the most of them. Undefined: the upstream did not tell. */
  readonly attribution: readonly AttributedPart[] | undefined;
  readonly bytesUp: number;
  readonly bytesDown: number;
  readonly fullContextBytes: number;
  readonly events: number;
  readonly toolCalls: number;
  readonly sends: number;
  readonly replays: number;
  readonly warmUp: boolean;
  readonly traceId: string | undefined;
  readonly spanId: string | undefined;
}

export function turnEnd(
  record: TurnRecord,
  split: TurnSplit,
  trace: TraceIds | undefined,
  attribution: readonly AttributedPart[] | undefined,
): TurnEnd {
  const { failed, usage } = record;
  const recorded = trace?.sampled === true ? trace : undefined;
  return {
    outcome: record.outcome,
    queueMs: split.queueSeconds * 1_000,
    rebuildMs: split.gatewaySeconds * 1_000,
    upstreamMs: split.upstreamSeconds * 1_000,
    addedUpMs: split.addedUpSeconds === undefined ? undefined : split.addedUpSeconds * 1_000,
    addedDownMs: split.addedDownSeconds === undefined ? undefined : split.addedDownSeconds * 1_000,
    // The error itself would keep the message and everything that it was made of.
    failure: failed && {
      reason: failed.error.reason,
      upstreamCode: knownUpstreamCode(failed.error.upstream?.code),
      fault: failed.error.fault,
      phase: failed.phase,
      replay: failed.replay,
    },
    responseModel: short(record.responseModel),
    serviceTier: short(record.serviceTier),
    finishReason: short(record.finishReason),
    upstream: record.route?.upstream,
    usage: usage && tokensOf(usage),
    cost: record.cost,
    attribution,
    bytesUp: record.bytesUp,
    bytesDown: record.bytesDown,
    fullContextBytes: record.fullContextBytes,
    events: record.events,
    toolCalls: record.toolCalls,
    sends: record.sends,
    replays: record.replays,
    warmUp: record.warmUp,
    traceId: recorded?.traceId,
    spanId: recorded?.spanId,
  };
}

/** Without its attribution: the parts of it that are kept are kept apart. Field by field, as this is done for each turn. */
function tokensOf(usage: Usage): TurnTokens {
  return {
    inputTokens: usage.inputTokens,
    cachedInputTokens: usage.cachedInputTokens,
    cacheWriteTokens: usage.cacheWriteTokens,
    outputTokens: usage.outputTokens,
    reasoningTokens: usage.reasoningTokens,
  };
}

/** One upstream link of a session, from its dial to its end. */
export interface LinkEntry {
  readonly linkId: number;
  readonly purpose: string;
  readonly dialedAtMs: number;
  upAtMs: number | undefined;
  downAtMs: number | undefined;
  downReason: string | undefined;
  closeCode: number | undefined;
  upstream: string | undefined;
  pooled: boolean;
}

export type MarkKind =
  | 'recovered'
  | 'rotated'
  | 'replayed'
  | 'resumed'
  | 'takenOver'
  | 'steered'
  | 'refused'
  | 'paused'
  | 'durabilityLost';

/** Something that happened to a session beside its turns. */
export interface Mark {
  readonly kind: MarkKind;
  /** The same as `endedAtMs` for what takes no time. */
  readonly startedAtMs: number;
  endedAtMs: number;
  readonly laneId: string | undefined;
  readonly turnId: string | undefined;
  readonly linkId: number | undefined;
  readonly reason: string | undefined;
  readonly bytes: number;
}

export type Entry = TurnEntry | LinkEntry | Mark;
