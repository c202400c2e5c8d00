import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Fact, TraceContext } from '../../src/core/types.ts';
import { GatewayError } from '../../src/errors.ts';
import type { TelemetryOptions } from '../../src/telemetry/options.ts';
import { createTelemetry } from '../../src/telemetry/telemetry.ts';
import { type Collector, startCollector } from './collector.ts';
import { accepted, METHOD, ROUTE, record, start } from './facts.ts';

const CALLER_TRACE = '0af7651916cd43dd8448eb211c80319c';
const CALLER_SPAN = 'b7ad6b7169203331';
const STREAM_TRACE = '11111111111111111111111111111111';
const STREAM_SPAN = '2222222222222222';
const traceparent = (traceId: string, spanId: string, flags = '01'): TraceContext => ({
  traceparent: `00-${traceId}-${spanId}-${flags}`,
});

let collector: Collector;
beforeEach(async () => {
  collector = await startCollector();
});
afterEach(() => collector.close());

function telemetry(options: TelemetryOptions = {}) {
  return createTelemetry({
    logs: { level: 'silent' },
    env: {},
    ...options,
    traces: { exporter: 'otlp-grpc', endpoint: collector.endpoint, ...options.traces },
  });
}

/** What a collector has to show after a conversation with tool calls, a lost link and a cancel. */
async function runConversation() {
  const t = await telemetry();
  const at = Date.now() - 10_000;
  const session = t.session(start({ traceContext: traceparent(STREAM_TRACE, STREAM_SPAN) }));
  const tell = (...facts: Fact[]): void => facts.forEach((fact) => void session.fact(fact));
  t.streamOpened('session-1');
  tell(
    { kind: 'laneOpened', laneId: '' },
    { kind: 'linkDialing', linkId: 1, purpose: 'session', atMs: at },
    { kind: 'linkUp', linkId: 1, route: ROUTE, atMs: at + 80 },
    // One with tool calls, under the caller's own span.
    accepted({ turnId: 'tools', atMs: at + 100, traceContext: traceparent(CALLER_TRACE, CALLER_SPAN) }),
    { kind: 'turnSent', turnId: 'tools', linkId: 1, atMs: at + 200 },
    { kind: 'responseCreated', turnId: 'tools', responseId: 'resp_tools', atMs: at + 300 },
    { kind: 'firstOutput', turnId: 'tools', atMs: at + 500 },
    { kind: 'toolCalled', turnId: 'tools', name: 'get_weather', atMs: at + 600 },
    { kind: 'toolCalled', turnId: 'tools', name: 'get_time', atMs: at + 700 },
    {
      kind: 'turnEnded',
      record: record({ turnId: 'tools', acceptedAtMs: at + 100, toolCalls: 2, finishReason: 'tool_calls' }),
    },
    // One whose link breaks under it.
    accepted({ turnId: 'broken', atMs: at + 2_000 }),
    { kind: 'turnSent', turnId: 'broken', linkId: 1, atMs: at + 2_100 },
    { kind: 'linkDown', linkId: 1, reason: 'UPSTREAM_LINK_LOST', closeCode: 1006, atMs: at + 2_150 },
    { kind: 'linkDialing', linkId: 2, purpose: 'recovery', atMs: at + 2_160 },
    { kind: 'linkUp', linkId: 2, route: ROUTE, atMs: at + 2_300 },
    {
      kind: 'recovered',
      linkId: 2,
      turnId: 'broken',
      reason: 'link_lost',
      bytes: 0,
      startedAtMs: at + 2_150,
      endedAtMs: at + 2_350,
    },
    {
      kind: 'replayed',
      linkId: 2,
      turnId: 'broken',
      reason: 'previous_response_not_found',
      bytes: 48_000,
      startedAtMs: at + 2_350,
      endedAtMs: at + 2_400,
    },
    { kind: 'turnSent', turnId: 'broken', linkId: 2, atMs: at + 2_400 },
    {
      kind: 'turnEnded',
      record: record({
        turnId: 'broken',
        acceptedAtMs: at + 2_000,
        endedAtMs: at + 3_000,
        sends: 2,
        replays: 1,
      }),
    },
    // One that the caller cancels.
    accepted({ turnId: 'cancelled', atMs: at + 4_000, laneId: 'side' }),
    { kind: 'turnSent', turnId: 'cancelled', linkId: 2, atMs: at + 4_100 },
    {
      kind: 'turnEnded',
      record: record({
        turnId: 'cancelled',
        laneId: 'side',
        acceptedAtMs: at + 4_000,
        outcome: 'CANCELLED',
        failed: {
          error: new GatewayError('TURN_CANCELLED', 'cancelled by the client'),
          replay: 'UNSAFE',
          phase: 'OUTPUT_STARTED',
        },
        finishReason: undefined,
        usage: undefined,
      }),
    },
  );
  t.streamClosed('session-1', 'OK', 5_000);
  session.end('OK');
  await t.shutdown();
  return at;
}

