import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, onTestFinished, test } from 'vitest';
import { createApiKey } from '../../src/access/auth/api-keys.ts';
import { startSimulator } from '../../src/simulator/index.ts';
import { run, start } from '../cli/program.ts';
import { TestClient, userMessage } from '../harness/client.ts';
import { bodyOf } from '../upstream/harness.ts';
import { startHostileUpstream } from './upstream.ts';

/** Each in another place where it could leak from. Short enough that no limit on lengths cuts them in two. */
const PLANTED = {
  providerKey: 'sk-planted-provider-4711',
  passedKey: 'sk-planted-passed-4711',
  adminToken: 'planted-admin-token-4711',
  wrongKey: 'planted-wrong-bearer-4711',
  prompt: 'planted-prompt-4711',
  instructions: 'planted-instructions-4711',
  toolArguments: 'planted-tool-arguments-4711',
  toolOutput: 'planted-tool-output-4711',
  brokenJson: 'planted-broken-json-4711',
  answer: 'planted-answer-4711',
  upstreamError: 'planted-upstream-error-4711',
  steer: 'planted-steer-4711',
  cookie: 'planted-cookie-4711',
} as const;

test('what a whole run writes holds no key, token, prompt or answer', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'secrets-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const collector = await startCollector();
  const simulator = await startSimulator({ apiKeys: [PLANTED.providerKey] });
  const hostile = await startHostileUpstream({
    onCreate: (socket, _, n) => {
      const text = `${PLANTED.upstreamError} ${PLANTED.providerKey}`;
      if (n === 1)
        socket.send(
          JSON.stringify({
            type: 'error',
            status: 400,
            error: { code: text, type: text, message: text, param: text },
          }),
        );
      else if (n === 2) socket.close(4000, text);
      else socket.send(`not JSON ${text}`);
    },
  });
  const quoting = await startHostileUpstream({
    onHandshake: ({ headers }) => {
      const body = JSON.stringify({
        error: { message: `${PLANTED.upstreamError} ${headers.authorization}` },
      });
      return `HTTP/1.1 418 ${headers.authorization}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
    },
  });
  onTestFinished(async () => {
    await collector.close();
    await simulator.close();
    await hostile.close();
    await quoting.close();
  });
  const key = createApiKey();
  writeFileSync(join(folder, 'admin-token'), PLANTED.adminToken, { mode: 0o600 });
  const config = join(folder, 'gateway.yaml');
  writeFileSync(
    config,
    JSON.stringify({
      listen: '127.0.0.1:0',
      admin: { listen: '127.0.0.1:0', token_file: join(folder, 'admin-token') },
      upstreams: [
        { name: 'good', url: simulator.url, api_key_env: 'PLANTED_KEY', fallback: [] },
        { name: 'hostile', url: hostile.url, api_key_env: 'PLANTED_KEY', fallback: [] },
        { name: 'quoting', url: quoting.url, api_key_env: 'PLANTED_KEY', fallback: [] },
      ],
      auth: [{ kind: 'api_keys', keys: [{ id: key.id, hash: key.hash, tenant: 'blue' }] }],
      // The tenant agrees to captured content, telemetry does not ask for it: both are needed.
      tenants: [{ id: 'blue', pass_through: 'allowed', capture_content: true }],
      telemetry: {
        logs: { level: 'trace', format: 'json' },
        traces: { exporter: 'otlp-http', endpoint: collector.url },
        metrics: { exporter: 'otlp-http', endpoint: collector.url, interval: '1s', max_tenants: 10 },
      },
    }),
  );
  const env = { PLANTED_KEY: PLANTED.providerKey };
  const checked = await run(['check-config', '--config', config], { env });
  expect(checked.code).toBe(0);

  const gateway = start(['serve', '--config', config], { env });
  const [, grpc = ''] = await gateway.until('stdout', /gRPC\s+(\S+:\d+)/);
  const [, admin = ''] = await gateway.until('stdout', /Admin\s+http:\/\/(\S+:\d+)/);
  await gateway.until('stderr', /"ready"/);
  const tokens = await exercise(grpc, key.key);
  const answers = await askAdmin(`http://${admin}`);
  await collector.received();
  gateway.child.kill('SIGTERM');
  const { code, stdout, stderr } = await gateway.ended;
  expect(code).toBe(0);

  const outputs = {
    checked: checked.stdout + checked.stderr,
    stdout,
    stderr,
    admin: answers,
    telemetry: collector.text(),
  };
  // The search is worth something only if there is something to search.
  expect(stderr).toContain('UPSTREAM_');
  expect(answers).toContain('responses_gateway');
  expect(collector.text()).toContain('gen_ai');
  expect(tokens.length).toBeGreaterThan(2);
  const secrets = { ...PLANTED, apiKey: key.key, apiKeySecret: key.key.slice(-43), ...named(tokens) };
  for (const [name, secret] of Object.entries(secrets)) {
    for (const [where, text] of Object.entries(outputs)) {
      expect({ name, where, found: text.includes(secret) }).toEqual({ name, where, found: false });
    }
  }
}, 60_000);

function named(tokens: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(tokens.map((token, at) => [`resume token ${at + 1}`, token]));
}

/** Turns that succeed and fail in every way that has words of its own. Returns the resume tokens. */
async function exercise(address: string, key: string): Promise<readonly string[]> {
  const client = new TestClient(address, {
    metadata: { authorization: `Bearer ${key}`, cookie: PLANTED.cookie },
  });
  const stranger = new TestClient(address, { metadata: { authorization: `Bearer ${PLANTED.wrongKey}` } });
  const tools = [
    {
      function: {
        name: 'lookup',
        parameters: Buffer.from(`{"type":"object","title":"${PLANTED.toolArguments}"}`),
      },
    },
  ];

  expect((await stranger.connect().ended()).code).toBe(16);
  const stream = client.connect({ upstream: 'good' });
  const { resume_token: first } = await stream.opened();
  const create = { instructions: PLANTED.instructions };
  stream.startTurn({ turn_id: 'plain', create }, `${PLANTED.prompt} #say=${PLANTED.answer}`);
  expect((await stream.turn('plain')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  stream.startTurn(
    { turn_id: 'tools', create: { ...create, tools } },
    `${PLANTED.prompt} ${PLANTED.toolArguments}`,
  );
  await stream.turn('tools');
  stream.startTurn({
    turn_id: 'output',
    create: {
      ...create,
      input: [
        {
          json: Buffer.from(
            `{"type":"function_call_output","call_id":"${PLANTED.toolOutput}","output":"${PLANTED.toolOutput}"}`,
          ),
        },
      ],
    },
  });
  await stream.turn('output');
  stream.startTurn({
    turn_id: 'broken',
    create: { input: [{ json: Buffer.from(`{"${PLANTED.brokenJson}":`) }] },
  });
  await stream.turn('broken');
  stream.startTurn({ turn_id: 'failed' }, `${PLANTED.prompt} #fail`);
  await stream.turn('failed');
  stream.startTurn({ turn_id: 'hung', lane_id: 'a' }, `${PLANTED.prompt} #hang`);
  await stream.event('response.created', 'hung');
  stream.send({ steer_turn: { lane_id: 'a', turn_id: 'hung', input: [userMessage(PLANTED.steer)] } });
  stream.cancel();

  const resumed = client.connect({ resume: { token: first } });
  const { resume_token: second } = await resumed.opened();
  resumed.send({ cancel_turn: { lane_id: 'a', turn_id: 'hung' } });
  await resumed.turn('hung');
  resumed.halfClose();
  await resumed.ended();
  const wrong = client.connect({ resume: { token: second } });
  const { resume_token: third } = await wrong.opened();
  wrong.send({ open: {} });
  await wrong.ended();

  const hurt = client.connect({ upstream: 'hostile' });
  await hurt.opened();
  for (const turnId of ['error', 'close', 'garbage']) {
    hurt.startTurn({ turn_id: turnId, new_conversation: {} }, PLANTED.prompt);
    expect((await hurt.turn(turnId)).at(-1)?.outcome).toBe('TURN_OUTCOME_FAILED');
  }
  hurt.halfClose();
  await hurt.ended();

  for (const upstream of ['quoting', 'good']) {
    // A wrong model name may hold anything, and is refused by nobody here.
    const refused = client.createResponse({
      upstream,
      create: { model: PLANTED.prompt, extra_json: Buffer.from(`{"Model":"${PLANTED.prompt}"}`) },
    });
    expect((await refused.result).ended.code).not.toBe(0);
  }
  const quoted = client.createResponse({
    upstream: 'quoting',
    create: { model: 'gpt-6', input: [userMessage(PLANTED.prompt)] },
  });
  expect((await quoted.result).ended.code).not.toBe(0);
  const unary = client.createResponse({
    upstream: 'good',
    create: { model: 'gpt-6', input: [userMessage(PLANTED.prompt)] },
  });
  expect((await unary.result).ended.code).toBe(0);
  await client.compactResponse({
    upstream: 'good',
    compact: { model: 'gpt-6', input: [userMessage(PLANTED.prompt)] },
  });
  // A key of the caller's own, which this upstream refuses.
  const own = client.createResponse(
    { upstream: 'good', create: { model: 'gpt-6', input: [userMessage(PLANTED.prompt)] } },
    { 'x-upstream-api-key': PLANTED.passedKey },
  );
  expect((await own.result).ended.code).not.toBe(0);
  client.close();
  stranger.close();
  return [first, second, third];
}

async function askAdmin(url: string): Promise<string> {
  const paths = ['/healthz', '/readyz', '/metrics', '/sessions', '/loglevel', '/config', '/nowhere'];
  const asked = paths.flatMap((path) => [
    fetch(url + path, { headers: { authorization: `Bearer ${PLANTED.adminToken}` } }),
    fetch(url + path, { headers: { authorization: `Bearer ${PLANTED.wrongKey}` } }),
    fetch(url + path, {
      method: 'PUT',
      body: PLANTED.wrongKey,
      headers: { authorization: `Bearer ${PLANTED.adminToken}` },
    }),
  ]);
  const texts = (await Promise.all(asked)).map(
    async (response) => `${JSON.stringify([...response.headers])}\n${await response.text()}`,
  );
  return (await Promise.all(texts)).join('\n');
}

/** Takes OTLP over HTTP and keeps the bytes: strings stand in protobuf as they are. */
async function startCollector() {
  const bodies = new Map<string, string>();
  const waiters = new Set<() => void>();
  const server = createServer(async (request, response) => {
    const body = await bodyOf(request);
    const plain = request.headers['content-encoding'] === 'gzip' ? gunzipSync(body) : body;
    const path = request.url ?? '';
    bodies.set(path, (bodies.get(path) ?? '') + plain.toString('latin1'));
    response.writeHead(200).end();
    for (const look of waiters) look();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    text: () => [...bodies.values()].join('\n'),
    /** Resolves once traces and metrics have come. */
    received: () =>
      new Promise<void>((resolve) => {
        const look = () => {
          if (!['/v1/traces', '/v1/metrics'].every((path) => bodies.has(path))) return;
          waiters.delete(look);
          resolve();
        };
        waiters.add(look);
        look();
      }),
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
