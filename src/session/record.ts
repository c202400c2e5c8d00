import {
  type JournalEntry,
  JournalFold,
  type SavedCarried,
  type SavedEvent,
  type SavedLane,
  type SavedNode,
  type SavedOutcome,
  type SavedState,
} from '../core/journal.ts';
import type { EntryId } from '../store/types.ts';
import type { IssuedToken } from './registry.ts';

/** What a session was opened with; another process opens it again with the same. No credential is in it. */
export interface SessionOpening {
  readonly tenantId: string;
  readonly subject: string;
  readonly method: string;
  readonly model: string | undefined;
  /** As the client named it; undefined: by route. */
  readonly upstream: string | undefined;
  readonly recovery: boolean;
  readonly labels: readonly (readonly [string, string])[];
  readonly clientName: string | undefined;
  readonly clientVersion: string | undefined;
  /** `money`: exact decimal. Absent: none. */
  readonly budget?:
    | {
        readonly turns?: number | undefined;
        readonly tokens?: number | undefined;
        readonly money?: string | undefined;
      }
    | undefined;
}

/** The process that writes a journal, and where others reach it. */
export interface JournalOwner {
  readonly process: string;
  readonly address: string;
}

/** What the process that holds a session writes beside the core's own entries. */
export type RecordEntry =
  | Exclude<JournalEntry, { kind: 'snap' }>
  | {
      readonly kind: 'open';
      readonly opening: SessionOpening;
      readonly owner: JournalOwner;
      readonly tokens: readonly IssuedToken[];
    }
  /** Another process goes on; first entry of its fence. `tokens` open the session from now on; absent: the same as before. */
  | { readonly kind: 'take'; readonly owner: JournalOwner; readonly tokens?: readonly IssuedToken[] }
  /** The tokens that open the session, before the client gets the newest. */
  | { readonly kind: 'token'; readonly tokens: readonly IssuedToken[] }
  /** Everything, in parts: the last one has all but the nodes. */
  | {
      readonly kind: 'snap';
      readonly first: boolean;
      readonly nodes: readonly SavedNode[];
      readonly rest: SnapRest | undefined;
    }
  /** Nobody holds the session any more. */
  | { readonly kind: 'release' }
  /** The session is over. */
  | { readonly kind: 'end' };

export interface SnapRest {
  readonly state: Omit<SavedState, 'nodes'>;
  readonly opening: SessionOpening;
  readonly owner: JournalOwner;
  readonly tokens: readonly IssuedToken[];
}

/** Nodes of one part of a snap, as far as they can be divided. */
const SNAP_PART_BYTES = 256 * 1024;

/** The parts of a snap, made one at a time so that a large one keeps nobody waiting. */
export function* snapParts(state: SavedState, rest: Omit<SnapRest, 'state'>): Generator<RecordEntry> {
  const { nodes, ...others } = state;
  let part: SavedNode[] = [];
  let bytes = 0;
  let first = true;
  for (const node of nodes) {
    part.push(node);
    bytes += sizeOf(node);
    if (bytes < SNAP_PART_BYTES) continue;
    yield { kind: 'snap', first, nodes: part, rest: undefined };
    part = [];
    bytes = 0;
    first = false;
  }
  yield { kind: 'snap', first, nodes: part, rest: { state: others, ...rest } };
}

function sizeOf({ items }: SavedNode): number {
  let bytes = 128;
  for (const text of items?.input ?? []) bytes += text.length;
  for (const text of items?.output ?? []) bytes += text.length;
  return bytes;
}

/** An entry of a format that this version does not read. */
export class RecordFormatError extends Error {
  override readonly name = 'RecordFormatError';
}

/** Of the line before the texts; raised when older versions would misread it. */
const FORMAT = 1;

/**
 * One line of JSON, then the raw JSON that clients and upstreams sent, end to end: the line has their lengths, so that
 * they come back to the letter and nothing is encoded twice.
 */
export function encodeEntry(entry: RecordEntry): Buffer {
  const texts: string[] = [];
  const put = (text: string): number => {
    texts.push(text);
    return Buffer.byteLength(text);
  };
  const head = JSON.stringify({ v: FORMAT, ...packed(entry, put) });
  return Buffer.from(`${head}\n${texts.join('')}`);
}

