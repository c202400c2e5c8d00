import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';

const SCRIPT = new URL('../../scripts/test-summary.ts', import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'gateway-summary-'));
afterAll(() => rmSync(folder, { recursive: true }));

function summary(report: object | undefined) {
  const file = join(folder, 'report.json');
  rmSync(file, { force: true });
  if (report !== undefined) writeFileSync(file, JSON.stringify(report));
  const { status, stdout } = spawnSync(process.execPath, [SCRIPT, file], { encoding: 'utf8' });
  return { status, lines: stdout.trim().split('\n') };
}

const passed = {
  name: 'a.test.ts',
  status: 'passed',
  assertionResults: [{ fullName: 'works', status: 'passed' }],
};
const failed = {
  name: 'b.test.ts',
  status: 'failed',
  assertionResults: [{ fullName: 'breaks', status: 'failed' }],
};
const broken = { name: 'c.test.ts', status: 'failed', assertionResults: [] };

test.each([
  [
    'all passed',
    { numPassedTests: 1, numFailedTests: 0, numPendingTests: 0, testResults: [passed] },
    0,
    ['1 passed, 0 failed'],
  ],
  [
    'one failed and one was skipped',
    { numPassedTests: 1, numFailedTests: 1, numPendingTests: 1, testResults: [passed, failed] },
    1,
    ['failed test: breaks', '1 skipped', '1 passed, 1 failed'],
  ],
  [
    'a file could not be loaded',
    { numPassedTests: 1, numFailedTests: 0, numPendingTests: 0, testResults: [passed, broken] },
    1,
    ['failed file: c.test.ts', '1 passed, 1 failed'],
  ],
  ['there is no report', undefined, 1, ['the test runner left no report', '0 passed, 1 failed']],
])('%s', (_what, report, status, lines) => {
  expect(summary(report)).toEqual({ status, lines });
});
