import * as registry from '@opentelemetry/semantic-conventions/incubating';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { StartTurn } from '../../src/core/types.ts';
import { GatewayError } from '../../src/errors.ts';
import {
  ATTR,
  attributeVersion,
  EXCEPTION_EVENT,
  type GenAiSemconv,
} from '../../src/telemetry/genai-names.ts';
import { METRICS, type MetricFacts } from '../../src/telemetry/metrics-table.ts';
import type { TelemetryOptions } from '../../src/telemetry/options.ts';
import { createTelemetry } from '../../src/telemetry/telemetry.ts';
import { type Collector, startCollector } from './collector.ts';
import { accepted, ROUTE, record, start } from './facts.ts';

const published = (prefix: string): ReadonlySet<unknown> =>
  new Set(
    Object.entries(registry)
      .filter(([name]) => name.startsWith(prefix))
      .map(([, value]) => value),
  );

/** What came with v0.1.0 of the GenAI conventions, of which no npm package has the registry. */
const ONLY_IN_GENAI_REPOSITORY = {
  metrics: [
    'gen_ai.client.inference.duration',
    'gen_ai.client.inference.operation.input_tokens',
    'gen_ai.client.inference.operation.output_tokens',
    'gen_ai.client.inference.time_per_output_chunk',
    'gen_ai.client.inference.time_to_first_chunk',
    'gen_ai.client.inference.usage.cache_read.input_tokens',
    'gen_ai.client.inference.usage.cache_write.input_tokens',
    'gen_ai.client.inference.usage.input_tokens',
    'gen_ai.client.inference.usage.output_tokens',
    'gen_ai.client.inference.usage.reasoning.output_tokens',
  ],
  attributes: [
    'gen_ai.conversation.compacted',
    'gen_ai.prompt.version',
    'gen_ai.request.previous_response.id',
    'gen_ai.request.reasoning.level',
    'gen_ai.token.modality',
    'gen_ai.usage.cache_write.input_tokens',
  ],
};

describe('names of the published registry', () => {
  const isConvention = (name: string): boolean => !name.startsWith('responses_gateway.');

  it('are those of the metrics table', () => {
    const names = Object.keys(METRICS).filter(isConvention);
    const unknown = names.filter((name) => !published('METRIC_').has(name));
    expect(unknown.toSorted()).toEqual(ONLY_IN_GENAI_REPOSITORY.metrics);
  });

  it('are those of attributes', () => {
    const unknown = Object.values(ATTR).filter((name) => !published('ATTR_').has(name));
    expect(unknown.toSorted()).toEqual(ONLY_IN_GENAI_REPOSITORY.attributes);
    for (const name of unknown) expect(attributeVersion(name), name).toBe('0.1.0');
  });

  it("are those of labels of metrics that are not the gateway's own", () => {
    const labels = Object.entries<MetricFacts>(METRICS)
      .filter(([name]) => isConvention(name))
      .flatMap(([, facts]) => facts.labels);
    const known = new Set([...published('ATTR_'), ...ONLY_IN_GENAI_REPOSITORY.attributes]);
    expect([...new Set(labels)].filter((label) => !known.has(label))).toEqual([]);
  });

  it('are those of events', () => {
    expect(published('EVENT_')).toContain(EXCEPTION_EVENT['1.41']);
  });
});

let collector: Collector;
beforeEach(async () => {
  collector = await startCollector();
});
afterEach(() => collector.close());

const REQUEST: StartTurn = {
  kind: 'startTurn',
  laneId: '',
  turnId: 'first',
  create: {
    fields: new Map([
      ['model', '"gpt-5.2"'],
      ['max_output_tokens', '400'],
      ['temperature', '0.2'],
      ['top_p', '0.9'],
      ['service_tier', '"flex"'],
      ['reasoning', '{"effort":"high","summary":"auto"}'],
      ['text', '{"format":{"type":"json_schema","name":"x","schema":{}}}'],
      ['prompt', '{"id":"pmpt_1","version":"7","variables":{"secret":"canary"}}'],
    ]),
    input: ['{"type":"compaction","encrypted_content":"canary"}', '{"role":"user","content":"canary"}'],
    previousResponseId: undefined,
    model: 'gpt-5.2',
    store: true,
    generate: true,
    usesConversation: false,
  },
  chain: { kind: 'newConversation' },
  inputMode: 'incremental',
  timeoutMs: undefined,
  waitOnRateLimit: false,
  traceContext: undefined,
};

/** Two turns of a lane, and one that fails. */
async function conversation(options: TelemetryOptions): Promise<void> {
  const t = await createTelemetry({
    logs: { exporter: 'otlp-grpc', endpoint: collector.endpoint, destination: { write: () => {} } },
    env: {},
    ...options,
    traces: { exporter: 'otlp-grpc', endpoint: collector.endpoint },
  });
  const session = t.session(start());
  const at = Date.now();
  const turns: readonly [StartTurn, Partial<Parameters<typeof record>[0]>][] = [
    [REQUEST, {}],
    [{ ...REQUEST, turnId: 'second', chain: { kind: 'automatic' }, create: PLAIN }, {}],
    [
      { ...REQUEST, turnId: 'third', chain: { kind: 'from', responseId: 'resp_named' }, create: PLAIN },
      FAILURE,
    ],
  ];
  session.fact({ kind: 'linkUp', linkId: 1, route: ROUTE, atMs: at });
  for (const [turn, end] of turns) {
    const { turnId } = turn;
    session.turn?.(turn);
    session.fact(accepted({ turnId, atMs: at }));
    session.fact({ kind: 'turnSent', turnId, linkId: 1, atMs: at });
    session.fact({ kind: 'turnEnded', record: record({ turnId, acceptedAtMs: at, ...end }) });
  }
  session.end('OK');
  await t.shutdown();
}

