import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const SRC = fileURLToPath(new URL('../src', import.meta.url));

/**
 * Who may import whom (docs/design.md). A folder may always import itself and `errors.ts`. `types` after a folder
 * means its contract only: `types.ts`, which holds no code.
 */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  ground: [],
  dialect: [],
  core: ['ground', 'dialect'],
  translate: ['core:types', 'ground'],
  upstream: ['core:types', 'ground', 'dialect', 'translate'],
  access: ['core:types', 'ground', 'upstream:types'],
  session: ['core', 'ground', 'access:types', 'store:types', 'telemetry:types', 'upstream:types'],
  store: ['core', 'ground', 'access:types'],
  telemetry: ['core:types', 'ground', 'upstream:types'],
  history: ['core:types', 'ground', 'telemetry:types', 'upstream:types'],
  simulator: [],
};

/** Packages that a folder may use; elsewhere any. */
const MAY_USE: Readonly<Record<string, readonly RegExp[]>> = {
  // Hashing is no IO.
  core: [/^node:crypto$/],
  dialect: [],
  session: [/^node:crypto$/],
  translate: [/^node:(buffer|crypto|fs|path|url)$/, /^protobufjs/],
};

interface Import {
  readonly file: string;
  readonly target: string;
  readonly typeOnly: boolean;
}

const imports: readonly Import[] = globSync('**/*.ts', { cwd: SRC }).flatMap((file) =>
  [
    ...readFileSync(join(SRC, file), 'utf8').matchAll(
      /^(?:import|export)\s+(type\s)?[^;]*?from\s+'([^']+)'/gms,
    ),
  ].map(([, type, target]) => ({ file, target: target as string, typeOnly: type !== undefined })),
);

describe('import rules', () => {
  it('finds the sources', () => {
    expect(imports.length).toBeGreaterThan(100);
  });

  for (const [folder, allowed] of Object.entries(MAY_IMPORT)) {
    it(`${folder} imports nothing of ours but ${['errors', ...allowed].join(', ')}`, () => {
      const wrong = imports.filter(({ file, target, typeOnly }) => {
        if (!file.startsWith(`${folder}/`) || !target.startsWith('.')) return false;
        const [first = '', ...rest] = relative(SRC, join(SRC, dirname(file), target)).split('/');
        if (first === folder || (first === 'errors.ts' && folder !== 'simulator')) return false;
        const contract = rest.join('/') === 'types.ts' && typeOnly;
        return !allowed.includes(first) && !(contract && allowed.includes(`${first}:types`));
      });
      expect(wrong).toEqual([]);
    });
  }

  for (const [folder, packages] of Object.entries(MAY_USE)) {
    it(`${folder} does no IO`, () => {
      const wrong = imports.filter(
        ({ file, target }) =>
          file.startsWith(`${folder}/`) &&
          !target.startsWith('.') &&
          !packages.some((name) => name.test(target)),
      );
      expect(wrong).toEqual([]);
    });
  }
});
