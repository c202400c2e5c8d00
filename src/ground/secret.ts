import { createHmac, randomBytes } from 'node:crypto';
import { inspect } from 'node:util';

/** A text that only `reveal` shows; however else it is rendered, it says "[redacted]". */
export interface Secret {
  /** Same for equal secrets of this process, tells nothing about them. */
  readonly fingerprint: string;
  /**
   * Same for equal secrets in every process that says the same scope, and in no other scope. Who knows the scope could
   * try secrets on it: only for what is sealed or stays in memory.
   */
  fingerprintIn(scope: string): string;
  reveal(): string;
}

/** Undefined when the text cannot be a header's value: empty, too long, blanks, control or non-ASCII characters. */
export function sealSecret(text: string): Secret | undefined {
  return HEADER_SAFE.test(text) ? new Sealed(text) : undefined;
}

/** What RFC 6750 tokens and every provider's keys are made of, and long enough for cloud access tokens. */
const HEADER_SAFE = /^[\x21-\x7e]{1,8192}$/;

/** Fingerprints from different processes cannot be compared, so they tell nothing to who reads two logs. */
const FINGERPRINT_KEY = randomBytes(32);

const REDACTED = '[redacted]';

class Sealed implements Secret {
  readonly fingerprint: string;
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
    this.fingerprint = fingerprint(FINGERPRINT_KEY, text);
  }

  fingerprintIn(scope: string): string {
    return fingerprint(scope, this.#text);
  }

  reveal(): string {
    return this.#text;
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

function fingerprint(key: string | Buffer, text: string): string {
  return createHmac('sha256', key).update(text).digest('hex').slice(0, 32);
}
