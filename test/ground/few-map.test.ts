import fc from 'fast-check';
import { expect, it } from 'vitest';
import { FewMap } from '../../src/ground/few-map.ts';

const KEY = fc.integer({ min: 0, max: 4 });
const STEP = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('set' as const), key: KEY, value: fc.nat() }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('delete' as const), key: KEY }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('clear' as const) }) },
);

it('is a Map, whatever comes and goes', () => {
  fc.assert(
    fc.property(fc.array(STEP, { maxLength: 40 }), (steps) => {
      const few = new FewMap<number, number>();
      const map = new Map<number, number>();
      for (const step of steps) {
        if (step.kind === 'set') {
          few.set(step.key, step.value);
          map.set(step.key, step.value);
        } else if (step.kind === 'delete') expect(few.delete(step.key)).toBe(map.delete(step.key));
        else {
          few.clear();
          map.clear();
        }
        expect([...few.values()]).toEqual([...map.values()]);
        expect(few.size).toBe(map.size);
        expect(few.oldest).toBe(map.keys().next().value);
        for (let key = 0; key <= 4; key += 1) {
          expect(few.has(key)).toBe(map.has(key));
          expect(few.get(key)).toBe(map.get(key));
        }
      }
    }),
  );
});
