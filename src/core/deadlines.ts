/** Everything a session may wait for. The name says why the session wakes up. */
export type Timer =
  | { readonly kind: 'turn'; readonly turnId: string }
  | { readonly kind: 'steerSettle'; readonly laneId: string; readonly linkId: number }
  | { readonly kind: 'lane'; readonly laneId: string }
  | { readonly kind: 'warmUp'; readonly laneId: string; readonly linkId: number }
  | { readonly kind: 'refusals'; readonly linkId: number }
  | { readonly kind: 'redial'; readonly linkId: number }
  | { readonly kind: 'rotate'; readonly linkId: number }
  | { readonly kind: 'retire'; readonly linkId: number }
  | { readonly kind: 'silence' }
  | { readonly kind: 'grace' }
  | { readonly kind: 'slowClient' }
  | { readonly kind: 'drain' }
  | { readonly kind: 'drainWait' }
  | { readonly kind: 'journal' };

interface Entry {
  readonly timer: Timer;
  readonly key: string;
  readonly atMs: number;
  /** Of two with one deadline the one that was set first comes first. */
  readonly order: number;
}

/** A table of deadlines, at most one for each timer, as a binary heap. What was moved or cleared stays in it until it is met. */
export class Deadlines {
  readonly #current = new Map<string, Entry>();
  /** Timers of each kind: most of what is cleared was never set. */
  readonly #counts = new Map<Timer['kind'], number>();
  #heap: Entry[] = [];
  #order = 0;

  set(timer: Timer, atMs: number): void {
    const key = keyOf(timer);
    const entry = { timer, key, atMs, order: this.#order };
    this.#order += 1;
    if (!this.#current.has(key)) this.#count(timer, 1);
    this.#current.set(key, entry);
    this.#push(entry);
    if (this.#heap.length > 2 * this.#current.size + MAX_STALE) this.#rebuild();
  }

  clear(timer: Timer): void {
    if ((this.#counts.get(timer.kind) ?? 0) > 0) this.#forget(timer);
  }

  has(timer: Timer): boolean {
    return this.#current.has(keyOf(timer));
  }

  next(): number | undefined {
    return this.#first()?.atMs;
  }

  /** Takes out what is due, earliest first. */
  expire(nowMs: number): readonly Timer[] {
    const due: Timer[] = [];
    for (let first = this.#first(); first !== undefined && first.atMs <= nowMs; first = this.#first()) {
      this.#pop();
      this.#forget(first.timer);
      due.push(first.timer);
    }
    return due;
  }

  clearAll(): void {
    this.#current.clear();
    this.#counts.clear();
    this.#heap = [];
  }

  #forget(timer: Timer): void {
    if (this.#current.delete(keyOf(timer))) this.#count(timer, -1);
  }

  #count({ kind }: Timer, by: 1 | -1): void {
    this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + by);
  }

  #first(): Entry | undefined {
    for (let first = this.#heap[0]; first !== undefined; first = this.#heap[0]) {
      if (this.#current.get(first.key) === first) return first;
      this.#pop();
    }
    return undefined;
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(entry, heap[parent] as Entry)) break;
      heap[at] = heap[parent] as Entry;
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      const right = child + 1;
      if (right < heap.length && isBefore(heap[right] as Entry, heap[child] as Entry)) child = right;
      if (!isBefore(heap[child] as Entry, last)) break;
      heap[at] = heap[child] as Entry;
      at = child;
    }
    heap[at] = last;
  }

  #rebuild(): void {
    this.#heap = [...this.#current.values()].sort((a, b) => (isBefore(a, b) ? -1 : 1));
  }
}

/** Entries that nobody waits for any more, before the heap is made anew. */
const MAX_STALE = 64;

function isBefore(a: Entry, b: Entry): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

function keyOf(timer: Timer): string {
  switch (timer.kind) {
    case 'turn':
      return `turn:${timer.turnId}`;
    case 'lane':
      return `lane:${timer.laneId}`;
    case 'steerSettle':
    case 'warmUp':
      return `${timer.kind}:${timer.linkId}:${timer.laneId}`;
    case 'refusals':
    case 'redial':
    case 'rotate':
    case 'retire':
      return `${timer.kind}:${timer.linkId}`;
    default:
      return timer.kind;
  }
}
