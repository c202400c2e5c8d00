import type { UpstreamEvent } from '../upstream/types.ts';
import type { Instruments } from './meters.ts';

const BREAKER_STATES = { closed: 0, halfOpen: 1, open: 2 } as const;

/** Metrics of the dialer. Upstreams are named by the operator, so their names are few. */
export function createUpstreamMeters(instruments: Instruments): (event: UpstreamEvent) => void {
  const idle = new Map<string, number>();
  const circuits = new Map<string, Circuit>();
  instruments.observe('responses_gateway.pool.idle.links', () => byUpstream(idle));
  instruments.observe('responses_gateway.upstream.breaker', () => breakers(circuits));

  return (event) => {
    switch (event.kind) {
      case 'poolHit':
      case 'poolMiss':
        instruments.add('responses_gateway.pool.checkouts', 1, {
          upstream: event.upstream,
          result: event.kind === 'poolHit' ? 'hit' : 'miss',
        });
        return;
      case 'poolSize':
        idle.set(event.upstream, event.idle);
        return;
      case 'dial':
        instruments.record('responses_gateway.link.connect.duration', event.durationMs / 1_000, {
          upstream: event.upstream,
          transport: event.transport,
          purpose: event.purpose,
          ...(event.failure !== undefined && { 'error.type': event.failure.reason }),
        });
        return;
      case 'failover':
        instruments.add('responses_gateway.upstream.failovers', 1, { from: event.from, to: event.to });
        return;
      case 'sseFallback':
        instruments.add('responses_gateway.upstream.sse_fallbacks', 1, { upstream: event.upstream });
        return;
      case 'lanesRefuted':
        instruments.add('responses_gateway.upstream.lanes_refuted', 1, { upstream: event.upstream });
        return;
      case 'breaker':
        circuits.set(event.circuit, {
          upstream: event.upstream,
          credential: event.credential,
          state: BREAKER_STATES[event.state],
          openUntilMs: performance.now() + (event.openMs ?? 0),
        });
        // One that is closed is remembered for its upstream alone, so that the series goes back to 0.
        if (event.state === 'closed') settle(circuits, event.circuit);
        return;
      case 'rtt':
        instruments.record('responses_gateway.upstream.rtt', event.ms / 1_000, { upstream: event.upstream });
        return;
      case 'heartbeatLost':
        instruments.add('responses_gateway.upstream.heartbeats.lost', 1, { upstream: event.upstream });
        return;
    }
  };
}

interface Circuit {
  readonly upstream: string;
  readonly credential: 'own' | 'other';
  readonly state: number;
  readonly openUntilMs: number;
}

function settle(circuits: Map<string, Circuit>, circuit: string): void {
  const closed = circuits.get(circuit);
  circuits.delete(circuit);
  if (closed !== undefined) circuits.set(`${closed.upstream} ${closed.credential}`, closed);
}

/** The worst circuit of each upstream and kind of key. The time of an open one runs out without anybody dialling. */
function breakers(
  circuits: ReadonlyMap<string, Circuit>,
): Iterable<[number, { upstream: string; credential: string }]> {
  const worst = new Map<string, [number, { upstream: string; credential: string }]>();
  for (const { upstream, credential, state, openUntilMs } of circuits.values()) {
    const now =
      state === BREAKER_STATES.open && performance.now() >= openUntilMs ? BREAKER_STATES.halfOpen : state;
    const key = `${upstream} ${credential}`;
    const known = worst.get(key);
    if (known === undefined || known[0] < now) worst.set(key, [now, { upstream, credential }]);
  }
  return worst.values();
}

function byUpstream(values: ReadonlyMap<string, number>): [number, { upstream: string }][] {
  return [...values].map(([upstream, value]) => [value, { upstream }]);
}
