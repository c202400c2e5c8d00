import type { TurnOutcome } from '../core/types.ts';
import { type GenAiVersion, METRIC, MODALITY_UNKNOWN, OPERATION_CHAT } from './genai-names.ts';
import { OTHER } from './labels.ts';
import type { PrometheusType } from './prometheus-names.ts';
import { type FromStart, failovers, failures, refusals } from './start-labels.ts';

/** `observed*` instruments are read when metrics are collected and cost nothing before. */
export type MetricKind =
  | 'counter'
  | 'upDown'
  | 'histogram'
  | 'observedCounter'
  | 'observedUpDown'
  | 'observedGauge';

export interface MetricFacts {
  readonly kind: MetricKind;
  readonly unit: string;
  readonly description: string;
  readonly labels: readonly string[];
  readonly boundaries?: readonly number[];
  /**
   * What a counter's labels can be, for its series to be there from the start, at 0: a rate over a series that is born
   * with its first count misses that count. Labels that the configuration knows need not be named.
   */
  readonly fromStart?: FromStart;
  /** How the values of several worker processes become one. Default: their sum. */
  readonly merge?: 'max';
  /** The only version of the GenAI conventions that has it. Default: it is always there. */
  readonly semconv?: GenAiVersion;
  /** What to watch for; printed in docs/metrics.md. */
  readonly alert?: string;
}

// The conventions end at 81.92 s; long reasoning turns need the two above.
const GENAI_SECONDS = [
  0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68,
];
const GENAI_TOKENS = [
  1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
];
const RPC_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
// From a health check's call to a working day.
const LIFETIME_SECONDS = [1, 10, 60, 300, 900, 1800, 3600, 7200, 14400, 28800];
// What the gateway itself takes: fractions of a millisecond up to a slow dial.
// From a short turn on an idle machine to a full history on a busy one.
const ADDED_SECONDS = [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];
const SHORT_SECONDS = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
];

const GENAI_LABELS = [
  'gen_ai.operation.name',
  'gen_ai.provider.name',
  'gen_ai.request.model',
  'gen_ai.response.model',
  'server.address',
  'server.port',
];
const GENAI_OUTCOME_LABELS = [...GENAI_LABELS, 'error.type'];
const TURN_LABELS = ['gen_ai.provider.name', 'gen_ai.request.model'];
const OUTCOMES = Object.keys({
  COMPLETED: true,
  INCOMPLETE: true,
  FAILED: true,
  CANCELLED: true,
  DEADLINE_EXCEEDED: true,
} satisfies Record<TurnOutcome, true>);
const REPLAY_REASONS = ['link_lost', 'connection_limit', 'max_age', 'not_cached', 'taken_over', 'warm_up'];

const genAi = {
  duration: {
    kind: 'histogram',
    unit: 's',
    description: 'From the acceptance of a turn to its outcome, recovery included.',
    labels: GENAI_OUTCOME_LABELS,
    boundaries: GENAI_SECONDS,
    alert:
      'p95 over your own limit: compare with the queue and upstream durations to see where the time goes.',
  },
  timeToFirstChunk: {
    kind: 'histogram',
    unit: 's',
    description: 'From the acceptance of a turn to its first output.',
    labels: GENAI_LABELS,
    boundaries: GENAI_SECONDS,
    alert: 'p95 over your own limit.',
  },
  timePerOutputChunk: {
    kind: 'histogram',
    unit: 's',
    description: 'Mean time between the output events of a turn, one value a turn.',
    labels: GENAI_LABELS,
    boundaries: GENAI_SECONDS,
  },
} as const satisfies Record<string, MetricFacts>;

function tokensOfTurn(which: string) {
  return {
    kind: 'histogram',
    unit: '{token}',
    description: `${which} tokens of each turn, for percentiles; the counters are for totals.`,
    labels: GENAI_LABELS,
    boundaries: GENAI_TOKENS,
    semconv: '0.1.0',
  } as const satisfies MetricFacts;
}

function tokensInAll(description: string) {
  return {
    kind: 'counter',
    unit: '{token}',
    description,
    labels: [...GENAI_LABELS, 'gen_ai.token.modality'],
    fromStart: { 'gen_ai.operation.name': [OPERATION_CHAT], 'gen_ai.token.modality': [MODALITY_UNKNOWN] },
    semconv: '0.1.0',
  } as const satisfies MetricFacts;
}

