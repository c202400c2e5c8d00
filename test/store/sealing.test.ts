import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { createSealer, SealError } from '../../src/store/sealing.ts';

const salt = randomBytes(32);
const now = { id: 'k2', secret: randomBytes(32) };
const before = { id: 'k1', secret: randomBytes(32) };
const place = { sessionId: 'ses_1', id: { fence: 1, n: 2 }, kind: 'c' };
const text = Buffer.from('what the user said');

describe('sealed entries', () => {
  it('open where they were sealed, and show nothing', () => {
    const sealer = createSealer([now], salt, 'ses_1');
    const sealed = sealer.seal(text, place);
    expect(sealed.includes(text)).toBe(false);
    expect(sealed.length).toBeLessThan(text.length + 40);
    expect(sealer.open(sealed, place)).toEqual(text);
    expect(sealer.seal(text, place)).not.toEqual(sealed);
  });

  it('open after a rotation of keys, and not when the key is gone', () => {
    const sealed = createSealer([before], salt, 'ses_1').seal(text, place);
    expect(createSealer([now, before], salt, 'ses_1').open(sealed, place)).toEqual(text);
    expect(() => createSealer([now], salt, 'ses_1').open(sealed, place)).toThrow(/sealed with key "k1"/);
  });

  it.each([
    ['another session', { ...place, sessionId: 'ses_2' }],
    ['another fence', { ...place, id: { fence: 2, n: 2 } }],
    ['another number', { ...place, id: { fence: 1, n: 3 } }],
    ['another kind', { ...place, kind: 'b' }],
  ])('do not open in %s', (_what, elsewhere) => {
    const sealer = createSealer([now], salt, 'ses_1');
    expect(() => sealer.open(sealer.seal(text, place), elsewhere)).toThrow(SealError);
  });

  it('do not open with the salt of another tenant, or of one that was deleted', () => {
    const sealed = createSealer([now], salt, 'ses_1').seal(text, place);
    expect(() => createSealer([now], randomBytes(32), 'ses_1').open(sealed, place)).toThrow(SealError);
  });

  it('do not open when a single bit was changed, or a byte is missing', () => {
    const sealer = createSealer([now], salt, 'ses_1');
    const sealed = sealer.seal(text, place);
    for (let at = 0; at < sealed.length; at += 1) {
      const changed = Buffer.from(sealed);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(() => sealer.open(changed, place)).toThrow(SealError);
      expect(() => sealer.open(sealed.subarray(0, at), place)).toThrow(SealError);
    }
  });
});
