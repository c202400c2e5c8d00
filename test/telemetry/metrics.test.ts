import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it } from 'vitest';
import { GatewayError } from '../../src/errors.ts';
import { isChosen } from '../../src/telemetry/genai-names.ts';
import { METRICS, type MetricFacts, typeOf } from '../../src/telemetry/metrics-table.ts';
import type { TelemetryOptions } from '../../src/telemetry/options.ts';
import { prometheusName } from '../../src/telemetry/prometheus-names.ts';
import { createTelemetry } from '../../src/telemetry/telemetry.ts';
import type { GatewayTelemetry } from '../../src/telemetry/types.ts';
import { startCollector } from './collector.ts';
import { accepted, METHOD, ROUTE, record, start } from './facts.ts';
import { Page } from './prometheus.ts';

const AT = 1_780_000_000_000;

function telemetry(options: TelemetryOptions = {}): Promise<GatewayTelemetry> {
  return createTelemetry({ logs: { level: 'silent' }, env: {}, ...options });
}

const page = async (t: GatewayTelemetry): Promise<Page> => new Page(await t.metricsText());

/** Touches every metric there is. */
function useEverything(t: GatewayTelemetry): void {
  const session = t.session(start());
  t.streamOpened('session-1');
  session.fact({ kind: 'laneOpened', laneId: '' });
  session.fact({ kind: 'linkDialing', linkId: 1, purpose: 'session', atMs: AT });
  session.fact({ kind: 'linkUp', linkId: 1, route: ROUTE, atMs: AT + 50 });
  session.fact(accepted({ turnId: 'a', atMs: AT }));
  session.fact({ kind: 'strayFrame', linkId: 1, type: 'response.completed' });
  session.fact({ kind: 'paused', bufferedBytes: 1_000, atMs: AT });
  session.fact({ kind: 'unpaused', bufferedBytes: 0, atMs: AT + 250 });
  for (const kind of ['recovered', 'rotated', 'replayed'] as const) {
    session.fact({
      kind,
      linkId: 1,
      turnId: undefined,
      reason: 'link_lost',
      bytes: 7_000,
      startedAtMs: AT,
      endedAtMs: AT + 40,
    });
  }
  session.fact({ kind: 'toolCalled', turnId: 'a', name: 'look_up', atMs: AT });
  session.fact(
    {
      kind: 'turnEnded',
      record: record({
        turnId: 'a',
        acceptedAtMs: AT,
        toolCalls: 2,
        cost: { amount: '0.25', currency: 'USD', pricesAsOf: '2026-11-30' },
      }),
    },
    { upMs: 2, downMs: 1 },
  );
  session.turn?.({
    kind: 'startTurn',
    laneId: '',
    turnId: 'b',
    create: {
      fields: new Map(),
      input: ['{"type":"function_call_output","call_id":"c","output":""}'],
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
    receivedAtMs: AT + 5,
  });
  session.fact(accepted({ turnId: 'b', atMs: AT }));
  session.fact({
    kind: 'turnEnded',
    record: record({
      turnId: 'b',
      acceptedAtMs: AT,
      unpriced: 'model',
      outcome: 'FAILED',
      failed: { error: new GatewayError('CHAIN_LOST', 'lost'), replay: 'SAFE', phase: 'SENT' },
    }),
  });
  session.fact({
    kind: 'linkDown',
    linkId: 1,
    reason: 'UPSTREAM_LINK_LOST',
    closeCode: 1006,
    atMs: AT + 90_000,
  });
  session.batch(1, 100);
  session.batch(30, 3_000);
  session.resumed('RESUMED');
  t.streamClosed('session-1', 'OK', 90_000);
  t.rpcEnded(METHOD, 'OK', 90_000);
  const upstream = 'primary';
  t.upstream({ kind: 'poolMiss', upstream });
  t.upstream({ kind: 'poolSize', upstream, idle: 3 });
  t.upstream({
    kind: 'dial',
    upstream,
    transport: 'websocket',
    purpose: 'session',
    attempt: 0,
    durationMs: 80,
    failure: undefined,
  });
  t.upstream({ kind: 'failover', from: 'primary', to: 'second' });
  t.upstream({ kind: 'lanesRefuted', upstream });
  t.upstream({ kind: 'sseFallback', upstream, httpStatus: 426, forMs: 60_000 });
  t.upstream({ kind: 'breaker', upstream, credential: 'own', circuit: 'a', state: 'open', openMs: 60_000 });
  t.upstream({ kind: 'rtt', upstream, ms: 12 });
  t.upstream({ kind: 'heartbeatLost', upstream });
  t.connectionEnded('idle');
  t.replicas({ kind: 'command', command: 'xadd', result: 'ok', durationMs: 1 });
  t.replicas({ kind: 'forward', result: 'taken' });
  t.replicas({ kind: 'takeover', result: 'taken', durationMs: 5 });
  t.replicas({ kind: 'handOver' });
  t.replicas({ kind: 'fenced' });
  t.replicas({ kind: 'limitsAlone' });
  session.fact({ kind: 'durabilityLost', reason: 'store_slow' });
  t.callRefused({
    method: METHOD,
    reason: 'LIMIT_EXCEEDED',
    limit: 'sessions',
    tenantId: 'acme',
    proof: undefined,
  });
  const error = new GatewayError('LIMIT_EXCEEDED', '', { metadata: { limit: 'lanes' } });
  session.fact({ kind: 'refused', request: 'turn', error });
  t.memoryShed({ readyLinks: 1, transcriptBytes: 2, keptEventBytes: 3 });
  session.end('OK');
}

describe('the Prometheus page', () => {
  it('has every metric of the table that is not of other conventions, and no other', async () => {
    await using collector = await startCollector();
    const t = await telemetry({
      genaiSemconv: 'both',
      traces: { exporter: 'otlp-grpc', endpoint: collector.endpoint },
    });
    useEverything(t);
    await t.flush();
    const { types } = await page(t);
    await t.shutdown();
    const expected = Object.entries<MetricFacts>(METRICS).map(([name, { kind, unit }]) =>
      prometheusName(name, typeOf(kind), unit),
    );
    expect([...types.keys()].filter((name) => name !== 'target_info').toSorted()).toEqual(
      expected.toSorted(),
    );
  });

  it('carries only the labels of the table', async () => {
    const t = await telemetry({ metrics: { maxTenants: 5 } });
    useEverything(t);
    const p = await page(t);
    await t.shutdown();
    for (const [name, facts] of Object.entries<MetricFacts>(METRICS)) {
      const family = prometheusName(name, typeOf(facts.kind), facts.unit);
      if (!p.types.has(family)) continue;
      const allowed = facts.labels.map((label) => label.replaceAll('.', '_'));
      expect(allowed, name).toEqual(expect.arrayContaining([...p.labelNames(family)]));
    }
  });

  it.each(['0.1.0', '1.41', 'both'] as const)('has the GenAI names of %s', async (genaiSemconv) => {
    const t = await telemetry({ genaiSemconv });
    useEverything(t);
    const { types } = await page(t);
    await t.shutdown();
    for (const [name, { kind, unit, semconv }] of Object.entries<MetricFacts>(METRICS)) {
      if (!name.startsWith('gen_ai.')) continue;
      expect(types.has(prometheusName(name, typeOf(kind), unit)), name).toBe(isChosen(semconv, genaiSemconv));
    }
  });

  it('has each counter at 0 before anything is counted, also those series that are counted later', async () => {
    const { provider, serverAddress, serverPort } = ROUTE;
    const t = await telemetry({
      metrics: {
        maxTenants: 5,
        models: ['gpt-5.2'],
        known: {
          upstreams: [
            { name: 'primary', provider, serverAddress, serverPort },
            { name: 'second', provider: 'azure' },
          ],
          models: ['gpt-5.2'],
          tenants: ['acme'],
          currency: 'USD',
        },
      },
    });
    const before = await page(t);
    useEverything(t);
    const after = await page(t);
    await t.shutdown();
    const key = (labels: object): string => JSON.stringify(Object.entries(labels).toSorted());
    for (const [name, { kind, unit, semconv }] of Object.entries<MetricFacts>(METRICS)) {
      if (kind !== 'counter' || !isChosen(semconv, '0.1.0')) continue;
      const family = prometheusName(name, 'counter', unit);
      const started = before.series(family);
      expect(
        started.every(({ value }) => value === 0),
        name,
      ).toBe(true);
      const counted = after.series(family).filter(({ value }) => value > 0);
      const known = new Set(started.map(({ labels }) => key(labels)));
      const late = counted.filter(({ labels }) => !known.has(key(labels)));
      expect(
        late.map(({ labels }) => labels),
        name,
      ).toEqual([]);
    }
  });

  it('has the names of 0.1 for those who ask for them', async () => {
    const t = await telemetry({ metrics: { unitSuffixes: false } });
    const { types } = await page(t);
    await t.shutdown();
    expect([...types.keys()]).toEqual(
      expect.arrayContaining([
        'process_cpu_time_total',
        'process_memory_usage',
        'responses_gateway_memory_share',
      ]),
    );
    expect([...types.keys()].filter((name) => /_(?:seconds|ratio)(?:_total)?$/.test(name))).toEqual([]);
  });

  it('counts what the turns said', async () => {
    const t = await telemetry();
    useEverything(t);
    const p = await page(t);
    await t.shutdown();

    expect(p.sum('responses_gateway_turns_total', { outcome: 'COMPLETED' })).toBe(1);
    expect(p.sum('responses_gateway_turns_total', { outcome: 'FAILED' })).toBe(1);
    expect(
      p.sum('responses_gateway_turn_failures_total', {
        error_type: 'CHAIN_LOST',
        fault: 'upstream',
        phase: 'SENT',
        replay: 'SAFE',
      }),
    ).toBe(1);
    expect(p.sum('responses_gateway_context_saved_bytes_total')).toBe(2 * (50_000 - 2_000));
    expect(p.sum('responses_gateway_upstream_bytes_total', { direction: 'up' })).toBe(4_000);
    expect(p.sum('responses_gateway_upstream_bytes_total', { direction: 'down' })).toBe(18_000);
    expect(p.sum('responses_gateway_tokens_total', { gen_ai_token_type: 'cached_input' })).toBe(2_000);
    expect(p.sum('responses_gateway_tool_calls_total')).toBe(2);
    expect(p.sum('responses_gateway_events_total')).toBe(31);
    expect(p.sum('responses_gateway_batches_total', { size: '17-64' })).toBe(1);
    expect(p.sum('responses_gateway_replay_bytes_total')).toBe(7_000);
    expect(p.sum('responses_gateway_upstream_breaker', { upstream: 'primary' })).toBe(2);
    expect(p.sum('responses_gateway_pool_idle_links')).toBe(3);

    expect(
      p.histogram('gen_ai_client_inference_duration_seconds', { error_type: 'CHAIN_LOST' }),
    ).toMatchObject({
      count: 1,
      sum: 0.9,
    });
    const first = p.histogram('gen_ai_client_inference_time_to_first_chunk_seconds');
    expect(first).toMatchObject({ count: 2, sum: 0.8 });
    expect(first.buckets).toMatchObject({ '0.32': 0, '0.64': 2, '327.68': 2, '+Inf': 2 });
    expect(p.histogram('gen_ai_client_inference_time_per_output_chunk_seconds').sum).toBeCloseTo(
      2 * (0.4 / 40),
    );
    expect(p.histogram('gen_ai_client_inference_operation_output_tokens')).toMatchObject({
      count: 2,
      sum: 160,
    });
    expect(p.histogram('responses_gateway_backpressure_duration_seconds').sum).toBe(0.25);
    expect(
      p.histogram('responses_gateway_link_duration_seconds', { reason: 'UPSTREAM_LINK_LOST' }).sum,
    ).toBeCloseTo(89.95);

    // What is over is over.
    for (const gauge of ['sessions_active', 'streams_active', 'lanes_active', 'turns_active', 'links']) {
      expect(p.sum(`responses_gateway_${gauge}`), gauge).toBe(0);
    }
  });

  it('counts running work, and forgets a session that ends in the middle of it', async () => {
    const t = await telemetry();
    const session = t.session(start());
    session.fact({ kind: 'laneOpened', laneId: 'a' });
    session.fact({ kind: 'laneOpened', laneId: 'b' });
    session.fact({ kind: 'linkDialing', linkId: 1, purpose: 'session', atMs: AT });
    session.fact({ kind: 'linkUp', linkId: 1, route: ROUTE, atMs: AT });
    session.fact({ kind: 'linkDialing', linkId: 2, purpose: 'lanes', atMs: AT });
    session.fact(accepted({ turnId: 'a', atMs: AT }));
    session.fact({ kind: 'paused', bufferedBytes: 1, atMs: AT });

    const running = await page(t);
    expect(running.sum('responses_gateway_lanes_active')).toBe(2);
    expect(running.sum('responses_gateway_turns_active')).toBe(1);
    expect(running.sum('responses_gateway_sessions_paused')).toBe(1);
    expect(running.sum('responses_gateway_links', { state: 'open', age: 'lt_1m' })).toBe(1);
    expect(running.sum('responses_gateway_links', { state: 'connecting' })).toBe(1);

    session.end('CANCELLED');
    session.end('OK');
    const after = await page(t);
    await t.shutdown();
    for (const gauge of ['lanes_active', 'turns_active', 'sessions_paused', 'links', 'sessions_active']) {
      expect(after.sum(`responses_gateway_${gauge}`), gauge).toBe(0);
    }
    expect(after.histogram('responses_gateway_session_duration_seconds').count).toBe(1);
  });

  it('counts the usage that comes after a cancel, once', async () => {
    const t = await telemetry();
    const session = t.session(start());
    const cancelled = record({
      turnId: 'late',
      acceptedAtMs: AT,
      outcome: 'CANCELLED',
      failed: { error: new GatewayError('TURN_CANCELLED', ''), replay: 'UNSAFE', phase: 'SENT' },
      usage: undefined,
    });
    session.fact(accepted({ turnId: 'late', atMs: AT }));
    session.fact({ kind: 'turnEnded', record: cancelled });
    const usage = {
      inputTokens: 10,
      cachedInputTokens: 0,
      cacheWriteTokens: 0,
      outputTokens: 4,
      reasoningTokens: 0,
    };
    session.fact({ kind: 'lateUsage', turnId: 'late', usage });
    session.fact({ kind: 'lateUsage', turnId: 'late', usage });
    const p = await page(t);
    session.end('OK');
    await t.shutdown();
    expect(p.histogram('gen_ai_client_inference_operation_input_tokens').sum).toBe(10);
    expect(p.sum('responses_gateway_tokens_total', { gen_ai_token_type: 'output' })).toBe(4);
  });

  it('counts every response of a steered turn that was cancelled, and warm-ups', async () => {
    const t = await telemetry();
    const session = t.session(start());
    const usage = {
      inputTokens: 1,
      cachedInputTokens: 0,
      cacheWriteTokens: 0,
      outputTokens: 4,
      reasoningTokens: 0,
    };
    session.fact(accepted({ turnId: 'late', atMs: AT }));
    session.fact({
      kind: 'turnEnded',
      record: record({ turnId: 'late', acceptedAtMs: AT, outcome: 'CANCELLED', usage }),
    });
    for (const responseId of ['r2', 'r3', 'r3'])
      session.fact({ kind: 'lateUsage', turnId: 'late', responseId, usage });
    session.fact({ kind: 'lateUsage', turnId: '', responseId: 'warm', usage });
    const p = await page(t);
    session.end('OK');
    await t.shutdown();
    expect(p.sum('responses_gateway_tokens_total', { gen_ai_token_type: 'output' })).toBe(4 * 4);
  });

  it('tells a breaker per upstream and kind of key, and lets its time run out', async () => {
    const t = await telemetry();
    const tell = (circuit: string, credential: 'own' | 'other', state: 'open' | 'closed', openMs?: number) =>
      t.upstream({ kind: 'breaker', upstream: 'primary', credential, circuit, state, openMs });
    tell('a', 'own', 'open', 0);
    tell('b', 'other', 'open', 60_000);
    tell('c', 'other', 'closed');
    const state = async (credential: string) =>
      (await page(t)).sum('responses_gateway_upstream_breaker', { upstream: 'primary', credential });
    expect([await state('own'), await state('other')]).toEqual([1, 2]);
    tell('b', 'other', 'closed');
    expect([await state('own'), await state('other')]).toEqual([1, 0]);
    await t.shutdown();
  });

  it('adds up what other parts report', async () => {
    const t = await telemetry();
    const read = (): number => 100;
    const remove = t.observe('transcript.bytes', read);
    t.observe('transcript.bytes', read);
    t.observe('draining', () => 1);
    expect((await page(t)).sum('responses_gateway_transcript_bytes')).toBe(200);
    remove();
    const p = await page(t);
    await t.shutdown();
    expect(p.sum('responses_gateway_transcript_bytes')).toBe(100);
    expect(p.sum('responses_gateway_draining')).toBe(1);
  });
});

describe('labels', () => {
  function turnOf(t: GatewayTelemetry, model: string, overrides = {}, tenantId = 'acme'): void {
    const session = t.session(start({ tenantId }));
    session.fact(accepted({ turnId: 'x', atMs: AT, model }));
    session.fact({
      kind: 'turnEnded',
      record: record({
        turnId: 'x',
        acceptedAtMs: AT,
        requestModel: model,
        responseModel: model,
        ...overrides,
      }),
    });
    session.end('OK');
  }
  const TURNS = 'responses_gateway_turns_total';

  it('do not grow with the models that clients make up', async () => {
    const t = await telemetry({ metrics: { maxModels: 3 } });
    for (let i = 0; i < 100; i += 1) turnOf(t, `made-up-${i}`, { outcome: 'FAILED' });
    for (let i = 0; i < 100; i += 1) turnOf(t, `real-${i}`);
    const p = await page(t);
    await t.shutdown();
    expect(new Set(p.labelValues(TURNS, 'gen_ai_request_model'))).toEqual(
      new Set(['real-0', 'real-1', 'real-2', '_OTHER']),
    );
  });

  it('keep to the list of models when there is one', async () => {
    const t = await telemetry({ metrics: { models: ['gpt-5.2'] } });
    turnOf(t, 'gpt-5.2');
    turnOf(t, 'gpt-6');
    const p = await page(t);
    await t.shutdown();
    expect(p.labelValues(TURNS, 'gen_ai_request_model').toSorted()).toEqual(['_OTHER', 'gpt-5.2']);
  });

  it('tell tenants only when told to, and not more than told', async () => {
    const off = await telemetry();
    turnOf(off, 'gpt-5.2', {}, 'tenant-a');
    expect((await page(off)).labelValues(TURNS, 'tenant')).toEqual(['']);
    await off.shutdown();

    const two = await telemetry({ metrics: { maxTenants: 2 } });
    for (const tenant of ['tenant-a', 'tenant-b', 'tenant-c', 'tenant-d']) turnOf(two, 'gpt-5.2', {}, tenant);
    const p = await page(two);
    await two.shutdown();
    expect(p.labelValues(TURNS, 'tenant').toSorted()).toEqual(['', '_OTHER', 'tenant-a', 'tenant-b']);
  });

  it('never hold an id or a text of the request', async () => {
    const t = await telemetry({ metrics: { maxTenants: 5 } });
    useEverything(t);
    const text = await t.metricsText();
    await t.shutdown();
    expect(text).not.toMatch(/session-1|resp_|turn_id|lane_id/);
  });
});

describe('where metrics go', () => {
  it('is an HTTP handler', async () => {
    const t = await telemetry();
    useEverything(t);
    const server = createServer((request, response) => t.metricsHandler(request, response));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const response = await fetch(`http://127.0.0.1:${port}/metrics`);
    const p = new Page(await response.text());
    server.close();
    await t.shutdown();
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toContain('text/plain');
    expect(p.sum('responses_gateway_turns_total')).toBe(2);
  });

  it('is a collector too, with the same names', async () => {
    await using collector = await startCollector();
    const t = await telemetry({ metrics: { exporter: 'otlp-grpc', endpoint: collector.endpoint } });
    useEverything(t);
    await t.flush();
    await t.shutdown();
    const known = new Set<string>(Object.keys(METRICS));
    expect(collector.metricNames.size).toBeGreaterThan(40);
    expect([...collector.metricNames].filter((name) => !known.has(name))).toEqual([]);
  });

  it('is nowhere when they are off', async () => {
    const t = await telemetry({ env: { OTEL_SDK_DISABLED: 'true' } });
    useEverything(t);
    expect(await t.metricsText()).toBe('');
    await t.shutdown();
  });
});
