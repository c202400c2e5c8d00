import { describe, expect, it } from 'vitest';
import { parseTelemetryOptions, type TelemetryOptions } from '../../src/telemetry/options.ts';
import { createTelemetry } from '../../src/telemetry/telemetry.ts';
import { start } from './facts.ts';

const parse = (env: Record<string, string>, options: TelemetryOptions = {}) =>
  parseTelemetryOptions({ ...options, env });

describe('where things go', () => {
  it.each([
    ['nothing is set', {}, {}, 'off'],
    ['the file says so', {}, { traces: { exporter: 'otlp-grpc' } }, 'otlp-grpc'],
    ['there is an endpoint', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318' }, {}, 'otlp-http'],
    [
      'there is an endpoint of its own and a protocol',
      { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://c:4317', OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' },
      {},
      'otlp-grpc',
    ],
    [
      'the protocol is of this signal',
      {
        OTEL_TRACES_EXPORTER: 'otlp',
        OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf',
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'grpc',
      },
      {},
      'otlp-grpc',
    ],
    [
      'the environment says none',
      { OTEL_TRACES_EXPORTER: 'none' },
      { traces: { exporter: 'otlp-grpc' } },
      'off',
    ],
    ['the environment says console', { OTEL_TRACES_EXPORTER: 'console' }, {}, 'console'],
    ['a variable is empty', { OTEL_TRACES_EXPORTER: ' ' }, { traces: { exporter: 'console' } }, 'console'],
    ['all is off', { OTEL_SDK_DISABLED: 'TRUE', OTEL_TRACES_EXPORTER: 'otlp' }, {}, 'off'],
  ] as const)('traces, when %s', (_, env, options, exporter) => {
    expect(parse(env, options).traces.exporter).toBe(exporter);
  });

  it.each([
    [{}, true, 'off'],
    [{ OTEL_METRICS_EXPORTER: 'otlp' }, true, 'otlp-http'],
    [{ OTEL_METRICS_EXPORTER: 'prometheus' }, true, 'off'],
    [{ OTEL_METRICS_EXPORTER: 'none' }, false, 'off'],
    [{ OTEL_SDK_DISABLED: 'true' }, false, 'off'],
  ] as const)('metrics, with %o', (env, prometheus, exporter) => {
    expect(parse(env).metrics).toMatchObject({ prometheus, exporter });
  });

  it('leaves the endpoint to the exporter when the environment has one', () => {
    const options = { traces: { endpoint: 'http://file:4317' } };
    expect(parse({}, options).traces.endpoint).toBe('http://file:4317');
    expect(
      parse({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://env:4317' }, options).traces.endpoint,
    ).toBeUndefined();
  });
});

describe('standard variables', () => {
  it('set sampler, batches, limits and intervals', () => {
    const { traces, metrics, serviceName } = parse({
      OTEL_SERVICE_NAME: 'edge',
      OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
      OTEL_TRACES_SAMPLER_ARG: '0.25',
      OTEL_BSP_SCHEDULE_DELAY: '1000',
      OTEL_BSP_MAX_QUEUE_SIZE: '4096',
      OTEL_BSP_MAX_EXPORT_BATCH_SIZE: '256',
      OTEL_BSP_EXPORT_TIMEOUT: '9000',
      OTEL_ATTRIBUTE_COUNT_LIMIT: '64',
      OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT: '100',
      OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT: '200',
      OTEL_SPAN_EVENT_COUNT_LIMIT: '10',
      OTEL_METRIC_EXPORT_INTERVAL: '15000',
    });
    expect(serviceName).toBe('edge');
    expect(traces.sampler).toEqual({ parentBased: true, ratio: 0.25, trustCaller: false });
    expect(traces.batch).toEqual({
      scheduledDelayMillis: 1_000,
      maxQueueSize: 4_096,
      maxExportBatchSize: 256,
      exportTimeoutMillis: 9_000,
    });
    expect(traces.limits).toMatchObject({
      attributeCountLimit: 64,
      attributeValueLengthLimit: 200,
      eventCountLimit: 10,
    });
    expect(metrics.intervalMs).toBe(15_000);
  });

  it.each([
    ['always_on', { parentBased: false, ratio: 1 }],
    ['always_off', { parentBased: false, ratio: 0 }],
    ['traceidratio', { parentBased: false, ratio: 0.5 }],
    ['parentbased_always_on', { parentBased: true, ratio: 1 }],
    ['parentbased_always_off', { parentBased: true, ratio: 0 }],
  ])('choose the sampler %s', (name, expected) => {
    const env = { OTEL_TRACES_SAMPLER: name, OTEL_TRACES_SAMPLER_ARG: '0.5' };
    expect(parse(env, { traces: { sampleRatio: 0.1 } }).traces.sampler).toMatchObject(expected);
  });

  it('that are not understood are told and do no harm', () => {
    const { complaints, traces } = parse({
      OTEL_TRACES_SAMPLER: 'coin',
      OTEL_BSP_MAX_QUEUE_SIZE: '-5',
      OTEL_PROPAGATORS: 'tracecontext,jaeger',
      OTEL_TRACES_EXPORTER: 'zipkin',
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
    });
    expect(complaints).toHaveLength(4);
    expect(complaints.join('\n')).toContain(
      'OTEL_BSP_MAX_QUEUE_SIZE: found "-5"; allowed: a positive whole number',
    );
    expect(traces).toMatchObject({ exporter: 'off', sampler: { ratio: 1 }, batch: { maxQueueSize: 2_048 } });
  });

  it('can refuse the callers’ contexts', async () => {
    const lines: string[] = [];
    const t = await createTelemetry({
      env: { OTEL_PROPAGATORS: 'none' },
      logs: { destination: { write: (line) => void lines.push(line) } },
    });
    const traceId = '0af7651916cd43dd8448eb211c80319c';
    const session = t.session(start({ traceContext: { traceparent: `00-${traceId}-b7ad6b7169203331-01` } }));
    session.end('OK');
    await t.shutdown();
    expect(lines).toHaveLength(1);
    expect(lines.join()).not.toContain(traceId);
  });
});

describe('a collector that cannot be reached as it is written', () => {
  const complaints = (
    env: Record<string, string>,
    traces?: { exporter: 'otlp-grpc' | 'otlp-http'; endpoint: string },
  ) => parseTelemetryOptions({ env, traces }).complaints;
  const ENDPOINT = 'OTEL_EXPORTER_OTLP_ENDPOINT';
  const PROTOCOL = 'OTEL_EXPORTER_OTLP_PROTOCOL';

  it.each([
    [
      'a gRPC port over HTTP',
      { [ENDPOINT]: 'http://c:4317' },
      /^OTEL_EXPORTER_OTLP_ENDPOINT: .*4317.*PROTOCOL=grpc/,
    ],
    [
      'an HTTP port over gRPC',
      { [ENDPOINT]: 'http://c:4318', [PROTOCOL]: 'grpc' },
      /PROTOCOL=http\/protobuf/,
    ],
    ['no scheme', { [ENDPOINT]: 'c:4318' }, /^OTEL_EXPORTER_OTLP_ENDPOINT: found "c:4318", without http/],
    ['no scheme, gRPC', { [ENDPOINT]: 'localhost:4317', [PROTOCOL]: 'grpc' }, /takes for TLS/],
    ['a path over gRPC', { [ENDPOINT]: 'http://c:4317/v1/traces', [PROTOCOL]: 'grpc' }, /with a path/],
    [
      'a base URL for one signal',
      { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://c:4318' },
      /^OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: .*http:\/\/c:4318\/v1\/traces$/,
    ],
  ])('%s is told once, with the variable', (_, env, sentence) => {
    expect(complaints(env)).toEqual([expect.stringMatching(sentence)]);
  });

  it.each([
    'http://someone:s3cret@c:4317',
    'someone:s3cret@c:4317',
    'http://someone:s3cret@c:port',
    'http://someone:s3/cret@c:4317',
  ])('%s is told without its password', (endpoint) => {
    const [sentence] = complaints({ [ENDPOINT]: endpoint });
    expect(sentence).toContain('***@c');
    expect(sentence).not.toMatch(/someone|s3|cret/);
  });

  it('the configuration’s own endpoint is told by its name', () => {
    expect(complaints({}, { exporter: 'otlp-http', endpoint: 'http://c:4317' })).toEqual([
      expect.stringMatching(/^telemetry\.traces\.endpoint: /),
    ]);
  });

  it.each([
    { [ENDPOINT]: 'http://c:4318' },
    { [ENDPOINT]: 'https://otlp.example' },
    { [ENDPOINT]: 'https://otlp.example/prefix' },
    { [ENDPOINT]: 'http://c:4317', [PROTOCOL]: 'grpc' },
    { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://c:4318/v1/traces' },
    { [ENDPOINT]: 'c:4317', OTEL_SDK_DISABLED: 'true' },
    {
      [ENDPOINT]: 'c:4317',
      OTEL_TRACES_EXPORTER: 'none',
      OTEL_METRICS_EXPORTER: 'prometheus',
      OTEL_LOGS_EXPORTER: 'none',
    },
  ])('%j is fine', (env) => {
    expect(complaints(env)).toEqual([]);
  });
});
