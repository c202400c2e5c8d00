import { invalidField } from '../errors.ts';

interface Duration {
  readonly seconds: number;
  readonly nanos: number;
}

/** google.protobuf.Duration from milliseconds, never negative. */
export function durationOf(ms: number): Duration {
  // Rounded before it is split: 999.7 ms are a second, and a billion nanos would be no valid Duration.
  const wholeMs = Math.round(Math.max(0, ms));
  const seconds = Math.floor(wholeMs / 1000);
  return { seconds, nanos: (wholeMs - seconds * 1000) * 1_000_000 };
}

/** Milliseconds of a decoded time limit; undefined if it is not set. */
export function timeLimitMs(value: unknown, path: string): number | undefined {
  if (value === undefined || value === null) return undefined;
  const { seconds = 0, nanos = 0 } = value as { readonly seconds?: unknown; readonly nanos?: unknown };
  const ms = Number(seconds) * 1000 + Number(nanos) / 1e6;
  if (Number.isSafeInteger(Math.ceil(ms)) && ms > 0) return ms;
  throw invalidField(path, `${ms} ms`, 'more than nothing');
}
