import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { readConfig } from '../../src/app/read-config.ts';
import { ConfigError, renderOrigin } from '../../src/config/problems.ts';
import { configSchema } from '../../src/config/schema.ts';
import { killAll, run } from '../cli/program.ts';

vi.setConfig({ testTimeout: 300_000 });

const folder = mkdtempSync(join(tmpdir(), 'gateway-mistakes-'));
afterAll(() => {
  killAll();
  rmSync(folder, { recursive: true });
});

const certificate = (name: string) => fileURLToPath(new URL(`../harness/certs/${name}`, import.meta.url));
const put = (name: string, text: string) => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};
const empty = put('empty', '');
const words = put('words', 'these are words');
const otherKey = put(
  'other.key',
  generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ type: 'pkcs8', format: 'pem' })
    .toString(),
);
const prices = put('prices.yaml', 'currency: dollars\n');
const options = put('simulator.yaml', 'timings: 3\n');
const [pem, key] = [certificate('server.pem'), certificate('server.key')];

const KEY = 'id: aaaaaaaaaaaaaaaa';
const HASH = `hash: "sha256:${'0'.repeat(64)}"`;
const OPEN = 'auth: [{ kind: none }]';
const JWT = 'kind: jwt, issuer: i, audience: [a], algorithms: [RS256], tenant: default';

/** What is written, with ¶ before what is wrong; which field is told; what is said of it. */
const MISTAKES: readonly (readonly [text: string, path: string, said: RegExp])[] = [
  [
    `auth:\n  - kind: api_keys\n    keys:\n      - { ${KEY}, hash: ¶wrong, tenant: default }`,
    'auth[0].keys[0].hash',
    /keys create/,
  ],
  [
    `auth: [{ kind: api_keys, keys: [{ id: ¶short, ${HASH}, tenant: default }] }]`,
    'auth[0].keys[0].id',
    /keys create/,
  ],
  [
    `auth:\n- kind: api_keys\n  keys:\n  - { ${KEY}, ${HASH}, tenant: default }\n  - { id: ¶aaaaaaaaaaaaaaaa, ${HASH}, tenant: default }`,
    'auth[0].keys[1].id',
    /already taken/,
  ],
  [`auth: [{ ${JWT}, jwks_url: ¶"http://issuer.example/jwks" }]`, 'auth[0].jwks_url', /https:/],
  [`auth: [{ ${JWT}, jwks_file: ¶${words} }]`, 'auth[0].jwks_file', /JSON Web Key Set/],
  [`auth: [{ ${JWT}, public_key_file: ¶${words} }]`, 'auth[0].public_key_file', /public key/],
  [`auth: [{ ${JWT.replace('[RS', '¶[RS')}, secret_env: SHORT }]`, 'auth[0].algorithms', /HS\*/],
  [`auth: [{ ${JWT.replace('RS', 'HS')}, secret_env: ¶SHORT }]`, 'auth[0].secret_env', /32 bytes/],
  [
    'auth: [{ kind: mtls, rules: [{ spiffe: ¶"spiffe:nobody", tenant: default }] }]',
    'auth[0].rules[0].spiffe',
    /spiffe:\/\//,
  ],
  [
    `${OPEN}\ntenants:\n- { id: default, upstreams: ¶["no*"] }`,
    'tenants[0].upstreams',
    /no configured upstream/,
  ],
  [
    `${OPEN}\ntenants: [{ id: default, credentials: [{ upstream: "*", api_key_file: ¶${empty} }] }]`,
    'tenants[0].credentials[0].api_key_file',
    /usable key/,
  ],
  [`tls: { cert_file: ¶${words}, key_file: ${key} }`, 'tls.cert_file', /cannot be used/],
  [`tls: { cert_file: ${pem}, key_file: ¶${otherKey} }`, 'tls.key_file', /is not the key of/],
  [
    `tls: { cert_file: ${pem}, key_file: ${key}, client_ca_file: ¶${words} }`,
    'tls.client_ca_file',
    /cannot be used/,
  ],
  [
    `cluster: { url: "valkeys://localhost", tls: { ca_file: ¶${words} } }`,
    'cluster.tls.ca_file',
    /cannot be used/,
  ],
  [
    `cluster: { url: "valkey://localhost", peer_tls: { cert_file: ${pem}, key_file: ¶${otherKey}, ca_file: ${pem} } }`,
    'cluster.peer_tls.key_file',
    /is not the key of/,
  ],
  ['upstream: { url: ¶"wss://user:canary@api.example/v1" }', 'upstream.url', /without user/],
  ['upstream: { headers: ¶{ Authorization: canary } }', 'upstream.headers', /gateway's own/],
  ['upstream: { proxy: ¶"socks5://proxy:1" }', 'upstream.proxy', /http/],
  [`upstream: { ca_file: ¶${words} }`, 'upstream.ca_file', /cannot be used/],
  [`upstreams:\n- { name: a, api_key_file: ¶${empty} }`, 'upstreams[0].api_key_file', /usable key/],
  ['upstream: { api_key_env: ¶CANARY_BLANKS }', 'upstream.api_key_env', /no header may carry/],
  [`admin: { token_file: ¶${empty} }`, 'admin.token_file', /which is empty/],
  [`prices_file: ¶${prices}`, 'prices_file', /currency/],
  [`simulator: { options_file: ¶${options} }`, 'simulator.options_file', /timings/],
];

const environment = {
  OPENAI_API_KEY: 'sk-canary',
  SHORT: 'canary',
  CANARY_BLANKS: 'can ary',
};

async function problemsOf(text: string) {
  const file = put('gateway.yaml', text);
  const error = await readConfig({ file, environment, flags: [] }).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ConfigError)) throw error ?? new Error('it is valid');
  return error.problems.map(({ path, found = '', expected, origin }) => ({
    path,
    place: renderOrigin(origin).replace(`${file}:`, ''),
    said: `${found} ${expected}`,
  }));
}

