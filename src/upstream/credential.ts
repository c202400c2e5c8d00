import { createHmac, randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import { GatewayError } from '../errors.ts';
import type { Credential } from './types.ts';

/** Where an upstream's own key comes from. A function is asked at every dial, so that keys can be rotated. */
export type CredentialSource =
  | Credential
  | (() => Credential | undefined | Promise<Credential | undefined>)
  | undefined;

/** Wraps a secret. Throws UPSTREAM_AUTH when it cannot stand in a header; the text does not show it. */
export function createCredential(secret: string): Credential {
  return new Secret(secret);
}

export async function currentCredential(source: CredentialSource): Promise<Credential | undefined> {
  return typeof source === 'function' ? source() : source;
}

/** Visible ASCII: what RFC 6750 tokens and every provider's keys are made of; no CR, LF or space. */
const HEADER_SAFE = /^[\x21-\x7e]{1,8192}$/;

/** Fingerprints are keyed per process: they cannot be compared with anything outside it. */
const FINGERPRINT_KEY = randomBytes(32);

const REDACTED = '[redacted]';

class Secret implements Credential {
  readonly fingerprint: string;
  readonly #secret: string;

  constructor(secret: string) {
    if (!HEADER_SAFE.test(secret)) {
      throw new GatewayError(
        'UPSTREAM_AUTH',
        'the provider credential holds characters that no header may carry',
      );
    }
    this.#secret = secret;
    this.fingerprint = createHmac('sha256', FINGERPRINT_KEY).update(secret).digest('hex').slice(0, 32);
  }

  reveal(): string {
    return this.#secret;
  }

  toString(): string {
    return REDACTED;
  }

  toJSON(): string {
    return REDACTED;
  }

  [inspect.custom](): string {
    return REDACTED;
  }
}
