import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { renderJsonSchema, renderReference } from '../../src/config/reference.ts';

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

test.each([
  ['config.schema.json', renderJsonSchema],
  ['docs/configuration.md', renderReference],
])('%s is what npm run generate writes', (path, render) => {
  expect(read(path)).toBe(render());
});

test('every field has a description', () => {
  const bare = renderReference()
    .split('\n')
    .filter(
      (line) =>
        /^\| `.*\|\s+\|$/.test(line) && !/\.(?:kind|tenant|id|uri|email|not_before|not_after)`/.test(line),
    );
  expect(bare).toEqual([]);
});
