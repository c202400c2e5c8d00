import { inferred, StreamError } from './errors.ts';
import type { Accepted, Opener } from './opening.ts';

/** The first attempt comes at once: most streams break with a gateway or balancer that is already replaced. */
const MIN_WAIT_MS = 100;
const MAX_WAIT_MS = 3_000;
/** One attempt takes no longer, so that a dead address does not use up the grace time. */
const ATTEMPT_TIMEOUT_MS = 10_000;
/** A resumed stream that stood so long was no lost attempt, though nothing came on it. */
const STEADY_AFTER_MS = 10_000;

/** The attempts of a session to resume. Waits and deadline go on until something came on a resumed stream. */
export class Resumption {
  #attempts = 0;
  #untilMs: number | undefined;
  #acceptedAtMs = Date.now();

  /** Something came: the next loss begins anew. */
  progress(): void {
    if (this.#attempts === 0) return;
    this.#attempts = 0;
    this.#untilMs = undefined;
  }

  /** Opens streams until one is accepted, the time is up or the session ends. */
  async run(
    opener: Opener,
    stream: { readonly open: Uint8Array; readonly affinity: string },
    limits: {
      readonly graceMs: number;
      readonly untilMs: number;
      readonly lost: StreamError | undefined;
      /** Another gateway may have the session. */
      readonly elsewhere: boolean;
    },
    lifetime: AbortSignal,
  ): Promise<Accepted | StreamError> {
    if (Date.now() - this.#acceptedAtMs >= STEADY_AFTER_MS) this.progress();
    this.#untilMs ??= Date.now() + limits.graceMs;
    const deadlineMs = Math.min(this.#untilMs, limits.untilMs);
    let failure = limits.lost;
    for (;;) {
      const waitMs = retryWaitMs(this.#attempts, failure?.retryAfterMs);
      if (lifetime.aborted || Date.now() + waitMs > deadlineMs) {
        const why = failure ? `: ${failure.message}` : '';
        const message = `the stream could not be resumed in time${why}`;
        return inferred('UNAVAILABLE', 'STREAM_LOST', message, failure, failure?.metadata);
      }
      this.#attempts += 1;
      if (waitMs > 0) await pause(waitMs, lifetime);
      const timeoutMs = Math.max(1, Math.min(ATTEMPT_TIMEOUT_MS, deadlineMs - Date.now()));
      try {
        const accepted = await opener.open({ ...stream, waitForReady: true, timeoutMs, signal: lifetime });
        this.#acceptedAtMs = Date.now();
        return accepted;
      } catch (error) {
        if (!(error instanceof StreamError)) continue;
        if (!error.resumable && !(limits.elsewhere && error.reason === 'DRAINING')) return error;
        failure = error;
      }
    }
  }
}

/** None at first; then half to all of a wait that doubles from 100 ms on. Longer if the gateway told so. */
export function retryWaitMs(attempt: number, toldMs: number | undefined): number {
  if (attempt === 0) return toldMs ?? 0;
  const wait = Math.min(MIN_WAIT_MS * 2 ** (attempt - 1), MAX_WAIT_MS);
  return Math.max(wait / 2 + (Math.random() * wait) / 2, toldMs ?? 0);
}

export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  const onAbort = () => {
    clearTimeout(timer);
    resolve();
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  return promise.finally(() => signal?.removeEventListener('abort', onAbort));
}