describe('a conversation at the collector', () => {
  it('shows the session, its turns under their callers, links, recovery and cancel', async () => {
    const at = await runConversation();

    const session = collector.span(METHOD);
    expect(session).toMatchObject({
      kind: 'SERVER',
      traceId: STREAM_TRACE,
      parentSpanId: STREAM_SPAN,
      status: { code: 'UNSET' },
      attributes: {
        'rpc.system.name': 'grpc',
        'rpc.method': METHOD,
        'rpc.status_code': 'OK',
        'server.address': 'gateway.internal',
        'server.port': 50051,
        'session.id': 'session-1',
      },
    });
    expect(session.resource).toMatchObject({ 'service.name': 'responses-gateway' });
    expect(session.events.map((event) => event.name)).toEqual([
      'stream opened',
      'link down',
      'stream closed',
    ]);

    const turns = collector.spans.filter((span) => span.name === 'chat gpt-5.2');
    const [tools, broken, cancelled] = ['tools', 'broken', 'cancelled'].map((turnId) =>
      turns.find((span) => span.attributes['gateway.turn.id'] === turnId),
    );
    expect(turns).toHaveLength(3);
    for (const turn of turns) {
      expect(turn.kind).toBe('CLIENT');
      expect(turn.links).toEqual([
        {
          traceId: session.traceId,
          spanId: session.spanId,
          attributes: {},
        },
      ]);
    }

    // Its own context wins over the stream's; without one it is the stream's.
    const call = collector.spans.find(({ spanId }) => spanId === tools?.parentSpanId);
    expect(call).toMatchObject({
      traceId: CALLER_TRACE,
      parentSpanId: CALLER_SPAN,
      kind: 'SERVER',
    });
    expect(tools).toMatchObject({ traceId: CALLER_TRACE });
    expect(broken).toMatchObject({ traceId: STREAM_TRACE, parentSpanId: STREAM_SPAN });

    expect(tools?.attributes).toMatchObject({
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'openai',
      'gen_ai.request.model': 'gpt-5.2',
      'gen_ai.request.stream': true,
      'gen_ai.response.model': 'gpt-5.2-2026-08-01',
      'gen_ai.response.id': 'resp_tools',
      'gen_ai.response.finish_reasons': ['tool_calls'],
      'gen_ai.response.time_to_first_chunk': 0.4,
      'gen_ai.conversation.id': 'session-1',
      'gen_ai.usage.input_tokens': 1_200,
      'gen_ai.usage.output_tokens': 80,
      'gen_ai.usage.cache_read.input_tokens': 1_000,
      'gen_ai.usage.cache_write.input_tokens': 100,
      'gen_ai.usage.reasoning.output_tokens': 30,
      'openai.api.type': 'responses',
      'server.address': 'api.openai.com',
      'server.port': 443,
      'gateway.outcome': 'COMPLETED',
      'gateway.queue.duration': 0.1,
      'gateway.upstream.duration': 0.8,
    });
    expect(tools?.startMs).toBe(at + 100);
    expect(tools?.endMs).toBe(at + 1_000);
    expect(tools?.events).toEqual([
      { name: 'first token', atMs: at + 500, attributes: {} },
      { name: 'tool call', atMs: at + 600, attributes: { 'gen_ai.tool.name': 'get_weather' } },
      { name: 'tool call', atMs: at + 700, attributes: { 'gen_ai.tool.name': 'get_time' } },
    ]);

    const recovery = collector.span('recovery');
    const replay = collector.span('replay');
    expect(recovery).toMatchObject({ parentSpanId: broken?.spanId, traceId: broken?.traceId });
    expect(recovery.attributes).toMatchObject({ 'gateway.reason': 'link_lost' });
    expect(replay).toMatchObject({ parentSpanId: broken?.spanId });
    expect(replay.attributes).toMatchObject({ 'gateway.bytes': 48_000 });
    expect(broken?.attributes).toMatchObject({
      'gateway.sends': 2,
      'gateway.replays': 1,
      'gateway.queue.duration': 0.1,
      'gateway.rebuild.duration': 0.25,
      'gateway.upstream.duration': 0.65,
    });
    expect(broken?.events.map((event) => event.name)).toEqual(['sent again']);
    expect(broken?.status.code).toBe('UNSET');

    expect(cancelled?.attributes).toMatchObject({
      'error.type': 'TURN_CANCELLED',
      'gen_ai.conversation.id': 'session-1/side',
      'gen_ai.response.finish_reasons': ['error'],
      'gateway.outcome': 'CANCELLED',
    });
    // A caller that changes its mind is not a failure of ours.
    expect(cancelled?.status.code).toBe('UNSET');

    const dials = collector.spans.filter((span) => span.name === 'connect api.openai.com');
    expect(dials.map((dial) => dial.attributes['gateway.purpose'])).toEqual(['session', 'recovery']);
    for (const dial of dials) {
      expect(dial).toMatchObject({ kind: 'CLIENT', parentSpanId: session.spanId });
    }
  });

  it('carries the client and its labels on the spans of session and turns', async () => {
    const t = await telemetry();
    const labels = new Map([['job', 'nightly']]);
    const session = t.session(start({ clientName: 'rg-go', clientVersion: '1.2.3', labels }));
    session.fact(accepted({ turnId: 'one', atMs: Date.now() }));
    session.fact({ kind: 'turnEnded', record: record({ turnId: 'one', acceptedAtMs: Date.now() }) });
    session.end('OK');
    await t.shutdown();
    expect(collector.span(METHOD).attributes).toMatchObject({
      'gateway.client.name': 'rg-go',
      'gateway.client.version': '1.2.3',
      'gateway.label.job': 'nightly',
    });
    expect(collector.span('chat gpt-5.2').attributes).toMatchObject({
      'gateway.label.job': 'nightly',
    });
  });

  it("keeps to the operator's limits on the spans of turns too", async () => {
    const env = {
      OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT: '4',
      OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT: '3',
      OTEL_SPAN_EVENT_COUNT_LIMIT: '1',
    };
    const t = await telemetry({ env });
    const session = t.session(start());
    const at = Date.now();
    session.fact(accepted({ turnId: 'one', atMs: at }));
    session.fact({ kind: 'firstOutput', turnId: 'one', atMs: at + 400 });
    session.fact({ kind: 'toolCalled', turnId: 'one', name: 'get_weather', atMs: at + 500 });
    session.fact({ kind: 'turnEnded', record: record({ turnId: 'one', acceptedAtMs: at }) });
    session.end('OK');
    await t.shutdown();

    const turn = collector.span('chat gpt-5.2');
    expect(Object.keys(turn.attributes)).toHaveLength(4);
    expect(turn.attributes).toMatchObject({ 'gen_ai.operation.name': 'cha', 'openai.api.type': 'res' });
    expect(turn.events.map((event) => event.name)).toEqual(['first token']);
  });

  it('shows a turn that a session left behind', async () => {
    const t = await telemetry();
    const session = t.session(start());
    session.fact(accepted({ turnId: 'one', atMs: Date.now() }));
    session.end('INTERNAL');
    await t.shutdown();
    expect(collector.span('chat gpt-5.2').attributes).toMatchObject({
      'gateway.turn.id': 'one',
      'error.type': 'INTERNAL',
    });
  });

  it('shows a session before it ends', async () => {
    const t = await telemetry();
    const session = t.session(start());
    await t.flush();

    const open = collector.span('session open');
    expect(open.attributes).toEqual({ 'session.id': 'session-1' });
    expect(collector.spans).toHaveLength(1);

    session.end('OK');
    await t.shutdown();
    expect(collector.span(METHOD).spanId).toBe(open.parentSpanId);
  });

  it('tells failures by closed codes and never by the text of the upstream', async () => {
    const t = await telemetry();
    const session = t.session(start());
    const at = Date.now();
    const upstream = { code: 'context_length_exceeded', message: 'canary-prompt is too long', status: 400 };
    session.fact({ kind: 'linkDialing', linkId: 1, purpose: 'session', atMs: at });
    session.fact({
      kind: 'linkDown',
      linkId: 1,
      reason: 'UPSTREAM_UNAVAILABLE',
      closeCode: undefined,
      atMs: at,
    });
    for (const [turnId, facts] of [
      ['known', upstream],
      ['unknown', { ...upstream, code: 'canary_code' }],
    ] as const) {
      session.fact(accepted({ turnId, atMs: at }));
      const error = new GatewayError('UPSTREAM_INVALID_REQUEST', 'canary-text', { upstream: facts });
      const failed = { error, replay: 'SAFE', phase: 'SENT' } as const;
      session.fact({
        kind: 'turnEnded',
        record: record({ turnId, acceptedAtMs: at, outcome: 'FAILED', failed }),
      });
    }
    session.end('UNAVAILABLE');
    await t.shutdown();

    const types = collector.spans
      .filter((span) => span.name.startsWith('chat'))
      .map((span) => [span.attributes['error.type'], span.status.code, span.status.message]);
    expect(types).toEqual([
      ['context_length_exceeded', 'ERROR', 'UPSTREAM_INVALID_REQUEST'],
      ['UPSTREAM_INVALID_REQUEST', 'ERROR', 'UPSTREAM_INVALID_REQUEST'],
    ]);
    expect(collector.span('connect')).toMatchObject({
      status: { code: 'ERROR' },
      attributes: { 'error.type': 'UPSTREAM_UNAVAILABLE' },
    });
    expect(collector.span(METHOD).status.code).toBe('ERROR');
    expect(collector.dump()).not.toContain('canary');
  });
});

