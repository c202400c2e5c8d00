import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const script = fileURLToPath(new URL('../../scripts/capture.ts', import.meta.url));

test('capture names all that is wrong with its arguments', () => {
  const { status, stderr } = spawnSync(process.execPath, [script, '--transport', 'x', '--url', 'nope'], {
    encoding: 'utf8',
  });
  expect(status).toBe(2);
  expect(stderr).toMatch(/^capture: --url: found nope; allowed: a base URL/m);
  expect(stderr).toMatch(/^capture: --model: found nothing; allowed: a model/m);
  expect(stderr).toMatch(/^capture: --transport: found x; allowed: websocket, http$/m);
});
