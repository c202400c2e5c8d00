import { memoryOfTexts } from '../ground/text-memory.ts';
import type { ByteBudget } from './types.ts';

/** One finished response. `items` is gone once they did not fit; sizes stay, they cost nothing. */
export interface TranscriptNode {
  readonly id: string;
  /** The lane that it was said on: where ids repeat, a lane means its own response by them. */
  readonly laneId: string;
  readonly parentId: string | undefined;
  readonly stored: boolean;
  /** The named upstream that made it; ids mean nothing elsewhere. */
  readonly upstream: string;
  /** Whose credential it was made with; what is encrypted can be read by nobody else. */
  readonly account: string | undefined;
  /** Input and output of the whole path up to and including this response. */
  readonly contextBytes: number;
  readonly items: NodeItems | undefined;
}

export interface NodeItems {
  readonly input: readonly string[];
  readonly output: readonly string[];
  readonly itemIds: readonly (string | undefined)[];
  /** Index in `output` of the newest compaction item: replay starts there. */
  readonly compactionIndex: number | undefined;
  readonly bytes: number;
}

export interface NewNode {
  readonly id: string;
  /** As `TranscriptNode.laneId`. Default: the unnamed lane. */
  readonly laneId?: string;
  readonly parentId: string | undefined;
  /** Whose response is meant by `parentId`, where lanes share ids. Default: as the lane itself means it. */
  readonly parentLaneId?: string | undefined;
  readonly stored: boolean;
  readonly upstream: string;
  readonly account?: string | undefined;
  readonly input: readonly string[];
  readonly output: readonly string[];
  /** Of `output`, where an item has one. */
  readonly itemIds?: readonly (string | undefined)[];
  readonly compactionIndex: number | undefined;
  /** The response outgrew the bound while it streamed; its items were not kept. */
  readonly overflowed: boolean;
}

/** A response on a path, with what of it counts: behind a compaction item everything, of its own response what follows. */
export interface Step {
  readonly node: TranscriptNode;
  readonly input: readonly string[];
  readonly output: readonly string[];
}

export interface Path {
  /** From the oldest to the newest. */
  readonly steps: readonly Step[];
  /** The response whose items are not in it; undefined: it is the whole conversation. */
  readonly stoppedAt: string | undefined;
  /** It begins at a compaction item. */
  readonly isCompacted: boolean;
}

/** A parent that nothing finds any more; no response has this id. */
export const GONE = '';

/** What an item costs besides its text: its id, here and as a map's key. */
const ITEM_OVERHEAD_BYTES = 120;

/** What a node costs besides its items: object, set and map entry, id. */
const NODE_OVERHEAD_BYTES = 320;

/**
 * The tree of a session's responses, shared by forks, bounded in bytes. A node is kept while a lane's head
 * descends from it, or while there is room.
 *
 * No walk can be endless: a node is given its parent when it is made, so the parent is older, and nothing but its
 * removal ever changes that. Ids may repeat, some upstreams give several responses the same: each lane means its own
 * newest by it, everybody else the newest of all; older ones are only found along the path that they lie on.
 */
export class Transcript {
  readonly #maxBytes: number;
  readonly #budget: ByteBudget;
  /** In order of use: the first is the one to drop. */
  readonly #nodes = new Set<Node>();
  readonly #byId = new Map<string, Node>();
  /** By lane and id: the lane's own response, where another lane's stands in `#byId`. Empty but for odd upstreams. */
  readonly #shadowed = new Map<string, Node>();
  /** Which response said the item of an id. */
  readonly #byItem = new Map<string, Node>();
  #bytes = 0;
  #added = 0;

  constructor(maxBytes: number, budget: ByteBudget) {
    this.#maxBytes = maxBytes;
    this.#budget = budget;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(id: string, laneId: string): TranscriptNode | undefined {
    return this.#find(id, laneId);
  }

