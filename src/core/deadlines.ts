/** Everything a session may wait for. The name says why the session wakes up. */
export type Timer =
  | { readonly kind: 'turn'; readonly turnId: string }
  | { readonly kind: 'steerSettle'; readonly turnId: string }
  | { readonly kind: 'lane'; readonly laneId: string }
  | { readonly kind: 'warmUp'; readonly laneId: string; readonly linkId: number }
  | { readonly kind: 'redial'; readonly linkId: number }
  | { readonly kind: 'rotate'; readonly linkId: number }
  | { readonly kind: 'retire'; readonly linkId: number }
  | { readonly kind: 'grace' }
  | { readonly kind: 'slowClient' }
  | { readonly kind: 'drain' };

/** A table of deadlines with one answer: the earliest. At most one deadline for each timer. */
export class Deadlines {
  readonly #table = new Map<string, { readonly timer: Timer; readonly atMs: number }>();
  #earliest: number | undefined;
  #stale = false;

  set(timer: Timer, atMs: number): void {
    const key = keyOf(timer);
    if (this.#table.get(key)?.atMs === this.#earliest) this.#stale = true;
    this.#table.set(key, { timer, atMs });
    if (this.#earliest === undefined || atMs < this.#earliest) this.#earliest = atMs;
  }

  clear(timer: Timer): void {
    const key = keyOf(timer);
    const entry = this.#table.get(key);
    if (entry === undefined) return;
    this.#table.delete(key);
    if (entry.atMs === this.#earliest) this.#stale = true;
  }

  next(): number | undefined {
    if (this.#stale) {
      this.#earliest = undefined;
      for (const { atMs } of this.#table.values()) {
        if (this.#earliest === undefined || atMs < this.#earliest) this.#earliest = atMs;
      }
      this.#stale = false;
    }
    return this.#earliest;
  }

  /** Takes out what is due, earliest first. */
  expire(nowMs: number): readonly Timer[] {
    const next = this.next();
    if (next === undefined || next > nowMs) return [];
    const due = [...this.#table.values()].filter((entry) => entry.atMs <= nowMs);
    due.sort((a, b) => a.atMs - b.atMs);
    for (const { timer } of due) this.#table.delete(keyOf(timer));
    this.#stale = true;
    return due.map(({ timer }) => timer);
  }

  clearAll(): void {
    this.#table.clear();
    this.#earliest = undefined;
    this.#stale = false;
  }
}

function keyOf(timer: Timer): string {
  switch (timer.kind) {
    case 'turn':
    case 'steerSettle':
      return `${timer.kind}:${timer.turnId}`;
    case 'lane':
      return `lane:${timer.laneId}`;
    case 'warmUp':
      return `warmUp:${timer.linkId}:${timer.laneId}`;
    case 'redial':
    case 'rotate':
    case 'retire':
      return `${timer.kind}:${timer.linkId}`;
    default:
      return timer.kind;
  }
}
