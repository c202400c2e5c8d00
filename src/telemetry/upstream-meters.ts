import type { UpstreamEvent } from '../upstream/types.ts';
import type { Instruments } from './meters.ts';

const BREAKER_STATES = { closed: 0, halfOpen: 1, open: 2 } as const;

/** Metrics of the dialer. Upstreams are named by the operator, so their names are few. */
export function createUpstreamMeters(instruments: Instruments): (event: UpstreamEvent) => void {
  const idle = new Map<string, number>();
  const breakers = new Map<string, number>();
  instruments.observe('responses_gateway.pool.idle.links', () => byUpstream(idle));
  instruments.observe('responses_gateway.upstream.breaker', () => byUpstream(breakers));

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
        breakers.set(event.upstream, BREAKER_STATES[event.state]);
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

function byUpstream(values: ReadonlyMap<string, number>): [number, { upstream: string }][] {
  return [...values].map(([upstream, value]) => [value, { upstream }]);
}
