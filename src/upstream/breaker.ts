import { GatewayError, type Reason } from '../errors.ts';
import { backoffMs } from '../ground/backoff.ts';

export interface BreakerOptions {
  /** Failures in a row that open the circuit; what one caller fails within `openMaxMs` is one. */
  readonly failures: number;
  /** Shortest and longest time that the circuit stays open; it doubles with every failed probe. */
  readonly openMinMs: number;
  readonly openMaxMs: number;
  readonly now: () => number;
  readonly random: () => number;
  /** `openMs`: how long an open circuit stays so; after that it is half open, whether somebody dials or not. */
  readonly onState?: (key: string, state: 'open' | 'halfOpen' | 'closed', openMs?: number) => void;
}

export interface DialFailure {
  /** What the upstream asked for. */
  readonly retryAfterMs?: number | undefined;
  /** Whose dials are one failure when they come close together. Default: nobody else's. */
  readonly by?: object | string | undefined;
  readonly reason?: Reason;
  /** When it was admitted, of the breaker's clock. */
  readonly beganAtMs?: number;
}

/** One lost dial is weather, however often one session repeats it; five in a row of several are an outage. */
export const DEFAULT_BREAKER_FAILURES = 5;
/** About the time a load balancer needs to notice a dead backend. */
export const DEFAULT_BREAKER_OPEN_MIN_MS = 5_000;
/** Recovery is noticed within a minute. */
export const DEFAULT_BREAKER_OPEN_MAX_MS = 60_000;

/** Keys that callers bring themselves may be any number: the oldest circuit is forgotten above this. */
const MAX_CIRCUITS = 4_096;

type Circuit =
  | {
      readonly t: 'counting';
      readonly failures: number;
      readonly countedAtMs: ReadonlyMap<object | string, number>;
    }
  | { readonly t: 'open'; readonly untilMs: number; readonly opened: number; readonly why: Why }
  | { readonly t: 'probing'; readonly sinceMs: number; readonly opened: number; readonly why: Why };

/** An upstream that refuses our key is well: nothing is told of it but the key, and the error stays what it was. */
type Why = 'outage' | 'refusedKey';

/** Circuits by key (upstream and credential). A key without a circuit is closed. */
export class Breaker {
  readonly #options: BreakerOptions;
  readonly #circuits = new Map<string, Circuit>();
  /** When a dial last succeeded, by key. */
  readonly #succeededAtMs = new Map<string, number>();
  #retired = false;

  constructor(options: BreakerOptions) {
    this.#options = options;
  }

  /**
   * Whether a dial may be made now; if so, exactly one of `succeeded`, `failed` or `abandoned` has to follow.
   * Returns UPSTREAM_CIRCUIT_OPEN with the time to wait otherwise, or UPSTREAM_AUTH where it was the key that failed.
   */
  admit(key: string): GatewayError | undefined {
    const circuit = this.#circuits.get(key);
    if (circuit === undefined || circuit.t === 'counting') return undefined;
    const nowMs = this.#options.now();
    // A probe that is never decided must not keep the circuit open for ever.
    const retryAtMs = circuit.t === 'open' ? circuit.untilMs : circuit.sinceMs + this.#options.openMaxMs;
    if (nowMs >= retryAtMs) {
      this.#set(key, { t: 'probing', sinceMs: nowMs, opened: circuit.opened, why: circuit.why });
      if (circuit.why === 'outage') this.#tell(key, 'halfOpen');
      return undefined;
    }
    // Beside a probe the wait is that for its outcome, mostly much less than the longest.
    const retryAfterMs = circuit.t === 'open' ? retryAtMs - nowMs : this.#options.openMinMs;
    return circuit.why === 'outage'
      ? new GatewayError(
          'UPSTREAM_CIRCUIT_OPEN',
          'the upstream failed repeatedly; waiting before the next try',
          { retryAfterMs },
        )
      : new GatewayError(
          'UPSTREAM_AUTH',
          "the upstream refused the gateway's key repeatedly; waiting before the next try",
          { retryAfterMs },
        );
  }

  succeeded(key: string): void {
    const circuit = this.#circuits.get(key);
    this.#circuits.delete(key);
    this.#succeededAtMs.delete(key);
    this.#succeededAtMs.set(key, this.#options.now());
    forgetOldest(this.#succeededAtMs);
    if (isOutage(circuit)) this.#tell(key, 'closed');
  }

  failed(key: string, { retryAfterMs, by = {}, reason, beganAtMs }: DialFailure = {}): void {
    const circuit = this.#circuits.get(key) ?? { t: 'counting', failures: 0, countedAtMs: new Map() };
    if (circuit.t === 'counting') {
      const nowMs = this.#options.now();
      // The upstream has answered another since: it was slow, or is back.
      if (beganAtMs !== undefined && beganAtMs < (this.#succeededAtMs.get(key) ?? beganAtMs)) return;
      const countedAtMs = circuit.countedAtMs.get(by);
      if (countedAtMs !== undefined && nowMs - countedAtMs < this.#options.openMaxMs) return;
      const failures = circuit.failures + 1;
      if (failures < this.#options.failures) {
        this.#set(key, {
          t: 'counting',
          failures,
          countedAtMs: new Map(circuit.countedAtMs).set(by, nowMs),
        });
        return;
      }
    }
    // A dial that had begun before the circuit opened tells nothing new.
    if (circuit.t === 'open') return;
    const why: Why = reason === 'UPSTREAM_AUTH' ? 'refusedKey' : 'outage';
    const opened = circuit.t === 'probing' && circuit.why === why ? circuit.opened + 1 : 0;
    const { openMinMs: minMs, openMaxMs: maxMs, random, now } = this.#options;
    const openMs = Math.max(backoffMs(opened, { minMs, maxMs, random }), Math.min(retryAfterMs ?? 0, maxMs));
    this.#set(key, { t: 'open', untilMs: now() + openMs, opened, why });
    if (why === 'outage') this.#tell(key, 'open', openMs);
    else if (isOutage(circuit)) this.#tell(key, 'closed');
  }

  /** The caller gave up before the dial was decided: a probe's place is free again. */
  abandoned(key: string): void {
    const circuit = this.#circuits.get(key);
    if (circuit?.t === 'probing') this.#set(key, { ...circuit, t: 'open', untilMs: this.#options.now() });
  }

  /** Another breaker takes its place and tells of the same circuits. */
  retire(): void {
    for (const [key, circuit] of this.#circuits) if (isOutage(circuit)) this.#tell(key, 'closed');
    this.#retired = true;
  }

  #tell(key: string, state: 'open' | 'halfOpen' | 'closed', openMs?: number): void {
    if (!this.#retired) this.#options.onState?.(key, state, openMs);
  }

  #set(key: string, circuit: Circuit): void {
    this.#circuits.delete(key);
    this.#circuits.set(key, circuit);
    const forgotten = forgetOldest(this.#circuits);
    if (forgotten !== undefined && isOutage(forgotten[1])) this.#tell(forgotten[0], 'closed');
  }
}

function forgetOldest<V>(circuits: Map<string, V>): readonly [string, V] | undefined {
  if (circuits.size <= MAX_CIRCUITS) return undefined;
  const [oldest] = circuits;
  if (oldest !== undefined) circuits.delete(oldest[0]);
  return oldest;
}

function isOutage(circuit: Circuit | undefined): boolean {
  return circuit !== undefined && circuit.t !== 'counting' && circuit.why === 'outage';
}
