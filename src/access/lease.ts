import type { TurnRecord, Usage } from '../core/types.ts';
import { GatewayError } from '../errors.ts';
import { formatMoney, type Picos, ZERO } from '../ground/money.ts';
import type { Secret } from '../ground/secret.ts';
import { type CountedLimit, type Ledger, NO_HOLD, NOTHING, type UseHold } from './limits.ts';
import type { OwnedIds } from './ownership.ts';
import { answeredBy, type PricedUse, type Prices, usedBy } from './prices.ts';
import { Place } from './shared-ledger.ts';
import type { Tenant } from './tenant.ts';
import type {
  BudgetLow,
  InputLook,
  Principal,
  Reservation,
  SessionLease,
  SharedLimits,
  Steps,
  TurnAdmission,
  TurnLease,
  TurnUse,
  Use,
} from './types.ts';

/** English text has about four bytes a token; other scripts have fewer, and the settlement puts it right. */
const BYTES_PER_TOKEN = 4;

/** What a turn without `max_output_tokens` is held for: most answers stay under it. */
export const ASSUMED_OUTPUT_TOKENS = 4_096;

export interface LeaseContext {
  readonly tenant: Tenant;
  readonly process: Ledger;
  readonly credential: Secret | undefined;
  readonly upstream: string | undefined;
  readonly overload: () => GatewayError | undefined;
  readonly isForeign: (responseId: string, tenant: Tenant) => boolean;
  readonly isForeignItem: (itemId: string, tenant: Tenant) => boolean;
  /** Of all tenants. */
  readonly tenantIds: readonly string[];
  readonly shared: SharedLimits | undefined;
  readonly now: () => number;
  readonly prices: Prices | undefined;
  /** Of the session's place over all processes. */
  readonly reservation: Reservation | undefined;
}

/** A session's place under the limits. */
export class RunningSession implements SessionLease {
  readonly #context: LeaseContext;
  readonly #ledgers: readonly Ledger[];
  readonly #running = new Set<RunningTurn>();
  #principal: Principal;
  #lanes = 0;
  #released = false;

