import type { TurnCost, TurnRecord, Usage } from '../core/types.ts';
import type { GatewayError } from '../errors.ts';
import type { Picos } from '../ground/money.ts';
import type { Secret } from '../ground/secret.ts';
import type { CountedLimit, RateLimit } from './limits.ts';
import type { Unpriced } from './prices.ts';

export type { CountedLimit, RateLimit, Unpriced };

/** Who calls, after authentication. */
export interface Principal {
  readonly tenantId: string;
  /** Who within the tenant (key id, JWT subject, SPIFFE id); resume tokens are bound to it. */
  readonly subject: string;
  /**
   * When the proof of identity ends (JWT `exp`, key or certificate validity), milliseconds since the epoch.
   * Turns after that are refused UNAUTHENTICATED until the caller resumes with a fresh proof.
   */
  readonly expiresAtMs?: number;
}

/** What the transport knows of the caller. */
export interface CallerFacts {
  /** The value of the metadata key `authorization`, if there is one. */
  readonly authorization: string | undefined;
  /** The key `x-upstream-api-key`, when the caller passes its own provider credential. */
  readonly upstreamKey: string | undefined;
  readonly peerAddress: string;
  /** Verified client certificate in DER, with mTLS only. */
  readonly peerCertificate: Uint8Array | undefined;
}

/** Work that can be paused where it yields. */
export type Steps<T> = Generator<undefined, T>;

/** A model that a request names, or leaves to the upstream, beside its own. */
export interface NamedModel {
  /** Where, e.g. `tools[0].model`. */
  readonly path: string;
  /** Undefined: none, so the upstream's default; null: something that is no name. */
  readonly name: string | null | undefined;
}

/** An input item that stands for what the upstream keeps under the id. */
export interface StoredItem {
  readonly id: string;
  readonly type: string;
}

/** What a request names beside its own model and chain. */
export interface InputLook {
  /** By place in the input. */
  readonly stored: ReadonlyMap<number, StoredItem>;
  /** Empty where nobody asks. */
  readonly models: readonly NamedModel[];
}

export interface TurnAdmission {
  readonly model: string | undefined;
  readonly upstream: string | undefined;
  readonly inputBytes: number;
  readonly maxOutputTokens: number | undefined;
  /** Response ids that the request names (explicit chain, `previous_response_id`). */
  readonly responseIds: readonly string[];
  readonly conversation: boolean;
  /** It names no model and runs none. Default false. */
  readonly modelless?: boolean;
  /** False: it costs nothing. Default true. */
  readonly runsModel?: boolean;
  /** Raw JSON of the input items: a strict tenant's are searched for references to stored items. */
  readonly input?: readonly string[];
  /** So many of the first items were admitted with an earlier turn of the session, and are not looked at again. Default 0. */
  readonly admittedItems?: number;
  /** Raw JSON of the request's other members by name: tools, moderation and more may name models. */
  readonly fields?: ReadonlyMap<string, string>;
  /** From `lookSteps`; undefined: it is looked at in one go. */
  readonly look?: InputLook | undefined;
}

/** What a turn is held for, or what it took. */
export interface Use {
  readonly tokens: number;
  readonly money: Picos;
}

/** A budget that is nearly used up. */
export interface BudgetLow {
  readonly name: string;
  readonly used: string;
  readonly limit: string;
}

/** What a turn took, and what that costs. */
export interface TurnUse {
  /** Undefined: it may have run, and nobody knows. */
  readonly use: Use | undefined;
  readonly cost: TurnCost | undefined;
  /** Why there is no cost, where there is a price table. */
  readonly unpriced: Unpriced | undefined;
}

