import { inferred, type StreamError } from './errors.ts';

/** Runs `work` with a signal that ends with `signal` or after a time. */
export async function bounded<T>(
  timeoutMs: number,
  signal: AbortSignal,
  late: () => StreamError,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  // An own timer instead of AbortSignal.any and .timeout, which keep what they were made of until they fire.
  const attempt = new AbortController();
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => undefined);
  attempt.signal.addEventListener('abort', () => reject(attempt.signal.reason));
  const timer = setTimeout(() => attempt.abort(late()), timeoutMs);
  const onAbort = () => attempt.abort(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([work(attempt.signal), promise]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  }
}

export const tokenLate = () =>
  inferred('UNAUTHENTICATED', 'TOKEN_SOURCE_FAILED', 'the token source did not answer in time');

/** A signal that ends with either, until it is left. */
export function either(
  one: AbortSignal,
  other: AbortSignal | undefined,
): { readonly signal: AbortSignal; leave(): void } {
  // Instead of AbortSignal.any, which keeps what it was made of.
  const controller = new AbortController();
  const leaves = (other ? [one, other] : [one]).map((each) => {
    const onAbort = () => controller.abort(each.reason);
    if (each.aborted) onAbort();
    each.addEventListener('abort', onAbort, { once: true });
    return () => each.removeEventListener('abort', onAbort);
  });
  return {
    signal: controller.signal,
    leave() {
      for (const leave of leaves) leave();
    },
  };
}
