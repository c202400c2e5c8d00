import type { LinkDown } from '../core/types.ts';
import { GatewayError } from '../errors.ts';

/** A dial that never got an HTTP answer. Only the system's error code is kept: texts hold addresses. */
export function failedDial(error: unknown): LinkDown {
  if (error instanceof GatewayError) return { during: 'dial', error, permanent: true };
  const code = errorCode(error);
  const certificate = CERTIFICATE_CODES.test(code);
  const what = certificate
    ? "the upstream's certificate was not accepted"
    : 'the upstream could not be reached';
  return {
    during: 'dial',
    error: new GatewayError('UPSTREAM_UNAVAILABLE', what, { metadata: { cause: code } }),
    permanent: certificate,
  };
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

/** The code of a system or TLS error, e.g. ECONNREFUSED; of several addresses tried, the first one's. */
export function errorCode(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return errorCode(error.errors[0]);
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' && /^[A-Z0-9_]{1,64}$/.test(code) ? code : 'UNKNOWN';
}

/** OpenSSL's verification results, as Node names them. */
const CERTIFICATE_CODES =
  /^(CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|ERR_TLS_CERT_ALTNAME|INVALID_CA|INVALID_PURPOSE|HOSTNAME_MISMATCH)/;
