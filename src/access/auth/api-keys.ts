import { createHash, randomBytes, scrypt, timingSafeEqual } from 'node:crypto';
import { AccessOptionsError, type ApiKeyAuth, type ApiKeyOptions } from '../options.ts';
import type { Principal } from '../types.ts';
import type { Method, Presented, Refused } from './method.ts';
import { SlowChecks } from './slow-checks.ts';

const PREFIX = 'rgk_';
const KEY_FORM = /^rgk_([a-z2-7]{16})_([A-Za-z0-9_-]{43})$/;
const ID_FORM = /^[a-z2-7]{16}$/;
const SECRET_BYTES = 32;
const ID_ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567';

const SCRYPT_MAX_MEMORY_BYTES = 256 * 1024 * 1024;

export interface NewApiKey {
  /** Shown once, never stored. */
  readonly key: string;
  readonly id: string;
  /** For the configuration: `sha256:…`. */
  readonly hash: string;
}

/** 256 random bits, so that a plain SHA-256 is beyond guessing and costs callers nothing. */
export function createApiKey(): NewApiKey {
  const id = Array.from(randomBytes(16), (byte) => ID_ALPHABET[byte & 31]).join('');
  const key = `${PREFIX}${id}_${randomBytes(SECRET_BYTES).toString('base64url')}`;
  return { key, id, hash: `sha256:${sha256(key).toString('hex')}` };
}

/** The stored form of a key for those whose rules ask for a slow hash. */
export async function scryptHash(key: string, cost = 16_384): Promise<string> {
  const parameters: ScryptHash = {
    kind: 'scrypt',
    cost,
    blockSize: 8,
    parallelization: 1,
    salt: randomBytes(16),
    digest: Buffer.alloc(32),
  };
  const digest = await runScrypt(key, parameters);
  return `scrypt:${cost}:8:1:${parameters.salt.toString('base64url')}:${digest.toString('base64url')}`;
}

export function apiKeys(options: ApiKeyAuth, path: string): Method {
  const keys = new Map<string, StoredKey>();
  options.keys.forEach((key, at) => {
    const stored = parseKey(key, `${path}.keys[${at}]`);
    if (keys.has(key.id)) throw new AccessOptionsError(`${path}.keys[${at}].id`, 'is already taken');
    keys.set(key.id, stored);
  });
  const decoy = decoyFor([...keys.values()]);
  const slow = new SlowChecks();

  return {
    kind: 'api_keys',
    fits: (presented) => presented.bearer?.startsWith(PREFIX) === true,
    verify: async (presented: Presented, nowMs: number): Promise<Principal | Refused> => {
      const key = presented.bearer ?? '';
      const id = KEY_FORM.exec(key)?.[1];
      // An unknown id takes the same way as a known one with a wrong secret.
      const stored = (id === undefined ? undefined : keys.get(id)) ?? decoy;
      const proven = await matches(key, stored, stored === decoy ? undefined : id, slow);
      if (stored === decoy) return { why: id === undefined ? 'malformed_key' : 'unknown_key', keyId: id };
      if (!proven) return { why: 'wrong_secret', keyId: id };
      if (nowMs < stored.notBeforeMs) return { why: 'not_valid_yet', keyId: id };
      if (nowMs >= stored.notAfterMs) return { why: 'expired', keyId: id };
      return {
        tenantId: stored.tenantId,
        subject: stored.subject,
        ...(Number.isFinite(stored.notAfterMs) ? { expiresAtMs: stored.notAfterMs } : {}),
      };
    },
  };
}

interface StoredKey {
  readonly hash: StoredHash;
  readonly tenantId: string;
  readonly subject: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** SHA-256 of a key that the slow hash accepted before; later calls with it are cheap. */
  accepted: Buffer | undefined;
}

type StoredHash = { readonly kind: 'sha256'; readonly digest: Buffer } | ScryptHash;

interface ScryptHash {
  readonly kind: 'scrypt';
  readonly cost: number;
  readonly blockSize: number;
  readonly parallelization: number;
  readonly salt: Buffer;
  readonly digest: Buffer;
}

