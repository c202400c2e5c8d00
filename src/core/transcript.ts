import type { ByteBudget } from './types.ts';

/** One finished response. `items` is gone once the node was dropped; sizes stay, they cost nothing. */
export interface TranscriptNode {
  readonly id: string;
  readonly parentId: string | undefined;
  readonly stored: boolean;
  /** The named upstream that made it; ids mean nothing elsewhere. */
  readonly upstream: string;
  /** Input and output of the whole path up to and including this response. */
  readonly contextBytes: number;
  items: NodeItems | undefined;
  children: number;
}

export interface NodeItems {
  readonly input: readonly string[];
  readonly output: readonly string[];
  /** Index in `output` of the newest compaction item: replay starts there. */
  readonly compactionIndex: number | undefined;
  readonly bytes: number;
}

export interface NewNode {
  readonly id: string;
  readonly parentId: string | undefined;
  readonly stored: boolean;
  readonly upstream: string;
  readonly input: readonly string[];
  readonly output: readonly string[];
  readonly compactionIndex: number | undefined;
  /** The response outgrew the bound while it streamed; its items were not kept. */
  readonly overflowed: boolean;
}

/** What a node costs besides its items: object, map entry, id. */
const NODE_OVERHEAD_BYTES = 256;

/**
 * The tree of a session's responses, shared by forks, bounded in bytes. A node is kept while a lane's head
 * descends from it, or while there is room.
 */
export class Transcript {
  readonly #maxBytes: number;
  readonly #budget: ByteBudget;
  /** In order of use: the first is the one to drop. */
  readonly #nodes = new Map<string, TranscriptNode>();
  #bytes = 0;

  constructor(maxBytes: number, budget: ByteBudget) {
    this.#maxBytes = maxBytes;
    this.#budget = budget;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(id: string): TranscriptNode | undefined {
    return this.#nodes.get(id);
  }

  entries(): Iterable<readonly [id: string, node: TranscriptNode]> {
    return this.#nodes.entries();
  }

  contextBytes(id: string | undefined): number {
    return id === undefined ? 0 : (this.#nodes.get(id)?.contextBytes ?? 0);
  }

  /**
   * @param heads ids that lanes stand on; they and their ancestors are never dropped. Asked only when space is short.
   * @returns whether the node's items were kept.
   */
  add(wanted: NewNode, heads: () => Iterable<string>): boolean {
    const { node, children } = this.#replace(wanted);
    const size = bytesOf(node.input) + bytesOf(node.output);
    const parent = node.parentId === undefined ? undefined : this.#nodes.get(node.parentId);
    const fits = !node.overflowed && this.#reserve(size + NODE_OVERHEAD_BYTES, node.parentId, heads);
    if (!fits && !this.#reserve(NODE_OVERHEAD_BYTES, node.parentId, heads)) return false;
    this.#nodes.set(node.id, {
      id: node.id,
      parentId: node.parentId,
      stored: node.stored,
      upstream: node.upstream,
      contextBytes: (parent?.contextBytes ?? 0) + size,
      items: fits
        ? { input: node.input, output: node.output, compactionIndex: node.compactionIndex, bytes: size }
        : undefined,
      children,
    });
    if (parent !== undefined) parent.children += 1;
    return fits;
  }

  /**
   * What must be sent to rebuild `id`: the items after `stopAt` (excluded), or from the newest compaction item,
   * or from the root. Undefined when a piece of the path is gone.
   */
  itemsSince(
    id: string,
    stopAt: (id: string) => boolean,
  ): { readonly items: readonly string[]; readonly stoppedAt: string | undefined } | undefined {
    const runs: (readonly string[])[] = [];
    let at: string | undefined = id;
    while (at !== undefined && !stopAt(at)) {
      const node = this.#nodes.get(at);
      if (node?.items === undefined) return undefined;
      this.#touch(node);
      const { input, output, compactionIndex } = node.items;
      if (compactionIndex !== undefined) {
        runs.push(output.slice(compactionIndex));
        return { items: runs.reverse().flat(), stoppedAt: undefined };
      }
      runs.push(output, input);
      at = node.parentId;
    }
    return { items: runs.reverse().flat(), stoppedAt: at };
  }

