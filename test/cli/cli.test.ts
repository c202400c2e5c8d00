import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, credentials } from '@grpc/grpc-js';
import { afterAll, afterEach, expect, onTestFinished, test, vi } from 'vitest';
import { simulatorReference } from '../../src/simulator/index.ts';
import { killAll, run, start, startGateway } from './program.ts';

// Every test starts several processes.
vi.setConfig({ testTimeout: 300_000 });

const folder = mkdtempSync(join(tmpdir(), 'gateway-cli-'));

afterEach(killAll);
afterAll(() => rmSync(folder, { recursive: true }));

test('help fits on a screen', async () => {
  const { code, stdout } = await run(['--help']);
  expect(code).toBe(0);
  const lines = stdout.trimEnd().split('\n');
  expect(lines.length).toBeLessThan(40);
  expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
  for (const command of ['serve', 'simulate', 'chat', 'check-config', 'health', 'keys']) {
    expect(stdout).toContain(`  ${command}`);
  }
});

test.each([
  [['--version'], 0, /^\d+\.\d+\.\d+\n$/, /^$/],
  [['serve', '--help'], 0, /--upstream-api-key-env <NAME>/, /^$/],
  [['--nonsense'], 2, /^$/, /unknown option '--nonsense'/],
  [['simulat', '--listen', 'x'], 2, /^$/, /unknown command 'simulat'; did you mean simulate\?/],
  [['nonsense', 'x'], 2, /^$/, /unknown command 'nonsense'\n.*--help/],
  [['--listen'], 2, /^$/, /argument missing/],
  [['--set', 'workers'], 2, /^$/, /PATH=VALUE/],
  [['--listen', 'nowhere'], 2, /^$/, /listen\n\s+found\s+"nowhere"/],
  [['--config', '/absent.yaml'], 2, /^$/, /ENOENT/],
  [
    ['check-config', '--set', 'session.max_lanes=7'],
    0,
    /session\.max_lanes = 7\s+# flag --set session\.max_lanes/,
    /is valid/,
  ],
  [['keys', 'create', '--tenant', 'blue'], 0, /^rgk_[a-z2-7]{16}_[\w-]{43}\n$/, /tenant: blue/],
  [['chat', '--address', '127.0.0.1:1'], 1, /^$/, /no session at 127\.0\.0\.1:1/],
  [['health', '--admin-listen', '127.0.0.1:1'], 1, /^$/, /no answer from/],
])('%j exits with %i', async (args, exitCode, stdout, stderr) => {
  const ended = await run(args);
  expect(ended.stderr).toMatch(stderr);
  expect(ended.stdout).toMatch(stdout);
  expect(ended.code).toBe(exitCode);
});

test('check-config shows the limits that hold when none are configured', async () => {
  const { stdout, code } = await run(['check-config', '--json'], { env: {} });
  expect(code).toBe(0);
  const rows = JSON.parse(stdout) as readonly { path: string }[];
  for (const [path, value] of [
    ['limits.sessions', 10_000],
    ['tenants[0].id', 'default'],
    ['tenants[0].limits.sessions', 1_000],
    ['tenants[0].limits.message', '15MiB'],
  ] as const)
    expect(rows).toContainEqual({ path, value, origin: 'default' });
});

test('check-config reports all problems, shows no secrets, and starts nothing', async () => {
  const file = join(folder, 'bad.yaml');
  writeFileSync(
    file,
    'listn: 1\nsession:\n  resume_grace: 5\nupstream:\n  proxy: http://user:canary-secret@proxy:3128\n',
  );
  const bad = await run(['check-config', '--config', file], { env: { OPENAI_API_KEY: 'sk-canary' } });
  expect(bad.code).toBe(2);
  expect(bad.stderr).toContain('2 problems');
  expect(bad.stderr).toContain(`${file}:3:17`);

  writeFileSync(file, 'upstream:\n  proxy: http://user:canary-secret@proxy:3128\n');
  const good = await run(['check-config', '--config', file, '--json'], {
    env: { OPENAI_API_KEY: 'sk-canary' },
  });
  expect(good.code).toBe(0);
  expect(JSON.parse(good.stdout)).toContainEqual({
    path: 'upstream.proxy',
    value: 'http://[redacted]@proxy:3128',
    origin: `${file}:2:10`,
  });
  expect(bad.stderr + good.stdout + good.stderr).not.toContain('canary');
});

