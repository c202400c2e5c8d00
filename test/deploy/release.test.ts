import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readFragments, withRelease } from '../../scripts/release/changelog.ts';
import { setVersion } from '../../scripts/release/versions.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const FILES = [
  'package.json',
  'package-lock.json',
  'clients/typescript/package.json',
  'clients/python/pyproject.toml',
  'clients/java/pom.xml',
  'clients/java/stubs/pom.xml',
  'clients/java/client/pom.xml',
  'clients/java/testing/pom.xml',
  'clients/java/examples/pom.xml',
  'clients/java/README.md',
  'deploy/helm/responses-gateway/Chart.yaml',
];

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'release-'));
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

test('one version goes everywhere, and nowhere else', () => {
  for (const file of FILES) {
    mkdirSync(join(folder, dirname(file)), { recursive: true });
    cpSync(join(ROOT, file), join(folder, file));
  }
  setVersion(folder, '77.8.9');
  const lock = JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8'));
  expect([lock.version, lock.packages[''].version]).toEqual(['77.8.9', '77.8.9']);
  for (const file of FILES) {
    const [before, after] = [ROOT, folder].map((root) => readFileSync(join(root, file), 'utf8').split('\n'));
    const changed = after?.filter((line, index) => line !== before?.[index]) ?? [];
    expect(changed.length, file).toBeGreaterThan(0);
    for (const line of changed) expect(line).toContain('77.8.9');
  }
});

test('a place that looks otherwise is named, and nothing is written', () => {
  writeFileSync(join(folder, 'clients/python/pyproject.toml'), 'name = "x"\n');
  expect(() => setVersion(folder, '78.0.0')).toThrow(
    'clients/python/pyproject.toml: found 0 versions; allowed: 1',
  );
  expect(readFileSync(join(folder, 'package.json'), 'utf8')).toContain('77.8.9');
});

test('fragments of one section come together, above older releases', () => {
  mkdirSync(join(folder, 'changes'));
  writeFileSync(join(folder, 'changes/README.md'), '# not a change\n');
  writeFileSync(join(folder, 'changes/a.md'), '### Speed\n\n- One.\n');
  writeFileSync(join(folder, 'changes/b.md'), '### Docs\n\n- Two.\n');
  writeFileSync(join(folder, 'changes/c.md'), '### Speed\n\n- Three.\n');
  const old = '# Changelog\n\n## 0.1.0 (2026-01-01)\n\n- Old.\n';
  expect(withRelease(old, '0.2.0', '2026-12-01', readFragments(join(folder, 'changes')))).toBe(
    '# Changelog\n\n## 0.2.0 (2026-12-01)\n\n### Speed\n\n- One.\n- Three.\n\n### Docs\n\n- Two.\n\n## 0.1.0 (2026-01-01)\n\n- Old.\n',
  );
});

test('a fragment without a section is named', () => {
  writeFileSync(join(folder, 'changes/d.md'), '- Four.\n');
  expect(() => readFragments(join(folder, 'changes'))).toThrow('changes/d.md: found "- Four.\\n"');
});
