/** Between two connections of an address that has broken the protocol. */
const SPACING_MS = 1_000;
/** An offence is forgotten after this. */
const REMEMBERED_MS = 10_000;
/** Connections of one address that may wait; further ones are closed. */
const MAX_WAITING = 64;
/** The oldest offence is forgotten before this many addresses are known. */
const MAX_ADDRESSES = 10_000;

interface Offender {
  offendedAtMs: number;
  nextAtMs: number;
  waiting: number;
}

/**
 * What a client can do to a connection before it is closed, it can do again over the next one. Addresses whose
 * connections had to be closed for breaking HTTP/2 get new ones one at a time; those they have are not touched.
 */
export class ConnectionPacing {
  readonly #now: () => number;
  /** In the order of their last offences. */
  readonly #offenders = new Map<string, Offender>();

  constructor(now: () => number) {
    this.#now = now;
  }

  offended(address: string): void {
    const nowMs = this.#now();
    const offender = this.#known(address) ?? { offendedAtMs: nowMs, nextAtMs: nowMs, waiting: 0 };
    offender.offendedAtMs = nowMs;
    offender.nextAtMs = Math.max(offender.nextAtMs, nowMs + SPACING_MS);
    this.#offenders.delete(address);
    const [oldest] = this.#offenders.keys();
    if (oldest !== undefined && this.#offenders.size >= MAX_ADDRESSES) this.#offenders.delete(oldest);
    this.#offenders.set(address, offender);
  }

  /** Serves a new connection now or later, or refuses it. */
  arrived(address: string, serve: () => void, refuse: () => void): void {
    const offender = this.#known(address);
    if (offender === undefined) return serve();
    if (offender.waiting >= MAX_WAITING) return refuse();
    const nowMs = this.#now();
    const atMs = Math.max(nowMs, offender.nextAtMs);
    offender.nextAtMs = atMs + SPACING_MS;
    if (atMs === nowMs) return serve();
    offender.waiting += 1;
    setTimeout(() => {
      offender.waiting -= 1;
      serve();
    }, atMs - nowMs).unref();
  }

  #known(address: string): Offender | undefined {
    const offender = this.#offenders.get(address);
    if (offender === undefined) return undefined;
    if (offender.waiting > 0 || this.#now() < offender.offendedAtMs + REMEMBERED_MS) return offender;
    this.#offenders.delete(address);
    return undefined;
  }
}
