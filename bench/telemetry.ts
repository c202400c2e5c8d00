/**
 * CPU of the gateway's process for each event it passes on, with telemetry off, with metrics and logs, and with
 * traces to an OTLP collector as well. A whole gateway in a process of its own; clients, simulator and collector are
 * in this one and do not count.
 *
 * Two answers. Processes compared side by side tell everything, and drown in the noise of a busy machine. A CPU
 * profile of the one that traces tells which share of its samples has tracing on the stack; noise falls on all samples
 * alike, so the limit is held against that. It leaves out what cannot be told apart: garbage collection (whose share
 * was no larger with tracing than without), and the socket's write of one export for hundreds of turns.
 *
 * `--json` prints numbers. Exit code 1: tracing costs more than the limit.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { type Profiler, Session } from 'node:inspector/promises';
import { registerHooks } from 'node:module';
import * as grpc from '@grpc/grpc-js';
import { SpanKind, SpanStatusCode, TraceFlags } from '@opentelemetry/api';
import { ProtobufTraceSerializer } from '@opentelemetry/otlp-transformer';
import { resourceFromAttributes } from '@opentelemetry/resources';
import type { ReadableSpan } from '@opentelemetry/sdk-trace';
import { startGateway } from '../src/app/gateway.ts';
import { loadConfig } from '../src/config/load.ts';
import { serviceDefinition } from '../src/grpc/service-definition.ts';
import { startSimulator } from '../src/simulator/index.ts';
import { spanSerializer } from '../src/telemetry/otlp/spans.ts';
import { cpuMicros } from './support/processes.ts';

/** A short answer; `BENCH_DELTAS=200` is one of a few paragraphs, 1 the shortest turn that there is. */
const EVENTS_PER_TURN = Number(process.env.BENCH_DELTAS ?? 50);
const TURNS_PER_ROUND = 160;
const SESSIONS = 4;
// Many and short, so that what else a machine does falls on all alike.
const ROUNDS = 20;
// The exporter runs once a round, and has to be compiled as well.
const WARM_UP_ROUNDS = 10;
const PROFILED_ROUNDS = 20;
const PROFILE_INTERVAL_MICROS = 200;

/** Code that runs only for traces. */
const TRACING =
  /telemetry\/(?:session-spans|tracing|turn-attributes|turn-request|turn-span|otlp\/[\w-]+)\.ts|\/sdk-trace\/|\/otlp-(?:grpc-)?exporter-base\/|\/otlp-transformer\//;
/** What the console remembers, whether it is open or not. */
const HISTORY = /\/src\/history\//;
const SERIALIZER = /telemetry\/otlp\/(?:spans|writer)\.ts/;
/** What tracing may add to the CPU of an event, and of the shortest turn. */
const LIMIT = EVENTS_PER_TURN > 1 ? 1.05 : 1.08;
const BATCH_SPANS = 512;
const BATCHES = 400;
/** Of an event that is not the last of its turn. */
const NO_OUTCOME = 'TURN_OUTCOME_UNSPECIFIED';
const RESOURCE = resourceFromAttributes({ 'service.name': 'responses-gateway' });

const ARMS = {
  off: { OTEL_SDK_DISABLED: 'true', RESPONSES_GATEWAY_TELEMETRY_LOGS_LEVEL: 'silent' },
  'metrics and logs': {},
  'and traces': { OTEL_TRACES_EXPORTER: 'otlp', OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'grpc' },
  "by the SDK's serializer": {
    OTEL_TRACES_EXPORTER: 'otlp',
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'grpc',
    BENCH_SERIALIZER: 'sdk',
  },
} as const satisfies Record<string, Readonly<Record<string, string>>>;
type Arm = keyof typeof ARMS;

if (process.send === undefined) await compare();
else await serve();

