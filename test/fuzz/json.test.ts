import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import { membersOf } from '../../src/ground/json-members.ts';
import { peekFrame } from '../../src/translate/peek.ts';
import { isJson } from '../../src/translate/scan.ts';
import { cpuMsOf } from '../harness/cpu.ts';
import { brokenCopies, corpus, FUZZ_TIMEOUT_MS, fuzz, JSON_WORDS, MAX_INPUT_MS } from './support.ts';

const seeds = [...corpus('json'), ...corpus('frames')];
const inputs = brokenCopies(seeds, JSON_WORDS);
const documents = fc.json({ noUnicodeString: false }).map((text) => Buffer.from(text));
const examples = seeds.map(({ bytes }): [Buffer] => [bytes]);

describe('JSON at the level of bytes', { timeout: FUZZ_TIMEOUT_MS }, () => {
  test.prop([fc.oneof(inputs, documents)], fuzz({ examples }))(
    'isJson says what JSON.parse says',
    (bytes) => {
      const parsed = parse(bytes.toString('latin1'));
      // Latin-1 on one side, bytes on the other: the encoding is not this function's business.
      const tookMs = cpuMsOf(() => expect(isJson(bytes, 1_000)).toBe(parsed !== undefined));
      expect(tookMs).toBeLessThan(MAX_INPUT_MS);
    },
  );

  test.prop([inputs], fuzz({ examples }))(
    'peekFrame finds the type and lane that JSON.parse finds',
    (bytes) => {
      const peek = peekFrame(bytes);
      const value = parse(bytes.toString('utf8'));
      if (!bytes.equals(Buffer.from(bytes.toString('utf8'))) || !isRecord(value)) {
        expect(peek).toBeUndefined();
        return;
      }
      expect(peek).toEqual({ type: stringAt(value, 'type'), streamId: stringAt(value, 'stream_id') });
    },
  );

  test.prop([inputs], fuzz({ examples }))(
    'membersOf finds the members of every object, and nothing else throws',
    (bytes) => {
      const text = bytes.toString('utf8');
      const value = parse(text);
      if (!isRecord(value)) {
        try {
          membersOf(text);
        } catch (error) {
          expect(error).toBeInstanceOf(SyntaxError);
        }
        return;
      }
      const members = membersOf(text);
      expect(new Set(members.map(({ name }) => name))).toEqual(new Set(Object.keys(value)));
      for (const { name, valueStart, end } of members) {
        const last = members.findLast((other) => other.name === name);
        if (last?.end === end)
          expect(JSON.parse(text.slice(valueStart, end))).toEqual(
            Object.entries(value).find(([key]) => key === name)?.[1],
          );
      }
    },
  );

  test('depth and length cost time in proportion', () => {
    const tookMs = (text: string): number => {
      const bytes = Buffer.from(text);
      return cpuMsOf(() => {
        isJson(bytes, 64);
        peekFrame(bytes);
      });
    };
    expect(tookMs('['.repeat(8_000_000))).toBeLessThan(2_000);
    expect(tookMs(`{"type":${'{"a":'.repeat(500_000)}1${'}'.repeat(500_000)}}`)).toBeLessThan(2_000);
    expect(tookMs(`{"type":"${'\\\\'.repeat(4_000_000)}"}`)).toBeLessThan(2_000);
  });
});

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function stringAt(value: Readonly<Record<string, unknown>>, key: string): string | undefined {
  const found = Object.hasOwn(value, key) ? value[key] : undefined;
  return typeof found === 'string' ? found : undefined;
}