/** Every metric the gateway has, by its OpenTelemetry name. docs/metrics.md is made of this. */
export const METRICS = {
  [METRIC.duration]: { ...genAi.duration, semconv: '0.1.0' },
  [METRIC.timeToFirstChunk]: { ...genAi.timeToFirstChunk, semconv: '0.1.0' },
  [METRIC.timePerOutputChunk]: { ...genAi.timePerOutputChunk, semconv: '0.1.0' },
  [METRIC.inputTokens]: tokensOfTurn('Input'),
  [METRIC.outputTokens]: tokensOfTurn('Output'),
  [METRIC.inputUsage]: tokensInAll(
    'Input tokens as the upstream billed them, those from its cache included.',
  ),
  [METRIC.outputUsage]: tokensInAll('Output tokens as the upstream billed them, reasoning included.'),
  [METRIC.cacheReadUsage]: tokensInAll("Input tokens from the upstream's cache; a part of input."),
  [METRIC.cacheWriteUsage]: tokensInAll("Input tokens written to the upstream's cache; a part of input."),
  [METRIC.reasoningUsage]: tokensInAll('Output tokens of reasoning; a part of output.'),
  [METRIC.tokenUsage]: {
    kind: 'histogram',
    unit: '{token}',
    description:
      'Tokens of a turn as the upstream billed them; input includes cached, output includes reasoning.',
    labels: [...GENAI_LABELS, 'gen_ai.token.type'],
    boundaries: GENAI_TOKENS,
    semconv: '1.41',
  },
  [METRIC.operationDuration]: { ...genAi.duration, semconv: '1.41' },
  [METRIC.operationTimeToFirstChunk]: { ...genAi.timeToFirstChunk, semconv: '1.41' },
  [METRIC.operationTimePerOutputChunk]: { ...genAi.timePerOutputChunk, semconv: '1.41' },

  'rpc.server.call.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'gRPC calls as the server sees them; a session stream counts with its whole life.',
    labels: ['rpc.system.name', 'rpc.method', 'rpc.status_code', 'error.type'],
    boundaries: RPC_SECONDS,
    alert: 'A share of INTERNAL, UNAVAILABLE or UNAUTHENTICATED over 1 % for 5 minutes.',
  },

  'responses_gateway.sessions.active': {
    kind: 'upDown',
    unit: '{session}',
    description: 'Sessions that exist, with or without a client attached.',
    labels: [],
    alert: 'Over 80 % of the configured limit: add replicas. The HPA scales on it.',
  },
  'responses_gateway.session.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'Life of sessions, told at their end.',
    labels: ['rpc.status_code'],
    boundaries: LIFETIME_SECONDS,
  },
  'responses_gateway.streams.active': {
    kind: 'upDown',
    unit: '{stream}',
    description: 'Client streams attached to sessions.',
    labels: [],
  },
  'responses_gateway.stream.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'Life of client streams, told at their end.',
    labels: ['rpc.status_code'],
    boundaries: LIFETIME_SECONDS,
  },
  'responses_gateway.resumes.held_back': {
    kind: 'counter',
    unit: '{resume}',
    description:
      'Resumes of clients that come back again and again, and nothing comes of it: `slowed`, or `refused` after as many streams that ended in the middle of a message as `session.max_cut_streams` says.',
    labels: ['result'],
    fromStart: { result: ['slowed', 'refused'] },
    alert:
      'Any `refused`: a proxy on the way does not carry large messages, or a client ignores MESSAGE_TOO_LARGE.',
  },
  'responses_gateway.resumes': {
    kind: 'counter',
    unit: '{resume}',
    description: 'Clients that came back to a session: RESUMED without loss, PARTIAL, or GONE.',
    labels: ['outcome'],
    fromStart: { outcome: ['RESUMED', 'RECOVERED', 'PARTIAL', 'GONE'] },
    alert: 'A share of PARTIAL and GONE over 5 %: raise the grace time or the resume buffer.',
  },
  'responses_gateway.lanes.active': {
    kind: 'upDown',
    unit: '{lane}',
    description: 'Lanes that exist in all sessions.',
    labels: [],
  },
  'responses_gateway.turns.active': {
    kind: 'upDown',
    unit: '{turn}',
    description: 'Turns accepted and not yet ended.',
    labels: [],
  },
  'responses_gateway.turns': {
    kind: 'counter',
    unit: '{turn}',
    description: 'Turns by outcome.',
    labels: [...TURN_LABELS, 'outcome', 'tenant'],
    fromStart: { outcome: OUTCOMES },
    alert: 'A share of FAILED over 2 % for 5 minutes; turn.failures says why.',
  },
  'responses_gateway.turn.failures': {
    kind: 'counter',
    unit: '{turn}',
    description: 'Turns without a good end, by reason, by who is at fault, by phase and by replay verdict.',
    labels: ['error.type', 'fault', 'phase', 'replay'],
    fromStart: failures,
    alert: 'Any with fault "gateway" for 5 minutes: page. Fault "upstream" over 2 % of turns: warn.',
  },
  'responses_gateway.turn.faults': {
    kind: 'counter',
    unit: '{turn}',
    description: 'The same turns by who is at fault alone, there from the start: what alerts are made of.',
    labels: ['fault'],
    fromStart: { fault: ['client', 'upstream', 'gateway'] },
  },
  'responses_gateway.turn.queue.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'From acceptance to the first send: waiting for the lane, a slot or a link.',
    labels: TURN_LABELS,
    boundaries: SHORT_SECONDS,
    alert: 'p95 over 1 s: lanes queue behind each other or links are slow to come up.',
  },
  'responses_gateway.turn.gateway.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'Time of a turn that the gateway spent rebuilding: recoveries, rotations and replays.',
    labels: TURN_LABELS,
    boundaries: SHORT_SECONDS,
  },
  'responses_gateway.turn.added.up': {
    kind: 'histogram',
    unit: 's',
    description:
      'What the gateway added to a turn on its way up: from the first byte of the request until it was written upstream, without the wait for its lane, a slot or a link.',
    labels: TURN_LABELS,
    boundaries: ADDED_SECONDS,
    alert: 'p99 over 50 ms: the event loop has no time left, or requests are large and come slowly.',
  },
  'responses_gateway.turn.added.down': {
    kind: 'histogram',
    unit: 's',
    description:
      "What the gateway added on its way down: from the upstream's last byte until the turn's last event was written to the client.",
    labels: TURN_LABELS,
    boundaries: ADDED_SECONDS,
    alert: 'p99 over 50 ms: the event loop has no time left.',
  },
  'responses_gateway.turn.upstream.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'From the first send to the outcome, without the time of rebuilding.',
    labels: TURN_LABELS,
    boundaries: GENAI_SECONDS,
  },
  'responses_gateway.tokens': {
    kind: 'counter',
    unit: '{token}',
    description:
      'Tokens by type; cached_input and cache_write are parts of input, reasoning is a part of output.',
    labels: [...TURN_LABELS, 'gen_ai.token.type', 'tenant'],
    fromStart: { 'gen_ai.token.type': ['input', 'cached_input', 'cache_write', 'output', 'reasoning'] },
    alert: 'A falling cached_input share: something in the front of the prompt changes with every turn.',
  },
  'responses_gateway.cost': {
    kind: 'counter',
    unit: '{currency}',
    description:
      'What turns cost by the price table, in its currency. Told to clients and in logs to the last digit; here it is a floating-point number.',
    labels: [...TURN_LABELS, 'tenant', 'currency'],
  },
  'responses_gateway.turns.unpriced': {
    kind: 'counter',
    unit: '{turn}',
    description:
      'Turns without a cost although there is a price table: their `model`, their service `tier`, or a `tool` that the upstream ran is not in it.',
    labels: [...TURN_LABELS, 'why'],
    fromStart: { why: ['model', 'tier', 'tool'] },
    alert:
      'Any: the price table lacks something, and budgets of money count only what is known of these turns.',
  },
  'responses_gateway.tool.duration': {
    kind: 'histogram',
    unit: 's',
    description:
      "Calls of the callers' own tools: from when the model's call was told until the turn with its output arrived. The first fifty names that come back have a label of their own.",
    labels: ['gen_ai.tool.name'],
    boundaries: GENAI_SECONDS,
  },
  'responses_gateway.loop.time': {
    kind: 'counter',
    unit: 's',
    description:
      'Where agent loops spend their time, over turns that called tools or brought outputs: in the `model`, in the `gateway` (queue, rebuilding, its own work), or in `tools` between two turns.',
    labels: ['part'],
    fromStart: { part: ['model', 'gateway', 'tools'] },
  },
  'responses_gateway.tool_calls': {
    kind: 'counter',
    unit: '{call}',
    description: 'Tool calls that models made.',
    labels: TURN_LABELS,
  },
  'responses_gateway.upstream.bytes': {
    kind: 'counter',
    unit: 'By',
    description: 'JSON of turns: up to the upstream and down from it.',
    labels: ['gen_ai.provider.name', 'direction', 'tenant'],
    fromStart: { direction: ['up', 'down'] },
  },
  'responses_gateway.context.bytes': {
    kind: 'counter',
    unit: 'By',
    description: 'What the same turns had sent up with their whole context as input every time.',
    labels: ['gen_ai.provider.name', 'tenant'],
  },
  'responses_gateway.context.saved.bytes': {
    kind: 'counter',
    unit: 'By',
    description: 'Bytes saved against sending the full context; never less than zero for a turn.',
    labels: ['gen_ai.provider.name', 'tenant'],
  },

  'responses_gateway.links': {
    kind: 'observedUpDown',
    unit: '{link}',
    description: 'Upstream connections of sessions by state (connecting, open) and by age.',
    labels: ['state', 'age'],
    alert: 'Links of age ge_55m: rotation does not happen, the upstream will cut them at 60 minutes.',
  },
  'responses_gateway.link.connect.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'Dials of upstream connections, by purpose and by how they ended.',
    labels: ['upstream', 'transport', 'purpose', 'error.type'],
    boundaries: SHORT_SECONDS,
    alert: 'A share with error.type over 5 % for 5 minutes: the upstream or the way to it is down.',
  },
  'responses_gateway.link.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'Age of links at their end, by the reason of the end.',
    labels: ['gen_ai.provider.name', 'reason'],
    boundaries: LIFETIME_SECONDS,
  },
  'responses_gateway.pool.checkouts': {
    kind: 'counter',
    unit: '{link}',
    description: 'Links asked of the pool: hit when one was ready, miss when it had to be dialled.',
    labels: ['upstream', 'result'],
    fromStart: { result: ['hit', 'miss'] },
  },
  'responses_gateway.pool.idle.links': {
    kind: 'observedUpDown',
    unit: '{link}',
    description: 'Links that wait in the pool.',
    labels: ['upstream'],
  },
  'responses_gateway.upstream.rtt': {
    kind: 'histogram',
    unit: 's',
    description: 'Round trips of pings on open links.',
    labels: ['upstream'],
    boundaries: SHORT_SECONDS,
  },
  'responses_gateway.upstream.heartbeats.lost': {
    kind: 'counter',
    unit: '{link}',
    description: 'Links given up because a ping was not answered.',
    labels: ['upstream'],
    alert: 'Any steady rate: something between the gateway and the upstream drops idle connections.',
  },
  'responses_gateway.upstream.failovers': {
    kind: 'counter',
    unit: '{failover}',
    description: 'Dials that went on to the next upstream.',
    labels: ['from', 'to'],
    fromStart: failovers,
    alert: 'Any for 5 minutes: the first choice is down.',
  },
  'responses_gateway.upstream.sse_fallbacks': {
    kind: 'counter',
    unit: '{fallback}',
    description: 'WebSocket upgrades refused, so that the upstream is spoken to over HTTP for a while.',
    labels: ['upstream'],
    alert: 'Any, with an upstream that has WebSocket: turns cost their whole context on the wire.',
  },
  'responses_gateway.upstream.lanes_refuted': {
    kind: 'counter',
    unit: '{upstream}',
    description:
      'Upstreams found to answer without the name of the lane that asked. Each of their links serves one lane from then on.',
    labels: ['upstream'],
    alert: 'Any: set capabilities.multiplexed to false for this upstream, or fix the relay in front of it.',
  },
  'responses_gateway.upstream.stray_frames': {
    kind: 'counter',
    unit: '{frame}',
    description:
      'Frames that belong to a response that has ended or that nobody asked for. They are not passed on.',
    labels: ['type'],
    fromStart: {
      type: ['response.completed', 'response.failed', 'response.output_item.done', 'error', OTHER],
    },
    alert: 'A steady rate: the upstream repeats frames, or runs more than one response for a request.',
  },
  'responses_gateway.upstream.breaker': {
    kind: 'observedGauge',
    unit: '{state}',
    description:
      'Circuit breaker of an upstream, the worst for its own key and for those of tenants and callers: 0 closed, 1 may be tried, 2 open.',
    labels: ['upstream', 'credential'],
    merge: 'max',
    alert: '2 for 2 minutes: no new links to this upstream.',
  },
  'responses_gateway.recoveries': {
    kind: 'counter',
    unit: '{recovery}',
    description: 'Lanes rebuilt on a new link, by why.',
    labels: ['reason'],
    fromStart: { reason: ['link_lost', 'connection_limit'] },
    alert: 'Over three times the usual rate: links break.',
  },
  'responses_gateway.recovery.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'From the loss of the link to the lane that works again.',
    labels: ['reason'],
    boundaries: SHORT_SECONDS,
  },
  'responses_gateway.rotations': {
    kind: 'counter',
    unit: '{rotation}',
    description: 'Healthy links replaced before their age limit, by why.',
    labels: ['reason'],
    fromStart: { reason: ['max_age', 'connection_limit', 'link_lost', 'silent'] },
  },
  'responses_gateway.rotation.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'From the decision to rotate to the lanes on their new link.',
    labels: ['reason'],
    boundaries: SHORT_SECONDS,
  },
  'responses_gateway.replays': {
    kind: 'counter',
    unit: '{replay}',
    description: 'Transcripts sent again because the upstream had forgotten, by why.',
    labels: ['reason'],
    fromStart: { reason: REPLAY_REASONS },
  },
  'responses_gateway.replay.bytes': {
    kind: 'counter',
    unit: 'By',
    description: 'Bytes of transcripts sent again.',
    labels: ['reason'],
    fromStart: { reason: REPLAY_REASONS },
  },

  'responses_gateway.events': {
    kind: 'observedCounter',
    unit: '{event}',
    description: 'Events written to clients.',
    labels: [],
  },
  'responses_gateway.batches': {
    kind: 'observedCounter',
    unit: '{batch}',
    description: 'Messages written to clients, by how many events they carried.',
    labels: ['size'],
  },
  'responses_gateway.client.bytes': {
    kind: 'observedCounter',
    unit: 'By',
    description: 'Bytes of the messages written to clients.',
    labels: [],
  },
  'responses_gateway.backpressure.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'How long a session held its links back because its client read too slowly.',
    labels: [],
    boundaries: SHORT_SECONDS,
    alert: 'p95 over 5 s: clients are slow; they are cut at the slow-client time-out.',
  },
  'responses_gateway.sessions.paused': {
    kind: 'upDown',
    unit: '{session}',
    description: 'Sessions that hold their links back now.',
    labels: [],
  },
  'responses_gateway.client.buffer.bytes': {
    kind: 'observedUpDown',
    unit: 'By',
    description: 'Events that wait for their clients, over all sessions.',
    labels: [],
  },
  'responses_gateway.resume.buffer.bytes': {
    kind: 'observedUpDown',
    unit: 'By',
    description: 'Events kept for resumes, over all sessions.',
    labels: [],
  },
  'responses_gateway.transcript.bytes': {
    kind: 'observedUpDown',
    unit: 'By',
    description: 'Transcripts kept for recovery, over all sessions.',
    labels: [],
    alert: 'Over 90 % of the transcript budget: recovery by replay will be refused soon.',
  },

  'responses_gateway.memory.share': {
    kind: 'observedGauge',
    unit: '1',
    description:
      "Memory in use: of the heap's old space or of what the container allows, whichever is nearer to its limit.",
    labels: [],
    merge: 'max',
    alert:
      'Over `limits.memory_high` new sessions and turns are refused; halfway to it from `memory_low` what is kept is given up.',
  },
  'responses_gateway.memory.shed.bytes': {
    kind: 'counter',
    unit: 'By',
    description:
      'Given up because memory was short: `transcripts` of idle sessions, `kept_events` for resumes.',
    labels: ['what'],
    fromStart: { what: ['transcripts', 'kept_events'] },
    alert: 'Any: the process has less memory than its sessions want.',
  },
  'responses_gateway.memory.shed.links': {
    kind: 'counter',
    unit: '{link}',
    description: 'Links that waited ready, closed because memory was short.',
    labels: [],
  },

  'responses_gateway.connections': {
    kind: 'observedUpDown',
    unit: '{connection}',
    description: 'Client connections that are open.',
    labels: [],
    alert: 'Over 80 % of `responses_gateway_connections_limit`: new connections will be refused soon.',
  },
  'responses_gateway.connections.limit': {
    kind: 'observedUpDown',
    unit: '{connection}',
    description:
      'Client connections that there may be: `grpc.max_connections`, or what the file descriptors allow.',
    labels: [],
  },
  'responses_gateway.descriptors': {
    kind: 'observedUpDown',
    unit: '{descriptor}',
    description:
      'File descriptors of the process: connections of clients, links, and the rest; counted every 10 s, on Linux.',
    labels: [],
    alert:
      'Over 80 % of `responses_gateway_descriptors_limit`: links can soon no longer be dialled, nor clients taken.',
  },
  'responses_gateway.descriptors.limit': {
    kind: 'observedUpDown',
    unit: '{descriptor}',
    description: 'File descriptors that the process may have (`ulimit -n`).',
    labels: [],
  },
  'responses_gateway.connections.ended': {
    kind: 'counter',
    unit: '{connection}',
    description:
      'Client connections that the gateway ended or refused: `limit` (as many as there may be, each with a stream), `idle` (no stream for too long, or its place was needed), `resets` (too many streams reset before they were served), `protocol` (HTTP/2 broken), `pacing` (of an address that broke HTTP/2 before), `wrong_protocol` (at the gRPC port, each connection once: something else than gRPC was spoken, or TLS where there is none and the other way round; one over HTTP/2 has its requests refused and stays open).',
    labels: ['reason'],
    fromStart: { reason: ['limit', 'idle', 'resets', 'protocol', 'pacing', 'wrong_protocol'] },
    alert:
      '`limit`, `resets` or `protocol` over 1 a minute: a client that misbehaves, or a limit that is too low.',
  },

  'responses_gateway.store.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'Commands to the store, by their first word and by what became of them.',
    labels: ['command', 'result'],
    boundaries: SHORT_SECONDS,
    alert: 'p99 over 0.1 s, or a share without result="ok" over 1 % for 5 minutes: look at the store.',
  },
  'responses_gateway.processes': {
    kind: 'observedGauge',
    unit: '{process}',
    description: 'Processes that use the same store and are there, as this one sees it. 0 without a store.',
    labels: [],
    merge: 'max',
  },
  'responses_gateway.forwards': {
    kind: 'counter',
    unit: '{stream}',
    description:
      'Resumes that reached another process than the one with the session, by what became of them.',
    labels: ['result'],
    fromStart: { result: ['taken', 'unknown', 'refused', 'unreachable', 'silent', 'unheard'] },
    alert: 'refused: replicas have different secrets. Most resumes: route by x-responses-session.',
  },
  'responses_gateway.takeovers': {
    kind: 'counter',
    unit: '{session}',
    description: 'Resumes of sessions that no process answered for, by what became of them.',
    labels: ['result'],
    fromStart: { result: ['taken', 'gone', 'lost_data'] },
    alert: 'lost_data: the store has lost what it had acknowledged. Any outside of rollouts: processes die.',
  },
  'responses_gateway.takeover.duration': {
    kind: 'histogram',
    unit: 's',
    description: 'From the resume to the session that goes on.',
    labels: ['result'],
    boundaries: SHORT_SECONDS,
  },
  'responses_gateway.hand_overs': {
    kind: 'counter',
    unit: '{session}',
    description: 'Sessions that a process let go when it went down, for another to go on with.',
    labels: [],
  },
  'responses_gateway.sessions.durable': {
    kind: 'observedUpDown',
    unit: '{session}',
    description: 'Sessions that another process could go on with now.',
    labels: [],
    alert: 'Far below the active sessions: the store is away, or has no keys for sessions with store: false.',
  },
  'responses_gateway.sessions.durability_lost': {
    kind: 'counter',
    unit: '{session}',
    description: 'Times that a session was no longer durable, by why.',
    labels: ['reason'],
    fromStart: { reason: ['store_slow', 'store_lost', 'transcript_dropped', 'content_not_kept'] },
    alert: 'store_slow, store_lost: look at the store. content_not_kept: there are no cluster.store.keys.',
  },
  'responses_gateway.sessions.fenced': {
    kind: 'counter',
    unit: '{session}',
    description: 'Sessions that another process took while this one still served them.',
    labels: [],
    alert: 'Any: this process was cut off from the others, or stood still.',
  },
  'responses_gateway.limits.alone': {
    kind: 'counter',
    unit: '{decision}',
    description: 'Limits of tenants that were decided without the other processes: the store did not answer.',
    labels: [],
    alert: 'For 5 minutes: look at the store. Until then each process lets its part of the limits in.',
  },
  'responses_gateway.refusals': {
    kind: 'counter',
    unit: '{refusal}',
    description:
      'Requests that were not taken: sessions and calls, turns, and others (steers, cancels), by reason and, of LIMIT_EXCEEDED, by limit.',
    labels: ['request', 'reason', 'limit', 'tenant'],
    fromStart: refusals,
    alert: 'Grows with LIMIT_EXCEEDED, OVERLOADED, DRAINING or MODEL_NOT_ALLOWED: callers are turned away.',
  },
  'responses_gateway.processes.ready': {
    kind: 'observedUpDown',
    unit: '{process}',
    description: 'Processes that take new sessions: what /readyz says, without asking it.',
    labels: [],
    alert: '0: everything new is refused.',
  },
  'responses_gateway.draining': {
    kind: 'observedGauge',
    unit: '{process}',
    description: '1 while the process drains.',
    labels: [],
    merge: 'max',
    alert: '1 for longer than the drain time: a process does not end.',
  },
  'responses_gateway.telemetry.exports': {
    kind: 'counter',
    unit: '{export}',
    description: 'Exports to the collector.',
    labels: ['signal', 'result'],
    fromStart: { signal: ['traces', 'metrics', 'logs'], result: ['ok', 'failed'] },
    alert: 'Failures for 10 minutes: the collector is away; turns are not affected.',
  },
  'responses_gateway.logs.suppressed': {
    kind: 'observedCounter',
    unit: '{line}',
    description: 'Repeated warnings that were not written.',
    labels: [],
  },
  'responses_gateway.logs.dropped': {
    kind: 'observedCounter',
    unit: '{line}',
    description: 'Lines of the log that were not written because whoever reads it was too slow.',
    labels: [],
    alert: 'Any: the log has gaps; turns are not affected. Look at the log shipper.',
  },

  'nodejs.eventloop.delay.mean': {
    kind: 'observedGauge',
    unit: 's',
    description: 'Mean delay of the event loop over the last seconds.',
    labels: [],
    merge: 'max',
  },
  'nodejs.eventloop.delay.p99': {
    kind: 'observedGauge',
    unit: 's',
    description: '99th percentile of the delay of the event loop over the last seconds.',
    labels: [],
    merge: 'max',
    alert: 'Over 0.1 s for 5 minutes: the process has more than it can do; add workers or replicas.',
  },
  'nodejs.eventloop.delay.max': {
    kind: 'observedGauge',
    unit: 's',
    description: 'Longest delay of the event loop over the last seconds.',
    labels: [],
    merge: 'max',
  },
  'nodejs.eventloop.utilization': {
    kind: 'observedGauge',
    unit: '1',
    description: 'Share of the last seconds in which the event loop was busy.',
    labels: [],
    merge: 'max',
    alert: 'Over 0.8 for 5 minutes: add workers or replicas.',
  },
  'process.cpu.time': {
    kind: 'observedCounter',
    unit: 's',
    description: 'CPU time of the process.',
    labels: ['cpu.mode'],
  },
  'process.memory.usage': {
    kind: 'observedUpDown',
    unit: 'By',
    description: 'Resident memory of the process.',
    labels: [],
    alert: 'Over 85 % of the container limit.',
  },
  'process.uptime': {
    kind: 'observedGauge',
    unit: 's',
    description: 'Time since the process started.',
    labels: [],
    merge: 'max',
  },
  'v8js.memory.heap.used': {
    kind: 'observedUpDown',
    unit: 'By',
    description: 'Heap in use.',
    labels: [],
  },
  'v8js.memory.heap.limit': {
    kind: 'observedUpDown',
    unit: 'By',
    description: 'Size the heap may grow to.',
    labels: [],
  },
} as const satisfies Record<string, MetricFacts>;

export type MetricName = keyof typeof METRICS;

export function typeOf(kind: MetricKind): PrometheusType {
  switch (kind) {
    case 'counter':
    case 'observedCounter':
      return 'counter';
    case 'histogram':
      return 'histogram';
    case 'upDown':
    case 'observedUpDown':
    case 'observedGauge':
      return 'gauge';
  }
}
