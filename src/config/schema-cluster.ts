import * as z from 'zod';
import { parseStoreUrl } from '../store/url.ts';
import { duration, hostPort } from './units.ts';

/** Beside the gRPC port, so that a firewall can tell the two apart. */
const DEFAULT_PEER_LISTEN = '0.0.0.0:50052';
const DEFAULT_PREFIX = 'rg';
/** As long as OpenAI keeps stored responses. */
const DEFAULT_OWNED_ID_DAYS = 30;
/** A server in the same network answers within a millisecond; turns wait for it, so it is not given long. */
const DEFAULT_TIMEOUT = '250ms';

const storeUrl = z.string().check(({ value, issues }) => {
  try {
    parseStoreUrl(value);
  } catch (error) {
    issues.push({ code: 'custom', message: (error as Error).message, input: value });
  }
});

const storeKeySchema = z.strictObject({
  id: z
    .string()
    .regex(/^[A-Za-z0-9_.-]{1,32}$/, '1 to 32 letters, digits, ".", "_" or "-"')
    .describe('Stands beside what the key has sealed, so that it is found again.'),
  key_file: z.string().describe('32 random bytes, as they are, in hex or in base64.'),
});

const storeSchema = z.strictObject({
  keys: z
    .array(storeKeySchema)
    .default([])
    .describe(
      'Keys that seal conversations in the store (AES-256-GCM). The first seals, all open. Empty: only ids are stored, and sessions whose turns say store: false are not durable.',
    ),
  on_failure: z
    .enum(['local', 'refuse'])
    .default('local')
    .describe('New sessions while the store is away: held by this process alone, or refused.'),
});

export const clusterSchema = z.strictObject({
  url: storeUrl.describe(
    'The Valkey or Redis server: valkey://host:6379/0, valkey+sentinel://host:26379,host:26379/primary or valkey+cluster://host:6379,host:6379; with TLS valkeys://. redis and rediss mean the same. A password belongs in password_file.',
  ),
  username: z.string().min(1).optional().describe('ACL user. Unset: the default user.'),
  password_file: z.string().optional().describe('File with the password of the server.'),
  tls: z
    .strictObject({
      ca_file: z.string().optional().describe('CA of the server, PEM. Unset: those that Node trusts.'),
      cert_file: z.string().optional().describe('Client certificate, PEM.'),
      key_file: z.string().optional().describe('Its private key, PEM.'),
      server_name: z.string().optional().describe('Name in the server’s certificate, when not the host.'),
    })
    .optional()
    .describe('For URLs that ask for TLS.'),
  prefix: z
    .string()
    .regex(/^[A-Za-z0-9_.:-]{1,64}$/, '1 to 64 letters, digits, "_", ".", ":" or "-"')
    .default(DEFAULT_PREFIX)
    .describe('Begins every key. Gateways with one prefix are one cluster.'),
  timeout: duration({ min: '10ms', max: '10s' })
    .prefault(DEFAULT_TIMEOUT)
    .describe('How long an answer of the server is waited for. Then the gateway goes on by itself.'),
  listen: hostPort()
    .prefault(DEFAULT_PEER_LISTEN)
    .describe('Address for the other replicas. Only open with secret_file or peer_tls.'),
  advertise: hostPort()
    .optional()
    .describe(
      'Address by which the other replicas reach this one. Unset: the first address of this machine.',
    ),
  secret_file: z
    .string()
    .optional()
    .describe(
      'Secrets of 32 bytes or more that all replicas share, one a line: the first signs what replicas hand on, all are accepted.',
    ),
  peer_tls: z
    .strictObject({
      cert_file: z.string().describe('Certificate of this replica, PEM; read again when it changes.'),
      key_file: z.string().describe('Its private key, PEM.'),
      ca_file: z
        .string()
        .describe('CA of the replicas, PEM. Others of it are let in that share a name with this one.'),
    })
    .optional()
    .describe('mTLS between replicas.'),
  owned_id_days: z
    .int()
    .min(1)
    .max(366)
    .default(DEFAULT_OWNED_ID_DAYS)
    .describe('How long the response ids of a tenant are known to all replicas.'),
  store: storeSchema
    .optional()
    .describe('Durable sessions: any replica goes on with a session whose process is gone. Unset: none.'),
});