  isComplete(id: string): boolean {
    let at: string | undefined = id;
    while (at !== undefined) {
      const node = this.#nodes.get(at);
      if (node?.items === undefined) return false;
      if (node.items.compactionIndex !== undefined) return true;
      at = node.parentId;
    }
    return true;
  }

  /** The path behind a compaction or a gap is never replayed again: lets go of it, now that a lane stands on `id`. */
  releaseBehind(id: string, heads: () => Iterable<string>): void {
    const node = this.#nodes.get(id);
    if (node === undefined || (node.items !== undefined && node.items.compactionIndex === undefined)) return;
    this.#releaseAncestors(node.parentId, new Set(heads()));
  }

  /** The upstream said that it does not know the id although it was stored. */
  forgetStored(id: string): void {
    const node = this.#nodes.get(id);
    if (node !== undefined) this.#nodes.set(id, { ...node, stored: false });
  }

  clear(): void {
    this.#budget.give(this.#bytes);
    this.#bytes = 0;
    this.#nodes.clear();
  }

  /**
   * Some upstreams give several responses one id. The newest stands for it; a path that would lead back to the id is
   * folded into the new node, because a walk along it would not end.
   */
  #replace(wanted: NewNode): { readonly node: NewNode; readonly children: number } {
    const known = this.#nodes.get(wanted.id);
    if (known === undefined) return { node: wanted, children: 0 };
    const { parentId } = wanted;
    const leadsBack = parentId !== undefined && this.#ancestry([parentId]).has(wanted.id);
    const path = leadsBack ? this.itemsSince(parentId, () => false) : undefined;
    this.#remove(known);
    if (!leadsBack) return { node: wanted, children: known.children };
    const input = [...(path?.items ?? []), ...wanted.input];
    const overflowed = wanted.overflowed || path === undefined;
    return { node: { ...wanted, parentId: undefined, input, overflowed }, children: known.children };
  }

  #reserve(bytes: number, parentId: string | undefined, heads: () => Iterable<string>): boolean {
    if (this.#tryTake(bytes)) return true;
    const needed = this.#ancestry(heads());
    if (parentId !== undefined) for (const id of this.#ancestry([parentId])) needed.add(id);
    for (const node of [...this.#nodes.values()]) {
      if (needed.has(node.id)) continue;
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

  #ancestry(ids: Iterable<string>): Set<string> {
    const seen = new Set<string>();
    for (const id of ids) {
      for (
        let at: string | undefined = id;
        at !== undefined && !seen.has(at);
        at = this.#nodes.get(at)?.parentId
      )
        seen.add(at);
    }
    return seen;
  }

  /** Up to where another branch or another lane's head needs the path. */
  #releaseAncestors(id: string | undefined, heads: ReadonlySet<string>): void {
    let at = id === undefined ? undefined : this.#nodes.get(id);
    while (at !== undefined && at.children <= 1 && !heads.has(at.id)) {
      const parent: TranscriptNode | undefined =
        at.parentId === undefined ? undefined : this.#nodes.get(at.parentId);
      this.#remove(at);
      at = parent;
    }
  }

  #remove(node: TranscriptNode): void {
    this.#nodes.delete(node.id);
    const parent = node.parentId === undefined ? undefined : this.#nodes.get(node.parentId);
    if (parent !== undefined) parent.children -= 1;
    const freed = (node.items?.bytes ?? 0) + NODE_OVERHEAD_BYTES;
    this.#bytes -= freed;
    this.#budget.give(freed);
  }

  #touch(node: TranscriptNode): void {
    this.#nodes.delete(node.id);
    this.#nodes.set(node.id, node);
  }
}

/** UTF-16 units stand for bytes: what a string costs in memory, and close enough for a bound. */
function bytesOf(items: readonly string[]): number {
  let bytes = 0;
  for (const item of items) bytes += item.length;
  return bytes;
}
