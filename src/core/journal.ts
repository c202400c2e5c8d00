import type { Reason, UpstreamErrorFacts } from '../errors.ts';
import { behind, GONE } from './transcript.ts';
import type {
  NoticeKind,
  ReplayVerdict,
  SessionEvent,
  Spent,
  TurnCost,
  TurnOutcome,
  TurnPhase,
} from './types.ts';

/**
 * What a session writes down of itself, so that another process can go on with it. Entries are made at the boundaries
 * of turns, never for a delta; folding them gives the state that `Session.restore` starts from.
 */
export type JournalEntry =
  /** A turn is about to be written upstream for the first time. `commit`: what the client hears of it carries that. */
  | ({ readonly kind: 'begin'; readonly commit?: number } & SavedBegin)
  /** A turn has ended. */
  | {
      readonly kind: 'commit';
      readonly outcome: SavedOutcome;
      readonly fingerprint: string;
      /** The turn's lane after it. */
      readonly lane: SavedLane;
      /** Responses that the journal does not have, parents first. */
      readonly nodes: readonly SavedNode[];
      readonly heardSeq: number;
      /** By the session, this turn included. */
      readonly spent?: Spent | undefined;
    }
  /** The session was not durable for a while: a record without this is too old for a client that knows. */
  | { readonly kind: 'mark'; readonly commit: number }
  /** After a takeover: under which seq the client hears again what it has not heard. All other outcomes it knows. */
  | {
      readonly kind: 'told';
      readonly outcomes: readonly { readonly commit: number; readonly seq: number }[];
      readonly heardSeq: number;
    }
  /** At a drain, in parts: what its client may not have received. Holds until anything else is written. */
  | { readonly kind: 'outbox'; readonly events: readonly SavedEvent[] }
  /** Everything: what came before is not needed any more. */
  | { readonly kind: 'snap'; readonly state: SavedState };

export interface SavedBegin {
  readonly turnId: string;
  readonly laneId: string;
  /** Tells the same request from another one under the same id. */
  readonly fingerprint: string;
}

export interface SavedLane {
  readonly laneId: string;
  readonly headId: string | undefined;
  /** By response: what its next create brings along, raw JSON of each item. */
  readonly carried: readonly SavedCarried[];
}

export interface SavedCarried {
  readonly responseId: string;
  readonly steers: readonly (readonly string[])[];
  readonly outputs: readonly string[];
}

/** A finished response. Without items it can be continued by id only. */
export interface SavedNode {
  readonly id: string;
  /** The lane that it was said on; undefined: the unnamed one, or of a version that did not write it. */
  readonly laneId?: string | undefined;
  readonly parentId: string | undefined;
  /** The parent's lane; undefined: the parent is not in the record, or of a version that did not write it. */
  readonly parentLaneId?: string | undefined;
  readonly stored: boolean;
  readonly upstream: string;
  /** As `LinkRoute.account`; undefined: none, or of a version that did not write it. */
  readonly account?: string | undefined;
  readonly items:
    | {
        readonly input: readonly string[];
        readonly output: readonly string[];
        readonly compactionIndex: number | undefined;
      }
    | undefined;
}

/** The last event of a turn, as far as it has to be told again. */
export interface SavedOutcome {
  readonly commit: number;
  readonly seq: number;
  readonly laneId: string;
  readonly turnId: string;
  readonly outcome: TurnOutcome;
  readonly type: string;
  /** The upstream's event, raw JSON. */
  readonly frame: string | undefined;
  readonly failed: SavedFailure | undefined;
  readonly notice: { readonly kind: NoticeKind; readonly reason: string } | undefined;
  /** What the lane stood on before the turn. */
  readonly headBefore: string | undefined;
  readonly cost?: TurnCost | undefined;
}

/** An event as it was told, or would have been. */
export interface SavedEvent
  extends Pick<
    SessionEvent,
    'seq' | 'laneId' | 'turnId' | 'type' | 'outcome' | 'commit' | 'notice' | 'cost'
  > {
  /** The upstream's event, raw JSON. */
  readonly frame: string | undefined;
  readonly failed: SavedFailure | undefined;
}

