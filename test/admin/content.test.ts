import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { PATHS } from '../../src/admin/routes.ts';
import { type RunningGateway, startGateway } from '../../src/app/gateway.ts';
import { startSimulator } from '../../src/simulator/index.ts';
import { TestClient, type TestStream, userMessage } from '../harness/client.ts';
import { configOf } from '../harness/config.ts';
import { startCollector } from '../telemetry/collector.ts';

/** What is said, each in its own place. */
const SAID = {
  prompt: 'planted-prompt-9083',
  instructions: 'planted-instructions-9083',
  metadata: 'planted-metadata-9083',
  schema: 'planted-schema-9083',
  arguments: 'planted-arguments-9083',
  customInput: 'planted-custom-input-9083',
  toolOutput: 'planted-tool-output-9083',
  reasoning: 'planted-reasoning-9083',
  answer: 'planted-answer-9083',
  refusal: 'planted-refusal-9083',
  steer: 'planted-steer-9083',
  errorMessage: 'planted-error-message-9083',
  errorCode: 'planted-error-code-9083',
} as const;

const SECRETS = {
  providerKey: 'sk-planted-provider-9083',
  adminToken: 'planted-admin-token-9083',
  wrongToken: 'planted-wrong-token-9083',
} as const;

const SCRIPT = {
  rules: [
    {
      when: { input: '#call', calls: 0 },
      items: [
        { type: 'reasoning' as const, summary: SAID.reasoning, text: SAID.reasoning },
        { type: 'function_call' as const, name: 'look_up', arguments: { of: SAID.arguments } },
        { type: 'custom_tool_call' as const, name: 'shell', input: SAID.customInput },
      ],
    },
    { when: { input: '#no' }, items: [{ type: 'refusal' as const, text: SAID.refusal }] },
    {
      when: { input: '#broken' },
      items: [{ type: 'message' as const, text: SAID.answer }],
      end: { status: 'failed' as const, code: SAID.errorCode, message: SAID.errorMessage },
    },
    {
      when: { input: '#rejected' },
      end: { status: 'error' as const, httpStatus: 400, code: SAID.errorCode, message: SAID.errorMessage },
    },
    {
      when: { input: '#slowly' },
      items: [{ type: 'message' as const, text: `${SAID.answer} `.repeat(2_000) }],
      tokensPerSecond: 20,
    },
    { items: [{ type: 'message' as const, text: SAID.answer }] },
  ],
};

test('no answer of the admin port holds what was said or a secret, also where traces may have it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'admin-content-'));
  const tokenFile = join(folder, 'token');
  const keyFile = join(folder, 'key');
  writeFileSync(tokenFile, SECRETS.adminToken);
  writeFileSync(keyFile, SECRETS.providerKey);
  const collector = await startCollector();
  const simulator = await startSimulator({ apiKeys: [SECRETS.providerKey], script: SCRIPT });
  let log = '';
  const gateway = await startGateway(
    configOf({
      upstream: { url: simulator.url, api_key_file: keyFile },
      admin: { listen: '127.0.0.1:0', token_file: tokenFile, console: { trace_url: 'https://t/{trace_id}' } },
      tenants: [{ id: 'default', capture_content: true }],
      telemetry: {
        logs: { level: 'trace' },
        capture_content: 'full',
        traces: { exporter: 'otlp-grpc', endpoint: collector.endpoint },
      },
    }),
    {
      environment: {},
      version: '0.0.0',
      drain: () => {},
      logDestination: {
        write: (line) => {
          log += line;
        },
      },
    },
  );
  const client = new TestClient(`127.0.0.1:${gateway.grpcPort}`);
  onTestFinished(async () => {
    client.close();
    await gateway.close();
    await simulator.close();
    await collector.close();
    rmSync(folder, { recursive: true });
  });

  const stream = client.connect({ client_name: 'agent', metadata: { env: 'test' } });
  const { session_id: id } = await stream.opened();
  const turnIds = await converse(stream);
  const whileItStreams = await askEverything(gateway, id);
  const acts = await act(gateway, id);
  await stream.turn('slowly');
  const afterwards = await askEverything(gateway, id);
  await stream.ended();
  await gateway.telemetry.flush();

  // What is looked for was said, and what is searched has something in it.
  const { prompt, instructions, arguments: called, toolOutput, reasoning, answer, refusal } = SAID;
  for (const text of [prompt, instructions, called, toolOutput, reasoning, answer, refusal])
    expect(collector.dump().includes(text), text).toBe(true);
  for (const known of [id, ...turnIds, 'look_up', 'shell', '"agent"', 'event: board', 'responses_gateway_'])
    expect(whileItStreams.includes(known), known).toBe(true);
  expect(log.includes('"audit"')).toBe(true);
  const outputs = { whileItStreams, acts, afterwards, log };
  for (const [name, text] of Object.entries({ ...SAID, ...SECRETS })) {
    for (const [where, output] of Object.entries(outputs))
      expect({ name, where, found: output.includes(text) }).toEqual({ name, where, found: false });
  }
}, 180_000);

