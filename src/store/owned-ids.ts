import { hash } from 'node:crypto';
import type { StoreClient } from './client.ts';

const DAY_MS = 86_400_000;
/** Ids that come in one burst are written together. */
const GATHER_MS = 5;
/** A process with much to write does so this often. A client needs about as long to come elsewhere with an id. */
const INTERVAL_MS = 25;
/** What a store that is away may leave waiting; the oldest go first. */
const MAX_WAITING = 65_536;
/**
 * Small hashes are stored as lists without pointers, some 15 bytes an id; that ends at 512 entries, so a tenant's day
 * is many of them.
 */
const BUCKETS = 256;
/** A million ids a day: what a tenant has above that is known to the process that gave it out. */
const MAX_BUCKET_IDS = 4_096;
const DIGEST_BYTES = 12;

/** Ids of one command. */
const MAX_WRITTEN = 256;

/**
 * Each key with the digest of the same number. A bucket gets its end with its first id, and no more ids when it is full.
 * ARGV: time to live in ms, greatest number of ids, digests.
 */
const WRITE = `
for i = 1, #KEYS do
  local count = redis.call('HLEN', KEYS[i])
  if count < tonumber(ARGV[2]) then redis.call('HSET', KEYS[i], ARGV[i + 2], '') end
  if count == 0 then redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
end
return #KEYS`;

/** The newest day first. ARGV: the digest. */
const LOOK = `
for i = 1, #KEYS do
  if redis.call('HEXISTS', KEYS[i], ARGV[1]) == 1 then return 1 end
end
return 0`;

interface Waiting {
  readonly tenantId: string;
  readonly digest: Buffer;
}

/** Response ids of tenants, as digests in buckets for each day. */
export class OwnedIdBuckets {
  readonly #client: StoreClient;
  readonly #days: number;
  readonly #now: () => number;
  #waiting: Waiting[] = [];
  #timer: NodeJS.Timeout | undefined;
  #flushedAtMs = Number.NEGATIVE_INFINITY;

  constructor(client: StoreClient, days: number, now: () => number = Date.now) {
    this.#client = client;
    this.#days = days;
    this.#now = now;
  }

  /** Written soon; nobody waits for it. */
  add(tenantId: string, responseId: string): void {
    this.#waiting.push({ tenantId, digest: digestOf(tenantId, responseId) });
    if (this.#waiting.length > MAX_WAITING) this.#waiting.shift();
    if (this.#timer !== undefined) return;
    const waitMs = Math.max(GATHER_MS, this.#flushedAtMs + INTERVAL_MS - performance.now());
    this.#timer = setTimeout(() => void this.flush(), waitMs);
  }

  /** Rejects with StoreError. */
  async has(tenantId: string, responseId: string): Promise<boolean> {
    const digest = digestOf(tenantId, responseId);
    // One that was given out a moment ago is written first, on the same connection.
    if (this.#waiting.length > 0) void this.flush();
    const keys = this.#daysKept().map((day) => this.#keyOf(tenantId, day, bucketOf(digest)));
    const command = ['EVAL', LOOK, String(keys.length), ...keys, fieldOf(digest)];
    return (await this.#client.command(keys[0] ?? '', command)) === 1;
  }

  /** Rejects with StoreError. */
  async forget(tenantId: string): Promise<void> {
    this.#waiting = this.#waiting.filter((each) => each.tenantId !== tenantId);
    for (const day of this.#daysKept()) {
      const keys = Array.from({ length: BUCKETS }, (_, bucket) => this.#keyOf(tenantId, day, bucket));
      await Promise.all(keys.map((key) => this.#client.command(key, ['UNLINK', key])));
    }
  }

  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#flushedAtMs = performance.now();
    if (!this.#client.ready) return this.#later(this.#waiting.splice(0));
    const byTenant = Map.groupBy(this.#waiting.splice(0), ({ tenantId }) => tenantId);
    await Promise.all(Array.from(byTenant, ([tenantId, ids]) => this.#writeAll(tenantId, ids)));
  }

  async #writeAll(tenantId: string, ids: readonly Waiting[]): Promise<void> {
    const writes: Promise<void>[] = [];
    for (let from = 0; from < ids.length; from += MAX_WRITTEN) {
      writes.push(this.#write(tenantId, ids.slice(from, from + MAX_WRITTEN)));
    }
    await Promise.all(writes);
  }

  async #write(tenantId: string, ids: readonly Waiting[]): Promise<void> {
    const day = dayOf(this.#now());
    const keys = ids.map(({ digest }) => this.#keyOf(tenantId, day, bucketOf(digest)));
    // A day more, so that the last hours of the first day count in full.
    const ttlMs = String((this.#days + 1) * DAY_MS);
    const args = [ttlMs, String(MAX_BUCKET_IDS), ...ids.map(({ digest }) => fieldOf(digest))];
    try {
      await this.#client.command(keys[0] ?? '', ['EVAL', WRITE, String(keys.length), ...keys, ...args]);
    } catch {
      // Writing one twice is harmless.
      this.#later(ids);
    }
  }

  #later(ids: readonly Waiting[]): void {
    if (ids.length === 0) return;
    this.#waiting = [...ids, ...this.#waiting].slice(-MAX_WAITING);
    this.#timer ??= setTimeout(() => void this.flush(), 1_000).unref();
  }

  /** The newest first. Clocks differ: where midnight has been, ids of tomorrow are given out. */
  #daysKept(): readonly number[] {
    const tomorrow = dayOf(this.#now()) + 1;
    return Array.from({ length: this.#days + 2 }, (_, ago) => tomorrow - ago);
  }

  #keyOf(tenantId: string, day: number, bucket: number): string {
    // The braces keep a tenant's ids on one node of a cluster.
    return this.#client.key(`ids:{${tenantId}}:${day}:${bucket.toString(16)}`);
  }
}

/** One byte says the bucket, the others are stored. */
function digestOf(tenantId: string, responseId: string): Buffer {
  return hash('sha256', `${tenantId}\0${responseId}`, 'buffer').subarray(0, DIGEST_BYTES + 1);
}

function bucketOf(digest: Buffer): number {
  return digest[0] ?? 0;
}

function fieldOf(digest: Buffer): Buffer {
  return digest.subarray(1);
}

function dayOf(ms: number): number {
  return Math.floor(ms / DAY_MS);
}