  /** Every response that its lane and id find, parents before their children. */
  findable(): readonly TranscriptNode[] {
    return [...this.#byId.values(), ...this.#shadowed.values()].sort((a, b) => a.age - b.age);
  }

  /**
   * The response as one that can be saved by lanes and ids alone: what lies between it and the nearest response that these
   * find is folded into its input. Where the path was cut, only a compaction item still says what was before.
   */
  folded(node: TranscriptNode): FoldedNode {
    let { parentId, items } = node;
    for (const old of this.#upFrom((node as Node).parent)) {
      if (this.#find(old.id, old.laneId) === old) return { parent: old, parentId: old.id, items };
      if (old.items === undefined)
        return {
          parent: undefined,
          parentId: GONE,
          items: items?.compactionIndex === undefined ? undefined : items,
        };
      items = items && { ...items, input: behind(old.items, items.input) };
      parentId = old.parentId;
    }
    return { parent: undefined, parentId, items };
  }

  /** An item that one of the session's responses said. */
  item(id: string): { readonly node: TranscriptNode; readonly text: string } | undefined {
    const node = this.#byItem.get(id);
    const text = node?.items?.output[node.items.itemIds.lastIndexOf(id)];
    return node === undefined || text === undefined ? undefined : { node, text };
  }

  contextBytes(id: string | undefined, laneId: string): number {
    return id === undefined ? 0 : (this.#find(id, laneId)?.contextBytes ?? 0);
  }

  /**
   * @param heads ids that lanes stand on; they and what a replay of them needs are never dropped. Asked only when space
   * is short.
   * @returns whether the node's items were kept.
   */
  add(wanted: NewNode, heads: () => Iterable<string>): boolean {
    const size = lengthOf(wanted.input) + lengthOf(wanted.output);
    const { itemIds = [] } = wanted;
    const itemBytes =
      memoryOfTexts(wanted.input) + memoryOfTexts(wanted.output) + itemIds.length * ITEM_OVERHEAD_BYTES;
    const { laneId = '' } = wanted;
    const parent =
      wanted.parentId === undefined ? undefined : this.#find(wanted.parentId, wanted.parentLaneId ?? laneId);
    this.#makeWay(wanted.id, laneId, parent);
    const fits = !wanted.overflowed && this.#reserve(NODE_OVERHEAD_BYTES + itemBytes, parent, heads);
    if (!fits && !this.#reserve(NODE_OVERHEAD_BYTES, parent, heads)) return false;
    const { input, output, compactionIndex } = wanted;
    const node: Node = {
      id: wanted.id,
      laneId,
      parentId: wanted.parentId,
      stored: wanted.stored,
      upstream: wanted.upstream,
      account: wanted.account,
      contextBytes: (parent?.contextBytes ?? 0) + size,
      items: fits ? { input, output, itemIds, compactionIndex, bytes: itemBytes } : undefined,
      parent,
      children: 0,
      age: this.#added,
    };
    this.#added += 1;
    if (parent !== undefined) parent.children += 1;
    this.#nodes.add(node);
    this.#byId.set(node.id, node);
    if (fits) for (const id of itemIds) if (id !== undefined) this.#byItem.set(id, node);
    return fits;
  }

  /**
   * What must be sent to rebuild `id`: the responses after the first that `stopAt` knows (excluded), or from the newest
   * compaction item that the reader can use, or from the root. Undefined when a piece of the path is gone.
   */
  pathSince(
    id: string,
    stopAt: (id: string) => boolean,
    { canRead = () => true, laneId = '' }: PathOptions = {},
  ): Path | undefined {
    if (stopAt(id)) return { steps: [], stoppedAt: id, isCompacted: false };
    const steps: Step[] = [];
    for (const node of this.#upFrom(this.#find(id, laneId))) {
      // An older bearer of an id is not the one that the upstream means by it.
      if (stopAt(node.id) && this.#find(node.id, laneId) === node) return ended(steps, node.id);
      if (node.items === undefined) return undefined;
      this.#touch(node);
      const { input, output, compactionIndex } = node.items;
      if (compactionIndex !== undefined && canRead(node)) {
        steps.push({ node, input: [], output: output.slice(compactionIndex) });
        return { ...ended(steps, undefined), isCompacted: true };
      }
      steps.push({ node, input, output });
      if (node.parent !== undefined) continue;
      if (node.parentId === undefined) return ended(steps, undefined);
      return stopAt(node.parentId) ? ended(steps, node.parentId) : undefined;
    }
    return undefined;
  }

  isComplete(id: string, laneId: string): boolean {
    for (const node of this.#upFrom(this.#find(id, laneId))) {
      if (node.items === undefined) return false;
      if (node.items.compactionIndex !== undefined) return true;
      if (node.parent === undefined) return node.parentId === undefined;
    }
    return false;
  }

  /**
   * A lane stands on `id` now: the path behind a compaction or a gap is replayed only for a fork from there. Where memory
   * is short, nobody waits for that.
   */
  releaseBehind(id: string, laneId: string, heads: () => Iterable<string>): void {
    const node = this.#find(id, laneId);
    if (node === undefined || (node.items !== undefined && node.items.compactionIndex === undefined)) return;
    if (this.#bytes <= this.#maxBytes / 2 && this.#budget.scarce !== true) return;
    const needed = this.#neededBy(heads());
    for (const old of [...this.#upFrom(node.parent)]) {
      if (old.children > 1 || needed.has(old)) return;
      this.#remove(old);
    }
  }

  /** The upstream said that it does not know the id although it was stored. */
  forgetStored(id: string, laneId: string): void {
    const node = this.#find(id, laneId);
    if (node !== undefined) node.stored = false;
  }

  /** Lets go of what a replay would need; the tree itself stays, and costs next to nothing. */
  dropItems(): void {
    for (const node of this.#nodes.values()) {
      if (node.items === undefined) continue;
      this.#bytes -= node.items.bytes;
      this.#budget.give(node.items.bytes);
      node.items = undefined;
    }
  }

  clear(): void {
    this.#budget.give(this.#bytes);
    this.#bytes = 0;
    this.#nodes.clear();
    this.#byId.clear();
    this.#shadowed.clear();
    this.#byItem.clear();
  }

  #find(id: string, laneId: string): Node | undefined {
    const own = this.#shadowed.size === 0 ? undefined : this.#shadowed.get(keyOf(id, laneId));
    return own ?? this.#byId.get(id);
  }

  /** A new response of the lane bears the id from now on; its older one stays only as part of a path. */
  #makeWay(id: string, laneId: string, parent: Node | undefined): void {
    const known = this.#byId.get(id);
    if (known === undefined) return;
    this.#byId.delete(id);
    if (known.laneId !== laneId) this.#shadowed.set(keyOf(id, known.laneId), known);
    const shadowed = this.#shadowed.get(keyOf(id, laneId));
    this.#shadowed.delete(keyOf(id, laneId));
    for (const old of [known, shadowed]) {
      if (old?.laneId === laneId && old.children === 0 && old !== parent) this.#remove(old);
    }
  }

  #reserve(bytes: number, parent: Node | undefined, heads: () => Iterable<string>): boolean {
    if (this.#tryTake(bytes)) return true;
    const needed = this.#neededBy(heads());
    for (const node of this.#replayedFor(parent)) needed.add(node);
    for (const node of [...this.#nodes]) {
      if (needed.has(node) || !this.#nodes.has(node)) continue;
      this.#remove(node);
      if (this.#tryTake(bytes)) return true;
    }
    return false;
  }

  #tryTake(bytes: number): boolean {
    if (this.#bytes + bytes > this.#maxBytes || !this.#budget.tryTake(bytes)) return false;
    this.#bytes += bytes;
    return true;
  }

  #neededBy(ids: Iterable<string>): Set<Node> {
    const needed = new Set<Node>();
    const heads = new Set(ids);
    const starts = [...heads].flatMap((id) => this.#byId.get(id) ?? []);
    for (const own of this.#shadowed.values()) if (heads.has(own.id)) starts.push(own);
    for (const start of starts) {
      for (const node of this.#replayedFor(start)) {
        if (needed.has(node)) break;
        needed.add(node);
      }
    }
    return needed;
  }

  /** The nodes of a replay: up to the newest compaction. Behind a gap there is nothing to keep. */
  *#replayedFor(from: Node | undefined): Iterable<Node> {
    for (const node of this.#upFrom(from)) {
      yield node;
      if (node.items === undefined || node.items.compactionIndex !== undefined) return;
    }
  }

  *#upFrom(from: Node | undefined): Iterable<Node> {
    for (let node = from; node !== undefined; node = node.parent) yield node;
  }

  #remove(node: Node): void {
    for (let gone: Node | undefined = node; gone !== undefined; ) {
      this.#nodes.delete(gone);
      if (this.#byId.get(gone.id) === gone) this.#byId.delete(gone.id);
      if (this.#shadowed.get(keyOf(gone.id, gone.laneId)) === gone)
        this.#shadowed.delete(keyOf(gone.id, gone.laneId));
      for (const id of gone.items?.itemIds ?? [])
        if (id !== undefined && this.#byItem.get(id) === gone) this.#byItem.delete(id);
      const freed = (gone.items?.bytes ?? 0) + NODE_OVERHEAD_BYTES;
      this.#bytes -= freed;
      this.#budget.give(freed);
      const parent: Node | undefined = gone.parent;
      // Its children still point to it, and must find that the path ends here.
      gone.items = undefined;
      gone.parent = undefined;
      if (parent === undefined) return;
      parent.children -= 1;
      const findable: boolean = this.#find(parent.id, parent.laneId) === parent || parent.children > 0;
      gone = findable ? undefined : parent;
    }
  }

  #touch(node: Node): void {
    this.#nodes.delete(node);
    this.#nodes.add(node);
  }
}

/** Said as one with the responses before it that nothing finds any more. */
export interface FoldedNode {
  readonly parent: TranscriptNode | undefined;
  /** Of the client's choosing where the session does not know the parent; `''` where it has let it go. */
  readonly parentId: string | undefined;
  readonly items: NodeItems | undefined;
}

export interface PathOptions {
  /** Whether a compaction item of that response can be read where the path goes. */
  readonly canRead?: (node: TranscriptNode) => boolean;
  /** Who asks. */
  readonly laneId?: string;
}

/** A node as its transcript sees it. */
interface Node extends TranscriptNode {
  /** Rises with each node, so that a parent's is lower than its children's. */
  readonly age: number;
  stored: boolean;
  items: NodeItems | undefined;
  /** Older than the node; undefined also where the path was cut. */
  parent: Node | undefined;
  children: number;
}

function keyOf(id: string, laneId: string): string {
  return `${laneId} ${id}`;
}

/** What was said before belongs to the input of what came after. */
export function behind(
  old: Pick<NodeItems, 'input' | 'output' | 'compactionIndex'>,
  input: readonly string[],
): readonly string[] {
  return [...old.input, ...old.output, ...input];
}

function ended(steps: Step[], stoppedAt: string | undefined): Path {
  return { steps: steps.reverse(), stoppedAt, isCompacted: false };
}

/** UTF-16 units stand for bytes: close enough for what is told. */
function lengthOf(items: readonly string[]): number {
  let length = 0;
  for (const item of items) length += item.length;
  return length;
}
