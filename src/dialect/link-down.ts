/** Ends of a link that are no HTTP answer: dials that reached nobody, close frames, silence. */
import { GatewayError } from '../errors.ts';
import { optional } from './json.ts';
import { reasonOfClose } from './reasons.ts';
import type { LinkDown } from './types.ts';

/** A dial that never got an HTTP answer. Only the system's error code is kept: texts hold addresses. */
export function failedDial(error: unknown): LinkDown {
  if (error instanceof GatewayError) return { during: 'dial', error, permanent: true };
  const certificate = CERTIFICATE_CODES.test(errorCode(error));
  return { during: 'dial', error: notReached(error), permanent: certificate };
}

export function timedOutDial(timeoutMs: number): LinkDown {
  return {
    during: 'dial',
    error: new GatewayError('UPSTREAM_UNAVAILABLE', `the upstream did not answer within ${timeoutMs} ms`, {
      metadata: { cause: 'TIMEOUT' },
    }),
    permanent: false,
  };
}

/** Whether it was this process or its host that had nothing left to dial with: nothing is told of the upstream. */
export function isOwnShortage({ metadata }: GatewayError): boolean {
  return OWN_SHORTAGES.has(metadata['cause'] ?? '');
}

/** File descriptors, memory, buffers, local ports. */
const OWN_SHORTAGES: ReadonlySet<string> = new Set([
  'EMFILE',
  'ENFILE',
  'ENOMEM',
  'ENOBUFS',
  'EADDRNOTAVAIL',
]);

/** A connection that was never made. */
export function notReached(error?: unknown): GatewayError {
  const code = errorCode(error);
  const what = CERTIFICATE_CODES.test(code)
    ? "the upstream's certificate was not accepted"
    : 'the upstream could not be reached';
  return new GatewayError(
    'UPSTREAM_UNAVAILABLE',
    what,
    error === undefined ? {} : { metadata: { cause: code } },
  );
}

/** Message too big: the code that speaks of one frame. */
const FRAME_TOO_BIG = 1009;

/**
 * A link that had been up and was closed. `said` is the close frame's own text. The close is the link's: who is not to
 * blame for it hears that the link was lost.
 */
export function closedLink(closeCode: number, said: string): LinkDown {
  const facts = {
    metadata: { close_code: String(closeCode) },
    ...optional('upstream', said === '' ? undefined : { message: said }),
  };
  const ofLink = new GatewayError(reasonOfClose(closeCode), 'the upstream closed the connection', facts);
  const down = { during: 'open', closeCode, permanent: false } as const;
  if (closeCode !== FRAME_TOO_BIG) return { ...down, error: ofLink };
  const ofFrame = new GatewayError('FRAME_TOO_LARGE', 'the request is larger than the upstream takes', facts);
  return { ...down, error: ofFrame, bystanderError: ofLink };
}

/** A link that we gave up: it said something that no upstream may say. */
export function brokenLink(what: string): LinkDown {
  return { during: 'open', error: new GatewayError('UPSTREAM_PROTOCOL', what), permanent: false };
}

/** A link that was silent for too long. */
export function silentLink(): LinkDown {
  return {
    during: 'open',
    error: new GatewayError('UPSTREAM_LINK_LOST', 'the upstream did not answer a ping in time', {
      metadata: { cause: 'heartbeat' },
    }),
    closeCode: 1006,
    permanent: false,
  };
}

/** The code of a system or TLS error, e.g. ECONNREFUSED; of several addresses tried, the first one's. */
export function errorCode(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return errorCode(error.errors[0]);
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' && /^[A-Z0-9_]{1,64}$/.test(code) ? code : 'UNKNOWN';
}

/** OpenSSL's verification results, as Node names them. */
const CERTIFICATE_CODES =
  /^(CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|ERR_TLS_CERT_ALTNAME|INVALID_CA|INVALID_PURPOSE|HOSTNAME_MISMATCH)/;