describe('a mistake is told with its place', () => {
  it.each(MISTAKES)('%s', async (marked, path, said) => {
    const before = marked.slice(0, marked.indexOf('¶'));
    const problems = await problemsOf(marked.replace('¶', ''));
    expect(problems.map((each) => each.path)).toEqual([path]);
    expect(problems[0]?.said).toMatch(said);
    const line = before.split('\n');
    expect(problems[0]?.place).toBe(`${line.length}:${(line.at(-1) ?? '').length + 1}`);
    expect(JSON.stringify(problems)).not.toMatch(/(?<!_)canary(?!_)/);
  });
});

/** One of each part, in one file. */
const TOGETHER = `
listn: 1
auth:
  - kind: api_keys
    keys:
      - { id: short, ${HASH}, tenant: default }
      - { ${KEY}, hash: wrong, tenant: default }
      - { ${KEY}, ${HASH}, tenant: nobody }
tenants: [{ id: default, upstreams: [none] }]
tls: { cert_file: ${words}, key_file: ${words} }
upstream: { headers: { Host: x }, ca_file: ${words} }
admin: { token_file: ${empty} }
prices_file: ${prices}
session: { redial_min: 2m, redial_max: 1s }
`;

it('all of them are told at once, by check-config and by serve in the same words, and nothing starts', async () => {
  const file = put('together.yaml', TOGETHER);
  const flags = ['--config', file, '--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'];
  const env = { OPENAI_API_KEY: 'sk-canary' };
  const checked = await run(['check-config', ...flags], { env });
  const served = await run(['serve', ...flags], { env });
  expect([checked.code, checked.stdout]).toEqual([2, '']);
  expect(served).toEqual(checked);
  const told = [...checked.stderr.matchAll(/^ {2}(\S+)$/gm)].map(([, path]) => path);
  expect(told.sort()).toEqual(
    [
      'listn',
      'auth[0].keys[0].id',
      'auth[0].keys[1].hash',
      'auth[0].keys[2].tenant',
      'tenants[0].upstreams',
      'tls.cert_file',
      'tls.key_file',
      'upstream.headers',
      'upstream.ca_file',
      'admin.token_file',
      'prices_file',
      'session.redial_min',
    ].sort(),
  );
  expect(checked.stderr.match(/^ {4}at {8}.*:\d+:\d+$/gm)).toHaveLength(told.length);
});

it('what a provider key cannot be is told where no upstream is configured', async () => {
  const flags = ['--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'];
  const env = { OPENAI_API_KEY: 'sk canary' };
  const checked = await run(['check-config', ...flags], { env });
  expect(checked).toMatchObject({ code: 2, stderr: expect.stringContaining('no header may carry') });
  expect(await run(['serve', ...flags], { env })).toEqual(checked);
  expect(checked.stderr).not.toContain('canary');
});

it('check-config shows what serve warns of', async () => {
  const flags = ['--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'];
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4317', OTEL_TRACES_EXPORTER: 'otlp' };
  const { stderr, code } = await run(['check-config', ...flags], { env });
  expect(code).toBe(0);
  expect(stderr).toMatch(/^warning: OTEL_EXPORTER_OTLP_ENDPOINT: found "collector:4317", without http/m);
});

it('a configuration comes out of its own spelling unchanged: so it goes to workers', async () => {
  const file = put(
    'whole.yaml',
    [
      'session: { resume_grace: 90s, max_frame: 3MiB }',
      'auth: [{ kind: none, force: true }]',
      'tenants: [{ id: default, limits: { money_per_day: "1.25", tokens_per_day: null, sessions: 7 } }]',
      'upstreams: [{ name: a, url: "http://localhost:1/v1", provider: compatible }, { name: b }]',
      `tls: { cert_file: ${pem}, key_file: ${key} }`,
      'cluster: { url: "valkey://localhost:6379" }',
      readFileSync(new URL('../../deploy/prices.example.yaml', import.meta.url)).length > 0
        ? `prices_file: ${fileURLToPath(new URL('../../deploy/prices.example.yaml', import.meta.url))}`
        : '',
    ].join('\n'),
  );
  const { config } = await readConfig({ file, environment, flags: [] });
  const sent = JSON.parse(JSON.stringify(z.encode(configSchema, config)));
  expect(configSchema.parse(sent)).toEqual(config);
});
