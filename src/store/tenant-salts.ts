import { randomBytes } from 'node:crypto';
import type { StoreClient } from './client.ts';

const SALT_BYTES = 32;
/** Tenants whose salts are remembered; more are asked for again. */
const MAX_REMEMBERED = 10_000;
/** A tenant that was forgotten begins anew everywhere after this. */
const MAX_AGE_MS = 60_000;

/** A random salt for each tenant, without which nothing of its sealed content can be read: replacing it deletes that. */
export class TenantSalts {
  readonly #client: StoreClient;
  readonly #now: () => number;
  readonly #known = new Map<string, { readonly salt: Buffer; readonly atMs: number }>();

  constructor(client: StoreClient, now: () => number = () => performance.now()) {
    this.#client = client;
    this.#now = now;
  }

  /** As the store had it within the last minute. Rejects with StoreError. */
  async of(tenantId: string): Promise<Buffer> {
    const known = this.#known.get(tenantId);
    return known !== undefined && this.#now() - known.atMs < MAX_AGE_MS ? known.salt : this.refresh(tenantId);
  }

  /** What the store has, whatever was known: it may have lost the salt, or another process may have made one. */
  async refresh(tenantId: string): Promise<Buffer> {
    const key = this.#keyOf(tenantId);
    const fresh = this.#known.get(tenantId)?.salt ?? randomBytes(SALT_BYTES);
    await this.#client.command(key, ['SET', key, fresh, 'NX']);
    const salt = await this.#client.command(key, ['GET', key], { bytes: true });
    if (!Buffer.isBuffer(salt)) throw new Error('the salt of a tenant was deleted while it was read');
    if (this.#known.size >= MAX_REMEMBERED) this.#known.clear();
    this.#known.set(tenantId, { salt, atMs: this.#now() });
    return salt;
  }

  /**
   * Makes what is sealed for the tenant unreadable, here and in every copy of the store that follows. Another salt takes
   * the place: processes that remember the old one would give an empty place that back, as after a loss.
   */
  async forget(tenantId: string): Promise<void> {
    this.#known.delete(tenantId);
    const key = this.#keyOf(tenantId);
    await this.#client.command(key, ['SET', key, randomBytes(SALT_BYTES)]);
  }

  #keyOf(tenantId: string): string {
    return this.#client.key(`salt:${tenantId}`);
  }
}
