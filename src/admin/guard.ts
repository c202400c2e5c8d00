import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';

/**
 * DNS rebinding needs a name: a page of evil.example that resolves to 127.0.0.1 sends "Host: evil.example".
 * Addresses and known names are therefore safe to answer.
 */
export function hostAllowed(header: string, allowedHosts: readonly string[]): boolean {
  const [, bracketed, plain] = /^(?:\[([^\]]+)\]|([^:]+))(?::\d+)?$/.exec(header) ?? [];
  const host = (bracketed ?? plain)?.toLowerCase();
  if (host === undefined) return false;
  return (
    host === 'localhost' || isIP(host) !== 0 || allowedHosts.some((allowed) => allowed.toLowerCase() === host)
  );
}

/** In constant time: digests have one length, whatever was sent. */
export function bearerMatches(header: string | undefined, token: string): boolean {
  const [, given] = /^Bearer ([\x21-\x7e]+)$/i.exec(header ?? '') ?? [];
  return given !== undefined && timingSafeEqual(digest(given), digest(token));
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