export interface SavedFailure {
  readonly reason: Reason;
  readonly message: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly retryAfterMs: number | undefined;
  readonly upstream: Omit<UpstreamErrorFacts, 'json'> | undefined;
  readonly replay: ReplayVerdict;
  readonly phase: TurnPhase;
}

export interface SavedState {
  /** Rises with each begin, commit and mark. */
  readonly commit: number;
  /** Highest seq that the client has acknowledged. */
  readonly heardSeq: number;
  readonly lanes: readonly SavedLane[];
  /** Parents before their children. */
  readonly nodes: readonly SavedNode[];
  /** Turns that have begun and not ended. */
  readonly running: readonly SavedBegin[];
  /** Ids of ended turns with their fingerprints, oldest first. */
  readonly ended: readonly (readonly [turnId: string, fingerprint: string])[];
  /** What the client may not have heard, in order. */
  readonly outcomes: readonly SavedOutcome[];
  /** Commit of the newest outcome that was let go although the client may not have heard it; 0: none. */
  readonly lostCommit: number;
  /** Without gaps; empty unless the session was let go by a drain. */
  readonly outbox: readonly SavedEvent[];
  readonly spent?: Spent | undefined;
}

/** Turns whose ids are remembered in a record. A client repeats only what it has heard nothing of. */
export const MAX_SAVED_ENDED = 1024;
/** Outcomes that wait for their client in a record. */
export const MAX_SAVED_OUTCOMES = 512;

export const EMPTY_STATE: SavedState = Object.freeze({
  commit: 0,
  heardSeq: 0,
  lanes: [],
  nodes: [],
  running: [],
  ended: [],
  outcomes: [],
  lostCommit: 0,
  outbox: [],
});

/** Entries in, state out. */
export class JournalFold {
  #commit = 0;
  #heardSeq = 0;
  #lostCommit = 0;
  readonly #lanes = new Map<string, SavedLane>();
  readonly #nodes = new Map<string, SavedNode>();
  readonly #running = new Map<string, SavedBegin>();
  readonly #ended = new Map<string, string>();
  #outcomes: SavedOutcome[] = [];
  #outbox: SavedEvent[] = [];
  #spent: Spent | undefined;

  apply(entry: JournalEntry): void {
    // Whoever goes on with the session has other events behind it.
    if (entry.kind !== 'outbox') this.#outbox = [];
    switch (entry.kind) {
      case 'begin': {
        const { turnId, laneId, fingerprint, commit = 0 } = entry;
        this.#commit = Math.max(this.#commit, commit);
        this.#running.set(turnId, { turnId, laneId, fingerprint });
        return;
      }
      case 'commit':
        return this.#commitTurn(entry);
      case 'mark':
        this.#commit = Math.max(this.#commit, entry.commit);
        return;
      case 'told':
        return this.#tell(entry);
      case 'outbox':
        this.#outbox.push(...entry.events);
        return;
      case 'snap':
        return this.#replaceBy(entry.state);
    }
  }

  state(): SavedState {
    return {
      commit: this.#commit,
      heardSeq: this.#heardSeq,
      lanes: [...this.#lanes.values()],
      nodes: [...this.#nodes.values()],
      running: [...this.#running.values()],
      ended: [...this.#ended],
      outcomes: this.#outcomes,
      lostCommit: this.#lostCommit,
      outbox: this.#outbox,
      ...(this.#spent !== undefined && { spent: this.#spent }),
    };
  }

  #commitTurn({
    outcome,
    fingerprint,
    lane,
    nodes,
    heardSeq,
    spent,
  }: Extract<JournalEntry, { kind: 'commit' }>): void {
    const { turnId, commit } = outcome;
    this.#commit = Math.max(this.#commit, commit);
    this.#running.delete(turnId);
    this.#remember(turnId, fingerprint);
    this.#lanes.set(lane.laneId, lane);
    for (const node of nodes) this.#addNode(node);
    this.#outcomes.push(outcome);
    this.#spent = spent ?? this.#spent;
    this.#hear(heardSeq);
  }

  #tell({ outcomes, heardSeq }: Extract<JournalEntry, { kind: 'told' }>): void {
    const seqs = new Map(outcomes.map(({ commit, seq }) => [commit, seq]));
    this.#heardSeq = heardSeq;
    this.#outcomes = this.#outcomes.flatMap((outcome) => {
      const seq = seqs.get(outcome.commit);
      return seq === undefined ? [] : [{ ...outcome, seq }];
    });
    this.#lostCommit = 0;
  }

