import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { FaultSchema } from './faults.ts';
import { ODD_SWITCHES } from './odd.ts';
import { parseWith, ScriptSchema } from './script.ts';

const milliseconds = z.number().min(0).max(86_400_000);
const closeCode = z.int().min(1000).max(4999);

/** All zero: as fast as the machine goes. */
export const TimingSchema = z.strictObject({
  handshakeMs: milliseconds.default(0).describe('wait before the upgrade is answered'),
  timeToFirstTokenMs: milliseconds
    .default(0)
    .describe('wait between response.in_progress and the first output'),
  tokensPerSecond: z.number().min(0).default(0).describe('pace of deltas, one token each; 0 is no pacing'),
  costPerInputTokenUs: z.number().min(0).default(0).describe('added wait for every uncached input token'),
});

/** Limits, and what upstream.md#open-questions leaves open. Every default is the documented or most likely behaviour. */
export const SwitchesSchema = z.strictObject({
  websocket: z
    .boolean()
    .default(true)
    .describe('false: an upstream without WebSocket mode; the upgrade is refused'),
  websocketRefusalStatus: z
    .int()
    .min(400)
    .max(599)
    .default(426)
    .describe('426, 404, 405 or 501 are seen in the wild'),
  lanes: z.boolean().default(true).describe('false: an older deployment that rejects stream_id'),
  maxInFlight: z
    .int()
    .min(1)
    .default(16)
    .describe('responses at once on a connection; the rest waits silently'),
  maxLanes: z.int().min(0).default(32).describe('distinct names on a connection, default lane not counted'),
  maxQueued: z
    .int()
    .min(0)
    .default(1024)
    .describe('creates waiting on a connection (open: real depth unknown)'),
  rejectedCreateUsesLaneName: z
    .boolean()
    .default(true)
    .describe('open: does an invalid create use up its lane name'),
  nullStreamId: z
    .enum(['error', 'default-lane'])
    .default('error')
    .describe('open: meaning of "stream_id": null'),
  badFrameCloses: z
    .boolean()
    .default(false)
    .describe('open: do bad JSON and unknown types end the connection'),
  unknownFields: z.enum(['ignore', 'reject']).default('ignore').describe('open: unknown fields of a create'),
  maxMessageBytes: z
    .int()
    .min(1024)
    .default(16 * 1024 * 1024)
    .describe('open: a longer message closes with 1009'),
  compression: z
    .boolean()
    .default(false)
    .describe('accept permessage-deflate where a client offers it, and use it both ways'),
  connectionAgeMs: milliseconds.default(3_600_000).describe('0: no limit'),
  ageLimit: z
    .enum(['finish-then-close', 'cut'])
    .default('finish-then-close')
    .describe('open: fate of running responses'),
  ageCloseCode: closeCode.default(1001).describe('open: close code at the age limit'),
  idleTimeoutMs: milliseconds.default(0).describe('open: close an idle connection with 1001; 0: never'),
  maxConnections: z.int().min(0).default(0).describe('open: further upgrades get 429; 0: no limit'),
  pingIntervalMs: milliseconds.default(20_000).describe('0: no pings'),
  pingTimeoutMs: milliseconds.default(20_000).describe('no pong for so long closes with 1011'),
  errorShape: z
    .enum(['nested', 'flat', 'detail', 'text'])
    .default('nested')
    .describe('detail: {"detail": text}; text: {"error": text}'),

  errorHeaders: z
    .enum(['inside', 'outside', 'both'])
    .default('inside')
    .describe('open: place of error headers'),
  sparse: z.boolean().default(false).describe('no set-up events, no output in terminals'),
  evictOnError: z
    .enum(['same-lane', 'any-lane', 'never'])
    .default('same-lane')
    .describe('which failed turns evict their parent; any-lane is Azure and xAI'),
  failedResponseEvicts: z
    .boolean()
    .default(true)
    .describe('open: does response.failed count as a failed turn'),
  hydrateStored: z
    .boolean()
    .default(true)
    .describe('false: only cached ids work over WebSocket, as in the alpha'),
  itemIds: z
    .enum(['reasoning', 'all', 'ignore'])
    .default('reasoning')
    .describe('input items whose id must be stored: bare reasoning and references, every item, none'),
  onDisconnect: z
    .enum(['stop', 'finish'])
    .default('stop')
    .describe('open: does generation go on without its socket'),
  steeringModels: z
    .array(z.string())
    .default(['*'])
    .describe('models that can be steered, * is a wildcard; live: gpt-6-astra*'),
  steerBoundary: z
    .enum(['delta', 'item'])
    .default('delta')
    .describe('where a steered message ends: at the next word, or where it would have ended anyway'),
  maxPendingSteers: z.int().min(1).default(32).describe('open: cap of queued steers on one response'),
  failedTargetSteerCode: z
    .enum(['response_not_active', 'successor_creation_failed'])
    .default('response_not_active')
    .describe('open: how a steer fails whose target failed'),
  injectWaitMs: milliseconds
    .default(5000)
    .describe(
      'open: how long a multi-agent response waits for the outputs of its calls before it ends with them',
    ),
  attribution: z.boolean().default(true).describe('usage tells tokens by item and by field'),
  warmUpBilled: z.boolean().default(true).describe('open: does a warm-up report its input tokens'),
  models: z
    .array(z.string())
    .optional()
    .describe('known models, * is a wildcard; others get model_not_found'),
  ...ODD_SWITCHES,
});

