import type { Fact, SteerTurn, TurnRecord } from '../core/types.ts';
import type { StatusCode } from '../errors.ts';
import { FewMap } from '../ground/few-map.ts';
import { formatMoney, type Picos, parseMoney, ZERO } from '../ground/money.ts';
import type { AttributedUse, SessionStart, SessionWatcher, TraceIds, TurnSplit } from '../telemetry/types.ts';
import { attribute, ToolUses } from './attribution.ts';
import { type Entry, type LinkEntry, type Mark, short, TurnEntry, turnEnd } from './entries.ts';

/** What the sessions of a process share. */
export interface HistoryShare {
  readonly limits: { readonly turns: number; readonly links: number; readonly marks: number };
  readonly clock: () => number;
  /** Makes place for one more over all sessions. */
  readonly kept: (session: SessionHistory, entry: Entry) => void;
  readonly onTurnAccepted: () => void;
  readonly onTurnEnded: (session: SessionHistory, record: TurnRecord, split: TurnSplit) => void;
  readonly onFact: (fact: Fact) => void;
  readonly onResumed: () => void;
  readonly onStream: (attached: boolean) => void;
  readonly onEnded: (session: SessionHistory) => void;
}

const MAX_TOOL_NAMES = 16;
/** Ids are shorter by far. */
const MAX_ITEM_ID = 128;
const MAX_RESPONSES = 16;
const NONE: readonly never[] = [];

/**
 * What is remembered of one session, bounded by number. Lists are made with their first entry, so that a session which
 * does nothing has none.
 */
export class SessionHistory implements SessionWatcher {
  readonly start: SessionStart;
  readonly startedAtMs: number;
  endedAtMs: number | undefined = undefined;
  status: StatusCode | 'OK' | undefined = undefined;
  /** Of the last turn's begin or end; else the session's start. */
  activeAtMs: number;
  attached = 0;
  /** Accepted so far. */
  turnsTotal = 0;
  failures = 0;
  inputTokens = 0;
  cachedInputTokens = 0;
  outputTokens = 0;
  bytesUp = 0;
  bytesSaved = 0;
  /** Entries of this session that were given up for newer ones. */
  dropped = 0;
  lastModel: string | undefined = undefined;
  #cost: Picos | undefined = undefined;
  #currency: string | undefined = undefined;
  readonly #share: HistoryShare;
  #turns: TurnEntry[] | undefined = undefined;
  readonly #running = new FewMap<string, TurnEntry>();
  #links: LinkEntry[] | undefined = undefined;
  #marks: Mark[] | undefined = undefined;
  #fork: { readonly turnId: string; readonly responseId: string } | undefined = undefined;
  #lanes: Set<string> | undefined = undefined;
  #tools: ToolUses | undefined = undefined;
  #lastItemId: string | undefined = undefined;

  constructor(share: HistoryShare, start: SessionStart) {
    this.#share = share;
    this.start = start;
    this.startedAtMs = share.clock();
    this.activeAtMs = this.startedAtMs;
    const { takenOverSinceMs } = start;
    if (takenOverSinceMs !== undefined)
      this.#mark({ kind: 'takenOver', startedAtMs: takenOverSinceMs, endedAtMs: this.startedAtMs });
  }