async function compare(): Promise<void> {
  const simulator = await startSimulator({ journal: { maxEntries: 1 } });
  const collector = await startSink();
  const arms = await Promise.all(
    Object.entries(ARMS).map(async ([name, environment]) => {
      const child = fork(import.meta.filename, {
        env: {
          PATH: process.env['PATH'],
          ...environment,
          OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'OTEL_TRACES_EXPORTER' in environment ? collector.url : '',
          RESPONSES_GATEWAY_LISTEN: '127.0.0.1:0',
          RESPONSES_GATEWAY_ADMIN_LISTEN: '127.0.0.1:0',
          RESPONSES_GATEWAY_UPSTREAM_URL: simulator.url,
          RESPONSES_GATEWAY_UPSTREAM_ALLOW_PLAINTEXT: 'true',
          // The simulator takes any.
          OPENAI_API_KEY: 'none',
        },
      });
      const [{ port }] = (await once(child, 'message')) as [{ port: number }];
      return { name: name as Arm, child, sessions: openSessions(port), micros: [] as number[] };
    }),
  );
  for (let round = 0; round < WARM_UP_ROUNDS + ROUNDS; round += 1) {
    // Side by side, so that a busy machine is as unfair to one as to the other.
    for (const { child, sessions, micros } of arms) {
      const before = await cpuMicros(child);
      const events = await runTurns(sessions);
      const after = await cpuMicros(child);
      if (round >= WARM_UP_ROUNDS) micros.push((after - before) / events);
    }
  }
  const shares = await profile(arms.find(({ name }) => name === 'and traces'));
  const sdkShares = await profile(arms.find(({ name }) => name === "by the SDK's serializer"));
  for (const { child, sessions } of arms) {
    for (const session of sessions) session.close();
    child.disconnect();
    await once(child, 'exit');
  }
  await simulator.close();
  collector.close();
  report(new Map(arms.map(({ name, micros }) => [name, micros])), { shares, sdkShares }, collector.exports());
}

type Kind = 'serializer' | 'tracing' | 'history' | 'other';

interface Shares {
  /** Of the samples of the process: those that have tracing on the stack. */
  readonly tracing: number;
  /** Of these, those within our serializer. */
  readonly serializer: number;
  /** Those of the history behind the console. */
  readonly history: number;
}

/** By a CPU profile. */
async function profile(
  arm: { readonly child: ChildProcess; readonly sessions: readonly BenchSession[] } | undefined,
): Promise<Shares> {
  if (arm === undefined) throw new Error('nothing traces');
  arm.child.send('profile');
  await once(arm.child, 'message');
  for (let round = 0; round < PROFILED_ROUNDS; round += 1) await runTurns(arm.sessions);
  arm.child.send('share');
  const [shares] = (await once(arm.child, 'message')) as [Shares];
  return shares;
}

interface Profiles {
  readonly shares: Shares;
  readonly sdkShares: Shares;
}

function report(
  results: ReadonlyMap<Arm, readonly number[]>,
  { shares, sdkShares }: Profiles,
  exports: number,
): void {
  const of = (arm: Arm, share = 0.5): number => quantile(results.get(arm) ?? [], share);
  const [off, metrics, traces] = [of('off'), of('metrics and logs'), of('and traces')];
  const tracing = 1 / (1 - shares.tracing);
  const serializers = compareSerializers();
  const withSdk = 1 / (1 - sdkShares.tracing);
  if (process.argv.includes('--json')) {
    const rounds = Object.fromEntries(results);
    console.log(
      JSON.stringify({
        off,
        metrics,
        traces,
        tracing,
        history: shares.history,
        withSdk,
        serializers,
        exports,
        rounds,
      }),
    );
  } else {
    console.log(
      `µs of CPU an event, ${EVENTS_PER_TURN} deltas a turn, median of ${ROUNDS} rounds (quartiles)`,
    );
    for (const arm of results.keys()) {
      const [low, middle, high] = [0.25, 0.5, 0.75].map((at) => of(arm, at).toFixed(2));
      console.log(`  ${arm.padEnd(25)}${middle}  (${low} to ${high})`);
    }
    console.log(
      `tracing on against off, by profile: × ${tracing.toFixed(3)}, limit ${LIMIT}; ${exports} exports`,
    );
    console.log(`history behind the console, by profile: ${(100 * shares.history).toFixed(2)} %`);
    console.log(
      `with the SDK's serializer, by profile: × ${withSdk.toFixed(3)}; in a loop it takes ${serializers.sdk.toFixed(2)} µs a span, ours ${serializers.ours.toFixed(2)}`,
    );
  }
  if (exports === 0 || tracing > LIMIT) process.exitCode = 1;
}

function quantile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? Number.NaN;
}

