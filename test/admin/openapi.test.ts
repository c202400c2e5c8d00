import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { describedMethods, renderAdminApi } from '../../src/admin/openapi.ts';
import { PATHS, routeOf } from '../../src/admin/routes.ts';

test('docs/admin-api.json is what the code says (npm run generate -- admin-api)', () => {
  const written = readFileSync(new URL('../../docs/admin-api.json', import.meta.url), 'utf8');
  expect(written).toBe(renderAdminApi());
});

test('every path and method is described, and no other', () => {
  const files = /^\/console\//;
  const served = PATHS.filter((path) => !files.test(path)).map((path) => [
    path,
    Object.keys(routeOf(path)?.route.methods ?? {}).toSorted(),
  ]);
  const described = Object.entries(describedMethods()).map(([path, methods]) => [path, methods.toSorted()]);
  expect(described.toSorted()).toEqual(served.toSorted());
});
