import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { DEFAULT_PROCESS_LIMITS, DEFAULT_TENANT_LIMITS } from '../../src/access/options.ts';
import { loadConfig, valueAt } from '../../src/config/load.ts';
import { ConfigError, renderOrigin } from '../../src/config/problems.ts';
import type { Setting } from '../../src/config/sources.ts';

const folder = mkdtempSync(join(tmpdir(), 'gateway-config-'));
afterAll(() => rmSync(folder, { recursive: true }));

let files = 0;
function fileOf(text: string): string {
  files += 1;
  const path = join(folder, `${files}.yaml`);
  writeFileSync(path, text);
  return path;
}

interface Given {
  readonly file?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly flags?: Readonly<Record<string, unknown>>;
}

function load({ file, env = {}, flags = {} }: Given) {
  const settings: Setting[] = Object.entries(flags).map(([path, value]) => ({
    path: path.split('.'),
    value,
    origin: { kind: 'flag', name: `--${path}` },
  }));
  const path = file === undefined ? undefined : fileOf(file);
  return loadConfig({ file: path, environment: env, flags: settings });
}

function problemsOf(given: Given) {
  try {
    load(given);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

test('limits that nobody set are those that access control holds to', () => {
  const { config, effective } = load({
    file: 'tenants: [{ id: blue, limits: { lanes: null, sessions: 7 } }]\n',
  });
  const { sessions, lanes, turns_in_flight: turns, message, tokens_per_day } = config.limits;
  expect({ sessions, lanes, turnsInFlight: turns }).toEqual(DEFAULT_PROCESS_LIMITS);
  expect([message, tokens_per_day]).toEqual([null, null]);
  expect(config.tenants[0]?.limits).toMatchObject({
    sessions: 7,
    lanes: null,
    turns_in_flight: DEFAULT_TENANT_LIMITS.turnsInFlight,
    message: DEFAULT_TENANT_LIMITS.messageBytes,
    turns_per_minute: null,
  });
  expect(effective().tenants?.[0]?.limits).toMatchObject({ message: '15MiB', lanes: null });
});

test('nothing has to be set', () => {
  const { config } = load({});
  expect(config.listen).toEqual({ host: '127.0.0.1', port: 50051 });
  expect(config.admin.listen).toEqual({ host: '127.0.0.1', port: 9464 });
  expect(config.upstream).toBeUndefined();
  expect(config.session.resume_grace).toBe(60_000);
  expect(Object.isFrozen(config.session)).toBe(true);
});

const FILE = 'session: { resume_grace: 10s }\n';
const ENV = { RESPONSES_GATEWAY_SESSION_RESUME_GRACE: '20s' };
const FLAGS = { 'session.resume_grace': '30s' };

test.each([
  ['default', {}, 60_000, 'default'],
  ['file over default', { file: FILE }, 10_000, '.yaml:1:26'],
  [
    'environment over file',
    { file: FILE, env: ENV },
    20_000,
    'environment RESPONSES_GATEWAY_SESSION_RESUME_GRACE',
  ],
  ['flag over all', { file: FILE, env: ENV, flags: FLAGS }, 30_000, 'flag --session.resume_grace'],
  ['flag over file', { file: FILE, flags: FLAGS }, 30_000, 'flag --session.resume_grace'],
] as const)('precedence: %s', (_what, given, expected, origin) => {
  const { config, originOf } = load(given);
  expect(config.session.resume_grace).toBe(expected);
  expect(renderOrigin(originOf(['session', 'resume_grace']))).toContain(origin);
});

test.each([
  ['RESPONSES_GATEWAY_LISTEN', '[::1]:0', ['listen'], '[::1]:0'],
  ['RESPONSES_GATEWAY_WORKERS', '4', ['workers'], 4],
  ['RESPONSES_GATEWAY_GRPC_REFLECTION', 'false', ['grpc', 'reflection'], false],
  ['RESPONSES_GATEWAY_GRPC_MAX_MESSAGE', '8MiB', ['grpc', 'max_message'], '8MiB'],
  ['RESPONSES_GATEWAY_TELEMETRY_TRACES_SAMPLE_RATIO', '0.25', ['telemetry', 'traces', 'sample_ratio'], 0.25],
  ['RESPONSES_GATEWAY_ADMIN_ALLOWED_HOSTS', '[a.internal]', ['admin', 'allowed_hosts'], ['a.internal']],
  ['RESPONSES_GATEWAY_UPSTREAM_URL', 'ws://127.0.0.1:1/v1', ['upstream', 'url'], 'ws://127.0.0.1:1/v1'],
  ['RESPONSES_GATEWAY_AUTH', '[{ kind: none }]', ['auth', 0, 'kind'], 'none'],
])('environment %s', (name, text, path, expected) => {
  expect(valueAt(load({ env: { [name]: text } }).effective(), path)).toEqual(expected);
});

test('the effective configuration loads to itself', () => {
  const file = `upstreams:
  - { name: a, provider: compatible, url: "http://127.0.0.1:1/v1", capabilities: { max_age: 25m } }
tenants: [{ id: t, limits: { tokens_per_day: null, message: 1MiB } }]
auth: [{ kind: none, tenant: t }]
`;
  const { config, effective } = load({ file });
  expect(load({ file: JSON.stringify(effective()) }).config).toEqual(config);
});

test('every problem comes at once, with its place', () => {
  const file = `lisen: 127.0.0.1:1
workers: 1.5
session:
  resume_grace: 60
  max_lanes: 0
telemetry:
  logs: { level: loud }
upstream:
  url: ftp://example.com
  api_key: sk-canary-1234567890
auth:
  - kind: magic
`;
  const problems = problemsOf({ file, env: { RESPONSES_GATEWAY_LISTNE: 'x' }, flags: { listen: 'nope' } });
  const seen = problems.map(({ path, found, help, origin }) => [
    path,
    found,
    help,
    renderOrigin(origin).split('/').at(-1),
  ]);
  const name = `${files}.yaml`;
  expect(seen.sort()).toEqual(
    [
      [
        'RESPONSES_GATEWAY_LISTNE',
        'unknown name',
        'did you mean RESPONSES_GATEWAY_LISTEN?',
        'environment RESPONSES_GATEWAY_LISTNE',
      ],
      ['lisen', 'unknown key', 'did you mean "listen"?', `${name}:1:1`],
      ['workers', '1.5', undefined, `${name}:2:10`],
      ['session.resume_grace', '60', undefined, `${name}:4:17`],
      ['session.max_lanes', '0', undefined, `${name}:5:14`],
      ['telemetry.logs.level', '"loud"', undefined, `${name}:7:18`],
      ['upstream.url', '"ftp://example.com"', undefined, `${name}:9:8`],
      ['upstream.api_key', 'unknown key', 'did you mean "api_key_env"?', `${name}:10:3`],
      ['auth[0].kind', '"magic"', undefined, `${name}:12:11`],
      ['listen', '"nope"', undefined, 'flag --listen'],
    ].sort(),
  );
  expect(new ConfigError(problems).message).not.toContain('canary');
});

test.each([
  ['broken YAML', 'listen: [', /well-formed YAML/],
  ['a key twice', 'workers: 1\nworkers: 2\n', /well-formed YAML/],
  ['a list', '- listen\n', /mapping of settings/],
  ['a scalar for a section', 'session: 5\n', /section with fields/],
])('the file is %s', (_what, file, expected) => {
  expect(problemsOf({ file })[0]?.expected).toMatch(expected);
});

test.each([
  ['a list', 'upstreams: [{name: a, url: "ws://127.0.0.1:1/v1"}]\n', 'upstreams.0.url', /a whole.* list/],
  ['a single value', 'listen: 127.0.0.1:1\n', 'listen.port', /listen itself/],
])('a flag that leads into %s of the file is not passed over', (_what, file, path, expected) => {
  const [problem, ...others] = problemsOf({ file, flags: { [path]: 'ws://127.0.0.1:2/v1' } });
  expect(problem).toMatchObject({ path, origin: { kind: 'flag' } });
  expect(problem?.expected).toMatch(expected);
  expect(others).toEqual([]);
});

test('a file that is not there', () => {
  expect(() => loadConfig({ file: join(folder, 'absent.yaml'), environment: {}, flags: [] })).toThrow(
    /ENOENT/,
  );
});

const REMOTE = 'upstream: { url: "wss://api.openai.com/v1" }\n';

test.each<[string, Given, string | undefined, string | undefined]>([
  [
    'a remote upstream without its key',
    { file: REMOTE },
    'upstream.api_key_env',
    'OPENAI_API_KEY is not set',
  ],
  ['a remote upstream with its key', { file: REMOTE, env: { OPENAI_API_KEY: 'k' } }, undefined, undefined],
  [
    'a local upstream without a key',
    { flags: { 'upstream.url': 'ws://127.0.0.1:1/v1' } },
    undefined,
    undefined,
  ],
  [
    'both forms of upstream',
    { file: 'upstream: {url: "ws://localhost/v1"}\nupstreams: [{name: a, url: "ws://localhost/v1"}]\n' },
    'upstream',
    'both "upstream" and "upstreams"',
  ],
  [
    'two upstreams of one name',
    { file: 'upstreams: [{name: a, url: "ws://localhost/v1"}, {name: a, url: "ws://localhost/v1"}]\n' },
    'upstreams[1].name',
    '"a"',
  ],
  ['admin on the gRPC address', { flags: { listen: '127.0.0.1:9464' } }, 'admin.listen', '127.0.0.1:9464'],
  [
    'an open port without authentication',
    { flags: { listen: '0.0.0.0:50051' } },
    'auth',
    'no authentication, and "listen" is 0.0.0.0:50051',
  ],
  [
    'the same, forced',
    { flags: { listen: '0.0.0.0:50051' }, env: { RESPONSES_GATEWAY_AUTH: '[{kind: none, force: true}]' } },
    undefined,
    undefined,
  ],
  [
    'an unknown tenant',
    { file: 'tenants: [{id: blue}]\nauth: [{kind: none, tenant: bleu}]\n' },
    'auth[0].tenant',
    '"bleu"',
  ],
  [
    'a JWT method with two key sources',
    {
      file: 'auth: [{kind: jwt, issuer: i, audience: [a], algorithms: [ES256], jwks_url: "https://i/j", secret_env: S, tenant: default}]\n',
      env: { S: 'x' },
    },
    'auth[0]',
    'jwks_url and secret_env',
  ],
  [
    'a certificate that is not there',
    { file: 'tls: {cert_file: /absent/a, key_file: /absent/a}\n' },
    'tls.cert_file',
    '/absent/a (ENOENT)',
  ],
  ['delays in the wrong order', { file: 'session: {redial_min: 9s}\n' }, 'session.redial_min', '9000 ms'],
  [
    'the variables of a Kubernetes service',
    {
      env: {
        RESPONSES_GATEWAY_SERVICE_HOST: '10.0.0.1',
        RESPONSES_GATEWAY_PORT: 'tcp://10.0.0.1:1',
        RESPONSES_GATEWAY_PORT_50051_TCP_ADDR: '10.0.0.1',
      },
    },
    undefined,
    undefined,
  ],
])('rules over several fields: %s', (_what, given, path, found) => {
  const [problem] = problemsOf(given);
  expect([problem?.path, problem?.found]).toEqual([path, found]);
});

test.each([
  ['that is not there', undefined, /ENOENT/],
  ['with a wrong price', 'currency: USD\nas_of: "2026-11-30"\nmodels: 7\n', /models: /],
  ['that is no YAML', 'currency: USD\nkey: "sk-secret\n', /./],
])('a price table %s is a problem of the configuration, told in one line', (_, text, found) => {
  const path = text === undefined ? join(folder, 'none.yaml') : fileOf(text);
  const [problem] = problemsOf({ flags: { prices_file: path } });
  expect(problem).toMatchObject({ path: 'prices_file', found: expect.stringMatching(found) });
  expect(problem?.found).not.toMatch(/\n|sk-secret/);
});