const settings = {
  timing: TimingSchema.prefault({}).describe('pace, below'),
  switches: SwitchesSchema.prefault({}).describe('limits and behaviour, below'),
  faults: z.array(FaultSchema).default([]).describe('what goes wrong where, below'),
  script: ScriptSchema.optional().describe('rules, each with a condition and the items of its answer, below'),
};

/** What `configure()` may change while the simulator runs. */
export const SettingsSchema = z.strictObject(settings);
export type Settings = z.output<typeof SettingsSchema>;
export type Switches = Settings['switches'];
export type Timing = Settings['timing'];

export const SimulatorOptionsSchema = z.strictObject({
  host: z.string().min(1).default('127.0.0.1').describe('address to listen on; --listen says it too'),
  port: z.int().min(0).max(65_535).default(0).describe('0: any free port'),
  tls: z.strictObject({ cert: z.string(), key: z.string() }).optional().describe('PEM texts'),
  apiKeys: z
    .array(z.string().min(1))
    .optional()
    .describe('accepted keys; by default any key, and none at all'),
  seed: z.int().min(0).default(1).describe('of the random numbers that faults draw'),
  journal: z
    .strictObject({
      maxEntries: z.int().min(1).default(1000),
      maxBytes: z
        .int()
        .min(0)
        .default(64 * 1024 * 1024),
    })
    .prefault({})
    .describe('how many requests are remembered, for tests: maxEntries, maxBytes'),
  ...settings,
});
export type SimulatorOptions = z.input<typeof SimulatorOptionsSchema>;
export type ResolvedOptions = z.output<typeof SimulatorOptionsSchema>;
export type SettingsChange = {
  timing?: z.input<typeof TimingSchema> | undefined;
  switches?: z.input<typeof SwitchesSchema> | undefined;
  faults?: SimulatorOptions['faults'];
  script?: SimulatorOptions['script'] | null;
};

const FileSchema = SimulatorOptionsSchema.extend({
  tls: z.strictObject({ certFile: z.string(), keyFile: z.string() }).optional(),
});

export function parseOptions(options: unknown): ResolvedOptions {
  return parseWith(SimulatorOptionsSchema, options, 'simulator options');
}

/**
 * Options of the `simulate` command from a parsed YAML or JSON file. The same fields as `SimulatorOptions`, with `tls`
 * given as `{certFile, keyFile}`. Throws `InvalidSimulatorInput` with one line per wrong field.
 */
export function simulatorOptionsFromFile(value: unknown): SimulatorOptions {
  const given = value ?? {};
  const { tls } = parseWith(FileSchema, given, 'simulator options');
  // What was given, without defaults, so that a caller can put its own beneath.
  const options = given as z.input<typeof FileSchema>;
  if (tls === undefined) return { ...options, tls: undefined };
  return {
    ...options,
    tls: { cert: readFileSync(tls.certFile, 'utf8'), key: readFileSync(tls.keyFile, 'utf8') },
  };
}

/** Merges a change into settings: `timing` and `switches` field by field, `faults` and `script` as a whole. */
export function mergeSettings(current: Settings, change: SettingsChange): Settings {
  const merged = {
    timing: { ...current.timing, ...change.timing },
    switches: { ...current.switches, ...change.switches },
    faults: change.faults ?? current.faults,
    script: change.script === null ? undefined : (change.script ?? current.script),
  };
  return parseWith(SettingsSchema, merged, 'simulator settings');
}
