import { randomBytes } from 'node:crypto';
import type { StoreClient } from './client.ts';

const SALT_BYTES = 32;
/** Tenants whose salts are remembered; more are asked for again. */
const MAX_REMEMBERED = 10_000;

/** A random salt for each tenant, without which nothing of its sealed content can be read: deleting it deletes that. */
export class TenantSalts {
  readonly #client: StoreClient;
  readonly #known = new Map<string, Buffer>();

  constructor(client: StoreClient) {
    this.#client = client;
  }

  /** Rejects with StoreError. */
  async of(tenantId: string): Promise<Buffer> {
    return this.#known.get(tenantId) ?? this.refresh(tenantId);
  }

  /** What the store has, whatever was known: it may have lost the salt, or another process may have made one. */
  async refresh(tenantId: string): Promise<Buffer> {
    const key = this.#keyOf(tenantId);
    const fresh = this.#known.get(tenantId) ?? randomBytes(SALT_BYTES);
    await this.#client.command(key, ['SET', key, fresh, 'NX']);
    const salt = await this.#client.command(key, ['GET', key], { bytes: true });
    if (!Buffer.isBuffer(salt)) throw new Error('the salt of a tenant was deleted while it was read');
    if (this.#known.size >= MAX_REMEMBERED) this.#known.clear();
    this.#known.set(tenantId, salt);
    return salt;
  }

  /** Makes what is sealed for the tenant unreadable, here and in every copy of the store that follows. */
  async delete(tenantId: string): Promise<void> {
    this.#known.delete(tenantId);
    const key = this.#keyOf(tenantId);
    await this.#client.command(key, ['UNLINK', key]);
  }

  #keyOf(tenantId: string): string {
    return this.#client.key(`salt:${tenantId}`);
  }
}
