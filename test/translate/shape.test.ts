import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createWire, frameFromBytes, frameIn } from '../../src/translate/index.ts';
import type { Frame } from '../../src/translate/peek.ts';
import { eventOf } from './support.ts';

const TYPED = { payload: 'typed', schemaRevision: 0 } as const;
const wire = createWire();

/** Long ones with escapes are read in another way. */
const CODE = 'if (value === "none") {\n\treturn /\\s/;\n}\n';

/** The kinds of text that decide how a value is read: plain, escaped, foreign, broken. */
const piece = fc.oneof(
  fc.string({ maxLength: 40 }),
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.constantFrom(
    '',
    'x'.repeat(300),
    'line\nline',
    'say "no"',
    '\\',
    '\u0000',
    'żółć 漢字 🦜',
    '\ud800',
    '\udc00',
    CODE.repeat(20),
    `${CODE.repeat(20)}żółć 漢字 🦜${CODE}`,
    `${CODE.repeat(20)}\ud800${CODE}`,
    `${CODE.repeat(20)}","item_id":"${CODE}`,
  ),
);
const number = fc.oneof(
  fc.nat(),
  fc.constantFrom(0, -1, -0, 0.5, 1e21, 2 ** 31, 2 ** 31 - 1, 2 ** 53 - 1, 123_456_789_012_345),
);
const event = fc.record({
  type: fc.constantFrom('response.output_text.delta', 'response.function_call_arguments.delta'),
  item_id: piece,
  output_index: number,
  content_index: number,
  delta: piece,
  sequence_number: number,
});
const lanes = fc.option(fc.constantFrom('a', 'b', '', 'ü'), { nil: undefined });
const extra = fc.constantFrom(
  {},
  { logprobs: [] },
  { logprobs: [{ token: 'a' }] },
  { obfuscation: 'abc' },
  { new: 1 },
);

/** Enough of them in a row that shapes are learnt. */
const stream = fc.array(
  fc.tuple(event, lanes, extra).map(([fields, stream_id, more]) => ({
    ...fields,
    ...more,
    ...(stream_id !== undefined && { stream_id }),
  })),
  { minLength: 20, maxLength: 60 },
);

describe('frames that repeat each other', () => {
  it('are translated as if each were the first', () => {
    fc.assert(
      fc.property(stream, (documents) => {
        for (const document of documents) {
          const bytes = Buffer.from(JSON.stringify(document));
          const frame = frameFromBytes(bytes);
          expect([frame.type, frame.streamId]).toEqual([document.type, document.stream_id]);
          const { type, streamId, byteLength, json } = frame;
          // Without its shape the frame is read in full.
          const plain = { type, streamId, byteLength, bytes, json };
          expect(wire.event(eventOf(frame), TYPED)).toEqual(wire.event(eventOf(plain), TYPED));
          expect(Buffer.from(frame.bytes)).toEqual(bytes);
        }
      }),
      { numRuns: 100 },
    );
  });

  it('are translated alike when they are large', () => {
    const document = { type: 'response.output_text.delta', item_id: 'm', output_index: 0, content_index: 0 };
    const frameOf = (delta: string) =>
      frameFromBytes(Buffer.from(JSON.stringify({ ...document, delta, sequence_number: 1 })));
    for (let n = 0; n < 20; n += 1) frameOf('a');
    for (const text of [CODE.repeat(3_000), `${CODE.repeat(30_000)}漢`, `\udc00${CODE.repeat(3_000)}`]) {
      const frame = frameOf(text);
      const { type, streamId, byteLength, bytes, json } = frame;
      const plain = { type, streamId, byteLength, bytes, json };
      // Twice: it may be asked for again after a resume.
      for (let n = 0; n < 2; n += 1)
        expect(wire.event(eventOf(frame), TYPED)).toEqual(wire.event(eventOf(plain), TYPED));
      expect((frame as Frame).shape).toBeDefined();
    }
  });

  it('are refused when JSON.parse or UTF-8 refuses them, wherever they are damaged', () => {
    const damage = fc.record({ at: fc.nat(), byte: fc.integer({ min: 0, max: 255 }), cut: fc.boolean() });
    fc.assert(
      fc.property(stream, fc.array(damage, { minLength: 30, maxLength: 30 }), (documents, damages) => {
        for (const document of documents) frameFromBytes(Buffer.from(JSON.stringify(document)));
        for (const [index, { at, byte, cut }] of damages.entries()) {
          const whole = Buffer.from(JSON.stringify(documents[index % documents.length]));
          const bytes = cut ? whole.subarray(0, at % whole.length) : Buffer.from(whole);
          if (!cut) bytes[at % bytes.length] = byte;
          expect(taken(bytes)).toBe(valid(bytes));
        }
      }),
      { numRuns: 100 },
    );
  });

  it('lie anywhere in a chunk', () => {
    const text = JSON.stringify({
      type: 'response.output_text.delta',
      delta: 'x'.repeat(50),
      sequence_number: 7,
    });
    let shaped = 0;
    for (let offset = 0; offset < 40; offset += 1) {
      const chunk = Buffer.concat([Buffer.alloc(offset, '"'), Buffer.from(text), Buffer.alloc(9, '}')]);
      const frame = frameIn(chunk, offset, offset + text.length) as Frame;
      expect(frame.bytes.toString()).toBe(text);
      expect(frame.json()['delta']).toBe('x'.repeat(50));
      shaped += frame.shape === undefined ? 0 : 1;
    }
    // The first ones are learnt from.
    expect(shaped).toBeGreaterThan(20);
  });
});

function taken(bytes: Buffer): boolean {
  try {
    frameFromBytes(bytes);
    return true;
  } catch {
    return false;
  }
}

function valid(bytes: Buffer): boolean {
  try {
    const value: unknown = JSON.parse(
      new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes),
    );
    return (
      typeof value === 'object' && value !== null && typeof (value as { type?: unknown }).type === 'string'
    );
  } catch {
    return false;
  }
}
