import * as z from 'zod';
import {
  DEFAULT_CLOCK_SKEW_MS,
  DEFAULT_OWNED_ID_BYTES,
  DEFAULT_PROCESS_LIMITS,
  DEFAULT_TENANT_LIMITS,
  type Limits,
} from '../access/options.ts';
import { formatMoney, fromNanos, parseMoney, toNanos } from '../ground/money.ts';
import { DEFAULT_MAX_ITEMS } from '../translate/limits.ts';
import { byteSize, duration, formatByteSize, formatDuration } from './units.ts';

/** The tenant of everybody, where none are configured. */
export const DEFAULT_TENANT_ID = 'default';

const tenantId = z.string().regex(/^[A-Za-z0-9_.-]{1,64}$/, '1 to 64 letters, digits, ".", "_" or "-"');
const environmentName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'the name of an environment variable');
const instant = z
  .string()
  .refine((text) => !Number.isNaN(Date.parse(text)), 'a time such as "2027-01-31T00:00:00Z"');
const globs = z.array(z.string().min(1));

const apiKeySchema = z.strictObject({
  id: z.string().describe('The part between "rgk_" and the second underscore.'),
  hash: z.string().describe('As "keys create" prints it: sha256:… or scrypt:….'),
  tenant: tenantId,
  subject: z.string().optional().describe('Who within the tenant. Unset: the id.'),
  not_before: instant.optional(),
  not_after: instant.optional(),
});

const JWT_ALGORITHMS = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512'],
  ...['EdDSA', 'HS256', 'HS384', 'HS512'],
] as const;

const jwtSchema = z.strictObject({
  kind: z.literal('jwt'),
  issuer: z.string().describe('Tokens whose "iss" is this are for this method.'),
  audience: z.array(z.string()).min(1).describe('One of them has to be in the token.'),
  algorithms: z.array(z.enum(JWT_ALGORITHMS)).min(1).describe('Pinned; any other is refused.'),
  jwks_url: z
    .string()
    .optional()
    .describe('Where the issuer publishes its keys. https, or http on loopback.'),
  jwks_file: z.string().optional().describe('The keys as a file; read again when it changes.'),
  public_key_file: z.string().optional().describe('One public key or certificate, PEM.'),
  secret_env: environmentName.optional().describe('Environment variable with a shared secret, for HS*.'),
  tenant: tenantId.optional().describe('All tokens are this tenant.'),
  tenant_claim: z.string().optional().describe('Claim that names the tenant, e.g. "org.id".'),
  tenant_map: z.record(z.string(), tenantId).optional().describe('Value of tenant_claim to tenant.'),
  clock_skew: duration({ max: '10m' })
    .prefault(formatDuration(DEFAULT_CLOCK_SKEW_MS))
    .describe('Tolerance for "exp", "nbf" and "iat".'),
  max_token_age: duration({ min: '1s' })
    .optional()
    .describe('Refuse older tokens. Unset: only "exp" counts.'),
  typ: z.string().optional().describe('Required header "typ", e.g. "at+jwt".'),
});

const mtlsSchema = z.strictObject({
  kind: z.literal('mtls'),
  rules: z
    .array(
      z.strictObject({
        spiffe: z.string().optional().describe('SPIFFE id; * matches anything but "/".'),
        dns: z.string().optional().describe('DNS name of the certificate.'),
        uri: z.string().optional(),
        email: z.string().optional(),
        tenant: tenantId,
      }),
    )
    .min(1)
    .describe('The first rule that fits a name of the client certificate decides.'),
});

export const authSchema = z
  .array(
    z.discriminatedUnion('kind', [
      z.strictObject({
        kind: z.literal('api_keys'),
        keys: z.array(apiKeySchema).min(1).describe('Keys of the form rgk_…; two of one subject rotate.'),
      }),
      jwtSchema,
      mtlsSchema,
      z.strictObject({
        kind: z.literal('none'),
        tenant: tenantId.default(DEFAULT_TENANT_ID),
        force: z.boolean().default(false).describe('Also when the port is not on loopback.'),
      }),
    ]),
  )
  .default([])
  .describe('How callers are told apart; the first method that fits decides. Empty: no authentication.');

