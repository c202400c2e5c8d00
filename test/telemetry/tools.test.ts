import { expect, test } from 'vitest';
import type { StartTurn } from '../../src/core/types.ts';
import { createTelemetry } from '../../src/telemetry/telemetry.ts';
import { startCollector } from './collector.ts';
import { accepted, record, start } from './facts.ts';
import { Page } from './prometheus.ts';

const AT = 1_800_000_000_000;

function turn(turnId: string, receivedAtMs: number, input: readonly string[], laneId = ''): StartTurn {
  return {
    kind: 'startTurn',
    laneId,
    turnId,
    create: {
      fields: new Map(),
      input,
      previousResponseId: undefined,
      model: 'gpt-5.2',
      store: true,
      generate: true,
      usesConversation: false,
    },
    chain: { kind: 'automatic' },
    inputMode: 'incremental',
    timeoutMs: undefined,
    waitOnRateLimit: false,
    traceContext: undefined,
    receivedAtMs,
  };
}

const output = (id: string): string => `{"type":"function_call_output","call_id":"${id}","output":"canary"}`;

test('the time of tools is told by name, on the turn that brings their outputs, and as a share of the loop', async () => {
  await using collector = await startCollector();
  const t = await createTelemetry({
    env: {},
    logs: { level: 'silent' },
    traces: { exporter: 'otlp-grpc', endpoint: collector.endpoint },
  });
  const session = t.session(start());
  const run = (request: StartTurn, calls: readonly (readonly [string, number])[]): void => {
    const { turnId, laneId, receivedAtMs = AT } = request;
    session.turn?.(request);
    session.fact(accepted({ turnId, laneId, atMs: receivedAtMs }));
    for (const [name, atMs] of calls) session.fact({ kind: 'toolCalled', turnId, name, atMs });
    const ended = record({ turnId, laneId, acceptedAtMs: receivedAtMs, toolCalls: calls.length });
    session.fact({ kind: 'turnEnded', record: ended });
  };
  run(turn('calls', AT, ['{"role":"user","content":"x"}']), [
    ['get_weather', AT + 600],
    ['get_time', AT + 800],
  ]);
  // Another lane's turn, and one without outputs, bring nothing back.
  run(turn('aside', AT + 1_000, [output('a')], 'side'), []);
  run(turn('returns', AT + 2_600, [output('a'), output('b')]), []);
  run(turn('after', AT + 5_000, [output('a')]), []);
  session.end('OK');
  const page = new Page(await t.metricsText());
  await t.shutdown();

  const tool = (name: string) =>
    page.histogram('responses_gateway_tool_duration_seconds', { gen_ai_tool_name: name });
  expect(tool('get_weather')).toMatchObject({ count: 1, sum: 2 });
  expect(tool('get_time')).toMatchObject({ count: 1, sum: 1.8 });
  // Two turns of 800 ms upstream and 100 ms in the queue each; two seconds between them.
  expect(page.sum('responses_gateway_loop_time_seconds_total', { part: 'model' })).toBeCloseTo(1.6);
  expect(page.sum('responses_gateway_loop_time_seconds_total', { part: 'gateway' })).toBeCloseTo(0.2);
  expect(page.sum('responses_gateway_loop_time_seconds_total', { part: 'tools' })).toBeCloseTo(2);

  const span = (turnId: string) =>
    collector.spans.find(({ attributes }) => attributes['gateway.turn.id'] === turnId);
  expect(span('returns')?.attributes).toMatchObject({ 'gateway.tool.duration': 2 });
  expect(span('returns')?.links).toContainEqual({
    traceId: span('calls')?.traceId,
    spanId: span('calls')?.spanId,
    attributes: { 'gateway.link': 'tool_call', 'gateway.tool.names': ['get_weather', 'get_time'] },
  });
  for (const other of ['calls', 'aside', 'after']) {
    expect(span(other)?.links).toHaveLength(1);
    expect(span(other)?.attributes).not.toHaveProperty(['gateway.tool.duration']);
  }
  expect(collector.dump()).not.toContain('canary');
});

test('names of tools beyond the first fifty are one label', async () => {
  const t = await createTelemetry({ env: {}, logs: { level: 'silent' } });
  const session = t.session(start());
  for (let n = 0; n < 60; n += 1) {
    session.turn?.(turn(`out${n}`, AT + 1, n === 0 ? [] : [output('a')]));
    session.fact(accepted({ turnId: `out${n}`, atMs: AT }));
    session.fact({ kind: 'toolCalled', turnId: `out${n}`, name: `tool_${n}`, atMs: AT });
    session.fact({
      kind: 'turnEnded',
      record: record({ turnId: `out${n}`, acceptedAtMs: AT, toolCalls: 1 }),
    });
  }
  const page = new Page(await t.metricsText());
  await t.shutdown();
  expect(
    page.histogram('responses_gateway_tool_duration_seconds', { gen_ai_tool_name: 'tool_49' }),
  ).toMatchObject({
    count: 1,
  });
  expect(
    page.histogram('responses_gateway_tool_duration_seconds', { gen_ai_tool_name: '_OTHER' }),
  ).toMatchObject({
    count: 9,
  });
});
