import { Durability, type DurabilityObserver } from '../session/durability.ts';
import type { JournalOwner } from '../session/record.ts';
import type { StoreClient } from '../store/client.ts';
import { createJournalStore } from '../store/journal-store.ts';
import { createSealer, type SealingKey } from '../store/sealing.ts';
import { TenantSalts } from '../store/tenant-salts.ts';
import type { Heartbeats, Sealer } from '../store/types.ts';

export interface DurableSessionsOptions {
  readonly client: StoreClient;
  readonly heartbeats: Heartbeats;
  readonly owner: JournalOwner;
  /** The first seals, all open. Empty: only ids are written. */
  readonly keys: readonly SealingKey[];
  readonly onFailure: 'local' | 'refuse';
  readonly resumeGraceMs: number;
  readonly observe?: DurabilityObserver;
  readonly gateTimeoutMs?: number;
  readonly onBug: (error: unknown) => void;
}

/** Sessions that another process can go on with, in the store of `client`. */
export function createDurability({ client, keys, ...options }: DurableSessionsOptions): Durability {
  return new Durability({
    ...options,
    store: createJournalStore(client),
    sealerOf: sealersOf(client, keys),
  });
}

/** What seals a tenant's content under a name, e.g. of a session; undefined: there are no keys. */
export function sealersOf(
  client: StoreClient,
  keys: readonly SealingKey[],
): ((tenantId: string, name: string, renew: boolean) => Promise<Sealer>) | undefined {
  if (keys.length === 0) return undefined;
  const salts = new TenantSalts(client);
  return async (tenantId, name, renew) =>
    createSealer(keys, await (renew ? salts.refresh(tenantId) : salts.of(tenantId)), name);
}
