/** Fails where a link within the built site leads to no page, file or heading. Links to other hosts are not followed. */
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SITE = fileURLToPath(new URL('dist', import.meta.url));
const BASE = process.env['DOCS_BASE'] ?? '/';

const pages = new Map(globSync('**/*.html', { cwd: SITE }).map((page) => [page, read(page)]));
const broken = [...pages].flatMap(([page, { links }]) =>
  links.flatMap((link) => {
    const problem = problemWith(link, page);
    return problem === undefined ? [] : [`${page}: ${link}: ${problem}`];
  }),
);
for (const line of broken) console.error(line);
const checked = [...pages.values()].reduce((total, { links }) => total + links.length, 0);
console.log(`${pages.size} pages, ${checked} links, ${broken.length} broken`);
process.exitCode = broken.length > 0 || checked === 0 ? 1 : 0;

function read(page: string): { readonly links: readonly string[]; readonly ids: ReadonlySet<string> } {
  const html = readFileSync(join(SITE, page), 'utf8');
  const all = (pattern: RegExp) => [...html.matchAll(pattern)].map(([, value]) => decode(value ?? ''));
  return {
    links: [...new Set(all(/<a\s[^>]*?href="([^"]*)"/g))].filter((link) => !/^[a-z]+:/i.test(link)),
    ids: new Set(all(/\sid="([^"]*)"/g)),
  };
}

function problemWith(link: string, page: string): string | undefined {
  const [address = '', anchor = ''] = link.split('#');
  const path = address.startsWith(BASE) ? address.slice(BASE.length) : join(dirname(page), address);
  const target = address === '' ? page : path === '' || path.endsWith('/') ? `${path}index.html` : path;
  const found = pages.get(target) ?? pages.get(`${target}.html`);
  if (found === undefined) return existsSync(join(SITE, target)) ? undefined : 'no such page';
  return anchor === '' || found.ids.has(decodeURIComponent(anchor)) ? undefined : 'no such heading';
}

function decode(text: string): string {
  return text.replaceAll('&amp;', '&').replaceAll('&quot;', '"').replaceAll('&#39;', "'");
}
