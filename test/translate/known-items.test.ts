import { hash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createWire, KnownHistories, type Steps } from '../../src/translate/index.ts';
import { encode } from './support.ts';

const FULL_HISTORY = 2;
const wire = createWire();

function startTurn(texts: readonly string[], laneId = 'a', inputMode = FULL_HISTORY): Uint8Array {
  const input = texts.map((text) => ({ message: { role: 'user', content: [{ input_text: { text } }] } }));
  const create = { model: 'gpt-5.5', input };
  return encode('ConnectRequest', {
    start_turn: { lane_id: laneId, turn_id: 't', create, input_mode: inputMode },
  });
}

function read(bytes: Uint8Array, known?: KnownHistories): unknown {
  return end(wire.connectSteps(bytes, known));
}

function end<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

interface Told {
  readonly turn: {
    readonly create: {
      readonly input: readonly string[];
      readonly long?: ReadonlyMap<string, { readonly bytes: number; readonly digest: string }>;
    };
  };
}

/** What is known of the texts is told of more of them where it costs nothing. */
function apart(told: unknown) {
  const { turn, ...rest } = told as Told;
  const { long = new Map(), ...create } = turn.create;
  return { request: { ...rest, turn: { ...turn, create } }, input: create.input, long };
}

describe('a full history', () => {
  it('is read the same whatever was sent before, on this lane or another', () => {
    const history = fc.array(fc.constantFrom('a', 'b', 'hello', 'x'.repeat(100), 'y'.repeat(70_000)), {
      maxLength: 8,
    });
    const request = fc.tuple(history, fc.constantFrom('a', 'b'), fc.constantFrom(1, FULL_HISTORY));
    fc.assert(
      fc.property(fc.array(request, { maxLength: 12 }), (requests) => {
        const known = new KnownHistories();
        for (const [texts, laneId, inputMode] of requests) {
          const bytes = startTurn(texts, laneId, inputMode);
          expect(apart(read(bytes, known)).request).toEqual(apart(read(bytes)).request);
        }
      }),
    );
  });

  it('tells the bytes and the digest of its longer texts, of those that are still said', () => {
    const known = new KnownHistories();
    const told = (texts: readonly string[]) => apart(read(startTurn(texts), known));
    for (const texts of [
      ['y'.repeat(70_000), 'é'.repeat(300)],
      ['y'.repeat(70_000), 'é'.repeat(300), 'z'.repeat(300_000), 'short'],
      ['w'.repeat(70_000)],
      ['w'.repeat(70_000), 'v'.repeat(200)],
    ]) {
      const { long, input } = told(texts);
      const longer = input.filter((item) => item.length >= 250);
      expect(longer.length).toBeGreaterThan(0);
      for (const item of longer)
        expect(long.get(item)).toEqual({
          bytes: Buffer.byteLength(item),
          digest: hash('sha256', item, 'base64url'),
        });
    }
    expect(told(['w'.repeat(70_000), 'v'.repeat(200)]).long.size).toBe(2);
  });

  it('is read anew where a byte of it differs', () => {
    const known = new KnownHistories();
    const [one, two] = [startTurn(['ab', 'cd']), startTurn(['ab', 'cd'])];
    const at = Buffer.from(two).indexOf('ab');
    two[at] = 'A'.charCodeAt(0);
    expect(inputOf(read(one, known))).toEqual(inputOf(read(one)));
    expect(inputOf(read(two, known))).toEqual(inputOf(read(two)));
    expect(inputOf(read(two, known))[0]).toContain('Ab');
  });

  it('may begin or end with items that say nothing', () => {
    const known = new KnownHistories();
    const of = (input: readonly object[]) =>
      encode('ConnectRequest', {
        start_turn: { lane_id: 'a', turn_id: 't', create: { input }, input_mode: FULL_HISTORY },
      });
    for (const input of [
      [{}],
      [{}, {}],
      [{}, { json: Buffer.from('{}') }],
      [{ json: Buffer.from('{}') }, {}],
    ]) {
      for (let n = 0; n < 2; n += 1) expect(read(of(input), known)).toEqual(read(of(input)));
    }
  });

  it('is known piece by piece: what was changed at its end costs nothing of its beginning', () => {
    const known = new KnownHistories();
    const texts = Array.from({ length: 20 }, (_, n) => `${n} ${'z'.repeat(50_000)}`);
    const first = inputOf(read(startTurn(texts), known));
    const second = inputOf(read(startTurn([...texts.slice(0, 15), 'changed', ...texts.slice(16)]), known));
    expect(second.map((item, at) => item === first[at]).indexOf(false)).toBe(15);
    expect(inputOf(read(startTurn([...texts, 'more']), known)).slice(0, 20)).toEqual(first);
  });

  it('has the very strings of the one before, where it says the same', () => {
    const known = new KnownHistories();
    const first = inputOf(read(startTurn(['one', 'two', 'three']), known));
    const second = inputOf(read(startTurn(['one', 'TWO', 'three', 'four']), known));
    expect(second.map((item, at) => item === first[at])).toEqual([true, false, true, false]);
  });

  it('that was refused teaches nothing about what was wrong with it', () => {
    const known = new KnownHistories();
    const bad = encode('ConnectRequest', {
      start_turn: {
        turn_id: 't',
        lane_id: 'a',
        input_mode: FULL_HISTORY,
        create: { input: [{ message: { role: 'user' } }, { json: Buffer.from('{') }] },
      },
    });
    for (let n = 0; n < 2; n += 1) {
      expect(read(bad, known)).toMatchObject({ kind: 'refused', error: { reason: 'INVALID_JSON' } });
    }
  });
});

function inputOf(message: unknown): readonly string[] {
  return (message as { turn: { create: { input: readonly string[] } } }).turn.create.input;
}
