import type { TurnRecord, Usage } from '../core/types.ts';
import type { GatewayError } from '../errors.ts';
import type { Secret } from '../ground/secret.ts';

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

export interface TurnAdmission {
  readonly model: string | undefined;
  readonly upstream: string | undefined;
  readonly inputBytes: number;
  readonly maxOutputTokens: number | undefined;
  /** Response ids that the request names (explicit chain, `previous_response_id`). */
  readonly responseIds: readonly string[];
  readonly conversation: boolean;
  /** Raw JSON of the input items: a strict tenant's are searched for references to stored items. */
  readonly input?: readonly string[];
}

/** A session's place under its tenant's limits. `release` is idempotent. */
export interface SessionLease {
  readonly principal: Principal;
  readonly credential: Secret | undefined;
  readonly captureContent: boolean;
  /** The upstream that the session named. */
  readonly upstream: string | undefined;
  /** The only ones to dial, fallbacks included; undefined: all. */
  readonly allowedUpstreams: readonly string[] | undefined;
  /** Throws GatewayError: limits, model or upstream not allowed, a response id that is not this tenant's. */
  admitTurn(turn: TurnAdmission): TurnLease;
  /**
   * Throws GatewayError as `admitTurn` does: a steer is input like any other. Its tokens are held with those of the
   * turn that it is for, as far as that is known.
   */
  admitSteer(input: readonly string[], turn?: TurnLease): void;
  admitLane(): void;
  laneClosed(): void;
  /** The session's client came back with a new proof of the same identity; throws PERMISSION_DENIED for another. */
  renew(principal: Principal): void;
  /** The gateway handed out this id; the tenant may name it from now on. */
  ownResponse(responseId: string): void;
  /** The same for the id of an output item. */
  ownItem(itemId: string): void;
  /** Tokens that the session cost beside its turns: warm-ups, and what follows a turn that was given up. */
  usedTokens(usage: Usage): void;
  release(): void;
}

export interface TurnLease {
  /** Settles the reservation with what was used. Exactly one of the two is called, once. */
  settle(record: TurnRecord): void;
  abandon(): void;
  /** Throws LIMIT_EXCEEDED; else more is held for a turn that runs. */
  holdMore(inputBytes: number): void;
  lateUsage(usage: Usage): void;
}

export interface AccessControl {
  /** Rejects with GatewayError UNAUTHENTICATED. */
  authenticate(caller: CallerFacts): Promise<Principal>;
  /** Throws GatewayError when the tenant may not open another session or use this upstream. */
  admitSession(
    principal: Principal,
    request: { readonly upstream: string | undefined; readonly upstreamKey: string | undefined },
  ): SessionLease;
  /** Whether new work is refused now (memory above the high mark); undefined when all is well. */
  overload(): GatewayError | undefined;
  close(): Promise<void>;
}
