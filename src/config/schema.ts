import * as z from 'zod';
import { authSchema, limitsSchema, tenantsSchema } from './schema-access.ts';
import { clusterSchema } from './schema-cluster.ts';
import { grpcSchema, sessionSchema, tlsSchema } from './schema-serving.ts';
import { simulatorSchema } from './schema-simulator.ts';
import { telemetrySchema } from './schema-telemetry.ts';
import { dialSchema, upstreamListSchema, upstreamSchema } from './schema-upstream.ts';
import { duration, hostPort } from './units.ts';

/** Loopback, so that a first try never opens a port to the network; containers set 0.0.0.0. */
const DEFAULT_LISTEN = '127.0.0.1:50051';
/** 9464 is the port that OpenTelemetry's Prometheus exporters use. */
const DEFAULT_ADMIN_LISTEN = '127.0.0.1:9464';
/** One process serves thousands of sessions; more are for machines with cores to spare. */
const DEFAULT_WORKERS = 1;
/** Under Kubernetes' own 30 s, so that turns are ended by us, with a reason, not by SIGKILL. */
const DEFAULT_DRAIN_TIMEOUT = '25s';
/** Prometheus scrapes every 15 s where nobody says otherwise. */
const DEFAULT_LAST_SCRAPE = '15s';
/** Ten megabytes at most. */
const DEFAULT_HISTORY_ENTRIES = 20_000;
/** A long agent run. */
const DEFAULT_HISTORY_TURNS = 250;
const DEFAULT_ENDED_SESSIONS = 1_000;

const adminSchema = z.strictObject({
  listen: hostPort()
    .prefault(DEFAULT_ADMIN_LISTEN)
    .describe('Address of the admin HTTP server: health, metrics, sessions, log level. Plain HTTP.'),
  token_file: z
    .string()
    .optional()
    .describe('File with a bearer token that every admin path but /healthz, /readyz and /metrics asks for.'),
  allowed_hosts: z
    .array(z.string())
    .default([])
    .describe('Host names that the admin server answers to, besides localhost and IP addresses.'),
  console: z
    .strictObject({
      enabled: z.boolean().default(true).describe('Serve the page at /console.'),
      trace_url: z
        .string()
        .refine(
          (text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol),
          'an http:// or https:// URL',
        )
        .optional()
        .describe(
          'Where the trace of a turn is shown, with {trace_id}, {span_id} and {session_id}. Unset: no links to traces.',
        ),
    })
    .prefault({}),
  history: z
    .strictObject({
      entries: z
        .int()
        .min(1_000)
        .max(1_000_000)
        .default(DEFAULT_HISTORY_ENTRIES)
        .describe('Turns, links and marks of a process that are remembered; half a kilobyte each.'),
      turns_per_session: z
        .int()
        .min(10)
        .max(10_000)
        .default(DEFAULT_HISTORY_TURNS)
        .describe('Turns of one session that are remembered.'),
      ended_sessions: z
        .int()
        .min(0)
        .max(100_000)
        .default(DEFAULT_ENDED_SESSIONS)
        .describe('Sessions of a process that have ended and are still shown.'),
    })
    .prefault({})
    .describe('What the console shows of the past. Numbers and names, never content.'),
});

const drainSchema = z.strictObject({
  delay: duration()
    .prefault('0s')
    .describe('Time between "not ready" and GoAway on SIGTERM, for load balancers to notice.'),
  timeout: duration()
    .prefault(DEFAULT_DRAIN_TIMEOUT)
    .describe('Time that running turns get to finish after GoAway.'),
  last_scrape: duration()
    .prefault(DEFAULT_LAST_SCRAPE)
    .describe(
      'Time that a process waits for one more scrape of /metrics when turns failed that none has seen. 0s: none.',
    ),
});

/** The whole configuration; the keys are spelled as in the YAML file. Durations are milliseconds, sizes bytes. */
export const configShape = {
  listen: hostPort().prefault(DEFAULT_LISTEN).describe('Address of the gRPC server.'),
  workers: z
    .int()
    .min(1)
    .max(256)
    .default(DEFAULT_WORKERS)
    .describe('Processes that share the port. Each holds its own sessions.'),
  admin: adminSchema.prefault({}),
  upstream: upstreamSchema.optional().describe('The upstream, when there is only one.'),
  upstreams: upstreamListSchema,
  dial: dialSchema.prefault({}),
  grpc: grpcSchema.prefault({}),
  tls: tlsSchema.optional().describe('Serve TLS. Without it the gRPC server is plain.'),
  session: sessionSchema.prefault({}),
  auth: authSchema,
  tenants: tenantsSchema,
  limits: limitsSchema
    .prefault({})
    .describe('Limits of a process, over all tenants. Each worker counts for itself.'),
  prices_file: z
    .string()
    .optional()
    .describe('Price table (docs/costs.md). Turns are told with what they cost; budgets of money need it.'),
  drain: drainSchema.prefault({}),
  cluster: clusterSchema
    .optional()
    .describe(
      'Several replicas that know of each other, by a Valkey or Redis server. Unset: each for itself.',
    ),
  telemetry: telemetrySchema.prefault({}),
  simulator: simulatorSchema.prefault({}),
} as const;

export const configSchema = z.strictObject(configShape);

export type GatewayConfig = z.output<typeof configSchema>;
export type ConfigInput = z.input<typeof configSchema>;