/** Throws RecordFormatError. */
export function decodeEntry(bytes: Buffer): RecordEntry {
  const end = bytes.indexOf(0x0a);
  let at = end + 1;
  const take = (length: number): string => {
    at += length;
    return bytes.toString('utf8', at - length, at);
  };
  try {
    const { v, ...head } = JSON.parse(bytes.toString('utf8', 0, end)) as { v: unknown } & Packed;
    if (v !== FORMAT) throw new RecordFormatError(`format ${String(v)}`);
    return unpacked(head as Packed, take);
  } catch (cause) {
    if (cause instanceof RecordFormatError) throw cause;
    throw new RecordFormatError('not an entry', { cause });
  }
}

interface PackedNode extends Omit<SavedNode, 'items'> {
  readonly items: {
    readonly input: number[];
    readonly output: number[];
    readonly compactionIndex?: number;
  } | null;
}
interface PackedLane extends Omit<SavedLane, 'carried'> {
  readonly carried: {
    readonly responseId: string;
    readonly steers: number[][];
    readonly outputs: number[];
  }[];
}
/** An event with its frame's length. */
type PackedEvent<T extends SavedOutcome | SavedEvent> = Omit<T, 'frame'> & { readonly frame: number | null };
interface Packed {
  readonly kind: RecordEntry['kind'];
  readonly [name: string]: unknown;
}

function packed(entry: RecordEntry, put: (text: string) => number): Packed {
  switch (entry.kind) {
    case 'commit':
      return {
        ...entry,
        outcome: packEvent(entry.outcome, put),
        lane: packLane(entry.lane, put),
        nodes: entry.nodes.map((node) => packNode(node, put)),
      };
    case 'outbox':
      return { ...entry, events: entry.events.map((event) => packEvent(event, put)) };
    case 'snap': {
      const { rest } = entry;
      return {
        ...entry,
        nodes: entry.nodes.map((node) => packNode(node, put)),
        rest: rest && {
          ...rest,
          state: {
            ...rest.state,
            lanes: rest.state.lanes.map((lane) => packLane(lane, put)),
            outcomes: rest.state.outcomes.map((outcome) => packEvent(outcome, put)),
          },
        },
      };
    }
    default:
      return { ...entry };
  }
}

/** In the order in which `packed` has put the texts. */
function unpacked(head: Packed, take: (length: number) => string): RecordEntry {
  if (head.kind === 'commit') {
    const outcome = unpackEvent(head['outcome'] as PackedEvent<SavedOutcome>, take);
    const lane = unpackLane(head['lane'] as PackedLane, take);
    const nodes = (head['nodes'] as PackedNode[]).map((node) => unpackNode(node, take));
    return { ...head, outcome, lane, nodes } as RecordEntry;
  }
  if (head.kind === 'outbox') {
    const events = (head['events'] as PackedEvent<SavedEvent>[]).map((event) => unpackEvent(event, take));
    return { ...head, events } as RecordEntry;
  }
  if (head.kind !== 'snap') return head as unknown as RecordEntry;
  const nodes = (head['nodes'] as PackedNode[]).map((node) => unpackNode(node, take));
  const rest = head['rest'] as
    | (Omit<SnapRest, 'state'> & {
        state: { lanes: PackedLane[]; outcomes: PackedEvent<SavedOutcome>[] } & Record<string, unknown>;
      })
    | undefined;
  if (rest === undefined) return { ...head, nodes, rest: undefined } as RecordEntry;
  const lanes = rest.state.lanes.map((lane) => unpackLane(lane, take));
  const outcomes = rest.state.outcomes.map((outcome) => unpackEvent(outcome, take));
  return { ...head, nodes, rest: { ...rest, state: { ...rest.state, lanes, outcomes } } } as RecordEntry;
}

function packNode(node: SavedNode, put: (text: string) => number): PackedNode {
  const { items } = node;
  return {
    ...node,
    items:
      items === undefined
        ? null
        : ({ ...items, input: items.input.map(put), output: items.output.map(put) } as PackedNode['items']),
  };
}

function unpackNode(node: PackedNode, take: (length: number) => string): SavedNode {
  const { items } = node;
  if (items === null) return { ...node, parentId: node.parentId, items: undefined };
  const input = items.input.map(take);
  const output = items.output.map(take);
  return {
    ...node,
    parentId: node.parentId,
    items: { input, output, compactionIndex: items.compactionIndex },
  };
}

