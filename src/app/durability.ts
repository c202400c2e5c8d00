import { readFileSync } from 'node:fs';
import { Durability, type DurabilityObserver } from '../session/durability.ts';
import type { JournalOwner } from '../session/record.ts';
import type { StoreClient } from '../store/client.ts';
import { createJournalStore } from '../store/journal-store.ts';
import { createSealer, type SealingKey } from '../store/sealing.ts';
import { TenantSalts } from '../store/tenant-salts.ts';
import type { Heartbeats } from '../store/types.ts';

export interface DurableSessionsOptions {
  readonly client: StoreClient;
  readonly heartbeats: Heartbeats;
  readonly owner: JournalOwner;
  /** The first seals, all open. Empty: only ids are written. */
  readonly keys: readonly SealingKey[];
  readonly onFailure: 'local' | 'refuse';
  readonly resumeGraceMs: number;
  readonly observe?: DurabilityObserver;
  readonly onBug: (error: unknown) => void;
}

/** Sessions that another process can go on with, in the store of `client`. */
export function createDurability({ client, keys, ...options }: DurableSessionsOptions): Durability {
  const salts = new TenantSalts(client);
  return new Durability({
    ...options,
    store: createJournalStore(client),
    sealerOf:
      keys.length === 0
        ? undefined
        : async (tenantId, sessionId, renew) => {
            const salt = await (renew ? salts.refresh(tenantId) : salts.of(tenantId));
            return createSealer(keys, salt, sessionId);
          },
  });
}

const KEY_BYTES = 32;

/** Reads the keys of the configuration. Throws an Error that names the file and what is wrong with it. */
export function readSealingKeys(
  keys: readonly { readonly id: string; readonly key_file: string }[],
): readonly SealingKey[] {
  const seen = new Set<string>();
  return keys.map(({ id, key_file }) => {
    if (seen.has(id)) throw new Error(`cluster.store.keys: two keys are called ${JSON.stringify(id)}`);
    seen.add(id);
    return { id, secret: keyIn(readFileSync(key_file), key_file) };
  });
}

/** 32 bytes as they are, in hex or in base64. */
function keyIn(bytes: Buffer, file: string): Buffer {
  if (bytes.length === KEY_BYTES) return bytes;
  const text = bytes.toString('latin1').trim();
  if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, 'hex');
  if (/^[A-Za-z0-9+/_-]{43}=?$/.test(text)) return Buffer.from(text, 'base64');
  throw new Error(
    `${file}: found ${bytes.length} bytes; a key is 32 random bytes, as they are, in hex or in base64`,
  );
}
