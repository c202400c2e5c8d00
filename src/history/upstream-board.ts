import type { UpstreamEvent } from '../upstream/types.ts';

export type BreakerState = 'closed' | 'halfOpen' | 'open';

/** How one upstream does, as this process sees it. */
export interface UpstreamRow {
  readonly name: string;
  /** Of its worst circuit. */
  readonly breaker: BreakerState;
  /** Until an open one may be tried again. */
  readonly openMs: number | undefined;
  /** Links that wait ready. */
  readonly readyLinks: number;
  readonly dials: number;
  readonly failedDials: number;
  readonly lastDialMs: number | undefined;
  /** Of the last dial that failed. */
  readonly lastFailure:
    | {
        readonly atMs: number;
        readonly reason: string;
        readonly httpStatus: number | undefined;
        readonly errno: string | undefined;
      }
    | undefined;
  /** Of the last ping. */
  readonly rttMs: number | undefined;
  readonly heartbeatsLost: number;
  readonly transport: 'websocket' | 'sse' | undefined;
}

/** Callers' own keys have circuits of their own. */
const MAX_CIRCUITS = 256;

interface Circuit {
  readonly state: BreakerState;
  readonly openUntilMs: number;
}

type Row = { -readonly [Field in keyof Omit<UpstreamRow, 'breaker' | 'openMs'>]: UpstreamRow[Field] } & {
  readonly circuits: Map<string, Circuit>;
};

export class UpstreamBoard {
  readonly #rows = new Map<string, Row>();

  constructor(names: readonly string[] = []) {
    for (const name of names) this.#row(name);
  }

  event(event: UpstreamEvent, nowMs: number): void {
    switch (event.kind) {
      case 'dial': {
        const row = this.#row(event.upstream);
        row.dials += 1;
        row.lastDialMs = event.durationMs;
        if (event.failure === undefined) {
          row.transport = event.transport;
          return;
        }
        const { reason, httpStatus, errno } = event.failure;
        row.failedDials += 1;
        row.lastFailure = { atMs: nowMs, reason, httpStatus, errno };
        return;
      }
      case 'breaker': {
        const { circuits } = this.#row(event.upstream);
        // One that is closed is as good as none.
        circuits.delete(event.circuit);
        if (event.state === 'closed') return;
        const [oldest] = circuits.keys();
        if (circuits.size >= MAX_CIRCUITS && oldest !== undefined) circuits.delete(oldest);
        circuits.set(event.circuit, { state: event.state, openUntilMs: nowMs + (event.openMs ?? 0) });
        return;
      }
      case 'poolSize':
        this.#row(event.upstream).readyLinks = event.idle;
        return;
      case 'rtt':
        this.#row(event.upstream).rttMs = event.ms;
        return;
      case 'heartbeatLost':
        this.#row(event.upstream).heartbeatsLost += 1;
        return;
      default:
        return;
    }
  }

  rows(nowMs: number): readonly UpstreamRow[] {
    return Array.from(this.#rows.values(), ({ circuits, ...row }) => ({ ...row, ...worst(circuits, nowMs) }));
  }

  #row(name: string): Row {
    const known = this.#rows.get(name);
    if (known !== undefined) return known;
    const row: Row = {
      name,
      readyLinks: 0,
      dials: 0,
      failedDials: 0,
      lastDialMs: undefined,
      lastFailure: undefined,
      rttMs: undefined,
      heartbeatsLost: 0,
      transport: undefined,
      circuits: new Map(),
    };
    this.#rows.set(name, row);
    return row;
  }
}

/** Of several processes: counts add up, the worst breaker and the newest failure are shown. */
export function addUpstreams(all: readonly (readonly UpstreamRow[])[]): readonly UpstreamRow[] {
  const sums = new Map<string, UpstreamRow>();
  for (const row of all.flat()) {
    const known = sums.get(row.name);
    sums.set(row.name, known === undefined ? row : both(known, row));
  }
  return [...sums.values()];
}

const SEVERITY = { closed: 0, halfOpen: 1, open: 2 } as const;

function both(one: UpstreamRow, other: UpstreamRow): UpstreamRow {
  const worse = SEVERITY[other.breaker] > SEVERITY[one.breaker] ? other : one;
  const newest = (other.lastFailure?.atMs ?? 0) > (one.lastFailure?.atMs ?? 0) ? other : one;
  return {
    name: one.name,
    breaker: worse.breaker,
    openMs: worse.openMs,
    readyLinks: one.readyLinks + other.readyLinks,
    dials: one.dials + other.dials,
    failedDials: one.failedDials + other.failedDials,
    lastDialMs: one.lastDialMs ?? other.lastDialMs,
    lastFailure: newest.lastFailure,
    rttMs: one.rttMs ?? other.rttMs,
    heartbeatsLost: one.heartbeatsLost + other.heartbeatsLost,
    transport: one.transport ?? other.transport,
  };
}

function worst(
  circuits: ReadonlyMap<string, Circuit>,
  nowMs: number,
): Pick<UpstreamRow, 'breaker' | 'openMs'> {
  let breaker: BreakerState = 'closed';
  let openMs: number | undefined;
  for (const { state, openUntilMs } of circuits.values()) {
    // The time of an open one runs out without anybody dialling.
    const now = state === 'open' && nowMs >= openUntilMs ? 'halfOpen' : state;
    if (SEVERITY[now] < SEVERITY[breaker]) continue;
    breaker = now;
    openMs = now === 'open' ? Math.max(openMs ?? 0, openUntilMs - nowMs) : openMs;
  }
  return { breaker, openMs: breaker === 'open' ? openMs : undefined };
}