async function matches(
  key: string,
  stored: StoredKey,
  keyId: string | undefined,
  slow: SlowChecks,
): Promise<boolean> {
  const presented = sha256(key);
  if (stored.hash.kind === 'sha256') return timingSafeEqual(presented, stored.hash.digest);
  if (stored.accepted !== undefined && timingSafeEqual(presented, stored.accepted)) return true;
  const hash = stored.hash;
  const proven = await slow.run(keyId, presented.toString('latin1'), async () =>
    timingSafeEqual(await runScrypt(key, hash), hash.digest),
  );
  if (proven) stored.accepted = presented;
  return proven;
}

/** Throws AccessOptionsError. */
export function parseKey(options: ApiKeyOptions, path: string): StoredKey {
  if (!ID_FORM.test(options.id)) {
    throw new AccessOptionsError(
      `${path}.id`,
      'is not a key id; make one with `responses-gateway keys create`',
    );
  }
  return {
    hash: parseHash(options.hash, `${path}.hash`),
    tenantId: options.tenant,
    subject: options.subject ?? options.id,
    notBeforeMs: options.notBeforeMs ?? Number.NEGATIVE_INFINITY,
    notAfterMs: options.notAfterMs ?? Number.POSITIVE_INFINITY,
    accepted: undefined,
  };
}

function parseHash(text: string, path: string): StoredHash {
  const hex = /^sha256:([0-9a-f]{64})$/.exec(text)?.[1];
  if (hex !== undefined) return { kind: 'sha256', digest: Buffer.from(hex, 'hex') };
  const parts = /^scrypt:(\d{4,7}):(\d{1,2}):(\d{1,2}):([\w-]{16,}):([\w-]{43})$/.exec(text);
  if (parts === null) {
    throw new AccessOptionsError(path, 'is neither sha256:<hex> nor scrypt:<N>:<r>:<p>:<salt>:<hash>');
  }
  const [, cost, blockSize, parallelization, salt = '', digest = ''] = parts;
  const hash: ScryptHash = {
    kind: 'scrypt',
    cost: Number(cost),
    blockSize: Number(blockSize),
    parallelization: Number(parallelization),
    salt: Buffer.from(salt, 'base64url'),
    digest: Buffer.from(digest, 'base64url'),
  };
  const memoryBytes = 128 * hash.cost * hash.blockSize;
  if (!isPowerOfTwo(hash.cost) || memoryBytes >= SCRYPT_MAX_MEMORY_BYTES || hash.parallelization < 1) {
    throw new AccessOptionsError(path, 'has scrypt parameters out of range');
  }
  return hash;
}

/** Stands in for an unknown id. With the costliest hash in use, an unknown id is never the faster answer. */
function decoyFor(keys: readonly StoredKey[]): StoredKey {
  const slowest = keys
    .map((key) => key.hash)
    .filter((hash) => hash.kind === 'scrypt')
    .toSorted((a, b) => b.cost * b.blockSize - a.cost * a.blockSize)[0];
  const digest = randomBytes(32);
  const hash: StoredHash =
    slowest === undefined ? { kind: 'sha256', digest } : { ...slowest, salt: randomBytes(16), digest };
  return { hash, tenantId: '', subject: '', notBeforeMs: 0, notAfterMs: 0, accepted: undefined };
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function runScrypt(key: string, hash: ScryptHash): Promise<Buffer> {
  const parameters = {
    N: hash.cost,
    r: hash.blockSize,
    p: hash.parallelization,
    maxmem: SCRYPT_MAX_MEMORY_BYTES,
  };
  return new Promise((resolve, reject) => {
    scrypt(key, hash.salt, hash.digest.length, parameters, (error, digest) => {
      if (error === null) resolve(digest);
      else reject(error);
    });
  });
}

function isPowerOfTwo(value: number): boolean {
  return value > 1 && (value & (value - 1)) === 0;
}
