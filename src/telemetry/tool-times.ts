import type { Fact, StartTurn, TurnRecord } from '../core/types.ts';
import type { FewMap } from '../ground/few-map.ts';
import { withEntry, without } from './optional-map.ts';
import type { TraceIds } from './tracing.ts';

interface Call {
  readonly name: string;
  readonly atMs: number;
}

/** Calls that came back with a turn, from when each was told until the turn that brings their outputs arrived. */
export interface ReturnedCalls {
  readonly calls: readonly { readonly name: string; readonly seconds: number }[];
  /** Of the longest. */
  readonly seconds: number;
  /** The turn that called; undefined: it has no trace. */
  readonly caller: TraceIds | undefined;
}

interface Waiting {
  readonly calls: readonly Call[];
  readonly caller: TraceIds | undefined;
}

/** More calls of one turn are not told apart. */
const MAX_CALLS = 64;
const MAX_RETURNED = 256;
/** Outputs stand at the front of their turn. */
const MAX_LOOKED_AT = 64;
const OUTPUT = /"type":\s?"(?:function|custom_tool)_call_output"/;
/** As far as the type of an item may be from its beginning. */
const HEAD_CHARACTERS = 200;

/**
 * How long tools take, as only the gateway sees it: when a call leaves, and when its output comes back. What a client's
 * network and a person who has to approve take is in it. The upstream wants the outputs of all calls of a turn at once, so
 * that the next turn of a lane with outputs brings them all.
 */
export class ToolTimes {
  #open: FewMap<string, Call[]> | undefined;
  /** By lane. */
  #waiting: FewMap<string, Waiting> | undefined;
  /** Turns that brought outputs, until they end. */
  #returned: FewMap<string, ReturnedCalls> | undefined;

  called({ turnId, name, atMs }: Extract<Fact, { kind: 'toolCalled' }>): void {
    const calls = this.#open?.get(turnId) ?? [];
    if (calls.length < MAX_CALLS) calls.push({ name, atMs });
    this.#open = withEntry(this.#open, turnId, calls);
  }

  /** What came back with it; `called`: it only called tools; undefined: neither. */
  ended(
    { laneId, turnId, outcome }: TurnRecord,
    caller: TraceIds | undefined,
  ): ReturnedCalls | 'called' | undefined {
    const calls = this.#open?.get(turnId);
    const returned = this.#returned?.get(turnId);
    this.#open = without(this.#open, turnId);
    this.#returned = without(this.#returned, turnId);
    if (calls !== undefined && (outcome === 'COMPLETED' || outcome === 'INCOMPLETE'))
      this.#waiting = withEntry(this.#waiting, laneId, { calls, caller });
    return returned ?? (calls === undefined ? undefined : 'called');
  }

  /** Calls that come back with this turn; undefined: none. */
  requested({ laneId, turnId, create, receivedAtMs }: StartTurn): ReturnedCalls | undefined {
    const waiting = this.#waiting?.get(laneId);
    if (waiting === undefined || receivedAtMs === undefined) return undefined;
    if (!create.input.slice(0, MAX_LOOKED_AT).some((item) => OUTPUT.test(item.slice(0, HEAD_CHARACTERS))))
      return undefined;
    this.#waiting = without(this.#waiting, laneId);
    const calls = waiting.calls.map(({ name, atMs }) => ({
      name,
      seconds: Math.max(0, receivedAtMs - atMs) / 1_000,
    }));
    const seconds = Math.max(...calls.map((call) => call.seconds));
    const returned = { calls, seconds, caller: waiting.caller };
    this.#returned = withEntry(this.#returned, turnId, returned);
    // A turn that is refused never ends.
    const { oldest } = this.#returned;
    if (this.#returned.size > MAX_RETURNED && oldest !== undefined) this.#returned.delete(oldest);
    return returned;
  }

  laneClosed(laneId: string): void {
    this.#waiting = without(this.#waiting, laneId);
  }
}
