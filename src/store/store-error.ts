/**
 * What is known of a command that did not succeed.
 * - `not_sent`: there was no connection; the server has not seen it.
 * - `refused`: the server answered with an error and did nothing.
 * - `unknown`: no answer came in time or the connection broke; it may have been carried out.
 */
export type StoreFailure = 'not_sent' | 'refused' | 'unknown';

/** Trouble with the store. Stays behind this room: sessions go on without it. */
export class StoreError extends Error {
  override readonly name = 'StoreError';
  readonly failure: StoreFailure;
  /** First word of the server's error, e.g. `OOM`, `READONLY`, `NOPERM`; undefined when it said nothing. */
  readonly code: string | undefined;

  constructor(failure: StoreFailure, message: string, options: { code?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.failure = failure;
    this.code = options.code;
  }
}
