import { asObject, type Json, numberOf, own, textOf } from './json.ts';

/** Longer ones are quota resets, times of day or nonsense: nobody waits so long for one request. */
export const MAX_RETRY_AFTER_MS = 24 * 3_600_000;

/** Where an upstream may say how long to wait. */
export interface RetryHints {
  /** Of an HTTP answer or of an error frame; any case, strings or numbers. */
  readonly headers?: Json | undefined;
  /** The error object. Google's lists `details`. */
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
    decimal(own(named, 'retry-after-ms')),
    decimal(own(named, 'x-ms-retry-after-ms')),
    headerMs(own(named, 'retry-after'), nowMs),
    decimal(own(error, 'retry_after_ms')),
    milliseconds(own(error, 'retry_after')),
    milliseconds(own(error, 'resets_in_seconds')),
    untilMs(milliseconds(own(error, 'resets_at')), nowMs),
    retryInfoMs(own(error, 'details')),
    spokenMs(message ?? ''),
  ].filter((ms): ms is number => ms !== undefined && ms >= 0);
  return waits.find((ms) => ms <= MAX_RETRY_AFTER_MS) ?? (waits.length > 0 ? MAX_RETRY_AFTER_MS : undefined);
}

/** A number, also one that is written as a string: in decimals, as HTTP has it, not in hexadecimal. */
function decimal(value: unknown): number | undefined {
  return typeof value === 'string' && !DECIMAL.test(value) ? undefined : numberOf(value);
}

const DECIMAL = /^\s*\d+(?:\.\d+)?\s*$/;

function milliseconds(value: unknown): number | undefined {
  const seconds = decimal(value);
  return seconds === undefined ? undefined : seconds * 1_000;
}

/** A time that has passed says "now". */
function untilMs(atMs: number | undefined, nowMs: number): number | undefined {
  return atMs === undefined || Number.isNaN(atMs) ? undefined : Math.max(0, atMs - nowMs);
}

/** Seconds, a date, or a duration with its unit. Of several values the first: a relay has added its own. */
function headerMs(value: unknown, nowMs: number): number | undefined {
  const first: unknown = Array.isArray(value) ? value[0] : value;
  const text = textOf(first);
  if (text === undefined) return milliseconds(first);
  // A bare word or number parses as a date in some year; HTTP's dates begin with the weekday.
  if (/^\s*(?:[A-Z][a-z]{2,8},? |\d{4}-\d\d-\d\dT)/.test(text)) return untilMs(dateOf(text), nowMs);
  const said = text.split(',')[0] ?? '';
  return milliseconds(said) ?? (DURATION_ALONE.test(said) ? durationMs(said) : undefined);
}

/** HTTP's oldest form of a date has no zone, and means UTC all the same. */
function dateOf(text: string): number {
  return Date.parse(/(?:GMT|UTC|Z|[+-]\d\d:?\d\d)\s*$/.test(text) ? text : `${text} GMT`);
}

/** `google.rpc.RetryInfo`: `{retryDelay: "3.5s"}`. */
function retryInfoMs(details: unknown): number | undefined {
  if (!Array.isArray(details)) return undefined;
  const delay = details.map((each: unknown) => textOf(own(asObject(each), 'retryDelay'))).find(Boolean);
  return delay !== undefined && DURATION_ALONE.test(delay) ? durationMs(delay) : undefined;
}

const NUMBER = '\\d+(?:\\.\\d+)?';
const UNIT =
  '(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z]|\\s*(?:tokens?|requests?))';
const DURATION = `(?:${NUMBER}\\s?${UNIT}(?:,? and |,? )?)+`;
const DURATION_ALONE = new RegExp(`^\\s*${DURATION}\\s*$`, 'i');
const SPOKEN = new RegExp(`(?:try again|retry|wait) (?:in |after |for )?(?:about |~)?(${DURATION})`, 'i');
const PARTS = new RegExp(`(${NUMBER})\\s?(${UNIT})`, 'gi');
/** By the first letter; milliseconds apart. */
const UNIT_MS: ReadonlyMap<string, number> = new Map([
  ['s', 1_000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
]);
/** An upstream says how long to wait in its first words. */
const MAX_READ_CHARS = 4_096;

/** "try again in 1.2s", "retry after 26 seconds", "1m12.5s", "1 minute and 5 seconds". */
function spokenMs(message: string): number | undefined {
  const said = SPOKEN.exec(message.slice(0, MAX_READ_CHARS))?.[1];
  return said === undefined ? undefined : durationMs(said);
}

function durationMs(said: string): number {
  let ms = 0;
  for (const [, count, unit = ''] of said.toLowerCase().matchAll(PARTS))
    ms += Number(count) * (/^(?:ms|mil)/.test(unit) ? 1 : (UNIT_MS.get(unit.charAt(0)) ?? 0));
  return ms;
}

function lowerCase(headers: Json | undefined): Json {
  const named: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  for (const [name, value] of Object.entries(asObject(headers) ?? {})) named[name.toLowerCase()] = value;
  return named;
}
