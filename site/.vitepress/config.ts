import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { defineConfig } from 'vitepress';
import { copyPages, PAGES, ROOT } from '../pages.ts';

/** Start of the addresses of source files, as in `https://host/owner/name/blob/main/`. Without it they are named only. */
const SOURCE_URL = process.env['DOCS_SOURCE_URL'];

copyPages();

export default defineConfig({
  title: 'responses-gateway',
  description: 'A typed gRPC front for OpenAI Responses: sessions, lanes and turns over one stream.',
  lang: 'en',
  base: process.env['DOCS_BASE'] ?? '/',
  srcDir: 'pages',
  rewrites: (page) => page.replace(/README\.md$/, 'index.md'),
  outDir: 'dist',
  cacheDir: './node_modules/.cache',
  vite: { logLevel: 'warn', build: { chunkSizeWarningLimit: 3000 } },
  markdown: {
    config(markdown) {
      markdown.core.ruler.push('source_links', ({ tokens, env }) => {
        for (const { children } of tokens) {
          let named = false;
          for (const token of children ?? []) {
            if (token.type === 'link_open') {
              const href = token.attrGet('href') ?? '';
              const file = sourceFile(href, (env as { path: string }).path);
              named = file !== undefined && SOURCE_URL === undefined;
              if (file !== undefined && SOURCE_URL !== undefined) token.attrSet('href', SOURCE_URL + file);
              if (file === undefined) token.attrSet('href', href.replace(/\bREADME\.md(?=#|$)/, 'index.md'));
            }
            if (!named) continue;
            if (token.type === 'link_close') named = false;
            if (token.type === 'link_open' || token.type === 'link_close') token.tag = 'span';
            if (token.type === 'link_open') token.attrs = null;
            token.type = token.type.replace('link', 'named');
          }
        }
      });
    },
  },
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    nav: [
      { text: 'Guide', link: '/docs/' },
      { text: 'Clients', link: '/clients/' },
      { text: 'API', link: '/docs/api' },
      { text: 'Configuration', link: '/docs/configuration' },
      { text: 'Errors', link: '/docs/errors' },
    ],
    sidebar: [
      {
        text: 'Start',
        items: [
          { text: 'What it is', link: '/' },
          { text: 'When it pays, and when not', link: '/docs/when-it-pays' },
          { text: 'All documents', link: '/docs/' },
        ],
      },
      {
        text: 'Call it',
        items: [
          { text: 'Clients', link: '/clients/' },
          { text: 'Go', link: '/clients/go/' },
          { text: 'Python', link: '/clients/python/' },
          { text: 'Java', link: '/clients/java/' },
          { text: 'TypeScript', link: '/clients/typescript/' },
          { text: 'Stubs of your own', link: '/proto/' },
        ],
      },
      {
        text: 'Come from an OpenAI SDK',
        collapsed: true,
        items: ['Go', 'Python', 'Java', 'TypeScript'].map((language) => ({
          text: language,
          link: `/docs/migration/${language.toLowerCase()}`,
        })),
      },
      {
        text: 'Run it',
        items: [
          { text: 'Operations', link: '/docs/operations' },
          { text: 'Security', link: '/docs/security' },
          { text: 'Several replicas', link: '/docs/scaling' },
          { text: 'Proxies and meshes', link: '/docs/proxies' },
          { text: 'Costs and budgets', link: '/docs/costs' },
          { text: 'Performance', link: '/docs/performance' },
          { text: 'Simulator', link: '/docs/simulator' },
        ],
      },
      {
        text: 'Reference',
        items: [
          { text: 'Messages and fields', link: '/docs/api' },
          { text: 'Errors', link: '/docs/errors' },
          { text: 'Configuration', link: '/docs/configuration' },
          { text: 'Metrics', link: '/docs/metrics' },
          { text: "API and the upstream's JSON", link: '/docs/mapping' },
          { text: 'The upstream', link: '/docs/upstream' },
        ],
      },
      {
        text: 'Change it',
        collapsed: true,
        items: [
          { text: 'Contributing', link: '/CONTRIBUTING' },
          { text: 'Design', link: '/docs/design' },
          { text: 'Life of a turn', link: '/docs/life-of-a-turn' },
          { text: 'Translation', link: '/docs/translation' },
          { text: 'What happens when', link: '/docs/what-happens-when' },
          { text: 'The core', link: '/src/core/' },
          { text: 'Durable sessions', link: '/docs/durable-sessions' },
          { text: 'Decisions', link: '/docs/decisions/' },
          { text: 'Dependencies', link: '/docs/dependencies' },
          { text: 'Releasing', link: '/RELEASING' },
          { text: 'Changes', link: '/CHANGELOG' },
        ],
      },
    ],
  },
});

/** The repository's path of a file or folder that is linked to and is no page of this site. */
function sourceFile(href: string, page: string): string | undefined {
  if (/^([a-z]+:|#|\/)/i.test(href)) return undefined;
  const path = join(dirname(page), decodeURI(href.replace(/[?#].*/, '')));
  const file = path.slice(PAGES.length + 1);
  return !existsSync(path) && existsSync(join(ROOT, file)) ? file : undefined;
}