const PLAIN = { ...REQUEST.create, fields: new Map([['model', '"gpt-5.2"']]), input: [] };
const FAILURE = {
  outcome: 'FAILED',
  failed: {
    error: new GatewayError('UPSTREAM_RATE_LIMITED', 'canary: what the upstream said'),
    replay: 'SAFE',
    phase: 'SENT',
  },
  finishReason: undefined,
  responseId: undefined,
} as const;

const spanOf = (turnId: string) =>
  collector.spans.find(({ attributes }) => attributes['gateway.turn.id'] === turnId)?.attributes ?? {};

describe('the GenAI conventions 0.1.0', () => {
  it('are the default: what a turn asked for is on its span', async () => {
    await conversation({});
    expect(collector.schemaUrls).toEqual(new Set(['https://opentelemetry.io/schemas/gen-ai/0.1.0']));
    expect(spanOf('first')).toMatchObject({
      'gen_ai.request.max_tokens': 400,
      'gen_ai.request.temperature': 0.2,
      'gen_ai.request.top_p': 0.9,
      'gen_ai.request.reasoning.level': 'high',
      'gen_ai.output.type': 'json',
      'gen_ai.prompt.name': 'pmpt_1',
      'gen_ai.prompt.version': '7',
      'openai.request.service_tier': 'flex',
      'gen_ai.conversation.compacted': true,
      'gen_ai.usage.cache_write.input_tokens': 100,
    });
    expect(spanOf('first')).not.toHaveProperty(['gen_ai.request.previous_response.id']);
    expect(spanOf('second')).toMatchObject({ 'gen_ai.request.previous_response.id': 'resp_first' });
    expect(spanOf('second')).not.toHaveProperty(['gen_ai.conversation.compacted']);
    expect(spanOf('third')).toMatchObject({ 'gen_ai.request.previous_response.id': 'resp_named' });
    expect(collector.dump()).not.toContain('canary');
  });

  it('tell a failed turn by a log record beside its span', async () => {
    await conversation({});
    const events = collector.logs.filter(({ eventName }) => eventName !== '');
    const span = collector.spans.find(({ attributes }) => attributes['gateway.turn.id'] === 'third');
    expect(events).toEqual([
      {
        eventName: 'gen_ai.client.inference.exception',
        severity: 'WARN',
        body: undefined,
        traceId: span?.traceId,
        spanId: span?.spanId,
        attributes: expect.objectContaining({
          'error.type': 'UPSTREAM_RATE_LIMITED',
          'exception.type': 'UPSTREAM_RATE_LIMITED',
          'gen_ai.request.model': 'gpt-5.2',
          'gen_ai.provider.name': 'openai',
        }),
      },
    ]);
  });

  it('come with the lines of the log, each with its span', async () => {
    await conversation({});
    const lines = collector.logs.filter(({ body }) => body === 'turn ended');
    expect(lines.map(({ attributes }) => attributes['turn_id'])).toEqual(['first', 'second', 'third']);
    const span = collector.spans.find(({ attributes }) => attributes['gateway.turn.id'] === 'first');
    expect(lines[0]).toMatchObject({ severity: 'INFO', traceId: span?.traceId, spanId: span?.spanId });
  });

  it.each<[string, GenAiSemconv | undefined, string | undefined, string[], readonly string[]]>([
    ['1.41', '1.41', undefined, ['cache_creation'], ['gen_ai.client.operation.exception']],
    [
      'both',
      'both',
      undefined,
      ['cache_creation', 'cache_write'],
      ['gen_ai.client.inference.exception', 'gen_ai.client.operation.exception'],
    ],
    [
      '0.1.0 where the environment asks for the latest',
      '1.41',
      'http/dup,gen_ai_latest_experimental',
      ['cache_write'],
      ['gen_ai.client.inference.exception'],
    ],
  ])('give way to %s', async (_, genaiSemconv, optIn, cacheNames, eventNames) => {
    await conversation({
      genaiSemconv,
      env: optIn === undefined ? {} : { OTEL_SEMCONV_STABILITY_OPT_IN: optIn },
    });
    const names = Object.keys(spanOf('first'));
    for (const name of ['cache_creation', 'cache_write']) {
      expect(names.includes(`gen_ai.usage.${name}.input_tokens`), name).toBe(cacheNames.includes(name));
    }
    expect(names.includes('gen_ai.request.reasoning.level')).toBe(cacheNames.includes('cache_write'));
    expect(collector.logs.map(({ eventName }) => eventName).filter((name) => name !== '')).toEqual(
      eventNames,
    );
  });
});
