/**
 * Bytes written to a stream and not yet handed to the network. grpc-js counts messages, not bytes, and holds
 * whatever it is given, so the limit has to be kept here.
 */
export class ByteLedger {
  readonly #highBytes: number;
  readonly #lowBytes: number;
  /** Sizes in the order written; callbacks come in the same order. */
  readonly #sizes: number[] = [];
  #inFlight = 0;
  #blocked = false;

  constructor(highBytes: number) {
    this.#highBytes = highBytes;
    // Half: going on at the first freed byte would make every write its own batch.
    this.#lowBytes = highBytes / 2;
  }

  get inFlightBytes(): number {
    return this.#inFlight;
  }

  get hasRoom(): boolean {
    return !this.#blocked;
  }

  wrote(bytes: number): void {
    this.#sizes.push(bytes);
    this.#inFlight += bytes;
    if (this.#inFlight >= this.#highBytes) this.#blocked = true;
  }

  /** The oldest write has left. True: there is room again, for the first time since there was none. */
  left(): boolean {
    this.#inFlight -= this.#sizes.shift() ?? 0;
    if (!this.#blocked || this.#inFlight > this.#lowBytes) return false;
    this.#blocked = false;
    return true;
  }
}
