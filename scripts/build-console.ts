/** Bundles the console into dist/console/: `npm run build`, a part of `npm run build` and of `npm start`. */
import { copyFileSync, mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const path = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url));

mkdirSync(path('dist/console'), { recursive: true });
copyFileSync(path('console/index.html'), path('dist/console/index.html'));
await build({
  entryPoints: { console: path('console/src/main.tsx') },
  outdir: path('dist/console'),
  tsconfig: path('console/tsconfig.json'),
  bundle: true,
  minify: true,
  format: 'esm',
  target: ['es2022', 'chrome120', 'firefox121', 'safari17'],
  legalComments: 'eof',
  logLevel: 'warning',
});
