import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { loadApi } from '../../src/translate/api.ts';

const cwd = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

describe('the .proto files', () => {
  test.each([
    ['are clean', 'node_modules/.bin/buf', ['lint']],
    ['break nobody', 'node_modules/.bin/buf', ['breaking', '--against', 'proto/baseline.binpb']],
    ['are formatted', 'node_modules/.bin/buf', ['format', '--diff', '--exit-code']],
    ['are what the mapping says', process.execPath, ['scripts/generate/mapping.ts', '--check']],
  ])('%s', async (_name, command, args) => {
    await expect(run(command, args, { cwd })).resolves.toMatchObject({ stdout: '' });
  });

  test('give every open union a raw arm', () => {
    const api = loadApi();
    const unions = api.root
      .lookupType('responses.gateway.v1.Event')
      .parent?.nestedArray.map((node) => node.name)
      .filter(
        (name) =>
          name !== 'Event' && api.root.lookup(`responses.gateway.v1.${name}`)?.constructor.name === 'Type',
      )
      .map((name) => api.plan(name))
      .filter((plan) => plan.inline?.discriminator);
    expect(unions?.length).toBeGreaterThan(20);
    for (const plan of unions ?? [])
      expect(plan.type.fields['json'], plan.type.name).toMatchObject({ type: 'bytes' });
  });

  test('leave room in the key sets of the reader', () => {
    // Two words of 32 bits remember which keys an object has had.
    for (const name of ['Response', 'CreateBody', 'OutputTextDelta']) {
      expect(loadApi().plan(name, ['type', 'stream_id']).slots.length).toBeLessThan(62);
    }
  });
});
