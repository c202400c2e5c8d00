import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { startGateway } from '../harness/gateway.ts';

const run = promisify(execFile);
const path = (file: string) => fileURLToPath(new URL(`../../clients/${file}`, import.meta.url));

const PROGRAMS = [
  ['go', 'before/main.go', 'after/main.go'],
  ['java', 'Before.java', 'After.java'],
  ['python', 'before.py', 'after.py'],
  ['typescript', 'before.ts', 'after.ts'],
] as const;

test.each(PROGRAMS)('%s: the program with the gateway is the shorter one', (language, before, after) => {
  const lines = (file: string) =>
    readFileSync(path(`${language}/examples/migration/${file}`), 'utf8')
      .split('\n')
      .filter((line) => line.trim() !== '').length;
  expect(lines(after)).toBeLessThan(lines(before));
});

test('typescript: both programs print the same', async () => {
  const place = '{"city":"Sydney","country":"Australia"}';
  await using gateway = await startGateway({
    simulator: {
      script: { rules: [{ when: { input: 'opera' }, items: [{ type: 'message', text: place }] }] },
    },
  });
  const env = {
    ...process.env,
    OPENAI_API_KEY: 'sk-none',
    OPENAI_BASE_URL: gateway.simulator.httpUrl,
    RESPONSES_GATEWAY_ADDR: gateway.address,
  };
  const [before, after] = await Promise.all(
    ['before', 'after'].map((name) =>
      run(process.execPath, [path(`typescript/examples/migration/${name}.ts`)], { env }),
    ),
  );
  expect(after?.stdout).toBe(before?.stdout);
  expect(after?.stdout).toMatch(/"Hello".*\n.*"And shorter\?".*\ntrue\n\[ 'city', 'country' \]/);
});