  #replaceBy(state: SavedState): void {
    this.#commit = Math.max(this.#commit, state.commit);
    this.#heardSeq = state.heardSeq;
    this.#lostCommit = state.lostCommit;
    this.#lanes.clear();
    for (const lane of state.lanes) this.#lanes.set(lane.laneId, lane);
    this.#nodes.clear();
    for (const node of state.nodes) this.#addNode(node);
    this.#running.clear();
    for (const begun of state.running) this.#running.set(begun.turnId, begun);
    this.#ended.clear();
    for (const [turnId, fingerprint] of state.ended) this.#remember(turnId, fingerprint);
    this.#outcomes = [...state.outcomes];
    this.#spent = state.spent;
  }

  /** Some upstreams give several responses one id: the lane's newest stands for it, and the older one is said with its children. */
  #addNode(node: SavedNode): void {
    const key = keyOf(node.id, node.laneId);
    const old = this.#nodes.get(key);
    if (old !== undefined) {
      for (const [at, child] of this.#nodes)
        if (child.parentId === old.id && keyOf(old.id, child.parentLaneId) === key)
          this.#nodes.set(at, foldedInto(child, old));
      this.#nodes.delete(key);
    }
    this.#nodes.set(key, node);
  }

  #hear(heardSeq: number): void {
    this.#heardSeq = Math.max(this.#heardSeq, heardSeq);
    const unheard = this.#outcomes.filter(({ seq }) => seq > this.#heardSeq);
    const lost = unheard.splice(0, Math.max(0, unheard.length - MAX_SAVED_OUTCOMES));
    this.#lostCommit = lost.at(-1)?.commit ?? this.#lostCommit;
    this.#outcomes = unheard;
  }

  #remember(turnId: string, fingerprint: string): void {
    this.#ended.delete(turnId);
    this.#ended.set(turnId, fingerprint);
    if (this.#ended.size <= MAX_SAVED_ENDED) return;
    for (const oldest of this.#ended.keys()) {
      this.#ended.delete(oldest);
      return;
    }
  }
}

function keyOf(id: string, laneId = ''): string {
  return `${laneId} ${id}`;
}

function foldedInto(child: SavedNode, parent: SavedNode): SavedNode {
  const { items } = child;
  // Where what was said before is gone, only a compaction item still stands for it.
  if (parent.items === undefined && items?.compactionIndex !== undefined)
    return { ...child, parentId: GONE, parentLaneId: undefined };
  return {
    ...child,
    parentId: parent.parentId,
    parentLaneId: parent.parentLaneId,
    items: items && parent.items && { ...items, input: behind(parent.items, items.input) },
  };
}

/** The same entry without anything that a user, a tool or a model said: ids, names and numbers are left. */
export function withoutContent(entry: JournalEntry): JournalEntry {
  switch (entry.kind) {
    case 'commit':
      return {
        ...entry,
        outcome: outcomeWithoutContent(entry.outcome),
        lane: { ...entry.lane, carried: [] },
        nodes: entry.nodes.map(nodeWithoutContent),
      };
    case 'snap': {
      const { lanes, nodes, outcomes } = entry.state;
      return {
        kind: 'snap',
        state: {
          ...entry.state,
          lanes: lanes.map((lane) => ({ ...lane, carried: [] })),
          nodes: nodes.map(nodeWithoutContent),
          outcomes: outcomes.map(outcomeWithoutContent),
        },
      };
    }
    default:
      return entry;
  }
}

function nodeWithoutContent(node: SavedNode): SavedNode {
  return { ...node, account: undefined, items: undefined };
}

function outcomeWithoutContent(outcome: SavedOutcome): SavedOutcome {
  const { failed } = outcome;
  // Of what the upstream said only its status and code are a closed set.
  const { status, code } = failed?.upstream ?? {};
  const upstream = { ...(status !== undefined && { status }), ...(code !== undefined && { code }) };
  return {
    ...outcome,
    frame: undefined,
    failed: failed && { ...failed, upstream: failed.upstream && upstream },
  };
}