/** The gateway under test. */
async function serve(): Promise<void> {
  if (process.env['BENCH_SERIALIZER'] === 'sdk') {
    const sdk = new URL('./support/sdk-serializer.ts', import.meta.url).href;
    registerHooks({
      resolve: (specifier, context, next) =>
        specifier === './spans.ts' && context.parentURL?.endsWith('/otlp/span-exporter.ts') === true
          ? next(sdk)
          : next(specifier, context),
    });
  }
  const { config } = loadConfig({ file: undefined, environment: process.env, flags: [] });
  const gateway = await startGateway(config, {
    environment: process.env,
    version: '0.0.0',
    logDestination: { write: () => {} },
  });
  const inspector = new Session();
  inspector.connect();
  process.on('message', async (asked) => {
    // What waits for its batch belongs to the events that caused it.
    await gateway.telemetry.flush();
    if (asked === 'cpu') {
      const { user, system } = process.cpuUsage();
      process.send?.({ micros: user + system });
    } else if (asked === 'profile') {
      await inspector.post('Profiler.enable');
      await inspector.post('Profiler.setSamplingInterval', { interval: PROFILE_INTERVAL_MICROS });
      await inspector.post('Profiler.start');
      process.send?.({});
    } else {
      process.send?.(sharesOf((await inspector.post('Profiler.stop')).profile));
    }
  });
  process.on('disconnect', () => void gateway.close());
  process.send?.({ port: gateway.grpcPort });
}

function sharesOf({ nodes, samples = [], timeDeltas = [] }: Profiler.Profile): Shares {
  const kinds = new Map<number, 'idle' | Kind>();
  // Parents come before their children, so what is under tracing is known when the child is reached.
  const visit = (node: Profiler.ProfileNode, under: Kind): void => {
    const { url, functionName } = node.callFrame;
    const kind = kindOf(url, under);
    kinds.set(node.id, functionName === '(idle)' ? 'idle' : kind);
    for (const id of node.children ?? []) {
      const child = byId.get(id);
      if (child !== undefined) visit(child, kind);
    }
  };
  const byId = new Map(nodes.map((node) => [node.id, node]));
  if (nodes[0] !== undefined) visit(nodes[0], 'other');
  const spent = { idle: 0, serializer: 0, tracing: 0, history: 0, other: 0 };
  samples.forEach((id, at) => {
    spent[kinds.get(id) ?? 'other'] += timeDeltas[at] ?? 0;
  });
  const all = spent.serializer + spent.tracing + spent.history + spent.other;
  return {
    tracing: (spent.serializer + spent.tracing) / all,
    serializer: spent.serializer / all,
    history: spent.history / all,
  };
}

function kindOf(url: string, under: Kind): Kind {
  if (under !== 'other' && under !== 'tracing') return under;
  if (SERIALIZER.test(url)) return 'serializer';
  if (under === 'tracing' || TRACING.test(url)) return 'tracing';
  return HISTORY.test(url) ? 'history' : 'other';
}

/** Batches as the processor hands them over: spans of turns with what each says of itself. */
function compareSerializers(): { readonly ours: number; readonly sdk: number } {
  const spans = Array.from({ length: BATCH_SPANS }, (_, index) => spanOf(index));
  const micros = { ours: Number.POSITIVE_INFINITY, sdk: Number.POSITIVE_INFINITY };
  const serializers = { ours: spanSerializer, sdk: ProtobufTraceSerializer };
  for (let batch = 0; batch < BATCHES; batch += 1) {
    for (const name of ['ours', 'sdk'] as const) {
      const before = performance.now();
      serializers[name].serializeRequest(spans);
      micros[name] = Math.min(micros[name], ((performance.now() - before) * 1_000) / BATCH_SPANS);
    }
  }
  return micros;
}

