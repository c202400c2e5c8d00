import * as z from 'zod';
import { COUNTS, GAUGES } from '../history/samples.ts';

// What the admin API says, once: its types, the page's types, and docs/admin-api.json (npm run generate -- admin-api).

const ms = z.number().describe('Milliseconds since the epoch.');
const took = z.number().min(0).describe('Milliseconds.');
const bytes = z.number().min(0).describe('Bytes.');
const count = z.int().min(0);
const silent = count.describe('Workers that did not answer in time: what they have is missing.');

export const problemSchema = z.strictObject({
  error: z.string().describe('What is wrong, and what is allowed.'),
  field: z.string().optional().describe('The parameter, field or header that it is about.'),
});

const linkSnapshot = z.strictObject({
  linkId: z.int(),
  state: z.string(),
  upstream: z.string().optional(),
  transport: z.string().optional(),
  inFlight: count,
  lanes: count,
  ageMs: took,
});

export const SESSION_STATES = ['running', 'idle', 'detached', 'ended'] as const;

/** What the core knows of a session that has not ended. */
const liveSession = z.strictObject({
  life: z.string().describe('open, finishing, draining or closed.'),
  attached: z.boolean().describe('A client stream listens.'),
  durable: z.boolean().describe('Another process could go on with it.'),
  links: z.array(linkSnapshot),
  bufferedBytes: bytes,
  resumeBytes: bytes,
  transcriptBytes: bytes,
  heldInputBytes: bytes,
  nextSeq: count,
});

export const sessionRowSchema = z.strictObject({
  id: z.string(),
  tenant: z.string(),
  pid: z.int().describe('The process that has the session.'),
  method: z.string(),
  client: z.string().optional(),
  clientVersion: z.string().optional(),
  labels: z.record(z.string(), z.string()),
  state: z
    .enum(SESSION_STATES)
    .describe('running: a turn runs or waits. detached: no client stream listens.'),
  status: z.string().optional().describe('The gRPC status of one that has ended.'),
  startedAtMs: ms,
  activeAtMs: ms.describe('Begin or end of its last turn, else its start. Milliseconds since the epoch.'),
  endedAtMs: ms.optional(),
  model: z.string().optional().describe('Of its last turn.'),
  upstream: z.string().optional().describe('Of its newest link.'),
  lanes: count,
  turns: z.record(z.string(), count).describe('Turns that have not ended, by state.'),
  turnsRunning: count,
  turnsTotal: count,
  failures: count,
  inputTokens: count,
  cachedInputTokens: count,
  outputTokens: count,
  bytesUp: bytes,
  cost: z
    .strictObject({ amount: z.string().describe('Exact decimal.'), currency: z.string() })
    .optional()
    .describe('Of its priced turns, by the price table.'),
  bytesSaved: bytes.describe(
    'What the same turns had cost with the whole context as input, less what was sent.',
  ),
  ...liveSession.partial().shape,
});

export const sessionPageSchema = z.strictObject({
  sessions: z.array(sessionRowSchema),
  total: count.describe('Sessions that match, on all pages.'),
  silentProcesses: silent,
  offset: count,
  limit: count,
});

const linkSchema = z.strictObject({
  linkId: z.int(),
  purpose: z.string().describe('session, lanes, recovery or rotation.'),
  dialedAtMs: ms,
  upAtMs: ms.optional(),
  downAtMs: ms.optional(),
  downReason: z.string().optional(),
  closeCode: z.int().optional(),
  upstream: z.string().optional(),
  pooled: z.boolean().describe('It had waited ready.'),
});

const markSchema = z.strictObject({
  kind: z.enum([
    'recovered',
    'rotated',
    'replayed',
    'resumed',
    'takenOver',
    'steered',
    'refused',
    'paused',
    'durabilityLost',
  ]),
  startedAtMs: ms,
  endedAtMs: ms,
  laneId: z.string().optional(),
  turnId: z.string().optional(),
  linkId: z.int().optional(),
  reason: z.string().optional(),
  bytes: bytes,
});

export const sessionDetailSchema = z.strictObject({
  session: sessionRowSchema,
  laneIds: z.array(z.string()).describe('In the order of their first turn; the unnamed lane is empty.'),
  links: z.array(linkSchema).describe('Oldest first; the last 64.'),
  marks: z.array(markSchema).describe('What happened beside the turns. Oldest first; the last 128.'),
  tools: z
    .array(
      z.strictObject({
        tool: z.string(),
        calls: count,
        inputTokens: count.describe('Of its calls, as later turns read them again.'),
        cachedInputTokens: count,
        outputTokens: count.describe('Of its calls, as the model wrote them.'),
        cost: z.string().optional().describe("Exact decimal, in the currency of the session's cost."),
      }),
    )
    .describe(
      'By tool: calls, and the tokens and cost that the upstream attributes to them. The first 32 tools.',
    ),
  turnsKept: count,
  dropped: count.describe('Turns, links and marks that were given up for newer ones.'),
  traceUrl: z.string().optional(),
  nowMs: ms,
});