function packLane(lane: SavedLane, put: (text: string) => number): PackedLane {
  return {
    ...lane,
    carried: lane.carried.map(({ responseId, steers, outputs }) => ({
      responseId,
      steers: steers.map((steer) => steer.map(put)),
      outputs: outputs.map(put),
    })),
  };
}

function unpackLane(lane: PackedLane, take: (length: number) => string): SavedLane {
  const carried: SavedCarried[] = lane.carried.map(({ responseId, steers, outputs }) => ({
    responseId,
    steers: steers.map((steer) => steer.map(take)),
    outputs: outputs.map(take),
  }));
  return { laneId: lane.laneId, headId: lane.headId, carried };
}

function packEvent<T extends SavedOutcome | SavedEvent>(
  event: T,
  put: (text: string) => number,
): PackedEvent<T> {
  return { ...event, frame: event.frame === undefined ? null : put(event.frame) };
}

function unpackEvent<T extends SavedOutcome | SavedEvent>(
  event: PackedEvent<T>,
  take: (length: number) => string,
): T {
  return { ...event, frame: event.frame === null ? undefined : take(event.frame) } as unknown as T;
}

/** A session as its journal tells it. */
export interface SessionRecord {
  readonly opening: SessionOpening;
  readonly owner: JournalOwner;
  readonly tokens: readonly IssuedToken[];
  /** Nobody holds it. */
  readonly released: boolean;
  readonly ended: boolean;
  /** Entries are missing: what the state says is older than what clients were told, or has holes. */
  readonly damaged: boolean;
  readonly state: SavedState;
}

/** Entries with their ids in, a session out. */
export class RecordFold {
  readonly #journal = new JournalFold();
  #lastId: EntryId | undefined;
  #opening: SessionOpening | undefined;
  #owner: JournalOwner | undefined;
  #tokens: readonly IssuedToken[] = [];
  #released = false;
  #ended = false;
  /** Until an `open` or a whole snap has come. */
  #damaged = true;
  #snapNodes: SavedNode[] | undefined;

  get lastId(): EntryId | undefined {
    return this.#lastId;
  }

  apply(id: EntryId, entry: RecordEntry): void {
    if (!this.#follows(id)) {
      this.#damaged = true;
      this.#snapNodes = undefined;
    }
    this.#lastId = id;
    switch (entry.kind) {
      case 'open':
        this.#opening = entry.opening;
        this.#owner = entry.owner;
        this.#tokens = entry.tokens;
        this.#damaged = false;
        return;
      case 'take':
        this.#owner = entry.owner;
        this.#tokens = entry.tokens ?? this.#tokens;
        this.#released = false;
        this.#snapNodes = undefined;
        return;
      case 'token':
        this.#tokens = entry.tokens;
        return;
      case 'release':
        this.#released = true;
        return;
      case 'end':
        this.#ended = true;
        return;
      case 'snap':
        return this.#snap(entry);
      default:
        return this.#journal.apply(entry);
    }
  }

  /** Undefined: there is no telling what the session was. */
  record(): SessionRecord | undefined {
    if (this.#opening === undefined || this.#owner === undefined) return undefined;
    return {
      opening: this.#opening,
      owner: this.#owner,
      tokens: this.#tokens,
      released: this.#released,
      ended: this.#ended,
      damaged: this.#damaged,
      state: this.#journal.state(),
    };
  }

  /** A server that fell back to an older state takes later entries all the same; the numbers show the hole. */
  #follows({ fence, n }: EntryId): boolean {
    const last = this.#lastId;
    if (last === undefined) return true;
    return fence === last.fence ? n === last.n + 1 : n === 0;
  }

  #snap({ first, nodes, rest }: Extract<RecordEntry, { kind: 'snap' }>): void {
    if (first) this.#snapNodes = [];
    // The beginning is missing.
    if (this.#snapNodes === undefined) return;
    for (const node of nodes) this.#snapNodes.push(node);
    if (rest === undefined) return;
    this.#journal.apply({ kind: 'snap', state: { ...rest.state, nodes: this.#snapNodes } });
    this.#snapNodes = undefined;
    this.#opening = rest.opening;
    this.#owner = rest.owner;
    this.#tokens = rest.tokens;
    this.#released = false;
    this.#damaged = false;
  }
}
