import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fc, test } from '@fast-check/vitest';
import { afterAll, beforeAll, describe, expect, vi } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { ConfigError } from '../../src/config/problems.ts';
import { cpuMsOf } from '../harness/cpu.ts';
import { brokenCopies, corpus, FUZZ_TIMEOUT_MS, fuzz } from './support.ts';

const folder = mkdtempSync(join(tmpdir(), 'fuzz-config-'));
const file = join(folder, 'gateway.yaml');
// The YAML parser warns of odd tags and directives, once for every input.
beforeAll(() => {
  vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
});
afterAll(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const seeds = corpus('config');
const WORDS = [
  ...[
    '\n',
    '\t',
    '  ',
    '- ',
    ': ',
    '{',
    '}',
    '[',
    ']',
    '&a ',
    '*a',
    '<<: *a',
    '!!binary ',
    '!!js/function ',
    '"',
    "'",
    '|',
    '>',
  ],
  ...[
    '__proto__:',
    'constructor:',
    'prototype:',
    'null',
    '~',
    '.inf',
    '-1',
    '1e400',
    '9999999999s',
    '10EiB',
    '%YAML 9.9',
    '---',
    '...',
  ],
  ...['listen: ', 'upstreams:', 'tenants:', '\u0000', '\ufeff', '\u2028', '\u001b[31m'],
];

describe('the configuration', { timeout: FUZZ_TIMEOUT_MS }, () => {
  test.prop([brokenCopies(seeds, WORDS)], fuzz({ examples: seeds.map(({ bytes }): [Buffer] => [bytes]) }))(
    'is read, or refused with a ConfigError',
    (bytes) => {
      writeFileSync(file, bytes);
      load({});
    },
  );

  test.prop(
    [
      fc.dictionary(
        fc.constantFrom('LISTEN', 'LIMITS_SESSIONS', 'DRAIN_TIMEOUT', 'NOWHERE', '__PROTO__'),
        fc.string(),
      ),
    ],
    fuzz(),
  )('of the environment is read, or refused with a ConfigError', (variables) => {
    writeFileSync(file, '');
    const named = Object.entries(variables).map(
      ([name, value]) => [`RESPONSES_GATEWAY_${name}`, value] as const,
    );
    load(Object.fromEntries(named));
  });

  test('aliases cannot grow it without bound', () => {
    const levels = Array.from({ length: 30 }, (_, n) => `a${n + 1}: &a${n + 1} [${`*a${n}, `.repeat(9)}]`);
    writeFileSync(file, ['a0: &a0 [x]', ...levels].join('\n'));
    expect(cpuMsOf(() => load({}))).toBeLessThan(2_000);
  });
});

function load(environment: Readonly<Record<string, string>>): void {
  try {
    loadConfig({ file, environment: { FUZZ_KEY: 'sk-fuzz', ...environment }, flags: [] });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    expect(error.problems.length).toBeGreaterThan(0);
    expect(error.message).not.toContain('sk-fuzz');
  }
  expect(Reflect.get(Object.prototype, 'polluted')).toBeUndefined();
}
