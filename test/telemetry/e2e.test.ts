import { once } from 'node:events';
import { createServer, request as httpRequest } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { ROOT_CONTEXT, type Span, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-grpc';
import { SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { SessionLease } from '../../src/access/types.ts';
import { startSimulator } from '../../src/simulator/index.ts';
import { createTelemetry } from '../../src/telemetry/telemetry.ts';
import type { GatewayTelemetry } from '../../src/telemetry/types.ts';
import { type Message, userMessage } from '../harness/client.ts';
import { OpenAccess } from '../harness/fakes.ts';
import { startGateway, type TestGateway } from '../harness/gateway.ts';
import { type Collector, type ReceivedSpan, startCollector } from './collector.ts';
import { Page } from './prometheus.ts';

const CANARIES = ['canary-prompt', 'canary-argument', 'canary-output'];
const METHOD = 'responses.gateway.v1.ResponsesService/Connect';

let collector: Collector;
let upstream: RecordingProxy;
let telemetry: GatewayTelemetry;
let gateway: TestGateway<OpenAccess, GatewayTelemetry>;
let logLines: string[];

beforeEach(async () => {
  collector = await startCollector();
  upstream = await startRecordingProxy();
  logLines = [];
  telemetry = await createTelemetry({
    env: {},
    traces: { exporter: 'otlp-grpc', endpoint: collector.endpoint, propagate: ['traceparent'] },
    logs: { destination: { write: (line) => void logLines.push(line) } },
  });
  gateway = await startGateway({
    telemetry,
    upstreamUrl: upstream.url,
    // A pool dials for nobody's trace.
    dialer: { pool: { size: 0 }, observe: (event) => telemetry.upstream(event) },
  });
});

afterEach(async () => {
  await gateway.close();
  await telemetry.shutdown();
  await upstream.close();
  await collector.close();
  expect(gateway.bugs).toEqual([]);
});

describe('a conversation through the whole gateway', () => {
  it('is one tree from the caller to the upstream, with tool calls, a recovery and a cancel', async () => {
    const caller = startCaller(collector.endpoint);
    const loop = caller.span('agent loop');
    const stream = gateway.client().connect({}, { traceparent: traceparent(loop) });

    // Tool calls, each turn under a span of the caller's own.
    const first = caller.span('step 1', loop);
    const tools = [tool('look_up')];
    const input = [userMessage('canary-prompt #tools=1')];
    stream.startTurn({ turn_id: 'one', create: { tools, input }, trace_context: carried(first) });
    const calls = (await stream.turn('one')).flatMap(callIds);
    first.end();
    expect(calls).toHaveLength(1);

    // The link breaks between two turns; the second goes on where the first ended.
    upstream.simulator.cutConnections();
    await stream.event('gateway.notice');
    const second = caller.span('step 2', loop);
    const output = [{ function_call_output: { call_id: calls[0], output: '"canary-argument"' } }];
    stream.startTurn({
      turn_id: 'two',
      create: { tools, input: output },
      trace_context: carried(second),
    });
    await stream.turn('two');
    second.end();

    // The third is cancelled in the middle of its answer, without a context of its own.
    stream.startTurn({ turn_id: 'three' }, 'canary-output #hang');
    await stream.event('response.output_text.delta', 'three');
    stream.send({ cancel_turn: { turn_id: 'three' } });
    await stream.turn('three');

    stream.halfClose();
    await stream.ended();
    loop.end();
    await caller.close();
    await gateway.close();
    await telemetry.shutdown();

    const session = collector.span(METHOD);
    expect(session).toMatchObject({
      traceId: loop.spanContext().traceId,
      parentSpanId: loop.spanContext().spanId,
      attributes: { 'rpc.status_code': 'OK' },
    });

    const [one, two, three] = [turn('one'), turn('two'), turn('three')];
    // The caller's own spans are at the same collector: nothing is missing in between.
    // The gateway's end of the call is in between, for service graphs.
    for (const [turn, step] of [
      [one, 'step 1'],
      [two, 'step 2'],
    ] as const) {
      const call = collector.spans.find(({ spanId }) => spanId === turn.parentSpanId);
      expect(call).toMatchObject({
        name: 'turn',
        kind: 'SERVER',
        parentSpanId: collector.span(step).spanId,
      });
      expect(call?.attributes).toMatchObject({
        'rpc.system.name': 'grpc',
        'rpc.method': METHOD,
        'rpc.status_code': 'OK',
      });
    }
    expect(three.parentSpanId).toBe(collector.span('agent loop').spanId);
    for (const span of [one, two, three]) {
      expect(span.links[0]).toMatchObject({ spanId: session.spanId });
      expect(span.attributes).toMatchObject({
        'gen_ai.provider.name': 'openai',
        'gen_ai.request.model': 'gpt-6',
        'server.address': '127.0.0.1',
      });
    }
    expect(one.events.map((event) => event.name)).toEqual(['first token', 'tool call']);
    expect(one.attributes).toMatchObject({
      'gateway.outcome': 'COMPLETED',
      'gateway.tool_calls': 1,
    });
    expect(one.attributes['gen_ai.usage.input_tokens']).toBeGreaterThan(0);
    expect(two.attributes).toMatchObject({ 'gateway.outcome': 'COMPLETED' });
    expect(two.events.map((event) => event.name)).toContain('first token');
    expect(three).toMatchObject({
      status: { code: 'UNSET' },
      attributes: { 'gateway.outcome': 'CANCELLED', 'error.type': 'TURN_CANCELLED' },
    });

    expect(spansNamed('session open')).toHaveLength(1);
    expect(spansNamed('recovery').length).toBeGreaterThanOrEqual(1);
    expect(spansNamed('connect 127.0.0.1').map((span) => span.attributes['gateway.purpose'])).toEqual(
      expect.arrayContaining(['session', 'recovery']),
    );
    for (const dial of spansNamed('connect 127.0.0.1')) expect(dial.parentSpanId).toBe(session.spanId);

    // The upstream can hang its own spans under the session's, and learns nothing else.
    expect(upstream.handshakes.length).toBeGreaterThanOrEqual(2);
    for (const headers of upstream.handshakes) {
      expect(headers['traceparent']).toBe(`00-${session.traceId}-${session.spanId}-01`);
      expect(headers['tracestate']).toBeUndefined();
      expect(headers['baggage']).toBeUndefined();
    }

    // Every line of the log leads to its trace, and no text of the conversation is anywhere.
    const lines = logLines.map((line) => JSON.parse(line));
    expect(lines.filter((line) => line.msg === 'turn ended').map((line) => line.span_id)).toEqual(
      [one, two, three].map((span) => span.spanId),
    );
    expect(lines.at(-1)).toMatchObject({ msg: 'session ended', turns: 3, span_id: session.spanId });
    for (const canary of CANARIES) {
      expect(collector.dump()).not.toContain(canary);
      expect(logLines.join()).not.toContain(canary);
    }
  });

  it('is counted', async () => {
    const stream = gateway.client().connect();
    for (const turnId of ['one', 'two', 'three']) {
      stream.startTurn({ turn_id: turnId }, `canary-prompt ${'long '.repeat(500)} #deltas=20`);
      await stream.turn(turnId);
    }
    const running = new Page(await telemetry.metricsText());
    expect(running.sum('responses_gateway_sessions_active')).toBe(1);
    expect(running.sum('responses_gateway_streams_active')).toBe(1);
    expect(running.sum('responses_gateway_links', { state: 'open' })).toBe(1);
    stream.halfClose();
    await stream.ended();
    await gateway.close();

    const text = await telemetry.metricsText();
    const page = new Page(text);
    expect(page.sum('responses_gateway_turns_total', { outcome: 'COMPLETED' })).toBe(3);
    expect(page.sum('responses_gateway_events_total')).toBe(stream.events.length);
    expect(page.sum('responses_gateway_batches_total')).toBe(stream.batches);
    expect(stream.events.length).toBeGreaterThan(60);
    // Three turns over one growing conversation: the second and third did not send it again.
    expect(page.sum('responses_gateway_context_saved_bytes_total')).toBeGreaterThan(2 * 2_500);
    expect(page.histogram('gen_ai_client_inference_duration_seconds').count).toBe(3);
    expect(page.histogram('rpc_server_call_duration_seconds', { rpc_method: METHOD }).count).toBe(1);
    expect(page.sum('responses_gateway_link_connect_duration_seconds_count', { upstream: 'simulator' })).toBe(
      1,
    );
    for (const gauge of ['sessions_active', 'streams_active', 'turns_active', 'lanes_active', 'links']) {
      expect(page.sum(`responses_gateway_${gauge}`), gauge).toBe(0);
    }
    for (const canary of CANARIES) expect(text).not.toContain(canary);
  });

  it('ends the span of a session whose client dies', async () => {
    await gateway.close();
    gateway = await startGateway({ telemetry, upstreamUrl: upstream.url, limits: { resumeGraceMs: 0 } });
    const stream = gateway.client().connect();
    const { session_id } = await stream.opened();
    stream.startTurn({ turn_id: 'one' }, 'hello #hang');
    await stream.event('response.output_text.delta', 'one');
    stream.cancel();
    await gateway.close();
    await telemetry.shutdown();

    const session = collector.span(METHOD);
    expect(session.attributes['session.id']).toBe(session_id);
    expect(turn('one').attributes['gateway.outcome']).not.toBe('COMPLETED');
  });
});

describe('content capture', () => {
  it('puts prompt and answer on the span of the turn, for a tenant that has it on', async () => {
    await gateway.close();
    await telemetry.shutdown();
    telemetry = await createTelemetry({
      env: {},
      captureContent: 'full',
      traces: { exporter: 'otlp-grpc', endpoint: collector.endpoint },
      logs: { destination: { write: (line) => void logLines.push(line) } },
    });
    gateway = await startGateway({ telemetry, upstreamUrl: upstream.url, access: new CapturingAccess() });
    const stream = gateway.client().connect();
    stream.startTurn({ turn_id: 'one' }, 'canary-prompt #say=canary-output');
    await stream.turn('one');
    stream.halfClose();
    await stream.ended();
    await gateway.close();
    await telemetry.shutdown();
    expect(turn('one').attributes).toMatchObject({
      'gen_ai.input.messages': expect.stringContaining('canary-prompt'),
      'gen_ai.output.messages': expect.stringContaining('canary-output'),
    });
    expect(logLines[0]).toContain('content capture is on');
    expect(logLines.join()).not.toContain('canary');
  });
});

class CapturingAccess extends OpenAccess {
  override admitSession(...request: Parameters<OpenAccess['admitSession']>): SessionLease {
    return { ...super.admitSession(...request), captureContent: true };
  }
}

describe('an upstream over HTTP', () => {
  it('gets the context of each turn', async () => {
    await gateway.close();
    gateway = await startGateway({
      telemetry,
      upstreamUrl: upstream.url,
      upstream: { transport: 'sse' },
    });
    const stream = gateway.client().connect();
    for (const turnId of ['one', 'two']) {
      stream.startTurn({ turn_id: turnId }, 'hello');
      await stream.turn(turnId);
    }
    stream.halfClose();
    await stream.ended();
    await gateway.close();
    await telemetry.shutdown();
    expect(upstream.requests.map((headers) => headers['traceparent'])).toEqual(
      ['one', 'two'].map((turnId) => `00-${turn(turnId).traceId}-${turn(turnId).spanId}-01`),
    );
  });
});

function turn(turnId: string): ReceivedSpan {
  const found = collector.spans.find((span) => span.attributes['gateway.turn.id'] === turnId);
  if (found === undefined) throw new Error(`no span of turn ${turnId}`);
  return found;
}

const spansNamed = (name: string): ReceivedSpan[] => collector.spans.filter((span) => span.name === name);

const traceparent = (span: Span): string => {
  const { traceId, spanId } = span.spanContext();
  return `00-${traceId}-${spanId}-01`;
};

const carried = (span: Span): Message => ({ traceparent: traceparent(span) });

const tool = (name: string): Message => ({
  function: { name, parameters: Buffer.from('{"type":"object","properties":{}}') },
});

function callIds(event: { readonly type: string; readonly [field: string]: unknown }): string[] {
  if (event.type !== 'response.output_item.done') return [];
  const { item } = event['output_item_done'] as { item: { function_call?: { call_id: string } } };
  return item.function_call === undefined ? [] : [item.function_call.call_id];
}

/** The calling service, with an SDK of its own, at the same collector. */
function startCaller(endpoint: string) {
  const provider = new TracerProvider({
    spanProcessors: [new SimpleSpanProcessor({ exporter: new OTLPTraceExporter({ url: endpoint }) })],
  });
  const tracer = provider.getTracer('caller');
  return {
    span: (name: string, parent?: Span) =>
      tracer.startSpan(
        name,
        {},
        parent === undefined ? undefined : trace.setSpanContext(ROOT_CONTEXT, parent.spanContext()),
      ),
    close: async () => {
      await provider.forceFlush();
      await provider.shutdown();
    },
  };
}

interface RecordingProxy {
  readonly url: string;
  readonly simulator: Awaited<ReturnType<typeof startSimulator>>;
  /** Headers of WebSocket upgrades. */
  readonly handshakes: readonly Readonly<Record<string, string | string[] | undefined>>[];
  /** Headers of HTTP requests. */
  readonly requests: readonly Readonly<Record<string, string | string[] | undefined>>[];
  close(): Promise<void>;
}

/** A simulator behind a server that writes down the headers of what comes. */
async function startRecordingProxy(): Promise<RecordingProxy> {
  const simulator = await startSimulator();
  const handshakes: RecordingProxy['handshakes'][number][] = [];
  const requests: RecordingProxy['requests'][number][] = [];
  const server = createServer((request, response) => {
    requests.push(request.headers);
    const { host: _, ...headers } = request.headers;
    const forward = httpRequest(
      { port: simulator.port, path: request.url, method: request.method, headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      },
    );
    // It may end before the simulator has answered.
    forward.on('error', () => response.destroy());
    request.pipe(forward);
  });
  server.on('upgrade', (request, client, head) => {
    handshakes.push(request.headers);
    const target = connect(simulator.port, '127.0.0.1');
    const lines = Object.entries(request.headers).map(([name, value]) => `${name}: ${value}\r\n`);
    target.write(`${request.method} ${request.url} HTTP/1.1\r\n${lines.join('')}\r\n`);
    target.write(head);
    target.pipe(client).pipe(target);
    target.on('error', () => client.destroy());
    target.on('close', () => client.destroy());
    client.on('error', () => target.destroy());
    client.on('close', () => target.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    simulator,
    handshakes,
    requests,
    close: async () => {
      await simulator.close();
      server.closeAllConnections();
      server.close();
    },
  };
}
