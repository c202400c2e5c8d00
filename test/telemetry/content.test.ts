import { describe, expect, it } from 'vitest';
import type { StartTurn, UpstreamFrame } from '../../src/core/types.ts';
import { createCapture } from '../../src/telemetry/capture.ts';
import { contentAttributes } from '../../src/telemetry/content.ts';
import type { TelemetryOptions } from '../../src/telemetry/options.ts';
import { createTelemetry } from '../../src/telemetry/telemetry.ts';
import { startCollector } from './collector.ts';
import { accepted, record, start } from './facts.ts';

const turnWith = (turnId: string, input: readonly string[]): StartTurn => ({
  kind: 'startTurn',
  laneId: '',
  turnId,
  create: {
    fields: new Map([['instructions', '"be kind"']]),
    input,
    previousResponseId: undefined,
    model: 'gpt-5.2',
    store: false,
    generate: true,
    usesConversation: false,
  },
  chain: { kind: 'automatic' },
  inputMode: 'incremental',
  timeoutMs: undefined,
  waitOnRateLimit: false,
  traceContext: undefined,
});

const frame = (type: string, json: Readonly<Record<string, unknown>>, streamId?: string): UpstreamFrame => ({
  type,
  streamId,
  bytes: new Uint8Array(),
  byteLength: 0,
  json: () => json,
});

const said = (text: string) => ({
  type: 'message',
  role: 'assistant',
  content: [{ type: 'output_text', text }],
});
const saidMessages = (text: string) =>
  JSON.stringify([{ role: 'assistant', parts: [{ type: 'text', content: text }] }]);

describe('what passes a session', () => {
  it('is kept until its turn ends, the output by the id of the response', () => {
    const capture = createCapture(1_000);
    capture.turn(turnWith('r1', ['{"role":"user","content":"hi"}']));
    capture.frame(1, frame('response.output_text.delta', { delta: 'never parsed' }));
    capture.frame(1, frame('response.completed', { response: { id: 'resp_r1', output: [said('hello')] } }));
    expect(capture.take(record({ turnId: 'r1', acceptedAtMs: 1 }))).toEqual({
      'gen_ai.system_instructions': '[{"type":"text","content":"be kind"}]',
      'gen_ai.input.messages': '[{"role":"user","parts":[{"type":"text","content":"hi"}]}]',
      'gen_ai.output.messages': saidMessages('hello'),
    });
    expect(capture.take(record({ turnId: 'r1', acceptedAtMs: 1 }))).toBeUndefined();
  });

  it('is put together from its items, lane by lane, when the last event has none', () => {
    const capture = createCapture(1_000);
    capture.frame(1, frame('response.output_item.done', { item: said('from a') }, 'a'));
    capture.frame(1, frame('response.output_item.done', { item: said('from b') }, 'b'));
    capture.frame(1, frame('response.completed', { response: { id: 'resp_b' } }, 'b'));
    capture.frame(1, frame('response.incomplete', { response: { id: 'resp_a', output: [] } }, 'a'));
    for (const lane of ['a', 'b']) {
      expect(capture.take(record({ turnId: lane, acceptedAtMs: 1 }))).toEqual({
        'gen_ai.output.messages': saidMessages(`from ${lane}`),
      });
    }
  });

  it('stays with its lane where each lane has a link of its own and no name', () => {
    const capture = createCapture(1_000);
    capture.frame(1, frame('response.output_item.done', { item: said('from a') }));
    capture.frame(2, frame('response.output_item.done', { item: said('from b') }));
    capture.frame(2, frame('response.completed', { response: { id: 'resp_b' } }));
    capture.frame(1, frame('response.completed', { response: { id: 'resp_a' } }));
    for (const lane of ['a', 'b']) {
      expect(capture.take(record({ turnId: lane, acceptedAtMs: 1 }))).toEqual({
        'gen_ai.output.messages': saidMessages(`from ${lane}`),
      });
    }
  });

  it('is not what an earlier response said that ended by an error', () => {
    const capture = createCapture(1_000);
    capture.frame(1, frame('response.output_item.done', { item: said('aborted') }));
    capture.frame(1, frame('error', { code: 'server_error' }));
    capture.frame(1, frame('response.created', { response: { id: 'resp_a' } }));
    capture.frame(1, frame('response.output_item.done', { item: said('whole') }));
    capture.frame(1, frame('response.completed', { response: { id: 'resp_a' } }));
    expect(capture.take(record({ turnId: 'a', acceptedAtMs: 1 }))).toEqual({
      'gen_ai.output.messages': saidMessages('whole'),
    });
  });

  it('goes with its link when that ends before the response', () => {
    const capture = createCapture(1_000);
    capture.frame(1, frame('response.output_item.done', { item: said('lost') }, 'a'));
    capture.frame(2, frame('response.output_item.done', { item: said('kept') }, 'a'));
    capture.linkGone(1);
    capture.frame(1, frame('response.completed', { response: { id: 'resp_1' } }, 'a'));
    capture.frame(2, frame('response.completed', { response: { id: 'resp_2' } }, 'a'));
    const taken = ['1', '2'].map((turnId) => capture.take(record({ turnId, acceptedAtMs: 1 })));
    expect(taken).toEqual([
      { 'gen_ai.output.messages': '[]' },
      { 'gen_ai.output.messages': saidMessages('kept') },
    ]);
  });
});