test('serve runs on the simulator, answers health and chat, and drains on SIGTERM', async () => {
  const gateway = await startGateway();
  expect(gateway.output.stdout).toContain('no OPENAI_API_KEY: using the built-in simulator');
  expect(await run(['health', '--admin-listen', gateway.admin])).toMatchObject({
    code: 0,
    stdout: 'ready\n',
  });

  const input = 'Hello\n/lane other\nSecond\n/nope\n/lane\nThird\n';
  const chat = await run(['chat', '--address', gateway.grpc], { input });
  expect(chat.code).toBe(0);
  expect(chat.stdout).toMatch(/"Hello".*turn 1.*\n.*"Second".*turn 1.*\n.*"Third".*turn 2/);
  expect(chat.stderr).toContain('there is no /nope');

  const cancelled = await run(['chat', '--address', gateway.grpc], {
    input: 'Go #hang\n/cancel\nAgain\n/quit\n',
  });
  expect(cancelled.code).toBe(0);
  expect(cancelled.stderr).toContain('turn ended: cancelled');
  expect(cancelled.stdout).toContain('"Again"');

  gateway.child.kill('SIGTERM');
  expect((await gateway.ended).code).toBe(0);
});

test('health asks by the environment alone, as the image does', async () => {
  const gateway = await startGateway();
  const env = { RESPONSES_GATEWAY_ADMIN_LISTEN: gateway.admin };
  expect(await run(['health'], { env })).toEqual({ code: 0, stdout: 'ready\n', stderr: '' });
  expect(await run(['health'], { env: { RESPONSES_GATEWAY_ADMIN_LISTEN: '127.0.0.1:1' } })).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('no answer from'),
  });
  expect(await run(['health'], { env: { RESPONSES_GATEWAY_ADMIN_LISTEN: 'nowhere' } })).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('admin.listen'),
  });
});

test('a turn that runs at SIGTERM is finished; new sessions are refused', async () => {
  const gateway = await startGateway('--set', 'drain.timeout=20s');
  // Some 1.2 s of answer.
  const chat = start(['chat', '--address', gateway.grpc], { input: 'Go #deltas=120 #tps=100\n' });
  await chat.until('stdout', /gateway streams/);
  gateway.child.kill('SIGTERM');
  await chat.until('stderr', /going away/);
  expect((await run(['chat', '--address', gateway.grpc], { input: 'Me too\n' })).code).toBe(1);
  const ended = await chat.ended;
  expect(ended.code).toBe(0);
  expect(ended.stdout.trim().split(/\s+/).length).toBe(120);
  expect((await gateway.ended).code).toBe(0);
});

test('a client that watches its health does not keep the process', async () => {
  const gateway = await startGateway();
  const client = new Client(gateway.grpc, credentials.createInsecure());
  const same = (bytes: Buffer) => bytes;
  const watch = client.makeServerStreamRequest('/grpc.health.v1.Health/Watch', same, same, Buffer.alloc(0));
  watch.on('error', () => {});
  await once(watch, 'data');
  watch.resume();
  gateway.child.kill('SIGTERM');
  expect((await gateway.ended).code).toBe(0);
  client.close();
});

test('a chat from a pipe ends with the gateway that goes away during its turn', async () => {
  const gateway = await startGateway();
  const chat = start(['chat', '--address', gateway.grpc], { input: 'Go #hang\nTwo\nThree\n' });
  await chat.until('stdout', /\w/);
  gateway.child.kill('SIGKILL');
  const { code, stderr } = await chat.ended;
  expect(stderr).toContain('error: ');
  expect(code).toBe(1);
});

test('a key of "keys create" lets its tenant in, and nobody else', async () => {
  const created = await run(['keys', 'create', '--tenant', 'blue']);
  const key = created.stdout.trim();
  const [yaml = ''] = /^auth:.*/ms.exec(created.stderr) ?? [];
  const file = join(folder, 'keys.yaml');
  writeFileSync(file, `${yaml}tenants: [{ id: blue }]\n`);
  expect(yaml).not.toContain(key);

  const gateway = await startGateway('--config', file);
  const chat = (env: Record<string, string>) => {
    return run(['chat', '--address', gateway.grpc], { input: 'Hi #say=pong\n', env });
  };
  expect(await chat({ RESPONSES_GATEWAY_TOKEN: key })).toMatchObject({ code: 0, stdout: 'pong\n' });
  for (const token of ['', 'rgk_aaaaaaaaaaaaaaaa_wrong', `${key}x`]) {
    const refused = await chat({ RESPONSES_GATEWAY_TOKEN: token });
    expect([refused.code, refused.stdout]).toEqual([1, '']);
    expect(refused.stderr).toContain('UNAUTHENTICATED');
  }
  expect(gateway.output.stderr).not.toContain(key);
  expect(gateway.output.stderr).toContain('"tenant":"blue"');
});

test('a second signal ends the process at once', async () => {
  const gateway = await startGateway('--set', 'drain.timeout=60s');
  const chat = start(['chat', '--address', gateway.grpc], { input: 'Go #hang\n' });
  await chat.until('stdout', /\w/);
  gateway.child.kill('SIGTERM');
  await chat.until('stderr', /going away/);
  gateway.child.kill('SIGTERM');
  expect((await gateway.ended).code).toBe(143);
});

