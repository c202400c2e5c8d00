import type { X509Certificate } from 'node:crypto';
import type { Principal } from '../types.ts';

/** What a caller shows, taken apart once. */
export interface Presented {
  readonly bearer: string | undefined;
  /** True also for an `authorization` that is no bearer. */
  readonly authorization: boolean;
  readonly certificate: X509Certificate | undefined;
}

/** Why a proof is not good, for the operator; callers are told nothing of it. */
export interface Refused {
  readonly why: string;
  /** Of the key that was meant, as far as it is told; never a secret. */
  readonly keyId?: string | undefined;
}

export interface Method {
  readonly kind: string;
  fits(presented: Presented): boolean;
  /** Rejects with OVERLOADED when nobody could look. */
  verify(presented: Presented, nowMs: number): Promise<Principal | Refused>;
}
