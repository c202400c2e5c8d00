/** Prints what failed, and as the last line "N passed, N failed", from the report of vitest's JSON reporter. */
import { readFileSync } from 'node:fs';

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[];
  }[];
}

const path = process.argv[2];
if (path === undefined) throw new Error('usage: test-summary.ts REPORT.json');

const report = read(path);
if (report === undefined) {
  console.log('the test runner left no report\n0 passed, 1 failed');
  process.exitCode = 1;
} else {
  // A file that cannot be loaded has no tests, and must not count as none failed.
  const broken = report.testResults.filter(({ status, assertionResults }) => {
    return status === 'failed' && !assertionResults.some((test) => test.status === 'failed');
  });
  for (const { name } of broken) console.log(`failed file: ${name}`);
  for (const { fullName } of report.testResults.flatMap(({ assertionResults }) =>
    assertionResults.filter(({ status }) => status === 'failed'),
  )) {
    console.log(`failed test: ${fullName}`);
  }
  if (report.numPendingTests > 0) console.log(`${report.numPendingTests} skipped`);
  const failed = report.numFailedTests + broken.length;
  console.log(`${report.numPassedTests} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
}

function read(file: string): Report | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Report;
  } catch {
    return undefined;
  }
}
