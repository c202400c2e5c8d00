import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { readStoreKey } from '../../src/config/checks-cluster.ts';
import { loadConfig } from '../../src/config/load.ts';
import { ConfigError } from '../../src/config/problems.ts';

const folder = mkdtempSync(join(tmpdir(), 'gateway-config-'));
afterAll(() => rmSync(folder, { recursive: true }));

function fileOf(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const SECRET = fileOf('secret', `${'s'.repeat(32)}\n`);
const EMPTY = fileOf('empty', '\n\n');
const KEY = fileOf('key32', 'k'.repeat(32));
const SHORT = fileOf('short', 'hunter2\n');

const load = (text: string) =>
  loadConfig({ file: fileOf('gateway.yaml', text), environment: {}, flags: [] }).config;

test('a cluster needs a URL only; without a secret nobody is let in', () => {
  const { cluster } = load('cluster: { url: "valkey://valkey:6379" }');
  expect(cluster).toMatchObject({ prefix: 'rg', timeout: 250, owned_id_days: 30 });
  expect(cluster?.store).toBeUndefined();
});

test('durable sessions may wait for a day', () => {
  const text = `cluster: { url: "rediss://redis", secret_file: ${SECRET}, store: {} }`;
  const { cluster, session } = load(`${text}\nsession: { resume_grace: 24h }`);
  expect(cluster?.store).toEqual({ keys: [], on_failure: 'local' });
  expect(session.resume_grace).toBe(86_400_000);
});

test.each([
  ['no URL', '{}', 'cluster.url'],
  ['another protocol', '{ url: "http://valkey:6379" }', 'cluster.url'],
  ['a database that is no number', '{ url: "redis://:hunter2@valkey:6379/x" }', 'cluster.url'],
  ['a query in the URL', '{ url: "redis://valkey:6379?db=1" }', 'cluster.url'],
  ['a database of a Cluster', '{ url: "redis+cluster://valkey/1" }', 'cluster.url'],
  ['Sentinel without a name', '{ url: "valkey+sentinel://one,two:26379" }', 'cluster.url'],
  ['several hosts of one server', '{ url: "valkey://one,two" }', 'cluster.url'],
  ['TLS files without TLS', '{ url: "redis://valkey", tls: { server_name: x } }', 'cluster.tls'],
  ['half a client certificate', `{ url: "rediss://valkey", tls: { cert_file: ${SECRET} } }`, 'cluster.tls'],
  ['a short secret', `{ url: "redis://s", secret_file: ${SHORT} }`, 'cluster.secret_file'],
  ['no secret in its file', `{ url: "redis://s", secret_file: ${EMPTY} }`, 'cluster.secret_file'],
  ['no such secret', '{ url: "redis://s", secret_file: /nowhere }', 'cluster.secret_file'],
  ['a store without a secret', '{ url: "redis://s", store: {} }', 'cluster.secret_file'],
  ['the port of the gateway', '{ url: "redis://s", listen: "0.0.0.0:50051" }', 'cluster.listen'],
  ['an address of nobody', '{ url: "redis://s", advertise: "0.0.0.0:50052" }', 'cluster.advertise'],
  [
    'a listener that others cannot reach',
    '{ url: "redis://s", listen: "127.0.0.1:50052", advertise: "10.0.0.1:50052" }',
    'cluster.listen',
  ],
  [
    'a key that is too short',
    `{ url: "redis://s", secret_file: ${SECRET}, store: { keys: [{ id: a, key_file: ${SHORT} }] } }`,
    'cluster.store.keys[0].key_file',
  ],
  [
    'two keys of one name',
    `{ url: "redis://s", secret_file: ${SECRET}, store: { keys: [{ id: a, key_file: ${KEY} }, { id: a, key_file: ${KEY} }] } }`,
    'cluster.store.keys[1].id',
  ],
])('%s is refused by name', (_what, cluster, path) => {
  try {
    load(`cluster: ${cluster}`);
    expect.unreachable();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    expect(error.problems.map((problem) => problem.path)).toEqual([path]);
    expect(error.message).not.toContain('hunter2');
  }
});

test.each([
  ['as they are', Buffer.alloc(32, 7)],
  ['in hex', `${'07'.repeat(32)}\n`],
  ['in base64', `${Buffer.alloc(32, 7).toString('base64')}\n`],
])('a key is 32 bytes %s', (_how, content) => {
  const path = join(folder, 'key');
  writeFileSync(path, content);
  const store = `store: { keys: [{ id: a, key_file: ${path} }] }`;
  load(`cluster: { url: "redis://s", secret_file: ${SECRET}, ${store} }`);
  expect(readStoreKey(path)).toEqual(Buffer.alloc(32, 7));
});

test('a day is the longest that a store keeps a session', () => {
  const cluster = `cluster: { url: "redis://s", secret_file: ${SECRET}, store: {} }`;
  expect(() => load(`${cluster}\nsession: { resume_grace: 25h }`)).toThrow(/session\.resume_grace/);
  expect(load('session: { resume_grace: 25h }').session.resume_grace).toBe(90_000_000);
});
