import { readFileSync } from 'node:fs';

const TABLE = new URL('../README.md', import.meta.url);

/**
 * The oldest versions that a client is run with, by the table in clients/README.md: of the language and of the libraries, by
 * their names.
 */
export function floors(language: string): Readonly<Record<string, string>> {
  const rows = readFileSync(TABLE, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) => line.split('|').map((cell) => cell.trim()));
  const found: Record<string, string> = {};
  for (const [, ofLanguage, what = '', oldest = ''] of rows)
    if (ofLanguage === language && what !== '') found[what.replaceAll('`', '')] = oldest;
  if (Object.keys(found).length === 0) throw new Error(`clients/README.md has no versions of ${language}`);
  return found;
}
