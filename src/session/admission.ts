import type {
  BudgetLow,
  InputLook,
  Reservation,
  SessionLease,
  Steps,
  TurnAdmission,
  TurnLease,
  TurnUse,
} from '../access/types.ts';
import type {
  CreateBody,
  Fact,
  InjectTurn,
  StartTurn,
  SteerTurn,
  TurnAccount,
  TurnRecord,
} from '../core/types.ts';
import { FewMap } from '../ground/few-map.ts';
import { valuesNamed } from '../ground/json-names.ts';
import { bytesOfText, type LongTexts } from '../ground/long-texts.ts';
import type { AttributedUse } from '../telemetry/types.ts';
import { AdmittedHistories, NOTHING_ADMITTED } from './admitted-histories.ts';
import type { SessionBudget } from './budget.ts';

/** Ended turns whose usage may still come (cancelled, timed out); more are forgotten, oldest first. */
const MAX_LATE_TURNS = 256;

interface AdmittedTurn {
  readonly admission: TurnAdmission;
  /** Of its input. */
  readonly itemBytes: number;
}

interface Held {
  readonly turn: StartTurn;
  /** Of its input. */
  readonly itemBytes: number;
  readonly lease: TurnLease;
  accepted: boolean;
}

/** A turn that ended for its client, and whose responses may still tell their usage: each counts once. */
interface LateTurn {
  readonly lease: TurnLease;
  readonly heard: Set<string>;
}

/** One session's dealings with access control: every turn is admitted before the core sees it, and settled once. */
export class Admission {
  readonly #lease: SessionLease;
  readonly #upstream: string | undefined;
  readonly #budget: SessionBudget | undefined;
  readonly #onLow: (low: BudgetLow) => void;
  readonly #turns = new FewMap<string, Held>();
  readonly #late = new FewMap<string, LateTurn>();
  readonly #lanes = new Set<string>();
  readonly #histories = new AdmittedHistories();
  /** Large requests that were looked at beforehand. */
  readonly #looked = new WeakMap<StartTurn, AdmittedTurn>();
  readonly #lookedInput = new WeakMap<SteerTurn | InjectTurn, InputLook>();

  /** `onLow` hears once of each budget, the session's and its tenant's, that is nearly used up. */
  constructor(
    lease: SessionLease,
    upstream: string | undefined,
    budget?: SessionBudget,
    onLow: (low: BudgetLow) => void = () => {},
  ) {
    this.#lease = lease;
    this.#upstream = upstream;
    this.#budget = budget;
    this.#onLow = onLow;
  }

