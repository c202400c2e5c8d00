/** Copies what becomes a page, and the images, to `pages/`: modules that pages import are looked for beside them. */
import { cpSync, globSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));
export const PAGES = fileURLToPath(new URL('pages', import.meta.url));

const SOURCES = [
  '*.md',
  'docs/**/*.md',
  'docs/images/*',
  'clients/README.md',
  'clients/*/README.md',
  'proto/README.md',
  'src/core/README.md',
];

export function copyPages(): void {
  rmSync(PAGES, { recursive: true, force: true });
  for (const file of globSync(SOURCES, { cwd: ROOT })) cpSync(join(ROOT, file), join(PAGES, file));
}