const usageSchema = z.strictObject({
  inputTokens: count,
  cachedInputTokens: count,
  cacheWriteTokens: count,
  outputTokens: count,
  reasoningTokens: count,
});

export const turnSchema = z.strictObject({
  turnId: z.string(),
  laneId: z.string(),
  state: z.enum(['queued', 'running', 'ended']),
  model: z.string().optional(),
  responseModel: z.string().optional(),
  serviceTier: z.string().optional(),
  upstream: z.string().optional(),
  linkId: z.int().optional().describe('The link of its last send.'),
  fromResponseId: z.string().optional().describe('The response that the client named to go on from.'),
  responseIds: z.array(z.string()).describe('Oldest first; a steered turn has several.'),
  tools: z.array(z.string()).describe('Names of the tools that it called, the first 16.'),
  acceptedAtMs: ms,
  sentAtMs: ms.optional(),
  firstOutputAtMs: ms.optional(),
  endedAtMs: ms.optional(),
  toolsMs: took
    .optional()
    .describe('From the end of the turn before, which called tools, until this one: time of the tools.'),
  queueMs: took.optional().describe('Acceptance to first send.'),
  rebuildMs: took.optional().describe('Recoveries, rotations and replays after the first send.'),
  upstreamMs: took.optional().describe('The rest: queue, rebuild and upstream add up to the whole.'),
  addedUpMs: took.optional().describe('What the gateway itself took before the first send.'),
  addedDownMs: took.optional().describe('What the gateway itself took after the last frame.'),
  outcome: z.string().optional(),
  failure: z
    .strictObject({
      reason: z.string(),
      upstreamCode: z.string().optional().describe("The upstream's own code, where it is a known one."),
      fault: z.string(),
      phase: z.string(),
      replay: z.string().describe('SAFE, UNSAFE or UNKNOWN: whether it may be asked for again.'),
    })
    .optional(),
  finishReason: z.string().optional(),
  usage: usageSchema.optional(),
  cost: z
    .strictObject({
      amount: z.string().describe('Exact decimal.'),
      currency: z.string(),
      pricesAsOf: z.string(),
    })
    .optional(),
  attribution: z
    .array(
      z.strictObject({
        of: z.enum(['item', 'field']).describe('An output or input item, or a field of the request.'),
        name: z.string().describe('Id of the item, or name of the field.'),
        tool: z.string().optional().describe('The tool that the item is a call of.'),
        inputTokens: count,
        cachedInputTokens: count,
        cacheWriteTokens: count,
        outputTokens: count,
        cost: z.string().optional().describe("Exact decimal, in the currency of the turn's cost."),
      }),
    )
    .optional()
    .describe('What its tokens went to, where the upstream tells: the 16 parts with the most of them.'),
  bytesUp: bytes.optional(),
  bytesDown: bytes.optional(),
  bytesSaved: bytes.optional(),
  events: count.optional(),
  toolCalls: count.optional(),
  sends: count.optional(),
  replays: count.optional(),
  warmUp: z.boolean().optional(),
  traceUrl: z.string().optional().describe('admin.console.trace_url with the ids of its trace.'),
});

export const turnPageSchema = z.strictObject({
  turns: z.array(turnSchema).describe('Oldest first.'),
  total: count,
  offset: count,
  limit: count,
});

const numbers = <Name extends string>(names: readonly Name[]) =>
  z.strictObject(Object.fromEntries(names.map((name) => [name, z.number()])) as Record<Name, z.ZodNumber>);

export const sampleSchema = z.strictObject({
  atS: z.number().describe('End of the sample, in seconds since the epoch.'),
  spanS: z.number().describe('Seconds that it covers.'),
  gauges: numbers(GAUGES).describe(
    'At its end. Of workers they add up; eventLoopShare is that of the busiest.',
  ),
  counts: numbers(COUNTS).describe('Within it.'),
  firstTokenP50Ms: took.optional(),
  firstTokenP95Ms: took.optional(),
  queueP50Ms: took.optional(),
  queueP95Ms: took.optional(),
});

const usageNumbers = z.strictObject({
  turns: count,
  inputTokens: count,
  cachedInputTokens: count,
  outputTokens: count,
  bytesSaved: bytes,
  cost: z.number().min(0).describe('In the currency of the row.'),
});