  /** What the end of a turn is told with. Called once for each turn that the core took. */
  account(record: TurnRecord): TurnAccount {
    const { use, cost, unpriced } = this.#lease.useOf(record);
    this.#budget?.settle(record.turnId, use);
    return { cost, unpriced, spent: this.#budget?.spent };
  }

  /** What the turn's tokens went to; undefined: the upstream did not tell. */
  attributed(record: TurnRecord): readonly AttributedUse[] | undefined {
    const { attribution } = record.usage ?? {};
    if (attribution === undefined) return undefined;
    const parts = (of: 'item' | 'field', all: typeof attribution.items) =>
      Array.from(all, ([name, tokens]) => ({
        of,
        name,
        ...tokens,
        cost: this.#lease.costOf(record, tokens),
      }));
    return [...parts('item', attribution.items), ...parts('field', attribution.fields)];
  }

  /** Looks at a large request, with pauses, so that admitting it takes no longer than a small one. */
  *lookSteps(request: StartTurn | SteerTurn | InjectTurn): Steps<void> {
    if (request.kind !== 'startTurn') {
      this.#lookedInput.set(request, yield* this.#lease.lookSteps(request));
      return;
    }
    const { admission, itemBytes } = this.#admissionOf(request);
    yield;
    const look = yield* this.#lease.lookSteps(admission);
    this.#looked.set(request, { admission: { ...admission, look }, itemBytes });
  }

  /** What limits over all processes give for the turn; undefined: nothing has to be waited for. */
  reserve(turn: StartTurn): Reservation | Promise<Reservation> | undefined {
    // Sent again after a resume: it has its place already.
    if (this.#turns.has(turn.turnId)) return undefined;
    return this.#lease.reserveTurn(() => this.#admissionOf(turn).admission, !this.#lanes.has(turn.laneId));
  }

  /**
   * Runs `feed`, which gives the turn to the core, if the turn is admitted; what the core then does not accept is
   * given back. Throws GatewayError when it is not admitted.
   */
  around(turn: StartTurn, feed: () => void, reservation?: Reservation): void {
    // Sent again after a resume: the core runs it, and it has its place already. One that has ended is no such
    // case: the core forgets old ids, and would run what nobody admitted.
    if (this.#turns.has(turn.turnId)) return feed();
    const newLane = !this.#lanes.has(turn.laneId);
    if (newLane) this.#lease.admitLane(reservation);
    try {
      const { admission, itemBytes } = this.#admissionOf(turn);
      this.#budget?.reserve(turn.turnId, this.#lease.guess(admission));
      const lease = this.#lease.admitTurn(admission, reservation);
      this.#turns.set(turn.turnId, { turn, itemBytes, lease, accepted: false });
      feed();
    } finally {
      this.#giveBack(turn.turnId);
      if (newLane && !this.#lanes.has(turn.laneId)) this.#lease.laneClosed();
    }
  }

  /** Throws GatewayError when the input may not be sent. */
  addInput(request: SteerTurn | InjectTurn): void {
    const { kind, laneId, turnId, input } = request;
    const held = turnId === undefined ? this.#firstOf(laneId) : this.#turns.get(turnId);
    const look = this.#lookedInput.get(request);
    const more = this.#lease.admitInput(input, held?.lease, kind === 'steerTurn', look);
    // Refused here, the tenant holds it until the turn ends.
    if (held !== undefined) this.#budget?.holdMore(held.turn.turnId, more);
  }

  /** Of usage that comes late: what it was, and what it cost. */
  fact(fact: Fact): TurnUse | undefined {
    switch (fact.kind) {
      case 'turnAccepted': {
        const held = this.#turns.get(fact.turnId);
        if (held !== undefined) this.#accepted(held);
        return undefined;
      }
      case 'responseCreated':
        this.#lease.ownResponse(fact.responseId);
        return undefined;
      case 'turnEnded': {
        const held = this.#turns.get(fact.record.turnId);
        if (held === undefined) return undefined;
        this.#turns.delete(fact.record.turnId);
        held.lease.settle(fact.record);
        this.#tellLow();
        if (fact.record.outcome === 'CANCELLED' || fact.record.outcome === 'DEADLINE_EXCEEDED') {
          this.#remember(fact.record.turnId, held.lease);
        }
        return undefined;
      }
      case 'itemDone':
        this.#lease.ownItem(fact.itemId);
        return undefined;
      case 'lateUsage':
        return this.#lateUsage(fact);
      case 'laneOpened':
        this.#lanes.add(fact.laneId);
        return undefined;
      case 'laneClosed':
        if (this.#lanes.delete(fact.laneId)) this.#lease.laneClosed();
        this.#histories.drop(fact.laneId);
        return undefined;
      default:
        return undefined;
    }
  }

  get keepsHistories(): boolean {
    return this.#histories.size > 0;
  }

  /** Memory is short: what was admitted before is looked at again. */
  forgetHistories(): void {
    this.#histories.clear();
  }

  /** The session is over. */
  release(): void {
    // Turns that the core did not end may have run: the lease keeps what they may have cost.
    for (let lanes = this.#lanes.size; lanes > 0; lanes--) this.#lease.laneClosed();
    this.#turns.clear();
    this.#late.clear();
    this.#lanes.clear();
    this.#histories.clear();
    this.#lease.release();
  }

  #admissionOf(turn: StartTurn): AdmittedTurn {
    const looked = this.#looked.get(turn);
    if (looked !== undefined) return looked;
    const { laneId, inputMode, create } = turn;
    const isFull = inputMode === 'fullHistory';
    const { items, bytes } = isFull ? this.#histories.admitted(laneId, create.input) : NOTHING_ADMITTED;
    const itemBytes = bytes + bytesOf(create.input, bytes === 0 ? 0 : items, create.long);
    const admission = {
      model: create.model,
      upstream: this.#upstream,
      inputBytes: fieldBytesOf(create) + itemBytes,
      maxOutputTokens: maxOutputTokensOf(create),
      responseIds: responseIdsOf(turn),
      conversation: create.usesConversation,
      input: create.input,
      admittedItems: items,
      fields: create.fields,
    };
    return { admission, itemBytes };
  }

  #accepted(held: Held): void {
    held.accepted = true;
    const { laneId, inputMode, create } = held.turn;
    if (inputMode === 'fullHistory') this.#histories.add(laneId, create.input, held.itemBytes);
  }

  #giveBack(turnId: string): void {
    const held = this.#turns.get(turnId);
    if (held === undefined) this.#budget?.release(turnId);
    if (held === undefined || held.accepted) return;
    this.#budget?.release(turnId);
    this.#turns.delete(turnId);
    held.lease.abandon();
  }

  /** The one that runs: turns of a lane run in the order in which they came. */
  #firstOf(laneId: string): Held | undefined {
    for (const held of this.#turns.values()) if (held.turn.laneId === laneId) return held;
    return undefined;
  }

  #lateUsage(fact: Extract<Fact, { kind: 'lateUsage' }>): TurnUse | undefined {
    const { turnId, responseId = '', usage } = fact;
    if (turnId === '') {
      const used = this.#lease.usedTokens(usage);
      this.#budget?.add(used);
      this.#tellLow();
      return undefined;
    }
    const late = this.#late.get(turnId);
    if (late === undefined || late.heard.has(responseId)) return undefined;
    late.heard.add(responseId);
    const told = late.lease.lateUsage(usage);
    this.#budget?.late(turnId, told.use);
    this.#tellLow();
    return told;
  }

  #tellLow(): void {
    for (const low of this.#budget?.takeLow() ?? []) this.#onLow(low);
    for (const low of this.#lease.takeLow()) this.#onLow(low);
  }

  #remember(turnId: string, lease: TurnLease): void {
    this.#late.set(turnId, { lease, heard: new Set() });
    const { size, oldest } = this.#late;
    if (size > MAX_LATE_TURNS && oldest !== undefined) this.#late.delete(oldest);
  }
}

function fieldBytesOf({ fields, long }: CreateBody): number {
  let bytes = 0;
  for (const [name, json] of fields) bytes += name.length + bytesOfText(json, long);
  return bytes;
}

function bytesOf(items: readonly string[], from: number, long: LongTexts | undefined): number {
  let bytes = 0;
  for (let at = from; at < items.length; at += 1) bytes += bytesOfText(items[at] ?? '', long);
  return bytes;
}

/** The translator has checked the field's type; a raw one may hold anything. */
function maxOutputTokensOf(create: CreateBody): number | undefined {
  const value = Number(create.fields.get('max_output_tokens') ?? Number.NaN);
  return Number.isFinite(value) ? value : undefined;
}

function responseIdsOf({ chain, create }: StartTurn): readonly string[] {
  const { previousResponseId } = create;
  const compared = comparedResponses(create.fields);
  if (chain.kind !== 'from' && previousResponseId === undefined) return compared;
  const ids = new Set(compared);
  if (chain.kind === 'from') ids.add(chain.responseId);
  if (previousResponseId !== undefined) ids.add(previousResponseId);
  return [...ids];
}

const NO_IDS: readonly string[] = [];

/** Responses that the prompt cache is to be compared with: the upstream tells how they began. */
export function comparedResponses(fields: ReadonlyMap<string, string>): readonly string[] {
  const options = fields.get('prompt_cache_options');
  if (options === undefined) return NO_IDS;
  return valuesNamed(options, 'comparison_response_id').flatMap((json) => {
    const id: unknown = JSON.parse(json);
    return typeof id === 'string' && id !== '' ? [id] : [];
  });
}