describe('captured content', () => {
  it('has the shape of the conventions', () => {
    const input = [
      {
        type: 'message',
        role: 'user',
        content: [{ type: 'input_text', text: 'hi' }, { type: 'input_image' }],
      },
      { role: 'developer', content: 'be brief' },
      { type: 'function_call', call_id: 'c1', name: 'f', arguments: '{}' },
      { type: 'function_call_output', call_id: 'c1', output: '42' },
      { type: 'reasoning', summary: [{ type: 'summary_text', text: 'hm' }], encrypted_content: 'canary' },
      { type: 'appeared_yesterday', secret: 'canary' },
    ];
    const attributes = contentAttributes('input', JSON.stringify(input), 10_000);
    expect(JSON.parse(String(attributes['gen_ai.input.messages']))).toEqual([
      { role: 'user', parts: [{ type: 'text', content: 'hi' }, { type: 'input_image' }] },
      { role: 'developer', parts: [{ type: 'text', content: 'be brief' }] },
      { role: 'assistant', parts: [{ type: 'tool_call', id: 'c1', name: 'f', arguments: '{}' }] },
      { role: 'tool', parts: [{ type: 'tool_call_response', id: 'c1', response: '42' }] },
      { role: 'assistant', parts: [{ type: 'reasoning', content: 'hm' }] },
      { role: 'user', parts: [{ type: 'appeared_yesterday' }] },
    ]);
    expect(contentAttributes('instructions', '"be kind"', 100)).toEqual({
      'gen_ai.system_instructions': '[{"type":"text","content":"be kind"}]',
    });
  });

  it('loses its oldest messages over the limit, and stays JSON', () => {
    const items = Array.from({ length: 100 }, (_, i) => ({ role: 'user', content: `message ${i} ü` }));
    const attributes = contentAttributes('input', JSON.stringify(items), 1_000);
    const text = String(attributes['gen_ai.input.messages']);
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(1_000);
    expect(JSON.parse(text).at(-1).parts[0].content).toBe('message 99 ü');
    expect(attributes['gateway.content.truncated']).toBe(true);
  });

  it('loses secrets', () => {
    const attributes = contentAttributes(
      'output',
      '[{"role":"assistant","content":"sk-canarycanary"}]',
      1_000,
    );
    expect(attributes['gen_ai.output.messages']).toContain('[redacted]');
  });

  it.each(['', '{"cut', 'undefined'])('is nothing when it is not JSON: %j', (json) => {
    expect(contentAttributes('input', json, 1_000)).toEqual({});
  });

  it.each([
    ['the gateway has it off', {}, true, false],
    ['the tenant has it off', { captureContent: 'full' }, false, false],
    ['both have it on', { captureContent: 'full' }, true, true],
    [
      'the variable has it on',
      { env: { OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT: 'true' } },
      true,
      true,
    ],
  ] as const)('reaches the span, when %s', async (_, options: TelemetryOptions, tenant, there) => {
    await using collector = await startCollector();
    const t = await createTelemetry({
      env: {},
      logs: { level: 'silent' },
      ...options,
      traces: { exporter: 'otlp-grpc', endpoint: collector.endpoint },
    });
    const session = t.session(start({ captureContent: tenant }));
    session.turn?.(turnWith('one', ['{"role":"user","content":"canary"}']));
    session.fact(accepted({ turnId: 'one', atMs: Date.now() }));
    session.fact({ kind: 'turnEnded', record: record({ turnId: 'one', acceptedAtMs: Date.now() }) });
    session.end('OK');
    await t.shutdown();
    expect(collector.spans).not.toHaveLength(0);
    expect(collector.dump().includes('canary')).toBe(there);
  });
});
