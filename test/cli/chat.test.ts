import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, expect, test, vi } from 'vitest';
import { killAll, run, start, startGateway } from './program.ts';

// Every test starts several processes.
vi.setConfig({ testTimeout: 300_000 });

const folder = mkdtempSync(join(tmpdir(), 'gateway-chat-'));
afterEach(killAll);
afterAll(() => rmSync(folder, { recursive: true }));

const certificate = (name: string) => fileURLToPath(new URL(`../harness/certs/${name}`, import.meta.url));
const paste = (text: string) => `\x1b[200~${text}\x1b[201~`;

/** The simulator says which turn it answers, and to what. */
const turns = (stdout: string) => [...stdout.matchAll(/turn (\d+)/g)].map(([, turn]) => Number(turn));

test('lines of a pipe up to a command are one turn, and so is what was pasted', async () => {
  const gateway = await startGateway();
  const input = [
    'First line',
    '',
    '/etc/hosts is the third',
    '/lane other',
    paste('One\n/cancel\nTwo'),
    'After the paste',
  ].join('\n');
  const { stdout, stderr, code } = await run(['chat', '--address', gateway.grpc], { input });
  expect(code).toBe(0);
  expect(stderr).not.toContain('turn ended');
  // One on the first lane, two on the other.
  expect(turns(stdout)).toEqual([1, 1, 2]);
});

test('what is pasted into a terminal is one turn', async () => {
  const gateway = await startGateway();
  const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
  const program = `'${process.execPath}' '${main}' chat --address ${gateway.grpc}`;
  const terminal = spawn('script', ['-qec', program, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { PATH: process.env['PATH'], TERM: 'xterm' },
  });
  let seen = '';
  const until = (pattern: RegExp) =>
    new Promise<void>((resolve) => {
      const look = () => {
        if (!pattern.test(seen)) return;
        terminal.stdout.off('data', look);
        resolve();
      };
      terminal.stdout.on('data', look);
      look();
    });
  terminal.stdout.on('data', (chunk: Buffer) => {
    seen += chunk.toString();
  });
  // The terminal is asked to mark pastes before anything is typed.
  await until(/\[\?2004h[\s\S]*> /);
  terminal.stdin.write(`${paste('One\rTwo\rThree')}\r`);
  await until(/turn 1/);
  terminal.stdin.write('Next\r');
  await until(/turn 2/);
  terminal.stdin.write('/quit\r');
  await once(terminal, 'close');
  expect(Math.max(...turns(seen))).toBe(2);
  expect(seen).toContain('\x1b[?2004l');
});

test('/steer works on the simulator, and says why not where nothing runs or the upstream cannot', async () => {
  const gateway = await startGateway();
  const chat = start(['chat', '--address', gateway.grpc]);
  chat.child.stdin.write('/steer Nothing runs\nGo #deltas=400 #tps=20\n/steer Stop #say=steered\n');
  await chat.until('stdout', /steered\n/);
  expect(chat.output.stderr).toContain('nothing runs on this lane');
  chat.child.stdin.end();
  expect((await chat.ended).code).toBe(0);

  const options = join(folder, 'http.yaml');
  writeFileSync(options, 'switches: { transport: sse }\n');
  const overHttp = await startGateway(
    '--upstream-url',
    `http://${await simulator()}/v1`,
    '--set',
    'upstream.transport=sse',
  );
  const other = start(['chat', '--address', overHttp.grpc]);
  other.child.stdin.write('Go #hang\n/steer More\n');
  await other.until('stderr', /NOT_SUPPORTED_BY_UPSTREAM: this upstream does not support steering/);
});

async function simulator(): Promise<string> {
  const { until } = start(['simulate', '--listen', '127.0.0.1:0']);
  const [, address = ''] = await until('stdout', /(127\.0\.0\.1:\d+)/);
  return address;
}

test('what keeps a session from opening is named: TLS, its absence, the authority, the token', async () => {
  const [pem, key, ca] = ['server.pem', 'server.key', 'ca.pem'].map(certificate) as [string, string, string];
  const secure = await startGateway('--set', `tls={ cert_file: ${pem}, key_file: ${key} }`);
  const plain = await startGateway();
  const port = secure.grpc.split(':').at(-1);
  expect(secure.output.stdout).toContain(`npm run cli -- chat --address ${secure.grpc} --tls`);
  expect(plain.output.stdout).toContain(`npm run cli -- chat --address ${plain.grpc}\n`);
  const chat = (...flags: string[]) => run(['chat', ...flags], { input: 'Hi #say=pong\n' });
  for (const [flags, said] of [
    [['--address', secure.grpc], /help: that port speaks TLS, it seems: --tls/],
    [['--address', `localhost:${port}`, '--tls'], /help: name the authority.*--ca-file/],
    [['--address', plain.grpc, '--tls'], /help: that port speaks no TLS/],
    [['--address', plain.admin], /help: name the port of "listen"/],
  ] as const) {
    const { code, stderr } = await chat(...flags);
    expect(stderr).toMatch(said);
    expect(code).toBe(1);
  }
  expect(await chat('--address', `localhost:${port}`, '--ca-file', ca)).toMatchObject({
    code: 0,
    stdout: 'pong\n',
  });

  const created = await run(['keys', 'create']);
  const [yaml = ''] = /^auth:.*/ms.exec(created.stderr) ?? [];
  const file = join(folder, 'keys.yaml');
  writeFileSync(file, yaml);
  const closed = await startGateway('--config', file);
  expect(closed.output.stdout).toContain('RESPONSES_GATEWAY_TOKEN=$TOKEN npm run cli -- chat');
  expect((await chat('--address', closed.grpc)).stderr).toContain('export RESPONSES_GATEWAY_TOKEN=');
  const wrong = await run(['chat', '--address', closed.grpc, '--token-env', 'MINE'], {
    input: 'Hi\n',
    env: { MINE: 'rgk_aaaaaaaaaaaaaaaa_wrong' },
  });
  expect(wrong.stderr).toContain('does not take the token in MINE');
});
