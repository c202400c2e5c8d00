import type { Logger } from 'pino';
import type { Reason } from '../errors.ts';
import { OTHER } from './labels.ts';
import type { MeterShare } from './session-meters.ts';
import type { CallRefusal } from './types.ts';

/** Refusals by what was configured, or by how the process is. */
export const CONCERNS_OPERATORS: ReadonlySet<Reason> = new Set([
  'UNAUTHENTICATED',
  'PERMISSION_DENIED',
  'MODEL_NOT_ALLOWED',
  'UPSTREAM_NOT_ALLOWED',
  'LIMIT_EXCEEDED',
  'OVERLOADED',
  'DRAINING',
]);

/** Counts calls that were refused, and tells the operator of those that are not the caller's mistake alone. */
export function createRefusals(
  { instruments, tenants }: MeterShare,
  logger: Logger,
): (refusal: CallRefusal) => void {
  return ({ method, reason, limit, tenantId, proof }) => {
    instruments.add('responses_gateway.refusals', 1, {
      request: method.endsWith('/Connect') ? 'session' : 'call',
      reason,
      ...(reason === 'LIMIT_EXCEEDED' && { limit: limit ?? OTHER }),
      ...(tenants !== undefined && { tenant: tenants.of(tenantId) }),
    });
    if (!CONCERNS_OPERATORS.has(reason)) return;
    const fields = {
      code: 'call_refused',
      method,
      reason,
      limit,
      tenant: tenantId,
      auth: proof?.kind,
      key_id: proof?.keyId,
      why: proof?.why,
    };
    logger.warn(fields, 'a call was refused');
  };
}
