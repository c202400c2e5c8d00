const KIB = 1024;
const MIB = KIB * KIB;
/** Under it memory is had as quickly anew. */
const MIN_BYTES = 64 * KIB;
/** Blocks of which most are too large for most messages would be kept for nothing. */
const SMALLEST_BLOCK_BYTES = 256 * KIB;
/** Of blocks that nobody uses. */
const MAX_FREE_BYTES = 16 * MIB;
/** After that long without a large message the memory goes back. */
const KEPT_MS = 5_000;

/** Memory for large messages, which live for milliseconds: used again, and given back when there are none. */
export class MessageMemory {
  readonly #lent = new WeakSet<ArrayBufferLike>();
  /** Ordered by when they came back. */
  #free: ArrayBufferLike[] = [];
  #freeBytes = 0;
  #timer: NodeJS.Timeout | undefined;

  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** What was there before is not wiped. */
  take(bytes: number): Buffer {
    if (bytes < MIN_BYTES) return Buffer.allocUnsafe(bytes);
    const wanted = Math.max(SMALLEST_BLOCK_BYTES, 2 ** Math.ceil(Math.log2(bytes)));
    const at = this.#free.findIndex(({ byteLength }) => byteLength === wanted);
    const [block = Buffer.allocUnsafeSlow(wanted).buffer] = at < 0 ? [] : this.#free.splice(at, 1);
    if (at >= 0) this.#freeBytes -= wanted;
    this.#lent.add(block);
    return Buffer.from(block, 0, bytes);
  }

  /** Does nothing for memory that is not lent. */
  giveBack(block: ArrayBufferLike): void {
    if (!this.#lent.delete(block) || this.#freeBytes + block.byteLength > MAX_FREE_BYTES) return;
    this.#free.push(block);
    this.#freeBytes += block.byteLength;
    if (this.#timer === undefined) this.#timer = setTimeout(() => this.#drop(), KEPT_MS).unref();
    else this.#timer.refresh();
  }

  #drop(): void {
    this.#timer = undefined;
    this.#free = [];
    this.#freeBytes = 0;
  }
}
