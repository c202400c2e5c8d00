/**
 * Settings of the lanes that were used last: a warm-up on another link needs them. Instructions and tools are the
 * bulk of many requests, so they are bounded for the session, not kept for every lane.
 */
export class RecentSettings {
  readonly #maxBytes: number;
  readonly #lanes = new Map<
    string,
    { readonly fields: ReadonlyMap<string, string>; readonly bytes: number }
  >();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get(laneId: string): ReadonlyMap<string, string> | undefined {
    return this.#lanes.get(laneId)?.fields;
  }

  set(laneId: string, fields: ReadonlyMap<string, string>): void {
    this.#drop(laneId);
    let bytes = 0;
    for (const [name, json] of fields) bytes += name.length + json.length;
    this.#lanes.set(laneId, { fields, bytes });
    this.#bytes += bytes;
    for (const oldest of this.#lanes.keys()) {
      if (this.#bytes <= this.#maxBytes) return;
      this.#drop(oldest);
    }
  }

  #drop(laneId: string): void {
    this.#bytes -= this.#lanes.get(laneId)?.bytes ?? 0;
    this.#lanes.delete(laneId);
  }
}