function spanOf(index: number): ReadableSpan {
  const spanContext = {
    traceId: index.toString(16).padStart(32, 'a'),
    spanId: index.toString(16).padStart(16, 'b'),
    traceFlags: TraceFlags.SAMPLED,
  };
  return {
    name: 'chat gpt-6',
    kind: SpanKind.CLIENT,
    spanContext: () => spanContext,
    startTime: [1_790_000_000, index],
    endTime: [1_790_000_001, index],
    status: { code: SpanStatusCode.UNSET },
    attributes: {
      'gen_ai.operation.name': 'chat',
      'gen_ai.request.stream': true,
      'openai.api.type': 'responses',
      'gen_ai.conversation.id': `ses_${index}`,
      'gateway.turn.id': `turn-${index}`,
      'gen_ai.request.model': 'gpt-6',
      'gen_ai.response.model': 'gpt-6-2026-09-01',
      'gen_ai.response.id': `resp_${index}`,
      'gen_ai.response.finish_reasons': ['stop'],
      'gen_ai.provider.name': 'openai',
      'server.address': 'api.openai.com',
      'server.port': 443,
      'gen_ai.usage.input_tokens': 1_000 + index,
      'gen_ai.usage.output_tokens': 100,
      'gen_ai.usage.cache_read.input_tokens': 900,
      'gen_ai.usage.reasoning.output_tokens': 10,
      'gen_ai.response.time_to_first_chunk': 0.4,
      'gateway.queue.duration': 0.001,
      'gateway.upstream.duration': 0.9,
      'gateway.bytes.up': 2_000,
      'gateway.bytes.down': 9_000,
    },
    links: [{ context: spanContext }],
    events: [{ name: 'first token', time: [1_790_000_000, index] }],
    duration: [1, 0],
    ended: true,
    resource: RESOURCE,
    instrumentationScope: { name: 'responses-gateway', version: '0.1.0' },
    droppedAttributesCount: 0,
    droppedEventsCount: 0,
    droppedLinksCount: 0,
  };
}

interface BenchSession {
  /** Runs one turn; resolves with the number of its events. */
  turn(): Promise<number>;
  close(): void;
}

async function runTurns(sessions: readonly BenchSession[]): Promise<number> {
  const counts = await Promise.all(
    sessions.map(async (session) => {
      let events = 0;
      for (let turn = 0; turn < TURNS_PER_ROUND / SESSIONS; turn += 1) events += await session.turn();
      return events;
    }),
  );
  return counts.reduce((total, count) => total + count, 0);
}

function openSessions(port: number): BenchSession[] {
  const definition = serviceDefinition('responses.gateway.v1.ResponsesService');
  const Client = grpc.makeClientConstructor(definition, 'ResponsesService');
  const client = new Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  return Array.from({ length: SESSIONS }, (_, index) => openSession(client, `s${index}`));
}

function openSession(client: grpc.Client, name: string): BenchSession {
  const call = (
    client as unknown as { Connect(): grpc.ClientDuplexStream<object, { events?: { events: BenchEvent[] } }> }
  ).Connect();
  let events = 0;
  let turns = 0;
  let ended: ((events: number) => void) | undefined;
  call.on('error', () => {});
  call.on('data', ({ events: batch }) => {
    for (const event of batch?.events ?? []) {
      events += 1;
      if (event.outcome !== NO_OUTCOME) ended?.(events);
    }
  });
  call.write({ open: {} });
  return {
    turn: () =>
      new Promise((resolve) => {
        events = 0;
        ended = resolve;
        turns += 1;
        const text = `hello #deltas=${EVENTS_PER_TURN}`;
        const input = [{ message: { role: 'user', content: [{ input_text: { text } }] } }];
        call.write({
          start_turn: {
            turn_id: `${name}-${turns}`,
            new_conversation: {},
            create: { model: 'gpt-6', input },
          },
        });
      }),
    close: () => call.cancel(),
  };
}

interface BenchEvent {
  readonly outcome: string;
}

/** A collector that takes everything and reads nothing. */
async function startSink() {
  let exports = 0;
  const server = new grpc.Server();
  server.addService(
    {
      Export: {
        path: '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
        requestStream: false,
        responseStream: false,
        requestSerialize: (value: Buffer) => value,
        requestDeserialize: (value: Buffer) => value,
        responseSerialize: (value: Buffer) => value,
        responseDeserialize: (value: Buffer) => value,
      },
    },
    {
      Export(_: unknown, done: grpc.sendUnaryData<Buffer>) {
        exports += 1;
        done(null, Buffer.alloc(0));
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  return { url: `http://127.0.0.1:${port}`, exports: () => exports, close: () => server.forceShutdown() };
}
