import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Writes each file (path from the root → text) that is not so yet. With `--check` on the command line nothing is written,
 * stale files are named, and the exit code becomes 1.
 */
export function write(files: Readonly<Record<string, string>>): void {
  for (const [file, text] of Object.entries(files)) {
    const path = `${ROOT}${file}`;
    if (existsSync(path) && readFileSync(path, 'utf8') === text) continue;
    if (process.argv.includes('--check')) {
      console.error(`stale: ${file}; run \`npm run generate\` and commit the result`);
      process.exitCode = 1;
    } else {
      writeFileSync(path, text);
      console.log(`written: ${file}`);
    }
  }
}