  /** Of its priced turns, exact; undefined: none was. */
  get cost(): { readonly amount: string; readonly currency: string } | undefined {
    if (this.#cost === undefined || this.#currency === undefined) return undefined;
    return { amount: formatMoney(this.#cost), currency: this.#currency };
  }

  /** Oldest first. */
  get turns(): readonly TurnEntry[] {
    return this.#turns ?? NONE;
  }

  get links(): readonly LinkEntry[] {
    return this.#links ?? NONE;
  }

  get marks(): readonly Mark[] {
    return this.#marks ?? NONE;
  }

  /** `running`: a turn runs or waits; `detached`: none does, and no client stream listens. */
  get state(): 'running' | 'idle' | 'detached' | 'ended' {
    if (this.endedAtMs !== undefined) return 'ended';
    if (this.running > 0) return 'running';
    return this.attached > 0 ? 'idle' : 'detached';
  }

  get running(): number {
    return this.#running.size;
  }

  /** Open ones. */
  get lanes(): ReadonlySet<string> | undefined {
    return this.#lanes;
  }

  /** Tools that it called; undefined: none yet. */
  get tools(): ToolUses | undefined {
    return this.#tools;
  }

  fact(fact: Fact): void {
    this.#share.onFact(fact);
    switch (fact.kind) {
      case 'turnAccepted':
        return this.#turnAccepted(fact);
      case 'turnSent': {
        const turn = this.#running.get(fact.turnId);
        if (turn === undefined) return;
        turn.sentAtMs ??= fact.atMs;
        turn.linkId = fact.linkId;
        return;
      }
      case 'responseCreated':
        return this.#responseCreated(fact.turnId, fact.responseId);
      case 'firstOutput': {
        const turn = this.#running.get(fact.turnId);
        if (turn !== undefined) turn.firstOutputAtMs ??= fact.atMs;
        return;
      }
      case 'itemDone':
        this.#lastItemId = fact.itemId.length > MAX_ITEM_ID ? undefined : fact.itemId;
        return;
      case 'toolCalled': {
        // Told right after the item that is the call.
        this.#tools ??= new ToolUses();
        this.#tools.called(short(fact.name), this.#lastItemId);
        this.#lastItemId = undefined;
        const turn = this.#running.get(fact.turnId);
        if (turn === undefined) return;
        turn.tools ??= [];
        if (turn.tools.length < MAX_TOOL_NAMES) turn.tools.push(short(fact.name));
        return;
      }
      case 'laneOpened':
        this.#lanes ??= new Set();
        this.#lanes.add(fact.laneId);
        return;
      case 'laneClosed':
        this.#lanes?.delete(fact.laneId);
        return;
      case 'linkDialing':
        return this.#linkDialing(fact);
      case 'linkUp': {
        const link = this.#link(fact.linkId);
        if (link === undefined) return;
        link.upAtMs = fact.atMs;
        link.upstream = fact.route.upstream;
        link.pooled = fact.route.pooled;
        return;
      }
      case 'linkDown': {
        const link = this.#link(fact.linkId);
        if (link === undefined) return;
        link.downAtMs = fact.atMs;
        link.downReason = fact.reason;
        link.closeCode = fact.closeCode;
        return;
      }
      case 'recovered':
      case 'rotated':
      case 'replayed':
        return this.#mark({
          kind: fact.kind,
          startedAtMs: fact.startedAtMs,
          endedAtMs: fact.endedAtMs,
          turnId: fact.turnId,
          linkId: fact.linkId,
          reason: fact.reason,
          bytes: fact.bytes,
        });
      case 'refused':
        return this.#mark({ kind: 'refused', startedAtMs: this.#share.clock(), reason: fact.error.reason });
      case 'paused':
        return this.#mark({ kind: 'paused', startedAtMs: fact.atMs, bytes: fact.bufferedBytes });
      case 'unpaused': {
        const paused = this.#marks?.findLast(({ kind }) => kind === 'paused');
        if (paused !== undefined) paused.endedAtMs = fact.atMs;
        return;
      }
      case 'durabilityLost':
        return this.#mark({
          kind: 'durabilityLost',
          startedAtMs: this.#share.clock(),
          reason: fact.reason,
        });
      default:
        return;
    }
  }

  turnEnded(
    record: TurnRecord,
    split: TurnSplit,
    trace: TraceIds | undefined,
    attributed?: readonly AttributedUse[],
  ): void {
    const { turnId, usage } = record;
    const turn = this.#running.get(turnId);
    this.#running.delete(turnId);
    this.activeAtMs = record.endedAtMs;
    if (record.outcome === 'FAILED' || record.outcome === 'DEADLINE_EXCEEDED') this.failures += 1;
    this.inputTokens += usage?.inputTokens ?? 0;
    this.cachedInputTokens += usage?.cachedInputTokens ?? 0;
    this.outputTokens += usage?.outputTokens ?? 0;
    if (record.cost !== undefined) {
      this.#cost = (this.#cost ?? ZERO) + (parseMoney(record.cost.amount) ?? ZERO);
      this.#currency = record.cost.currency;
    }
    this.bytesUp += record.bytesUp;
    this.bytesSaved += Math.max(0, record.fullContextBytes - record.bytesUp);
    this.lastModel = short(record.responseModel ?? record.requestModel) ?? this.lastModel;
    const attribution = attributed && attribute(attributed, this.#tools);
    this.#share.onTurnEnded(this, record, split);
    if (turn === undefined) return;
    turn.endedAtMs = record.endedAtMs;
    turn.end = turnEnd(record, split, trace, attribution);
  }

  forked(turnId: string, responseId: string): void {
    this.#fork = { turnId, responseId: short(responseId) };
  }

  steered({ laneId, turnId }: SteerTurn): void {
    this.#mark({ kind: 'steered', startedAtMs: this.#share.clock(), laneId, turnId });
  }

  resumed(outcome: string): void {
    this.#share.onResumed();
    this.#mark({ kind: 'resumed', startedAtMs: this.#share.clock(), reason: outcome });
  }

  stream(attached: boolean): void {
    this.attached += attached ? 1 : -1;
    this.#share.onStream(attached);
  }

  end(status: StatusCode | 'OK'): void {
    this.endedAtMs = this.#share.clock();
    this.status = status;
    this.#share.onEnded(this);
    this.#running.clear();
    this.#lanes = undefined;
  }

  /** The oldest of its kind, if it is still here: newer entries need the place. */
  forget(entry: Entry): void {
    for (const list of [this.#turns, this.#links, this.#marks]) {
      if (list?.[0] !== entry) continue;
      list.shift();
      this.dropped += 1;
      return;
    }
  }

  #turnAccepted(fact: Extract<Fact, { kind: 'turnAccepted' }>): void {
    const { turnId, laneId, atMs } = fact;
    const model = short(fact.model);
    const turn = new TurnEntry(turnId, laneId, atMs, model);
    if (this.#fork?.turnId === turnId) turn.fromResponseId = this.#fork.responseId;
    this.#fork = undefined;
    this.turnsTotal += 1;
    this.activeAtMs = atMs;
    this.lastModel = model ?? this.lastModel;
    this.#running.set(turnId, turn);
    this.#turns ??= [];
    this.#keep(this.#turns, turn, this.#share.limits.turns);
    this.#share.onTurnAccepted();
  }

  #responseCreated(turnId: string, wholeId: string): void {
    const responseId = short(wholeId);
    const turn = this.#running.get(turnId);
    if (turn === undefined) return;
    const known = turn.responseIds;
    if (known === undefined) turn.responseIds = responseId;
    else if (typeof known === 'string') turn.responseIds = [known, responseId];
    else if (known.length < MAX_RESPONSES) known.push(responseId);
  }

  #linkDialing({ linkId, purpose, atMs }: Extract<Fact, { kind: 'linkDialing' }>): void {
    this.#links ??= [];
    const link: LinkEntry = {
      linkId,
      purpose,
      dialedAtMs: atMs,
      upAtMs: undefined,
      downAtMs: undefined,
      downReason: undefined,
      closeCode: undefined,
      upstream: undefined,
      pooled: false,
    };
    this.#keep(this.#links, link, this.#share.limits.links);
  }

  #link(linkId: number): LinkEntry | undefined {
    return this.#links?.findLast((link) => link.linkId === linkId);
  }

  #mark(mark: Pick<Mark, 'kind' | 'startedAtMs'> & Partial<Mark>): void {
    this.#marks ??= [];
    const whole: Mark = {
      endedAtMs: mark.startedAtMs,
      laneId: undefined,
      turnId: undefined,
      linkId: undefined,
      reason: undefined,
      bytes: 0,
      ...mark,
    };
    this.#keep(this.#marks, whole, this.#share.limits.marks);
  }

  #keep<E extends Entry>(list: E[], entry: E, max: number): void {
    list.push(entry);
    if (list.length > max) {
      list.shift();
      this.dropped += 1;
    }
    this.#share.kept(this, entry);
  }
}