export const boardSchema = z.strictObject({
  sample: sampleSchema.optional().describe('The last second. Absent in the first one.'),
  links: z.array(z.strictObject({ state: z.enum(['connecting', 'open']), age: z.string(), links: count })),
  usage: z
    .array(
      z.strictObject({
        tenant: z.string(),
        model: z.string(),
        currency: z.string().optional(),
        total: usageNumbers,
        lastHour: usageNumbers,
      }),
    )
    .describe('Of this replica, since its start and in the last hour.'),
  upstreams: z.array(
    z.strictObject({
      name: z.string(),
      breaker: z.enum(['closed', 'halfOpen', 'open']),
      openMs: took.optional(),
      readyLinks: count,
      dials: count,
      failedDials: count,
      lastDialMs: took.optional(),
      lastFailure: z
        .strictObject({
          atMs: ms,
          reason: z.string(),
          httpStatus: z.int().optional(),
          errno: z.string().optional(),
        })
        .optional(),
      rttMs: took.optional(),
      heartbeatsLost: count,
      transport: z.enum(['websocket', 'sse']).optional(),
    }),
  ),
  notReady: z.array(z.string()).describe('Why no new sessions are taken; empty: they are.'),
  silentProcesses: silent,
  replica: z.strictObject({
    host: z.string(),
    pid: z.int(),
    version: z.string(),
    startedAtMs: ms,
    workers: z.int(),
    logLevel: z.string(),
  }),
});

export const overviewSchema = z.strictObject({
  ...boardSchema.shape,
  past: z.array(sampleSchema).describe('Up to an hour, oldest first.'),
});

export const actedSchema = z.strictObject({ done: z.string().describe('What was done.') });
export const levelSchema = z.strictObject({ level: z.string() });

export const SESSION_SORTS = [
  'started',
  'active',
  'duration',
  'tenant',
  'client',
  'running',
  'turns',
  'failures',
  'tokens',
  'saved',
] as const;

const wholeNumber = (max: number) =>
  z
    .string()
    .regex(/^\d{1,9}$/, 'a whole number')
    .transform(Number)
    .refine((value) => value <= max, `at most ${max}`);

const text = z.string().min(1).max(256);

export const sessionQuerySchema = z.strictObject({
  q: text
    .optional()
    .describe('Part of an id, label, tenant, client, lane, turn or response id, in any case.'),
  tenant: text.optional().describe('Exactly this tenant.'),
  client: text.optional().describe('Part of the name of the client program.'),
  label: text.optional().describe('NAME or NAME=VALUE.'),
  lane: text.optional().describe('Exactly this lane.'),
  response: text.optional().describe('A response id of the session.'),
  turn: text.optional().describe('A turn id of the session.'),
  model: text.optional().describe('Part of the name of the last model.'),
  state: z
    .enum(['live', 'any', ...SESSION_STATES])
    .default('live')
    .describe('live: all but those that have ended.'),
  sort: z.enum(SESSION_SORTS).default('started'),
  order: z.enum(['asc', 'desc']).default('desc'),
  offset: wholeNumber(10_000_000).default(0),
  limit: wholeNumber(500).default(100),
});

export const turnQuerySchema = z.strictObject({
  lane: z.string().max(256).optional().describe('Only this lane; empty: the unnamed one.'),
  offset: wholeNumber(10_000_000).default(0),
  limit: wholeNumber(1_000).default(500),
});

export const overviewQuerySchema = z.strictObject({
  step: wholeNumber(600)
    .refine((value) => value >= 1, 'at least 1')
    .default(10)
    .describe('Seconds in one of the past samples.'),
  seconds: wholeNumber(3_600).default(3_600).describe('How far back the past goes.'),
});

export type SessionRow = z.output<typeof sessionRowSchema>;
export type SessionPage = z.output<typeof sessionPageSchema>;
export type SessionDetail = z.output<typeof sessionDetailSchema>;
export type SessionQuery = z.output<typeof sessionQuerySchema>;
export type SessionSort = SessionQuery['sort'];
export type TurnView = z.output<typeof turnSchema>;
export type TurnPage = z.output<typeof turnPageSchema>;
export type TurnQuery = z.output<typeof turnQuerySchema>;
export type SampleView = z.output<typeof sampleSchema>;
export type BoardView = z.output<typeof boardSchema>;
export type Overview = z.output<typeof overviewSchema>;
export type LinkView = z.output<typeof linkSchema>;
export type MarkView = z.output<typeof markSchema>;
