import type { InputItem } from './gen/responses/gateway/v1/items_pb.ts';
import { callOutput } from './request.ts';

/** What a lane has to know of a turn that was cancelled. */
export interface LeftTurn {
  /** Where the lane stands without it. */
  readonly goesBackTo: string;
  readonly answers: readonly InputItem[];
  /** Another turn has begun from before it: its end is nothing to its lane. */
  supersede(): void;
}

/** What a session knows of a lane. */
export class LaneState {
  readonly id: string;
  /** Response that the next turn continues from, if not the lane's own last one. */
  forkFrom: string | undefined;
  /** Last response of the lane as far as the client has heard; empty if there is none. */
  lastResponseId = '';
  /** Results of calls of `owedFor` that the upstream has not been given, by the ids of the calls. */
  #owed: ReadonlyMap<string, string> = new Map();
  #owedFor = '';
  /** A loop's turn that was cancelled and whose end is not known yet. */
  left: LeftTurn | undefined;

  constructor(id: string) {
    this.id = id;
  }

  get continuesFrom(): string {
    return this.forkFrom ?? this.lastResponseId;
  }

  /** Calls of the last response that nobody has answered yet. */
  owe(callIds: readonly string[]): void {
    this.#owed = new Map(callIds.map((callId) => [callId, NOT_ANSWERED]));
    this.#owedFor = this.lastResponseId;
  }

  answer(callId: string, output: string): void {
    if (this.#owed.has(callId)) this.#owed = new Map([...this.#owed, [callId, output]]);
  }

  /** What the lane's next turn has to answer before its own input. */
  owed(): readonly InputItem[] {
    if (this.#owedFor !== this.continuesFrom) return [];
    return [...this.#owed].map(([callId, output]) => callOutput(callId, output));
  }

  /** Takes note that a turn begins, and returns what undoes it if the turn comes to no response. */
  begin(): Beginning {
    const { forkFrom, lastResponseId, continuesFrom } = this;
    const [owed, owedFor] = [this.#owed, this.#owedFor];
    const answers = this.owed();
    this.forkFrom = undefined;
    this.#owed = new Map();
    const isUnchanged = () => this.lastResponseId === lastResponseId;
    return {
      answers,
      goesBackTo: () => (isUnchanged() ? continuesFrom : this.lastResponseId),
      undo: () => {
        if (!isUnchanged()) return;
        this.forkFrom = forkFrom;
        this.#owed = owed;
        this.#owedFor = owedFor;
      },
    };
  }

  forkTo(other: LaneState): void {
    other.forkFrom = this.lastResponseId || undefined;
    other.#owed = this.#owedFor === this.lastResponseId ? this.#owed : new Map();
    other.#owedFor = this.lastResponseId;
  }
}

/** Where a lane stood before a turn. */
export interface Beginning {
  /** Results of calls that were open. */
  readonly answers: readonly InputItem[];
  goesBackTo(): string;
  /** Puts the lane back, unless it has a response since. */
  undo(): void;
}

/** The lanes of a session: those that somebody holds, and those that a later `lane` has to know. */
export class Lanes {
  readonly #held = new Map<string, WeakRef<LaneState>>();
  readonly #remembered = new Map<string, LaneState>();
  readonly #gone = new FinalizationRegistry<string>((id) => {
    if (this.#held.get(id)?.deref() === undefined) this.#held.delete(id);
  });

  get size(): number {
    return this.#held.size;
  }

  get(id: string): LaneState {
    const known = this.#held.get(id)?.deref();
    if (known) return known;
    const lane = new LaneState(id);
    this.#held.set(id, new WeakRef(lane));
    this.#gone.register(lane, id);
    return lane;
  }

  /** Keeps a lane that has something to remember; of more than `most`, the longest unused is let go of. */
  remember(lane: LaneState, most: number): void {
    this.#remembered.delete(lane.id);
    this.#remembered.set(lane.id, lane);
    for (const id of this.#remembered.keys()) {
      if (this.#remembered.size <= most) return;
      this.#remembered.delete(id);
    }
  }
}

const NOT_ANSWERED = JSON.stringify({ error: 'the call was not answered: the tool loop ended before it' });