/** As much as windows can count in nanos without rounding. */
const MONEY_PATTERN = '^\\d{1,6}(?:\\.\\d{1,9})?$';
const limit = z.int().min(1).nullable();
/** Text, since most decimals are no floating-point numbers; nanos inside. */
const money = z
  .codec(z.string('a decimal in quotes, e.g. "12.50"').meta({ pattern: MONEY_PATTERN }), z.number(), {
    decode: (text, context) => {
      const picos = new RegExp(MONEY_PATTERN).test(text) ? parseMoney(text) : undefined;
      if (picos !== undefined && picos > 0n) return toNanos(picos);
      context.issues.push({
        code: 'custom',
        message: 'a decimal in quotes above 0, e.g. "12.50"',
        input: text,
      });
      return z.NEVER;
    },
    encode: (nanos) => formatMoney(fromNanos(nanos)),
  })
  .nullable();
const bytes = byteSize({ min: '1KiB' }).nullable();

/** Null lifts a default. */
function limitFields({ sessions, lanes, turnsInFlight, messageBytes }: Limits) {
  return {
    sessions: limit
      .default(sessions ?? null)
      .describe('Open sessions, waiting ones included. null: no limit.'),
    lanes: limit.default(lanes ?? null).describe('Open lanes over all sessions.'),
    turns_in_flight: limit.default(turnsInFlight ?? null).describe('Turns running or waiting.'),
    message: bytes
      .prefault(typeof messageBytes === 'number' ? formatByteSize(messageBytes) : null)
      .describe('Size of one turn’s or one steer’s request.'),
    turns_per_minute: limit.default(null).describe('Turns started.'),
    tokens_per_minute: limit.default(null).describe('Input and output tokens as the upstream counts them.'),
    tokens_per_day: limit.default(null).describe('The same, over a day.'),
    tokens_per_month: limit.default(null).describe('The same, over thirty days from the first turn.'),
    money_per_day: money
      .default(null)
      .describe('What turns cost over a day, in the currency of prices_file, e.g. "12.50".'),
    money_per_month: money.default(null).describe('The same, over thirty days from the first turn.'),
  } as const;
}

export const tenantsSchema = z
  .array(
    z.strictObject({
      id: tenantId,
      upstreams: globs.optional().describe('Upstreams allowed, by name; * matches any. Unset: all.'),
      models: globs.optional().describe('Models allowed; * matches any. Unset: all.'),
      credentials: z
        .array(
          z.strictObject({
            upstream: z.string().default('*').describe('Upstreams that the key is for.'),
            api_key_env: environmentName.optional().describe('Environment variable that holds it.'),
            api_key_file: z.string().optional().describe('Read again when it changes.'),
          }),
        )
        .default([])
        .describe('Provider keys of this tenant, instead of the upstream’s own.'),
      pass_through: z
        .enum(['forbidden', 'allowed', 'required'])
        .default('forbidden')
        .describe('Whether callers bring their own provider key (x-upstream-api-key).'),
      limits: z
        .strictObject(limitFields(DEFAULT_TENANT_LIMITS))
        .prefault({})
        .describe('Over all workers, and over all replicas with cluster.url.'),
      capture_content: z.boolean().default(false).describe('Prompts and outputs may appear in telemetry.'),
      stored_ids: z
        .enum(['strict', 'allow'])
        .default('strict')
        .describe(
          'strict: only responses and items that this gateway gave to this tenant are accepted by id, and no conversations.',
        ),
    }),
  )
  .default([])
  .describe('Who may use the gateway, and how much. Empty: one tenant, "default", with default limits.');

export const limitsSchema = z.strictObject({
  ...limitFields(DEFAULT_PROCESS_LIMITS),
  items_per_turn: z
    .int()
    .min(1)
    .max(1_000_000)
    .default(DEFAULT_MAX_ITEMS)
    .describe('Input items of one request, of any tenant. They cost time, however few bytes they are.'),
  memory_high: z
    .number()
    .min(0.1)
    .max(1)
    .default(0.85)
    .describe('Share of the memory limit above which new work is refused.'),
  memory_low: z.number().min(0.1).max(1).default(0.75).describe('Share under which it is taken again.'),
  owned_ids: byteSize()
    .prefault(formatByteSize(DEFAULT_OWNED_ID_BYTES))
    .describe(
      'Memory for response ids, per tenant, and as much for ids of items; the least recently used go first.',
    ),
});
