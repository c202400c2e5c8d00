import { createCipheriv, createDecipheriv, hkdfSync, randomFillSync } from 'node:crypto';
import type { SealedPlace, Sealer } from './types.ts';

export interface SealingKey {
  /** Stands before what the key has sealed. 1 to 32 characters of ASCII. */
  readonly id: string;
  /** 32 random bytes. */
  readonly secret: Uint8Array;
}

/** What cannot be opened: another key's, another place's, or changed. */
export class SealError extends Error {
  override readonly name: string = 'SealError';
}

/** Sealed with a key that this process does not have; another one may. */
export class MissingKeyError extends SealError {
  override readonly name = 'MissingKeyError';
}

const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const FORMAT = 1;

/**
 * Seals the entries of one session with AES-256-GCM: a key of its own for each session, derived from the master key
 * and the tenant's salt, and a random nonce for each entry. The first key seals; all of them open.
 */
export function createSealer(keys: readonly SealingKey[], tenantSalt: Uint8Array, sessionId: string): Sealer {
  const derived = new Map<string, Buffer>();
  const keyOf = (id: string): Buffer => {
    const known = derived.get(id);
    if (known !== undefined) return known;
    const master = keys.find((key) => key.id === id);
    if (master === undefined)
      throw new MissingKeyError(`sealed with key ${JSON.stringify(id)}, which is not here`);
    const info = `responses-gateway journal ${sessionId}`;
    const key = Buffer.from(hkdfSync('sha256', master.secret, tenantSalt, info, KEY_BYTES));
    derived.set(id, key);
    return key;
  };
  const [first] = keys;
  if (first === undefined) throw new Error('sealing needs a key');
  const head = Buffer.concat([Buffer.from([FORMAT, first.id.length]), Buffer.from(first.id, 'latin1')]);

  return {
    seal(plain, where) {
      const nonce = nextNonce();
      const cipher = createCipheriv(CIPHER, keyOf(first.id), nonce);
      cipher.setAAD(placeBytes(where));
      const sealed = cipher.update(plain);
      cipher.final();
      return Buffer.concat([head, nonce, sealed, cipher.getAuthTag()]);
    },
    open(sealed, where) {
      const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength);
      const nonceAt = 2 + (bytes[1] ?? 0);
      const textAt = nonceAt + NONCE_BYTES;
      if (bytes[0] !== FORMAT || bytes.length < textAt + TAG_BYTES) throw new SealError('not a sealed entry');
      const key = keyOf(bytes.toString('latin1', 2, nonceAt));
      const decipher = createDecipheriv(CIPHER, key, bytes.subarray(nonceAt, textAt));
      decipher.setAAD(placeBytes(where));
      decipher.setAuthTag(bytes.subarray(bytes.length - TAG_BYTES));
      try {
        const plain = decipher.update(bytes.subarray(textAt, bytes.length - TAG_BYTES));
        decipher.final();
        return plain;
      } catch (cause) {
        throw new SealError('changed, or from another place', { cause });
      }
    },
  };
}

/** A call for random bytes costs as much as half a sealing; these are used once each. */
const nonces = Buffer.alloc(341 * NONCE_BYTES);
let nonceAt = nonces.length;

function nextNonce(): Buffer {
  if (nonceAt === nonces.length) {
    randomFillSync(nonces);
    nonceAt = 0;
  }
  nonceAt += NONCE_BYTES;
  return nonces.subarray(nonceAt - NONCE_BYTES, nonceAt);
}

function placeBytes({ sessionId, id, kind }: SealedPlace): Buffer {
  return Buffer.from(JSON.stringify([sessionId, id.fence, id.n, kind]));
}