/** A session's place under its tenant's limits. `release` is idempotent. */
export interface SessionLease {
  readonly principal: Principal;
  readonly credential: Secret | undefined;
  readonly captureContent: boolean;
  /** Of the price table; undefined: there is none, and nothing has a cost. */
  readonly currency: string | undefined;
  /** The upstream that the session named. */
  readonly upstream: string | undefined;
  /** The only ones to dial, fallbacks included; undefined: all. */
  readonly allowedUpstreams: readonly string[] | undefined;
  /**
   * Takes what limits over all processes give, before `admitTurn`; undefined: there are none. A refusal is told by
   * `admitTurn`. Never rejects.
   */
  reserveTurn(turn: () => TurnAdmission, newLane: boolean): Reservation | Promise<Reservation> | undefined;
  /**
   * Throws GatewayError: limits, model or upstream not allowed, a response id that is not this tenant's. Without its
   * reservation a turn counts over all processes, but is not refused for it.
   */
  admitTurn(turn: TurnAdmission, reservation?: Reservation): TurnLease;
  /**
   * Throws GatewayError as `admitTurn` does: a steer is input like any other. Its tokens are held with those of the
   * turn that it is for, as far as that is known, and with the `answered` ones those of a response that answers them.
   * Gives back what is held.
   */
  admitInput(input: readonly string[], turn?: TurnLease, answered?: boolean, look?: InputLook): Use;
  /** Looks at a large request, with pauses, before it is admitted. */
  lookSteps(turn: Pick<TurnAdmission, 'input' | 'admittedItems' | 'fields'>): Steps<InputLook>;
  /** Whether the tenant may use the model. */
  allowsModel(model: string): boolean;
  admitLane(reservation?: Reservation): void;
  laneClosed(): void;
  /** The session's client came back with a new proof of the same identity; throws PERMISSION_DENIED for another. */
  renew(principal: Principal): void;
  /** The gateway handed out this id; the tenant may name it from now on. */
  ownResponse(responseId: string): void;
  /** The same for the id of an output item. */
  ownItem(itemId: string): void;
  /** What an ended turn took. Never throws. */
  useOf(record: TurnRecord): TurnUse;
  /** What a part of its tokens cost; exact decimal. Undefined: the turn has no price. */
  costOf(record: TurnRecord, tokens: Omit<Usage, 'attribution' | 'reasoningTokens'>): string | undefined;
  /** What a turn is held for before it runs. */
  guess(turn: TurnAdmission): Use;
  /** Budgets of the tenant that are nearly used up, each told once. */
  takeLow(): readonly BudgetLow[];
  /** Tokens that the session cost beside its turns: warm-ups, and what follows a turn that was given up. */
  usedTokens(usage: Usage): Use;
  release(): void;
}

/** Places that were taken beforehand. Those that nobody used are given back by `release`. */
export interface Reservation {
  release(): void;
}

export interface TurnLease {
  /** Settles the reservation with what was used. Exactly one of the two is called, once. */
  settle(record: TurnRecord): void;
  abandon(): void;
  /** Throws LIMIT_EXCEEDED; else more is held for a turn that runs. */
  holdMore(inputBytes: number, answered: boolean): Use;
  lateUsage(usage: Usage): TurnUse & { readonly use: Use };
}

export interface AccessControl {
  /** Rejects with GatewayError: UNAUTHENTICATED, or OVERLOADED when the proof could not be looked at. */
  authenticate(caller: CallerFacts): Promise<Principal>;
  /** As `reserveTurn`, before `admitSession`. */
  reserveSession(principal: Principal): Reservation | Promise<Reservation> | undefined;
  /**
   * Throws GatewayError when the tenant may not open another session or use this upstream. Without its reservation a
   * session counts over all processes, but is not refused for it: it goes on from another.
   */
  admitSession(
    principal: Principal,
    request: { readonly upstream: string | undefined; readonly upstreamKey: string | undefined },
    reservation?: Reservation,
  ): SessionLease;
  /** Whether new work is refused now (memory above the high mark); undefined when all is well. */
  overload(): GatewayError | undefined;
  close(): Promise<void>;
}

/**
 * What the processes of a gateway know together: places, windows and response ids of tenants. Nothing here rejects:
 * who gets no answer goes on by itself.
 */
export interface SharedLimits {
  /** Processes that run, this one included: at least 1. */
  readonly processes: number;
  /** Takes up to `wanted` places of a limit; resolves with how many it got, undefined: nobody answered. */
  allot(tenantId: string, name: CountedLimit, wanted: number, limit: number): Promise<number | undefined>;
  giveBack(tenantId: string, name: CountedLimit, places: number): void;
  /** Asked from time to time, so that what others count for this process is right again. */
  keep(held: () => Iterable<HeldCount>): void;
  /** Takes from all windows, or from none. Undefined: nobody answered. */
  charge(tenantId: string, charges: readonly WindowCharge[]): Promise<WindowAnswer | undefined>;
  /** Later, by what is known then; negative points are given back if the window is still the same. */
  adjust(tenantId: string, charge: WindowCharge, endsAtMs: number | undefined): void;
  /** The tenant was given this response id. */
  remember(tenantId: string, responseId: string): void;
  /** Whether one of the tenants was given the id, whichever process it was. */
  knows(tenantIds: readonly string[], responseId: string): Promise<boolean>;
}

export interface HeldCount {
  readonly tenantId: string;
  readonly name: CountedLimit;
  readonly held: number;
}

export interface WindowCharge {
  readonly name: RateLimit;
  /** Length of the window. */
  readonly seconds: number;
  /** A whole number. */
  readonly points: number;
  readonly limit: number;
}

export type WindowAnswer =
  /** When each window ends, by this process's clock. */
  | {
      readonly kind: 'taken';
      readonly endsAtMs: { readonly [name in RateLimit]?: number };
      /** Of each window, this charge included; undefined: not told. */
      readonly used?: { readonly [name in RateLimit]?: number };
    }
  | {
      readonly kind: 'full';
      readonly name: RateLimit;
      readonly waitMs: number;
      readonly left?: number | undefined;
    };
