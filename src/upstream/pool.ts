import type { LinkListener, Observe } from './types.ts';
import type { WsLink } from './ws-link.ts';

export interface PoolOptions {
  /** Links kept ready per upstream, tenant and credential. 0: none. */
  readonly size: number;
  /** Links ready over all keys. */
  readonly maxIdleLinks: number;
  /** A link that waited longer is closed, and a key that was not asked for as long is forgotten. */
  readonly maxIdleMs: number;
  readonly observe: Observe;
}

/** One for the session that comes next and one for the session that comes while the first is being replaced. */
export const DEFAULT_POOL_SIZE = 2;
/** Idle connections are cheap here (35 KB) but count against the upstream's limits on connections. */
export const DEFAULT_MAX_IDLE_LINKS = 64;
/** A twelfth of the shortest life of a link that OpenAI grants: what is handed out is nearly new. */
export const DEFAULT_MAX_IDLE_MS = 5 * 60_000;

/** Whose links: they are never shared over tenants or credentials. */
export interface PoolKey {
  readonly upstream: string;
  readonly tenantId: string;
  readonly fingerprint: string | undefined;
}

/** Opens one link for the pool. */
export type OpenLink = (listener: LinkListener) => WsLink;

interface Shelf {
  readonly upstream: string;
  readonly ready: WsLink[];
  readonly dialing: Set<WsLink>;
  lastAskedAt: number;
  open: OpenLink;
}

/** Links that were given up because memory was short are not to be back before it is known whether that helped. */
const SHED_MS = 30_000;

/** Idle links, dialled ahead of need once a key has been used. */
export class LinkPool {
  readonly #options: PoolOptions;
  readonly #shelves = new Map<string, Shelf>();
  #sweeper: NodeJS.Timeout | undefined;
  #shedUntilMs = 0;
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** The youngest link that waits, or undefined. */
  take(key: PoolKey): WsLink | undefined {
    const shelf = this.#shelves.get(keyOf(key));
    if (shelf !== undefined) shelf.lastAskedAt = performance.now();
    const link = shelf?.ready.pop();
    if (this.#options.size > 0) {
      this.#options.observe({ kind: link === undefined ? 'poolMiss' : 'poolHit', upstream: key.upstream });
    }
    if (shelf !== undefined) this.#report(shelf);
    return link;
  }

  /**
   * Called when a link of this key came up or was taken: dials until `size` links wait. A dial that fails is not
   * repeated before the next call, so a dead upstream is not hammered from here.
   */
  fill(key: PoolKey, open: OpenLink): void {
    if (this.#options.size === 0 || this.#closed) return;
    const name = keyOf(key);
    const shelf = this.#shelves.get(name) ?? {
      upstream: key.upstream,
      ready: [],
      dialing: new Set(),
      lastAskedAt: 0,
      open,
    };
    shelf.open = open;
    shelf.lastAskedAt = performance.now();
    this.#shelves.set(name, shelf);
    this.#refill(shelf);
    this.#sweeper ??= setInterval(() => this.#sweep(), Math.max(10, this.#options.maxIdleMs / 8)).unref();
  }

  /** Closes what waits, and opens nothing for a while. Returns how many there were. */
  shed(): number {
    this.#shedUntilMs = performance.now() + SHED_MS;
    const waiting = [...this.#shelves.values()].flatMap((shelf) =>
      [...shelf.ready, ...shelf.dialing].map((link) => ({ shelf, link })),
    );
    for (const { shelf, link } of waiting) {
      link.close(1000, '');
      this.#drop(shelf, link);
    }
    return waiting.length;
  }

  /** Closes what waits, and opens nothing any more. */
  close(): void {
    this.#closed = true;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
    for (const { ready, dialing } of this.#shelves.values()) {
      for (const link of [...ready, ...dialing]) link.close(1000, '');
    }
    const shelves = [...this.#shelves.values()];
    this.#shelves.clear();
    for (const shelf of shelves) this.#report(shelf);
  }

  #refill(shelf: Shelf): void {
    if (performance.now() < this.#shedUntilMs) return;
    while (
      shelf.ready.length + shelf.dialing.size < this.#options.size &&
      this.#idle() < this.#options.maxIdleLinks
    ) {
      const link: WsLink = shelf.open({
        onUp: () => {
          shelf.dialing.delete(link);
          shelf.ready.push(link);
          this.#report(shelf);
        },
        // Nothing was asked on this link, so whatever it says is about its end (upstream.md#error-codes).
        onFrame: () => {
          link.close(1000, '');
          this.#drop(shelf, link);
        },
        onDown: () => this.#drop(shelf, link),
        onBlocked: () => {},
        onWritable: () => {},
      });
      shelf.dialing.add(link);
    }
  }

  #drop(shelf: Shelf, link: WsLink): void {
    shelf.dialing.delete(link);
    const at = shelf.ready.indexOf(link);
    if (at < 0) return;
    shelf.ready.splice(at, 1);
    this.#report(shelf);
  }

  #sweep(): void {
    const { maxIdleMs } = this.#options;
    const now = performance.now();
    for (const [name, shelf] of this.#shelves) {
      for (const link of [...shelf.ready]) {
        if (link.ageMs < maxIdleMs) continue;
        link.close(1000, '');
        this.#drop(shelf, link);
      }
      if (now - shelf.lastAskedAt < maxIdleMs) this.#refill(shelf);
      else if (shelf.ready.length + shelf.dialing.size === 0) this.#shelves.delete(name);
    }
    if (this.#shelves.size > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }

  #idle(): number {
    let count = 0;
    for (const { ready, dialing } of this.#shelves.values()) count += ready.length + dialing.size;
    return count;
  }

  #report({ upstream }: Shelf): void {
    let idle = 0;
    for (const shelf of this.#shelves.values()) if (shelf.upstream === upstream) idle += shelf.ready.length;
    this.#options.observe({ kind: 'poolSize', upstream, idle });
  }
}

/** JSON keeps names with any character apart. */
function keyOf({ upstream, tenantId, fingerprint }: PoolKey): string {
  return JSON.stringify([upstream, tenantId, fingerprint ?? null]);
}
