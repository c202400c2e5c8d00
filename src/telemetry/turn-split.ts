import type { Fact, TurnRecord } from '../core/types.ts';
import type { FewMap } from '../ground/few-map.ts';
import { withEntry, without } from './optional-map.ts';
import type { BesideFact } from './types.ts';

/** Where a turn's time went. Queue, gateway and upstream add up to the whole. */
export interface TurnSplit {
  readonly totalSeconds: number;
  /** Acceptance to first send: waiting for the lane, a slot or a link. The whole turn, if it was never sent. */
  readonly queueSeconds: number;
  /** Rebuilding: recoveries, rotations and replays that this turn waited for after its first send. */
  readonly gatewaySeconds: number;
  readonly upstreamSeconds: number;
  /** What the gateway itself added; undefined where it is not known. */
  readonly addedUpSeconds: number | undefined;
  readonly addedDownSeconds: number | undefined;
  readonly firstOutputSeconds: number | undefined;
  /** Mean gap between output events; undefined with less than two. */
  readonly perOutputSeconds: number | undefined;
}

export function splitTurn(record: TurnRecord, rebuildMs: number, added: BesideFact = {}): TurnSplit {
  const totalMs = Math.max(0, record.endedAtMs - record.acceptedAtMs);
  const queueMs = Math.min(totalMs, Math.max(0, (record.sentAtMs ?? record.endedAtMs) - record.acceptedAtMs));
  const gatewayMs = Math.min(totalMs - queueMs, rebuildMs);
  const { firstOutputAtMs, lastOutputAtMs, outputEvents } = record;
  const perOutputMs =
    firstOutputAtMs !== undefined && lastOutputAtMs !== undefined && outputEvents > 1
      ? (lastOutputAtMs - firstOutputAtMs) / (outputEvents - 1)
      : undefined;
  return {
    totalSeconds: totalMs / 1_000,
    queueSeconds: queueMs / 1_000,
    gatewaySeconds: gatewayMs / 1_000,
    upstreamSeconds: (totalMs - queueMs - gatewayMs) / 1_000,
    addedUpSeconds: added.upMs === undefined ? undefined : Math.max(0, added.upMs) / 1_000,
    addedDownSeconds: added.downMs === undefined ? undefined : Math.max(0, added.downMs) / 1_000,
    firstOutputSeconds:
      firstOutputAtMs === undefined ? undefined : Math.max(0, firstOutputAtMs - record.acceptedAtMs) / 1_000,
    perOutputSeconds: perOutputMs === undefined ? undefined : Math.max(0, perOutputMs) / 1_000,
  };
}

/** Adds up, for each running turn, the rebuilding that it waited for after its first send. */
export class RebuildTimes {
  #turns: FewMap<string, { readonly sentAtMs: number; rebuildMs: number }> | undefined;

  fact(fact: Fact): void {
    if (fact.kind === 'turnSent') {
      if (this.#turns?.has(fact.turnId)) return;
      this.#turns = withEntry(this.#turns, fact.turnId, { sentAtMs: fact.atMs, rebuildMs: 0 });
      return;
    }
    if (fact.kind !== 'recovered' && fact.kind !== 'rotated' && fact.kind !== 'replayed') return;
    const turn = fact.turnId === undefined ? undefined : this.#turns?.get(fact.turnId);
    if (turn === undefined) return;
    turn.rebuildMs += Math.max(0, fact.endedAtMs - Math.max(fact.startedAtMs, turn.sentAtMs));
  }

  take(turnId: string): number {
    const rebuildMs = this.#turns?.get(turnId)?.rebuildMs ?? 0;
    this.#turns = without(this.#turns, turnId);
    return rebuildMs;
  }
}
