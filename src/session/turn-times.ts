import type { Fact, StartTurn } from '../core/types.ts';
import { FewMap } from '../ground/few-map.ts';
import type { BesideFact } from '../telemetry/types.ts';

interface Times {
  readonly receivedAtMs: number;
  writtenAtMs: number | undefined;
}

/** A turn that was refused never ends; its times are forgotten when so many others have begun. */
const MAX_TURNS = 1_024;

/**
 * What the gateway itself adds to the turns of a session. The core's times are those at which it was told something, so
 * that what decoding, planning and writing take lies between them.
 */
export class TurnTimes {
  readonly #turns = new FewMap<string, Times>();

  received({ turnId, receivedAtMs }: StartTurn): void {
    if (receivedAtMs === undefined || this.#turns.has(turnId)) return;
    this.#turns.set(turnId, { receivedAtMs, writtenAtMs: undefined });
    const { size, oldest } = this.#turns;
    if (size > MAX_TURNS && oldest !== undefined) this.#turns.delete(oldest);
  }

  /** A frame of the turn was given to its link. */
  written(turnId: string | undefined, now: () => number): void {
    const times = turnId === undefined ? undefined : this.#turns.get(turnId);
    if (times !== undefined) times.writtenAtMs ??= now();
  }

  /** With the end of a turn, which is told once its last event was written. */
  fact(fact: Fact, now: () => number): BesideFact | undefined {
    if (fact.kind !== 'turnEnded') return undefined;
    const { turnId, acceptedAtMs, sentAtMs, endedAtMs } = fact.record;
    const times = this.#turns.get(turnId);
    this.#turns.delete(turnId);
    const downMs = now() - endedAtMs;
    if (times?.writtenAtMs === undefined || sentAtMs === undefined) return { downMs };
    return { upMs: acceptedAtMs - times.receivedAtMs + (times.writtenAtMs - sentAtMs), downMs };
  }
}
