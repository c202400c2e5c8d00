import type { IncomingHttpHeaders } from 'node:http2';
import { MAX_TIMER_MS } from '../../session/clock.ts';

const UNIT_MS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
};

/** In hours, as much as a timer can wait for. */
const LONGEST = `${Math.floor(MAX_TIMER_MS / 3_600_000)}H`;

/** grpc-js gives a call's deadline to a timer, and one of 24.9 days or more fires at once: the call would end as it begins. */
export function capDeadline(headers: IncomingHttpHeaders): void {
  const [, amount = '', unit = ''] =
    /^(\d{1,8})([HMSmun])$/.exec(String(headers['grpc-timeout'] ?? '')) ?? [];
  if (Number(amount) * (UNIT_MS[unit] ?? 0) > MAX_TIMER_MS) headers['grpc-timeout'] = LONGEST;
}