describe('sampling', () => {
  async function keptOf(callers: number, options: TelemetryOptions): Promise<number> {
    const t = await telemetry(options);
    const session = t.session(start());
    for (let i = 0; i < callers; i += 1) {
      const turnId = `turn-${i}`;
      // Ids of the ratio sampler's making: it looks at all 16 bytes.
      const traceId = (BigInt(i + 1) * 0x9e3779b97f4a7c15f39cc0605cedc835n).toString(16).slice(-32);
      session.fact(
        accepted({
          turnId,
          atMs: Date.now(),
          traceContext: traceparent(traceId.padStart(32, '0'), CALLER_SPAN),
        }),
      );
      session.fact({ kind: 'turnEnded', record: record({ turnId, acceptedAtMs: Date.now() }) });
    }
    session.end('OK');
    await t.shutdown();
    return collector.spans.filter((span) => span.name.startsWith('chat')).length;
  }

  it('does not let callers force tracing on', async () => {
    const kept = await keptOf(400, { traces: { sampleRatio: 0.1 } });
    expect(kept).toBeGreaterThan(10);
    expect(kept).toBeLessThan(90);
  });

  it('follows callers when told to trust them', async () => {
    expect(await keptOf(50, { traces: { sampleRatio: 0, trustCaller: true } })).toBe(50);
  });

  it('honours OTEL_TRACES_SAMPLER', async () => {
    expect(await keptOf(20, { env: { OTEL_TRACES_SAMPLER: 'always_off' } })).toBe(0);
  });
});

