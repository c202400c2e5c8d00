import type { X509Certificate } from 'node:crypto';
import type { Principal } from '../types.ts';

/** What a caller shows, taken apart once. */
export interface Presented {
  readonly bearer: string | undefined;
  /** True also for an `authorization` that is no bearer. */
  readonly authorization: boolean;
  readonly certificate: X509Certificate | undefined;
}

export interface Method {
  fits(presented: Presented): boolean;
  /** Undefined: refused. Why is nobody's business but the operator's. Rejects with OVERLOADED when nobody could look. */
  verify(presented: Presented, nowMs: number): Promise<Principal | undefined>;
}
