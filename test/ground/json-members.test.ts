import { fc, test } from '@fast-check/vitest';
import { expect, it } from 'vitest';
import { membersOf } from '../../src/ground/json-members.ts';
import { cpuMsOf } from '../harness/cpu.ts';

const object = fc.dictionary(fc.string({ unit: 'grapheme' }), fc.jsonValue({ depthSize: 'medium' }));

test.prop([object, fc.constantFrom(undefined, 1, '\t', ' \n')])(
  'finds the members of any object, in order, with the text of their values',
  (value, indent) => {
    const text = ` ${JSON.stringify(value, undefined, indent)}\n`;
    const members = membersOf(text);
    const found = members.map(({ name, valueStart, end }) => [name, JSON.parse(text.slice(valueStart, end))]);
    expect(found).toEqual(Object.entries(JSON.parse(text)));
    const joined = members.map(({ start, end }) => text.slice(start, end)).join(',');
    expect(JSON.parse(`{${joined}}`)).toEqual(JSON.parse(text));
  },
);

it('sees every one of several equal names, and escaped ones as what they spell', () => {
  expect(membersOf('{"a":1,"\\u0061":2}').map(({ name }) => name)).toEqual(['a', 'a']);
});

it('is linear: depth and length cost no stack and no time', () => {
  const deep = `{"type":"x","deep":${'['.repeat(1_000_000)}${']'.repeat(1_000_000)},"quoted":"${'\\"'.repeat(1_000_000)}"}`;
  const tookMs = cpuMsOf(() =>
    expect(membersOf(deep).map(({ name }) => name)).toEqual(['type', 'deep', 'quoted']),
  );
  expect(tookMs).toBeLessThan(2_000);
});

test.prop([fc.string(), object])('throws a SyntaxError or gives members, on any text', (noise, value) => {
  const json = JSON.stringify(value);
  for (const text of [noise, json.slice(0, -1), `{${noise}}`, `${json.slice(0, json.length / 2)}${noise}`]) {
    try {
      expect(Array.isArray(membersOf(text))).toBe(true);
    } catch (error) {
      expect(error).toBeInstanceOf(SyntaxError);
    }
  }
});
