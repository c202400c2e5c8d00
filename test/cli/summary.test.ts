import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';

const REPORTER = new URL('../../scripts/summary-reporter.ts', import.meta.url).pathname;
const VITEST = new URL('../../node_modules/vitest/vitest.mjs', import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'gateway-summary-'));
afterEach(() => rmSync(folder, { recursive: true }));

/** Runs the files as tests of their own; of what failed only the first line is looked at. */
function summaryOf(files: Readonly<Record<string, string>>) {
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const file = join(folder, 'summary');
  const { status } = spawnSync(
    process.execPath,
    [VITEST, 'run', '--globals', '--retry=1', '--root', folder, '--reporter', REPORTER],
    { encoding: 'utf8', env: { ...process.env, TEST_SUMMARY_FILE: file } },
  );
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
  return { status, lines: lines.filter((line) => !/^ {4}at /.test(line)) };
}

test('counts what passed, failed and was skipped', () => {
  expect(
    summaryOf({
      'a.test.js': "test('works', () => {});",
      'b.test.js': "test('breaks', () => expect(1).toBe(2)); test.skip('waits', () => {});",
    }),
  ).toEqual({ status: 1, lines: ['failed test: b.test.js: breaks', '1 skipped', '1 passed, 1 failed'] });
});

test('names what passed only when it was repeated', () => {
  const summary = summaryOf({
    'a.test.js': "let n = 0; test('wavers', () => expect(n++).toBe(1)); test('works', () => {});",
  });
  expect(summary).toEqual({
    status: 0,
    lines: ['passed when repeated: a.test.js: wavers', '2 passed, 0 failed'],
  });
});

test('counts files and hooks that fail without a test that does', () => {
  const summary = summaryOf({
    'a.test.js': "throw new Error('no such thing');",
    'b.test.js': "afterAll(() => { throw new Error('still open'); }); test('works', () => {});",
  });
  expect(summary).toEqual({
    status: 1,
    lines: [
      'failed file: a.test.js: Error: no such thing',
      'failed file: b.test.js: Error: still open',
      '1 passed, 2 failed',
    ],
  });
});

test('counts what escapes from a test that passes', () => {
  const summary = summaryOf({
    'a.test.js': `test('works', async () => {
      void Promise.reject(new Error('nobody waits'));
      await new Promise(setImmediate);
    });`,
  });
  expect(summary).toEqual({
    status: 1,
    lines: [`escaped from ${join(folder, 'a.test.js')}: works: Error: nobody waits`, '1 passed, 1 failed'],
  });
});
