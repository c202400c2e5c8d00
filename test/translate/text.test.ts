import { expect, it } from 'vitest';
import { closingQuote, isJson, MAX_DEPTH } from '../../src/translate/scan.ts';

/** Pieces that a string of JSON can have, and some that it cannot. */
const PIECES = [
  'a',
  'plain text of some length, ',
  'ä',
  '漢',
  '😀',
  '\\n',
  '\\"',
  '\\\\',
  '\\u00e4',
  '\\ud83d',
  '\x7f',
];
const WRONG = ['\n', '\x00', '\x1f', '\\x', '\\u12g4', '"', '\\u12'];
const SEED = 20_261_130;

/** A mulberry32 generator: the same seed gives the same texts. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

it(`long strings are valid when JSON.parse says so, wherever they lie in memory (seed ${SEED})`, () => {
  const next = random(SEED);
  const pick = (list: readonly string[]) => list[Math.floor(next() * list.length)] as string;
  for (let n = 0; n < 4_000; n += 1) {
    const pieces = Array.from({ length: Math.floor(next() * 40) }, () => pick(PIECES));
    if (n % 2 === 0) pieces.splice(Math.floor(next() * pieces.length), 0, pick(WRONG));
    const json = `["${pieces.join('')}"]`;
    const shift = Math.floor(next() * 8);
    const bytes = Buffer.from(`${'#'.repeat(shift)}${json}${'#'.repeat(n % 3)}`);
    const view = bytes.subarray(shift, shift + Buffer.byteLength(json));
    const valid = parses(json);
    expect(isJson(view, MAX_DEPTH), json).toBe(valid);
    if (!valid) continue;
    const end = view.length - 2;
    expect(closingQuote(view, 2), json).toBe(json.includes('\\') ? ~end : end);
  }
});

function parses(json: string): boolean {
  try {
    JSON.parse(json);
    return true;
  } catch {
    return false;
  }
}