  /** Throws GatewayError when there is no place. */
  constructor(principal: Principal, context: LeaseContext) {
    this.#ledgers = [context.tenant.ledger, context.process];
    takeFrom(this.#ledgers, 'sessions');
    try {
      takeShared(context.tenant, context.reservation, 'sessions');
    } catch (error) {
      giveTo(this.#ledgers, 'sessions');
      throw error;
    }
    this.#context = context;
    this.#principal = principal;
  }

  get principal(): Principal {
    return this.#principal;
  }

  get credential(): Secret | undefined {
    return this.#context.credential;
  }

  get captureContent(): boolean {
    return this.#context.tenant.captureContent;
  }

  get currency(): string | undefined {
    return this.#context.prices?.currency;
  }

  get upstream(): string | undefined {
    return this.#context.upstream;
  }

  useOf(record: TurnRecord): TurnUse {
    const used = usedBy(record);
    if (used !== undefined) return priceUse(used, this.#context.prices);
    return { use: didNotRun(record) ? NOTHING : undefined, cost: undefined, unpriced: undefined };
  }

  costOf(record: TurnRecord, tokens: Omit<Usage, 'attribution' | 'reasoningTokens'>): string | undefined {
    const usage = { ...tokens, reasoningTokens: 0 };
    const priced = this.#context.prices?.price({ ...answeredBy(record), hostedCalls: undefined, usage });
    return priced?.kind === 'priced' ? formatMoney(priced.picos) : undefined;
  }

  guess(turn: TurnAdmission): Use {
    return guessUse(turn, this.#context.prices);
  }

  takeLow(): readonly BudgetLow[] {
    const { ledger, shared } = this.#context.tenant;
    return shared === undefined ? ledger.takeLow() : shared.takeLow();
  }

  get allowedUpstreams(): readonly string[] | undefined {
    return this.#context.tenant.allowedUpstreams;
  }

  reserveTurn(turn: () => TurnAdmission, newLane: boolean): Reservation | Promise<Reservation> | undefined {
    const { tenant, shared } = this.#context;
    if (shared === undefined || tenant.shared === undefined) return undefined;
    const wanted = turn();
    const places = tenant.shared.reserveTurn(this.guess(wanted), newLane);
    const looks = this.#lookUps(wanted, lookOf(wanted, tenant), shared);
    return looks.length === 0 ? places : Promise.all([places, ...looks]).then(([place]) => place);
  }

  admitTurn(turn: TurnAdmission, reservation?: Reservation): TurnLease {
    if (this.#released) throw new GatewayError('INTERNAL', 'a turn after the release of its session');
    throwIf(this.#context.overload());
    checkFresh(this.#principal, this.#context.now());
    checkPermissions(turn, this.#context);
    const lease = new RunningTurn(this.#ledgers, this.#context, turn, reservation, (ended) =>
      this.#running.delete(ended),
    );
    this.#running.add(lease);
    return lease;
  }

  lookSteps({ input = [], admittedItems, fields = NO_FIELDS }: TurnAdmission): Steps<InputLook> {
    return this.#context.tenant.lookSteps(input, fields, admittedItems);
  }

  admitInput(
    input: readonly string[],
    turn?: TurnLease,
    answered = false,
    look: InputLook = this.#context.tenant.look(input, NO_FIELDS),
  ): Use {
    throwIf(this.#context.overload());
    checkFresh(this.#principal, this.#context.now());
    const { tenant, isForeignItem } = this.#context;
    tenant.checkInput(look, (foreign) => isForeignItem(foreign, tenant));
    tenant.checkNamedModels(look);
    const inputBytes = input.reduce((sum, item) => sum + Buffer.byteLength(item), 0);
    for (const ledger of this.#ledgers) throwIf(ledger.refuseMessage(inputBytes));
    return turn?.holdMore(inputBytes, answered) ?? NOTHING;
  }

  allowsModel(model: string): boolean {
    return this.#context.tenant.allowsModel(model);
  }

  admitLane(reservation?: Reservation): void {
    if (this.#released) throw new GatewayError('INTERNAL', 'a lane after the release of its session');
    for (const ledger of this.#ledgers) throwIf(ledger.refuseCounted('lanes'));
    takeShared(this.#context.tenant, reservation, 'lanes');
    for (const ledger of this.#ledgers) ledger.take('lanes');
    this.#lanes += 1;
  }

  laneClosed(): void {
    if (this.#lanes === 0) return;
    this.#lanes -= 1;
    giveTo(this.#ledgers, 'lanes');
    this.#context.tenant.shared?.give('lanes');
  }

  renew(next: Principal): void {
    const { tenantId, subject } = this.#principal;
    if (next.tenantId !== tenantId || next.subject !== subject) {
      throw new GatewayError('PERMISSION_DENIED', 'this session belongs to another caller');
    }
    this.#principal = next;
  }

  ownResponse(responseId: string): void {
    const { tenant, shared } = this.#context;
    tenant.owned.add(responseId);
    shared?.remember(tenant.id, responseId);
  }

  ownItem(itemId: string): void {
    const { tenant, shared } = this.#context;
    tenant.ownedItems.add(itemId);
    shared?.remember(tenant.id, itemKey(itemId));
  }

  usedTokens(usage: Usage): Use {
    // Whose they are is not known, and so not what they cost.
    const use = { ...NOTHING, tokens: tokensOf(usage) };
    for (const ledger of this.#ledgers) ledger.hold(NOTHING).add(use);
    this.#context.tenant.shared?.spend(use);
    return use;
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    while (this.#lanes > 0) this.laneClosed();
    for (const turn of [...this.#running]) turn.orphan();
    giveTo(this.#ledgers, 'sessions');
    this.#context.tenant.shared?.give('sessions');
  }

  /** What other processes know of a turn's ids becomes what this one knows. */
  #lookUps({ responseIds }: TurnAdmission, { stored }: InputLook, shared: SharedLimits): Promise<void>[] {
    const { tenant } = this.#context;
    const items = Array.from(stored.values(), ({ id }) => id).filter((id) => !tenant.ownedItems.has(id));
    return [
      ...responseIds
        .filter((id) => !tenant.owned.has(id))
        .map((id) => this.#lookUp(id, id, tenant.owned, tenant.foreign, shared)),
      ...items
        .slice(-MAX_ITEM_LOOKUPS)
        .map((id) => this.#lookUp(id, itemKey(id), tenant.ownedItems, tenant.foreignItems, shared)),
    ];
  }

  async #lookUp(
    id: string,
    key: string,
    owned: OwnedIds,
    foreign: OwnedIds,
    shared: SharedLimits,
  ): Promise<void> {
    const { tenant, tenantIds } = this.#context;
    if (await shared.knows([tenant.id], key)) return owned.add(id);
    if (tenant.storedIds !== 'allow') return;
    const others = tenantIds.filter((each) => each !== tenant.id);
    if (await shared.knows(others, key)) foreign.add(id);
  }
}

/** A history that is sent in full names more items than a turn should ask about; the newest count. */
const MAX_ITEM_LOOKUPS = 64;

/** Apart from the ids of responses. */
function itemKey(itemId: string): string {
  return `item ${itemId}`;
}

/**
 * A turn's life here: running → ended, and usage may still come in after that. An orphan is a turn whose session
 * went first: its place is free, its tokens stay held until somebody says what became of it.
 */
class RunningTurn implements TurnLease {
  readonly #ledgers: readonly Ledger[];
  readonly #tenant: Tenant;
  readonly #prices: Prices | undefined;
  /** What each of its responses is held for. */
  readonly #output: number;
  readonly #place: Place | undefined;
  readonly #holds: readonly UseHold[];
  readonly #onPlaceFree: (turn: RunningTurn) => void;
  #state: 'running' | 'orphaned' | 'unsettled' | 'settled' = 'running';
  /** Whose answer it is, for usage that comes later, and the calls that nobody has paid for yet. */
  #priced: Omit<PricedUse, 'usage'>;

  constructor(
    ledgers: readonly Ledger[],
    { tenant, prices }: LeaseContext,
    turn: TurnAdmission,
    reservation: Reservation | undefined,
    onPlaceFree: (turn: RunningTurn) => void,
  ) {
    const guess = guessUse(turn, prices);
    for (const ledger of ledgers) {
      throwIf(ledger.refuseMessage(turn.inputBytes));
      throwIf(ledger.refuseCounted('turnsInFlight'));
      throwIf(ledger.refuseTurnRate(guess));
    }
    takeShared(tenant, reservation, 'turnsInFlight');
    for (const ledger of ledgers) {
      ledger.take('turnsInFlight');
      ledger.countTurn();
    }
    this.#ledgers = ledgers;
    this.#tenant = tenant;
    this.#prices = prices;
    this.#output = guessOutput(turn);
    this.#priced = { model: turn.model, upstream: turn.upstream, tier: undefined };
    this.#place = reservation instanceof Place ? reservation : undefined;
    const holds: UseHold[] = this.#place === undefined ? [] : [...this.#place.uses];
    for (const ledger of ledgers) {
      const hold = ledger.hold(guess);
      if (hold !== NO_HOLD) holds.push(hold);
    }
    this.#holds = holds;
    this.#onPlaceFree = onPlaceFree;
  }

  settle(record: TurnRecord): void {
    if (!this.#end()) return;
    if (this.#holds.length === 0 && this.#prices === undefined) {
      this.#state = 'settled';
      return;
    }
    const used = usedBy(record);
    const answered = answeredBy(record);
    this.#priced = { ...answered, upstream: answered.upstream ?? this.#priced.upstream };
    if (used !== undefined) {
      this.#priced = { ...this.#priced, hostedCalls: undefined };
      this.#settle(priceUse({ ...used, upstream: this.#priced.upstream }, this.#prices).use);
    } else if (didNotRun(record)) this.#settle(NOTHING);
    // Otherwise it may have cost something; late usage will tell, or the guess stands.
    else this.#state = 'unsettled';
  }

  abandon(): void {
    if (!this.#end()) return;
    this.#settle(NOTHING);
    for (const ledger of this.#ledgers) ledger.uncountTurn();
    this.#place?.uncountTurn();
  }

  holdMore(inputBytes: number, answered: boolean): Use {
    if (this.#state !== 'running') return NOTHING;
    const use = guessTokens(this.#priced, inputBytes, answered ? this.#output : 0, this.#prices);
    for (const ledger of this.#ledgers) throwIf(ledger.refuseUse(use));
    for (const hold of this.#holds) hold.add(use);
    return use;
  }

  lateUsage(usage: Usage): TurnUse & { readonly use: Use } {
    const told = priceUse({ ...this.#priced, usage }, this.#prices);
    this.#priced = { ...this.#priced, hostedCalls: undefined };
    if (this.#state === 'settled') for (const hold of this.#holds) hold.add(told.use);
    else if (this.#state === 'unsettled') this.#settle(told.use);
    return told;
  }

  orphan(): void {
    if (this.#state !== 'running') return;
    this.#state = 'orphaned';
    this.#freePlace();
  }

  /** False when it has ended before. */
  #end(): boolean {
    if (this.#state === 'running') this.#freePlace();
    else if (this.#state !== 'orphaned') return false;
    this.#state = 'unsettled';
    return true;
  }

  #settle(use: Use): void {
    this.#state = 'settled';
    for (const hold of this.#holds) hold.settle(use);
  }

  #freePlace(): void {
    giveTo(this.#ledgers, 'turnsInFlight');
    this.#tenant.shared?.give('turnsInFlight');
    this.#onPlaceFree(this);
  }
}

function checkFresh(principal: Principal, nowMs: number): void {
  if (principal.expiresAtMs !== undefined && nowMs >= principal.expiresAtMs) {
    throw new GatewayError('UNAUTHENTICATED', "the caller's proof of identity has expired");
  }
}

const NO_FIELDS: ReadonlyMap<string, string> = new Map();

function checkPermissions(turn: TurnAdmission, { tenant, isForeign, isForeignItem }: LeaseContext): void {
  const look = lookOf(turn, tenant);
  tenant.checkUpstream(turn.upstream);
  if (turn.modelless !== true) tenant.checkModel(turn.model);
  tenant.checkNamedModels(look);
  for (const id of turn.responseIds) tenant.checkResponse(id, (foreign) => isForeign(foreign, tenant));
  if (turn.conversation) tenant.checkConversation();
  tenant.checkInput(look, (foreign) => isForeignItem(foreign, tenant));
}

function lookOf(
  { look, input = [], fields = NO_FIELDS, admittedItems }: TurnAdmission,
  tenant: Tenant,
): InputLook {
  return look ?? tenant.look(input, fields, admittedItems);
}

function guessUse(turn: TurnAdmission, prices: Prices | undefined): Use {
  if (turn.runsModel === false) return NOTHING;
  return guessTokens(turn, turn.inputBytes, guessOutput(turn), prices);
}

function guessOutput({ maxOutputTokens }: TurnAdmission): number {
  return Math.ceil(Math.max(0, maxOutputTokens ?? ASSUMED_OUTPUT_TOKENS));
}

/** Not zero. */
const LEAST_MONEY: Picos = 1n;

/** A guess of nothing would pass windows that are full, and the stores of shared ones would never hear of the turn. */
function guessTokens(
  { model, upstream }: Pick<PricedUse, 'model' | 'upstream'>,
  inputBytes: number,
  output: number,
  prices: Prices | undefined,
): Use {
  const input = Math.ceil(inputBytes / BYTES_PER_TOKEN);
  const money = prices?.guess(model, upstream, input, output);
  return { tokens: Math.max(1, input + output), money: money === undefined ? ZERO : money || LEAST_MONEY };
}

function priceUse(used: PricedUse, prices: Prices | undefined): TurnUse & { readonly use: Use } {
  const tokens = tokensOf(used.usage);
  const priced = prices?.price(used);
  if (prices === undefined || priced === undefined)
    return { use: { tokens, money: ZERO }, cost: undefined, unpriced: undefined };
  if (priced.kind === 'unpriced')
    return { use: { tokens, money: priced.known }, cost: undefined, unpriced: priced.why };
  return { use: { tokens, money: priced.picos }, cost: prices.cost(priced.picos), unpriced: undefined };
}

function tokensOf(usage: Usage): number {
  return Math.max(0, usage.inputTokens) + Math.max(0, usage.outputTokens);
}

function didNotRun(record: TurnRecord): boolean {
  return record.sends === 0 || record.failed?.replay === 'SAFE';
}

function takeFrom(ledgers: readonly Ledger[], name: CountedLimit): void {
  for (const ledger of ledgers) throwIf(ledger.refuseCounted(name));
  for (const ledger of ledgers) ledger.take(name);
}

function giveTo(ledgers: readonly Ledger[], name: CountedLimit): void {
  for (const ledger of ledgers) ledger.give(name);
}

/** Throws when the place was refused; without a reservation it is taken all the same. */
function takeShared({ shared }: Tenant, reservation: Reservation | undefined, name: CountedLimit): void {
  if (reservation instanceof Place) reservation.take(name);
  else shared?.force(name);
}

function throwIf(error: GatewayError | undefined): void {
  if (error !== undefined) throw error;
}