test.each(['otlp-grpc', 'otlp-http'])(
  'a collector that says nothing over %s does not keep the process',
  async (exporter) => {
    const held: Socket[] = [];
    const collector = createServer((socket) => void held.push(socket.on('error', () => {}))).listen(
      0,
      '127.0.0.1',
    );
    await once(collector, 'listening');
    const { port } = collector.address() as { port: number };
    const gateway = await startGateway(
      ...['traces', 'metrics', 'logs'].flatMap((signal) => [
        ...['--set', `telemetry.${signal}.exporter=${exporter}`],
        ...['--set', `telemetry.${signal}.endpoint=http://127.0.0.1:${port}`],
      ]),
    );
    const chat = await run(['chat', '--address', gateway.grpc], { input: 'Hi\n' });
    expect(chat.code).toBe(0);
    const askedAtMs = performance.now();
    gateway.child.kill('SIGTERM');
    expect((await gateway.ended).code).toBe(0);
    // The docs promise four seconds; the exporters' own time-outs are ten and thirty, on a machine that may be busy.
    expect(performance.now() - askedAtMs).toBeLessThan(8_000);
    expect(held.length).toBeGreaterThan(0);
    for (const socket of held) socket.destroy();
    collector.close();
  },
);

test('a port in use is told in one line', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = `127.0.0.1:${(server.address() as { port: number }).port}`;
  for (const flags of [
    ['--listen', address, '--admin-listen', '127.0.0.1:0'],
    ['--listen', '127.0.0.1:0', '--admin-listen', address],
  ]) {
    const { code, stderr } = await run(['serve', '--log-level', 'silent', ...flags]);
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(`^error: ${address} is in use by another process.*\n$`),
    ]);
  }
  server.close();
});

test.each([
  ['cert_file', 'junk'],
  ['key_file', 'junk'],
  ['key_file', 'other'],
  ['client_ca_file', 'junk'],
])('a tls.%s that cannot be used (%s) is told', async (field, what) => {
  const certs = new URL('../harness/certs/', import.meta.url).pathname;
  const junk = join(folder, 'junk.pem');
  writeFileSync(junk, 'junk');
  const files: Record<string, string> = {
    cert_file: `${certs}server.pem`,
    key_file: `${certs}server.key`,
    client_ca_file: `${certs}ca.pem`,
    [field]: what === 'junk' ? junk : `${certs}client.key`,
  };
  const settings = Object.entries(files).flatMap(([name, path]) => ['--set', `tls.${name}=${path}`]);
  const { code, stderr } = await run([
    ...['serve', '--log-level', 'silent', '--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'],
    ...settings,
  ]);
  expect(stderr).toContain(`1 problem in the configuration:\n\n  tls.${field}\n`);
  expect(code).toBe(2);
});

test('the help of simulate names all that its options file may hold, and says what each does', async () => {
  const { stdout, code } = await run(['simulate', '--help']);
  expect(code).toBe(0);
  const sections = simulatorReference();
  for (const { title, rows } of sections) {
    expect(rows.length, title).toBeGreaterThan(3);
    for (const { name, text } of rows) {
      expect(stdout).toContain(`\n  ${name}`);
      expect(text, `${title}: ${name}`).toMatch(/\w.*\s\w/);
    }
  }
  expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100);
});

test('simulate names each wrong field of its options file, with what was found and is allowed', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'simulate-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'options.yaml');
  writeFileSync(
    file,
    'timing: { tokensPerSecond: fast }\nswitches: { lanez: true }\nfaults: [{ kind: boom }]\n',
  );
  const { stderr, code } = await run(['simulate', '--options', file]);
  expect(code).toBe(2);
  expect(stderr).toMatch(/timing\.tokensPerSecond: "fast"\s+expected\s+number/);
  expect(stderr).toMatch(/switches\.lanez: an unknown field/);
  expect(stderr).toMatch(/faults\.0\.kind: "boom"\s+expected\s+delay-handshake, refuse, .*connection-limit/);
});

test('simulate serves alone and ends with the signal', async () => {
  const simulator = start(['simulate', '--listen', '127.0.0.1:0']);
  const [, url = ''] = await simulator.until('stdout', /--upstream-url (\S+)/);
  const gateway = await startGateway('--upstream-url', url);
  expect(gateway.output.stdout).toContain(url);
  expect((await run(['chat', '--address', gateway.grpc], { input: 'Hi #say=pong\n' })).stdout).toBe('pong\n');
  simulator.child.kill('SIGINT');
  expect((await simulator.ended).code).toBe(0);
});
