import type { Client as GrpcClient, Metadata } from '@grpc/grpc-js';
import { type Call, openCall } from './call.ts';
import { inferred, StreamError } from './errors.ts';
import type { Opened } from './gen/responses/gateway/v1/session_pb.ts';

/** The first attempt comes at once: most streams break with a gateway or balancer that is already replaced. */
const MIN_WAIT_MS = 100;
const MAX_WAIT_MS = 3_000;
/** One attempt takes no longer, so that a dead address does not use up the grace time. */
const ATTEMPT_TIMEOUT_MS = 10_000;

/** Opens streams until one is accepted, the deadline (since the epoch) has passed or the session ends. */
export async function resumeCall(
  grpc: GrpcClient,
  open: Uint8Array,
  metadata: () => Promise<Metadata>,
  deadlineMs: number,
  lifetime: AbortSignal,
): Promise<{ readonly call: Call; readonly opened: Opened } | StreamError> {
  for (let attempt = 0; ; attempt += 1) {
    const failure = await attemptOnce();
    if (!(failure instanceof StreamError)) return failure;
    if (!failure.resumable) return failure;
    const waitMs = retryWaitMs(attempt, failure.retryAfterMs);
    if (lifetime.aborted || Date.now() + waitMs > deadlineMs) {
      return inferred('UNAVAILABLE', 'STREAM_LOST', 'the stream could not be resumed in time', failure);
    }
    await pause(waitMs, lifetime);
  }

  async function attemptOnce(): Promise<{ call: Call; opened: Opened } | StreamError> {
    // Own timers instead of AbortSignal.any and .timeout, which keep what they were made of until they fire.
    const attempt = new AbortController();
    const timeoutMs = Math.max(1, Math.min(ATTEMPT_TIMEOUT_MS, deadlineMs - Date.now()));
    const late = setTimeout(
      () => attempt.abort(inferred('DEADLINE_EXCEEDED', 'STREAM_LOST', 'no answer in time')),
      timeoutMs,
    );
    const onEnd = () => attempt.abort(lifetime.reason);
    lifetime.addEventListener('abort', onEnd, { once: true });
    try {
      lifetime.throwIfAborted();
      const headers = await metadata();
      headers.setOptions({ waitForReady: true });
      return await openCall(grpc, open, headers, attempt.signal);
    } catch (error) {
      if (error instanceof StreamError) return error;
      // The caller's token source failed.
      return inferred('UNAVAILABLE', 'STREAM_LOST', 'no stream could be opened', error);
    } finally {
      clearTimeout(late);
      lifetime.removeEventListener('abort', onEnd);
    }
  }
}

/** Half to all of a wait that doubles from 50 ms on; longer if the gateway told so. */
function retryWaitMs(attempt: number, toldMs: number | undefined): number {
  const wait = Math.min(MIN_WAIT_MS * 2 ** (attempt - 1), MAX_WAIT_MS);
  return Math.max(wait / 2 + (Math.random() * wait) / 2, toldMs ?? 0);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  const onAbort = () => {
    clearTimeout(timer);
    resolve();
  };
  signal.addEventListener('abort', onAbort, { once: true });
  return promise.finally(() => signal.removeEventListener('abort', onAbort));
}
