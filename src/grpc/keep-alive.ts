import type { RpcCall } from './call.ts';

/**
 * Says at once that the call has begun, and empty batches while nothing else is said: proxies wait for headers and for
 * messages, and not for long.
 */
export class KeepAlive {
  readonly #timer: NodeJS.Timeout | undefined;
  #delivered = false;

  /** `intervalMs` undefined: only the headers. */
  constructor(call: RpcCall, intervalMs: number | undefined, emptyBatch: Uint8Array) {
    call.sendHeaders();
    if (intervalMs === undefined || call.over) return;
    this.#timer = setInterval(() => {
      if (!this.#delivered && call.hasRoom) call.write(emptyBatch);
      this.#delivered = false;
    }, intervalMs);
  }

  /** Something was said. */
  delivered(): void {
    this.#delivered = true;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
