import { randomFillSync } from 'node:crypto';

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
const POOL_CHARACTERS = 4_096;

const pool = [...randomFillSync(new Uint8Array(POOL_CHARACTERS))]
  .map((byte) => ALPHABET[byte % ALPHABET.length])
  .join('');

/** 13 or 14 random characters, as the live API pads each delta (upstream.md#obfuscation). */
export function obfuscation(): string {
  const at = Math.floor(Math.random() * (POOL_CHARACTERS - 14));
  return pool.slice(at, at + 13 + Math.floor(Math.random() * 2));
}
