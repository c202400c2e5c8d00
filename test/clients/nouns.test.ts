import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const SOURCES = {
  Go: 'clients/go/*.go',
  Java: 'clients/java/client/src/main/java/dev/responsesgateway/client/*.java',
  Python: 'clients/python/src/responses_gateway/*.py',
  TypeScript: 'clients/typescript/src/*.ts',
} as const;

const rows = readFileSync(`${ROOT}clients/README.md`, 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| '))
  .map((line) => line.split('|').map((cell) => cell.trim()));
const header = rows.find(([, first]) => first === 'what') ?? [];
const nouns = rows.filter(
  (cells) => cells.length === header.length && cells !== header && !cells[1]?.startsWith('---'),
);

test.each(Object.entries(SOURCES))(
  'the names of %s in the table are those of its sources',
  (language, files) => {
    const column = header.indexOf(language);
    const text = globSync(files, { cwd: ROOT })
      .map((file) => readFileSync(`${ROOT}${file}`, 'utf8'))
      .join('\n');
    const missing = nouns
      .map((row) => row[column]?.replaceAll('`', '') ?? '')
      .filter((name) => name === '' || !new RegExp(`\\b${name}\\b`).test(text));
    expect(nouns.length).toBeGreaterThan(10);
    expect(missing).toEqual([]);
  },
);
