import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type RunningGateway, startGateway } from '../../src/app/gateway.ts';
import { createProgram } from '../../src/cli/program.ts';
import { loadConfig, valueAt } from '../../src/config/load.ts';
import { environmentName } from '../../src/config/sources.ts';

const ROOT = new URL('../../', import.meta.url);
const README = readFileSync(new URL('README.md', ROOT), 'utf8');
// Where its imports are found, and the tree stays clean.
const SCRIPT = new URL(`node_modules/.readme.${process.pid}.mjs`, ROOT);

let gateway: RunningGateway;

beforeAll(async () => {
  const flags = { listen: '127.0.0.1:0', 'admin.listen': '127.0.0.1:0', 'telemetry.logs.level': 'silent' };
  const settings = Object.entries(flags).map(([path, value]) => {
    return { path: path.split('.'), value, origin: { kind: 'flag', name: path } } as const;
  });
  const { config } = loadConfig({ file: undefined, environment: {}, flags: settings });
  gateway = await startGateway(config, { environment: {}, version: '0.0.0' });
});

afterAll(async () => {
  rmSync(SCRIPT, { force: true });
  await gateway.close();
});

test('the client in the README runs as written', async () => {
  const [, code = ''] = /<!-- client: .*\n```js\n(.*?)```/s.exec(README) ?? [];
  expect(code.trim().split('\n').length).toBeLessThanOrEqual(26);
  writeFileSync(SCRIPT, code);
  const child = spawn(process.execPath, [SCRIPT.pathname], {
    cwd: ROOT.pathname,
    env: { PATH: process.env['PATH'], RESPONSES_GATEWAY_ADDR: `127.0.0.1:${gateway.grpcPort}` },
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const errors: Buffer[] = [];
  child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
  const [code2] = (await once(child, 'close')) as [number];
  expect(Buffer.concat(errors).toString()).toBe('');
  expect(code2).toBe(0);
  expect(output).toMatch(
    /"What is a lane\?".*turn 1.*\n\[turn-1 TURN_OUTCOME_COMPLETED\]\n.*"And a turn\?".*turn 2/s,
  );
});

test('the table of settings names flags, variables and defaults as they are', () => {
  const rows = [
    ...README.matchAll(/^\| `(--[\w-]+) [^|]*\| `(RESPONSES_\w+)` \| `([\w.]+)` \| `([^`]+)` \|$/gm),
  ];
  expect(rows.length).toBe(7);
  const help = createProgram({}, () => {}).helpInformation();
  const effective = loadConfig({
    file: undefined,
    environment: { OPENAI_API_KEY: 'x' },
    // Any field of it brings the section's defaults out.
    flags: [{ path: ['upstream', 'transport'], value: 'auto', origin: { kind: 'default' } }],
  }).effective();
  for (const [, flag, variable, path = '', fallback] of rows) {
    expect(help).toContain(`${flag} `);
    expect(environmentName(path.split('.'))).toBe(variable);
    expect(String(valueAt(effective, path.split('.')))).toBe(fallback);
  }
});

test('the example of a file is a valid configuration, but for what it leaves out', () => {
  const [, yaml = ''] = /```yaml\n(.*?)```/s.exec(README) ?? [];
  const file = new URL(`node_modules/.readme.${process.pid}.yaml`, ROOT);
  writeFileSync(file, yaml);
  try {
    loadConfig({ file: file.pathname, environment: {}, flags: [] });
    expect.unreachable('its files are not there');
  } catch (error) {
    const problems = (error as { problems?: readonly { path: string }[] }).problems ?? [];
    expect(problems.map(({ path }) => path)).toEqual([
      'tls.cert_file',
      'tls.key_file',
      'upstreams[0].api_key_file',
    ]);
  } finally {
    rmSync(file);
  }
});