/** Turns that end in every way, and one that goes on. Returns their ids. */
async function converse(stream: TestStream): Promise<readonly string[]> {
  const tools = [
    { function: { name: 'look_up', parameters_json: `{"type":"object","title":"${SAID.schema}"}` } },
    { custom: { name: 'shell', description: SAID.schema } },
  ];
  const create = { instructions: SAID.instructions, metadata: { note: SAID.metadata }, tools };
  const run = async (turnId: string, input: readonly object[]) => {
    stream.startTurn({ turn_id: turnId, create: { ...create, input } });
    return stream.turn(turnId);
  };
  const said = (directive: string) => [userMessage(`${SAID.prompt} ${directive}`)];
  const called = await run('call', said('#call'));
  const outputs = called
    .filter(({ type }) => type === 'response.output_item.done')
    .flatMap(({ output_item_done }) => {
      const { item } = output_item_done as { item: Record<string, { call_id: string } | undefined> };
      const { function_call: call, custom_tool_call: custom } = item;
      return [
        ...(call ? [{ function_call_output: { call_id: call.call_id, output: SAID.toolOutput } }] : []),
        ...(custom
          ? [{ custom_tool_call_output: { call_id: custom.call_id, output: SAID.toolOutput } }]
          : []),
      ];
    });
  expect(outputs).toHaveLength(2);
  await run('outputs', outputs);
  await run('refused', said('#no'));
  await run('broken', said('#broken'));
  await run('rejected', said('#rejected'));
  stream.startTurn({ turn_id: 'slowly', create: { ...create, input: said('#slowly') } });
  await stream.event('response.output_text.delta', 'slowly');
  stream.send({ steer_turn: { turn_id: 'slowly', input: [userMessage(`${SAID.steer} #slowly`)] } });
  return ['call', 'outputs', 'refused', 'broken', 'rejected', 'slowly'];
}

/** All that can be asked for, with the token, without one and with a wrong one. */
async function askEverything({ adminPort }: RunningGateway, id: string): Promise<string> {
  const paths = PATHS.map((path) => path.replace('{id}', id).replace('{turnId}', 'slowly'));
  const queries = [
    `/sessions?state=any&q=${id}`,
    '/sessions?sort=nothing',
    `/sessions/${id}?x=1`,
    '/overview?step=10',
  ];
  let told = '';
  for (const path of [...paths, ...queries]) {
    for (const token of [SECRETS.adminToken, SECRETS.wrongToken, undefined]) {
      const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
      const abort = new AbortController();
      const response = await fetch(`http://127.0.0.1:${adminPort}${path}`, { headers, signal: abort.signal });
      told += `${path} ${response.status} ${JSON.stringify([...response.headers])}\n`;
      told += path === '/overview/stream' ? await boards(response) : await response.text();
      abort.abort();
    }
  }
  return told;
}

/** Two of the board, or the whole of an answer that ends. */
async function boards(response: Response): Promise<string> {
  let told = '';
  for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    told += chunk;
    if (told.split('event: board').length > 2) break;
  }
  return told;
}

async function act({ adminPort }: RunningGateway, id: string): Promise<string> {
  let told = '';
  for (const [path, body] of [
    [`/sessions/${id}/turns/slowly/cancel`, { confirm: 'no' }],
    [`/sessions/${id}/turns/slowly/cancel`, { confirm: 'slowly' }],
    [`/sessions/${id}/drain`, { confirm: id }],
    ['/loglevel', { level: 'trace', confirm: 'trace' }],
    ['/drain', { confirm: 'drain' }],
  ] as const) {
    const response = await fetch(`http://127.0.0.1:${adminPort}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${SECRETS.adminToken}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    told += `${path} ${response.status} ${await response.text()}`;
  }
  return told;
}
