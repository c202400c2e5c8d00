/**
 * A map that mostly has one entry, which comes and goes: that one is kept beside the others, so that no table is made,
 * hashed and made anew for it. In the order of insertion, as a Map.
 */
export class FewMap<Key, Value> {
  #hasFirst = false;
  #key: Key | undefined;
  #value: Value | undefined;
  /** All but the oldest. */
  #rest: Map<Key, Value> | undefined;

  get size(): number {
    return this.#hasFirst ? 1 + (this.#rest?.size ?? 0) : 0;
  }

  has(key: Key): boolean {
    return this.#hasFirst && (key === this.#key || this.#rest?.has(key) === true);
  }

  get(key: Key): Value | undefined {
    if (!this.#hasFirst) return undefined;
    return key === this.#key ? this.#value : this.#rest?.get(key);
  }

  set(key: Key, value: Value): this {
    if (!this.#hasFirst || key === this.#key) {
      this.#hasFirst = true;
      this.#key = key;
      this.#value = value;
    } else {
      this.#rest ??= new Map();
      this.#rest.set(key, value);
    }
    return this;
  }

  delete(key: Key): boolean {
    if (!this.#hasFirst) return false;
    if (key !== this.#key) return this.#rest?.delete(key) === true;
    this.#dropFirst();
    return true;
  }

  /** Undefined: it is empty. */
  get oldest(): Key | undefined {
    return this.#hasFirst ? this.#key : undefined;
  }

  *values(): Iterable<Value> {
    if (!this.#hasFirst) return;
    yield this.#value as Value;
    if (this.#rest !== undefined) yield* this.#rest.values();
  }

  clear(): void {
    this.#rest = undefined;
    this.#dropFirst();
  }

  /** The next oldest takes its place. */
  #dropFirst(): void {
    this.#hasFirst = false;
    this.#key = undefined;
    this.#value = undefined;
    if (this.#rest === undefined) return;
    for (const [key, value] of this.#rest) {
      this.#rest.delete(key);
      if (this.#rest.size === 0) this.#rest = undefined;
      this.#hasFirst = true;
      this.#key = key;
      this.#value = value;
      return;
    }
  }
}
