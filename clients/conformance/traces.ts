/**
 * Runs one language's traced example against a gateway, both with their own OpenTelemetry SDK and one collector, and
 * looks at what arrived: `node clients/conformance/traces.ts NAME`. One connected tree, tools included; the gateway's
 * metrics and log records beside it. Exits with 1 if it is not so.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { startGateway } from '../../src/app/gateway.ts';
import { configSchema } from '../../src/config/schema.ts';
import { type Collector, type ReceivedSpan, startCollector } from '../../test/telemetry/collector.ts';
import { isRunnerName, RUNNER_NAMES, type RunnerName, tracedCommand } from './runners.ts';

/** A first run compiles the example. */
const PROGRAM_TIMEOUT_MS = 300_000;

const [name = ''] = process.argv.slice(2);
process.exit(await main(name));

async function main(runner: string): Promise<number> {
  if (!isRunnerName(runner)) {
    console.error(`usage: node clients/conformance/traces.ts ${RUNNER_NAMES.join('|')}`);
    return 2;
  }
  await using collector = await startCollector();
  const environment = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint };
  const signal = { exporter: 'otlp-grpc', endpoint: collector.endpoint };
  const config = configSchema.parse({
    listen: '127.0.0.1:0',
    admin: { listen: '127.0.0.1:0' },
    telemetry: { traces: signal, metrics: signal, logs: signal },
  });
  const gateway = await startGateway(config, {
    environment: {},
    version: 'test',
    logDestination: { write: () => {} },
  });
  const address = `127.0.0.1:${gateway.grpcPort}`;
  const output = await run(runner, { ...environment, RESPONSES_GATEWAY_ADDR: address });
  // What has ended is exported; the session's own end may come after its client's.
  await gateway.telemetry.flush();
  await gateway.drain();
  const traceId = /^trace ([0-9a-f]{32})$/m.exec(output)?.[1];
  assert(traceId !== undefined, `the example told no trace: ${output}`);
  checkTree(
    collector.spans.filter((span) => span.traceId === traceId),
    traceId,
  );
  checkBeside(collector, traceId);
  console.log(`${runner}: one tree of ${collector.spans.length} spans, metrics and log records`);
  return 0;
}

function checkTree(spans: readonly ReceivedSpan[], traceId: string): void {
  const names = spans.map(({ name, kind }) => `${name} (${kind})`).join(', ');
  const byId = new Map(spans.map((span) => [span.spanId, span]));
  const parentOf = (span: ReceivedSpan) => byId.get(span.parentSpanId);
  const roots = spans.filter((span) => parentOf(span) === undefined);
  assert.equal(roots.length, 1, `trace ${traceId} has one root among: ${names}`);
  const [root] = roots as [ReceivedSpan];
  assert.equal(root.name, 'question');
  assert.match(root.kind, /CLIENT/);

  const chats = spans.filter((span) => span.name.startsWith('chat '));
  assert(chats.length >= 2, `a turn that calls and one that answers among: ${names}`);
  for (const chat of chats) {
    const call = parentOf(chat);
    assert.match(call?.kind ?? '', /SERVER/, `each turn is below the gateway's end of the call: ${names}`);
    assert.equal(call && parentOf(call), root, 'which is below the span of the program');
  }
  const tools = spans.filter((span) => span.name === 'execute_tool weather');
  assert(tools.length >= 1, `a tool's span among: ${names}`);
  for (const tool of tools) {
    assert.equal(parentOf(tool), root);
    assert.equal(tool.attributes['gen_ai.operation.name'], 'execute_tool');
    assert.notEqual(tool.resource['service.name'], chats[0]?.resource['service.name']);
  }
  const linked = chats
    .flatMap(({ links }) => links)
    .filter(({ spanId }) => chats.some((chat) => chat.spanId === spanId));
  assert(linked.length >= 1, 'the turn that brings outputs is linked to the one that called');
}

function checkBeside({ logs, metricNames }: Collector, traceId: string): void {
  const turns = logs.filter((log) => log.traceId === traceId && log.body === 'turn ended');
  assert(turns.length >= 2, `a log record of each turn, with the ids of its trace: ${turns.length}`);
  for (const metric of [
    'gen_ai.client.inference.duration',
    'responses_gateway.turns',
    'responses_gateway.tool.duration',
  ])
    assert(metricNames.has(metric), `${metric} among: ${[...metricNames].join(', ')}`);
}

function run(runner: RunnerName, environment: Readonly<Record<string, string>>): Promise<string> {
  const { command, args, cwd, env = {} } = tracedCommand(runner);
  const child = spawn(command, args, {
    cwd,
    env: { ...process.env, ...env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: PROGRAM_TIMEOUT_MS,
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve(output) : reject(new Error(`the ${runner} example ended with ${code}: ${output}`)),
    );
  });
}
