/**
 * A reporter of vitest for logs of which only the end is kept: writes what failed, what passed only when it was
 * repeated, what escaped from the tests, and as the last line "N passed, N failed" to the file TEST_SUMMARY_FILE.
 */
import { writeFileSync } from 'node:fs';
import type { Reporter, SerializedError, TestModule } from 'vitest/node';

export default class SummaryReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], escaped: readonly SerializedError[]): void {
    const path = process.env['TEST_SUMMARY_FILE'];
    if (path === undefined) throw new Error('TEST_SUMMARY_FILE is not set');
    writeFileSync(path, `${summaryOf(modules, escaped).join('\n')}\n`);
  }
}

function summaryOf(modules: readonly TestModule[], escaped: readonly SerializedError[]): string[] {
  const lines: string[] = [];
  let [passed, failed, skipped] = [0, 0, 0];
  for (const module of modules) {
    for (const test of module.children.allTests()) {
      const { state } = test.result();
      if (state === 'passed') passed += 1;
      else if (state === 'failed') failed += 1;
      else skipped += 1;
      const name = `${module.relativeModuleId}: ${test.fullName}`;
      if (state === 'failed') lines.push(`failed test: ${name}`);
      else if (test.diagnostic()?.flaky) lines.push(`passed when repeated: ${name}`);
    }
    // A file that cannot be loaded has no tests, and a hook that fails none that failed.
    const broken = [...module.children.allSuites()]
      .flatMap((suite) => suite.errors())
      .concat(module.errors());
    for (const error of broken) lines.push(`failed file: ${module.relativeModuleId}: ${told(error)}`);
    failed += broken.length;
  }
  // Belongs to no test, and fails the run all the same.
  for (const error of escaped) lines.push(`escaped from ${escapedFrom(error)}: ${told(error)}`);
  failed += escaped.length;
  if (skipped > 0) lines.push(`${skipped} skipped`);
  return [...lines, `${passed} passed, ${failed} failed`];
}

function escapedFrom({ VITEST_TEST_PATH: file, VITEST_TEST_NAME: test }: SerializedError): string {
  return [file, test].filter((part) => typeof part === 'string').join(': ') || 'no test';
}

function told({ stack, name, message }: SerializedError): string {
  return stack ?? `${name}: ${message}`;
}
