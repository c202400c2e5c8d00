import type { StoreClient } from './client.ts';
import { StoreError } from './store-error.ts';

/** Something about the server that an operator should change. */
export interface StoreFinding {
  /** `error`: sessions would be lost in silence. `warning`: they are less safe than they might be. */
  readonly severity: 'error' | 'warning';
  readonly message: string;
}

const MIN_REDIS_MAJOR = 5;

/**
 * Looks at what the server says of itself: its version, what it does when its memory is full, whether it survives a
 * restart. Says nothing about what a managed server does not tell. Rejects with StoreError.
 */
export async function checkStore(client: StoreClient): Promise<readonly StoreFinding[]> {
  const key = client.key('check');
  const info = await infoOf(client, key);
  const findings: StoreFinding[] = [];
  const version = info.get('redis_version') ?? '';
  const [major = 0] = version.split('.').map(Number);
  if (major > 0 && major < MIN_REDIS_MAJOR)
    findings.push({
      severity: 'error',
      message: `the server is version ${version}; sessions need streams, which came with version ${MIN_REDIS_MAJOR}`,
    });
  const policy = info.get('maxmemory_policy');
  const maxMemory = Number(info.get('maxmemory') ?? 0);
  if (policy !== undefined && policy !== 'noeviction' && maxMemory > 0)
    findings.push({
      severity: 'error',
      message: `the server drops keys when its memory is full (maxmemory-policy ${policy}), and sessions with them; set maxmemory-policy noeviction`,
    });
  if (info.get('role') === 'slave')
    findings.push({
      severity: 'error',
      message: 'the server is a replica, which takes no writes; name the primary, or use Sentinel',
    });
  if (info.get('aof_enabled') === '0' && info.get('connected_slaves') === '0')
    findings.push({
      severity: 'warning',
      message:
        'the server keeps no append-only file and has no replica: a restart of it loses the records of all sessions, which then are written anew',
    });
  return findings;
}

async function infoOf(client: StoreClient, key: string): Promise<ReadonlyMap<string, string>> {
  try {
    const reply = await client.command(key, ['INFO']);
    const lines = typeof reply === 'string' ? reply.split(/\r?\n/) : [];
    return new Map(
      lines.flatMap((line) => {
        const colon = line.indexOf(':');
        return colon > 0 ? [[line.slice(0, colon), line.slice(colon + 1)] as const] : [];
      }),
    );
  } catch (error) {
    // An ACL may forbid it, which says nothing about the server.
    if (error instanceof StoreError && error.code === 'NOPERM') return new Map();
    throw error;
  }
}
