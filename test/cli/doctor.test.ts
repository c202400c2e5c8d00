import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { startCollector } from '../telemetry/collector.ts';
import { killAll, run } from './program.ts';

// Every test starts the program.
vi.setConfig({ testTimeout: 120_000 });

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  killAll();
  for (const close of closing.splice(0)) await close();
});

interface Report {
  readonly status: string;
  readonly findings: readonly { check: string; status: string; found: string; advice?: string }[];
}

async function doctor(...flags: readonly string[]) {
  const free = ['--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'];
  const { code, stdout } = await run(['doctor', '--json', ...free, ...flags], {
    env: { DOCTOR_KEY: 'sk-doctor-secret' },
  });
  const report = JSON.parse(stdout) as Report;
  expect(stdout).not.toContain('sk-doctor-secret');
  return { code, report, of: (check: string) => report.findings.find((finding) => finding.check === check) };
}

async function simulator(options: Parameters<typeof startSimulator>[0] = {}): Promise<Simulator> {
  const started = await startSimulator(options);
  closing.push(() => started.close());
  return started;
}

test('a gateway that can work is told so, check by check', async () => {
  const { url } = await simulator();
  const { code, report, of } = await doctor('--upstream-url', url, '--upstream-provider', 'compatible');
  expect(code).toBe(0);
  expect(report.findings.filter(({ status }) => status === 'error')).toEqual([]);
  for (const check of [
    'configuration',
    'descriptors',
    'upstream.default.dns',
    'upstream.default.link',
    'listen',
  ])
    expect(of(check)).toMatchObject({ status: 'ok' });
  expect(of('upstream.default.link')?.found).toMatch(/^websocket in \d+ ms/);
});

test('a refused key, a name that is none, a collector and a store that are away: each with what to do', async () => {
  const { url } = await simulator({ apiKeys: ['another'] });
  const key = await doctor(
    '--upstream-url',
    url,
    '--upstream-provider',
    'compatible',
    '--upstream-api-key-env',
    'DOCTOR_KEY',
    '--set',
    'telemetry.traces.exporter=otlp-http',
    '--set',
    'telemetry.traces.endpoint=http://127.0.0.1:9',
    '--set',
    'cluster.url=redis://127.0.0.1:9',
  );
  expect(key.code).toBe(1);
  expect(key.of('upstream.default.link')).toMatchObject({
    status: 'error',
    found: expect.stringContaining('UPSTREAM_AUTH, HTTP 401'),
    advice: expect.stringContaining('DOCTOR_KEY'),
  });
  expect(key.of('collector.traces')).toMatchObject({ status: 'error', found: '127.0.0.1:9: ECONNREFUSED' });
  expect(key.of('store')).toMatchObject({ status: 'error' });
  const name = await doctor(
    '--upstream-url',
    'wss://no-such-host.invalid/v1',
    '--upstream-provider',
    'compatible',
  );
  expect(name.of('upstream.default.dns')).toMatchObject({
    status: 'error',
    advice: expect.stringMatching(/name/),
  });
  expect(name.of('upstream.default.link')).toBeUndefined();
});

test('a wrong setting, and a port that another program has', async () => {
  const wrong = await doctor('--set', 'session.max_lanes=none');
  expect(wrong.of('configuration')).toMatchObject({
    status: 'error',
    found: expect.stringContaining('session.max_lanes'),
    advice: expect.stringContaining('Allowed'),
  });
  const other = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => other.once('listening', resolve));
  closing.push(() => new Promise((resolve) => other.close(resolve)));
  const { port } = other.address() as AddressInfo;
  const { of } = await doctor('--listen', `127.0.0.1:${port}`);
  expect(of('listen')).toMatchObject({ status: 'error', found: `127.0.0.1:${port}: EADDRINUSE` });
});

test('over HTTP the key is tried as well: by a response that does not exist', async () => {
  const { httpUrl } = await simulator({ apiKeys: ['sk-doctor-secret'] });
  const upstream = [
    '--upstream-url',
    httpUrl,
    '--upstream-provider',
    'compatible',
    '--set',
    'upstream.transport=sse',
  ];
  const good = await doctor(...upstream, '--upstream-api-key-env', 'DOCTOR_KEY');
  expect(good.of('upstream.default.link')).toMatchObject({
    status: 'ok',
    found: expect.stringMatching(/^HTTP with server-sent events, .*accepted$/),
  });
  const bad = await doctor(...upstream);
  expect(bad.code).toBe(1);
  expect(bad.of('upstream.default.link')).toMatchObject({
    status: 'error',
    found: expect.stringContaining('UPSTREAM_AUTH, HTTP 401'),
  });
});

test('a collector is asked to take an export with nothing in it; what only listens is none', async () => {
  const collector = await startCollector();
  closing.push(() => collector.close());
  const other = createServer((_request, response) => response.writeHead(404).end()).listen(0, '127.0.0.1');
  await new Promise((resolve) => other.once('listening', resolve));
  closing.push(() => new Promise((resolve) => other.close(resolve)));
  const { port } = other.address() as AddressInfo;
  const { of } = await doctor(
    ...[
      '--set',
      'telemetry.traces.exporter=otlp-grpc',
      '--set',
      `telemetry.traces.endpoint=${collector.endpoint}`,
    ],
    ...[
      '--set',
      'telemetry.metrics.exporter=otlp-grpc',
      '--set',
      `telemetry.metrics.endpoint=${collector.endpoint}`,
    ],
    ...[
      '--set',
      'telemetry.logs.exporter=otlp-http',
      '--set',
      `telemetry.logs.endpoint=http://127.0.0.1:${port}`,
    ],
  );
  for (const signal of ['traces', 'metrics'])
    expect(of(`collector.${signal}`)).toMatchObject({
      status: 'ok',
      found: expect.stringContaining('took an empty export'),
    });
  expect(of('collector.logs')).toMatchObject({ status: 'error', found: expect.stringContaining('404') });
});
