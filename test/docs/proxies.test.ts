import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { PROXIES } from '../proxies/proxy.ts';

const read = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8');

test('every cell of docs/proxies.md names a test that there is', () => {
  const page = read('../../docs/proxies.md');
  const source = read('../proxies/proxies.test.ts');
  const titles = new Set([...source.matchAll(/'([^'\n]{20,})'/g)].map(([, title]) => title));
  const named = [...page.matchAll(/proxies\.test\.ts "([^"]+)"\)/g)].map(([, title = '']) => title);
  expect(named.length).toBeGreaterThan(40);
  const missing = named.filter((title) => {
    const [group = '', test = group] = title.split(' > ');
    const [proxy = ''] = group.split(',');
    const isGroup = title === group || (PROXIES as readonly string[]).includes(proxy);
    return !isGroup || !titles.has(test);
  });
  expect(missing).toEqual([]);
});
