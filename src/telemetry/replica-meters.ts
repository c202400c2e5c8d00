import type { Instruments } from './meters.ts';
import type { ReplicaEvent } from './types.ts';

/** Metrics of what a process does with the store and with other processes. */
export function createReplicaMeters(instruments: Instruments): (event: ReplicaEvent) => void {
  return (event) => {
    switch (event.kind) {
      case 'command':
        instruments.record('responses_gateway.store.duration', event.durationMs / 1_000, {
          command: event.command,
          result: event.result,
        });
        return;
      case 'forward':
        instruments.add('responses_gateway.forwards', 1, { result: event.result });
        return;
      case 'takeover':
        instruments.add('responses_gateway.takeovers', 1, { result: event.result });
        instruments.record('responses_gateway.takeover.duration', event.durationMs / 1_000, {
          result: event.result,
        });
        return;
      case 'handOver':
        instruments.add('responses_gateway.hand_overs', 1);
        return;
      case 'fenced':
        instruments.add('responses_gateway.sessions.fenced', 1);
        return;
      case 'limitsAlone':
        instruments.add('responses_gateway.limits.alone', 1);
        return;
    }
  };
}
