import { asObject, type Json, numberOf, own, textOf } from './json.ts';

/** Longer ones are quota resets, times of day or nonsense: nobody waits so long for one request. */
export const MAX_RETRY_AFTER_MS = 24 * 3_600_000;

/** Where an upstream may say how long to wait. */
export interface RetryHints {
  /** Of an HTTP answer or of an error frame; any case, strings or numbers. */
  readonly headers?: Json | undefined;
  /** The error object. */
  readonly error?: Json | undefined;
  readonly message?: string | undefined;
}

/**
 * The wait in milliseconds that the upstream asks for, from the most exact place that says a sane one; undefined when
 * none says any. A longer one than `MAX_RETRY_AFTER_MS` is that long. `nowMs` (epoch) turns an HTTP date into a wait.
 */
export function retryAfterMs({ headers, error, message }: RetryHints, nowMs: number): number | undefined {
  const named = lowerCase(headers);
  const waits: readonly number[] = [
    numberOf(own(named, 'retry-after-ms')),
    secondsOrDate(own(named, 'retry-after'), nowMs),
    milliseconds(own(error, 'retry_after')),
    milliseconds(own(error, 'resets_in_seconds')),
    spokenMs(message ?? ''),
  ].filter((ms): ms is number => ms !== undefined && ms >= 0);
  return waits.find((ms) => ms <= MAX_RETRY_AFTER_MS) ?? (waits.length > 0 ? MAX_RETRY_AFTER_MS : undefined);
}

function milliseconds(value: unknown): number | undefined {
  const seconds = numberOf(value);
  return seconds === undefined ? undefined : seconds * 1_000;
}

function secondsOrDate(value: unknown, nowMs: number): number | undefined {
  const ms = milliseconds(value);
  if (ms !== undefined) return ms;
  const text = textOf(value);
  // A bare word or number parses as a date in some year; HTTP's dates begin with the weekday.
  if (text === undefined || !/^[A-Z][a-z]{2},? /.test(text)) return undefined;
  const date = Date.parse(text);
  // A date that has passed says "now".
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

const SPOKEN = /try again in ((?:\d+(?:\.\d+)?\s?(?:ms|s|m|h))+)\b/i;
const UNIT_MS: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1_000],
  ['m', 60_000],
  ['h', 3_600_000],
]);

/** "try again in 1.2s", "350ms", "1m12.5s". */
function spokenMs(message: string): number | undefined {
  const said = SPOKEN.exec(message)?.[1];
  if (said === undefined) return undefined;
  let ms = 0;
  for (const [, count, unit = ''] of said.toLowerCase().matchAll(/(\d+(?:\.\d+)?)\s?(ms|s|m|h)/g))
    ms += Number(count) * (UNIT_MS.get(unit) ?? 0);
  return ms;
}

function lowerCase(headers: Json | undefined): Json {
  const named: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  for (const [name, value] of Object.entries(asObject(headers) ?? {})) named[name.toLowerCase()] = value;
  return named;
}
