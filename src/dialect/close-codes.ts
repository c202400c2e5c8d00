import type { LinkDown } from '../core/types.ts';
import { GatewayError, type Reason } from '../errors.ts';

/** What a close code of the upstream means (protocol.md 1.6); codes that are not listed are a lost link. */
const REASON_BY_CODE: Readonly<Record<number, Reason>> = {
  1002: 'UPSTREAM_PROTOCOL',
  1003: 'UPSTREAM_PROTOCOL',
  1007: 'UPSTREAM_PROTOCOL',
  // Seen for a disabled route, a restricted model, a changed model.
  1008: 'UPSTREAM_PERMISSION_DENIED',
  1009: 'FRAME_TOO_LARGE',
  1010: 'UPSTREAM_PROTOCOL',
  // Vercel: out of credits.
  4402: 'UPSTREAM_QUOTA_EXCEEDED',
};

/** A link that had been up and was closed. `said` is the close frame's own text. */
export function closedLink(closeCode: number, said: string): LinkDown {
  return {
    during: 'open',
    error: new GatewayError(
      REASON_BY_CODE[closeCode] ?? 'UPSTREAM_LINK_LOST',
      'the upstream closed the connection',
      {
        metadata: { close_code: String(closeCode) },
        ...(said === '' ? {} : { upstream: { message: said } }),
      },
    ),
    closeCode,
    permanent: false,
  };
}

/** A link that we gave up: it said something that no upstream may say. */
export function brokenLink(what: string): LinkDown {
  return { during: 'open', error: new GatewayError('UPSTREAM_PROTOCOL', what), permanent: false };
}

/** A link that was silent for too long. */
export function silentLink(): LinkDown {
  return {
    during: 'open',
    error: new GatewayError('UPSTREAM_LINK_LOST', 'the upstream answered no ping', {
      metadata: { cause: 'heartbeat' },
    }),
    closeCode: 1006,
    permanent: false,
  };
}