describe('the context that goes upstream', () => {
  const carried: TraceContext = {
    ...traceparent(CALLER_TRACE, CALLER_SPAN),
    tracestate: 'vendor=1',
    baggage: 'user=canary',
  };

  it('is nothing by default', async () => {
    const t = await telemetry();
    const session = t.session(start({ traceContext: carried }));
    expect(session.outgoing(undefined)).toBeUndefined();
    session.end('OK');
    await t.shutdown();
  });

  it('is the span of the turn, with what the operator let through', async () => {
    const t = await telemetry({ traces: { propagate: ['traceparent', 'tracestate'] } });
    const session = t.session(start());
    session.fact(accepted({ turnId: 'one', atMs: Date.now(), traceContext: carried }));
    const outgoing = session.outgoing('one');
    session.fact({ kind: 'turnEnded', record: record({ turnId: 'one', acceptedAtMs: Date.now() }) });
    session.end('OK');
    await t.shutdown();
    const turn = collector.span('chat gpt-5.2');
    expect(outgoing).toEqual({
      traceparent: `00-${CALLER_TRACE}-${turn.spanId}-01`,
      tracestate: 'vendor=1',
    });
  });

  it('passes the caller on when the gateway traces nothing itself', async () => {
    const t = await telemetry({ traces: { exporter: 'off', propagate: ['traceparent', 'baggage'] } });
    const session = t.session(start({ traceContext: carried }));
    session.fact(accepted({ turnId: 'one', atMs: Date.now() }));
    expect(session.outgoing('one')).toEqual({
      traceparent: carried.traceparent,
      baggage: 'user=canary',
    });
    session.end('OK');
    await t.shutdown();
  });

  it.each([
    ['a broken traceparent', { traceparent: 'canary' }],
    ['a trace of zeros', traceparent('0'.repeat(32), CALLER_SPAN)],
  ])('starts a trace of its own under %s', async (_, traceContext) => {
    const t = await telemetry();
    const session = t.session(start({ traceContext }));
    session.end('OK');
    await t.shutdown();
    expect(collector.span(METHOD)).toMatchObject({ parentSpanId: '' });
  });
});
