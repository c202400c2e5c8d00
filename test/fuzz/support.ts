/**
 * Fuzz targets: whatever comes in, the parser answers with a value or with its own kind of error, in time. Every
 * target starts from the files of its corpus and from broken copies of them. `FUZZ_RUNS` sets the number of inputs
 * of a target (default 300); `FUZZ_SECONDS` runs each target for that long instead. A failure prints its seed.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fc } from '@fast-check/vitest';

/** A few seconds for all targets together in the normal run. */
const DEFAULT_RUNS = 300;

const seconds = Number(process.env['FUZZ_SECONDS'] ?? 0);

interface Runs {
  readonly numRuns: number;
  readonly interruptAfterTimeLimit?: number;
  readonly markInterruptAsFailure?: boolean;
}

const runs: Runs =
  seconds > 0
    ? { numRuns: 1e9, interruptAfterTimeLimit: seconds * 1_000, markInterruptAsFailure: false }
    : { numRuns: Number(process.env['FUZZ_RUNS'] ?? DEFAULT_RUNS) };

/** How long a target runs. `costly`: inputs that take real time, fewer in the normal run. `examples` come first. */
export function fuzz<T = never>(
  options: { readonly costly?: number; readonly examples?: T[] } = {},
): Runs & { readonly examples?: T[] } {
  const { costly = 1, ...rest } = options;
  return { ...runs, numRuns: Math.max(1, Math.ceil(runs.numRuns / costly)), ...rest };
}

/** An input takes a few milliseconds at most, beside whatever else the machine does. */
const SLOW_RUN_MS = 30;

/** For vitest: the time of a run, and room for shrinking. */
export const FUZZ_TIMEOUT_MS = seconds > 0 ? (seconds + 30) * 1_000 : 30_000 + runs.numRuns * SLOW_RUN_MS;

/** The longest that one input of a few kilobytes may take; a hundred times what it does take. */
export const MAX_INPUT_MS = 500;

export interface Seed {
  readonly name: string;
  readonly bytes: Buffer;
}

export function corpus(folder: string): readonly Seed[] {
  const root = new URL(`./corpus/${folder}/`, import.meta.url);
  return readdirSync(root)
    .sort()
    .map((name) => ({ name, bytes: readFileSync(new URL(name, root)) }));
}

/** A seed, usually broken in up to four places: bytes changed, cut, doubled, or replaced by a word. */
export function brokenCopies(seeds: readonly Seed[], words: readonly string[]): fc.Arbitrary<Buffer> {
  const word = fc.oneof(
    fc.constantFrom(...words).map((text) => Buffer.from(text)),
    fc.uint8Array({ maxLength: 4 }),
  );
  const wound = fc.record({
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    cut: fc.nat(40),
    put: word,
    twice: fc.boolean(),
  });
  const copy = fc
    .tuple(fc.constantFrom(...seeds), fc.array(wound, { maxLength: 4 }))
    .map(([seed, wounds]) => wounds.reduce(applyWound, seed.bytes));
  return fc.oneof(
    { weight: 9, arbitrary: copy },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }).map(Buffer.from) },
  );
}

export const JSON_WORDS: readonly string[] = [
  ...[
    '{',
    '}',
    '[',
    ']',
    ':',
    ',',
    '"',
    '\\',
    '\\u0000',
    '\\ud800',
    '\\u0022',
    '"__proto__":',
    '"constructor":',
  ],
  ...[
    '"type":',
    '"type":"error",',
    '"stream_id":',
    '"\\u0074ype":"x",',
    'null',
    'true',
    '-0',
    '1e999',
    '0.1e-7',
  ],
  ...[
    '18446744073709551616',
    '"id":"resp_1"',
    '[[[[[[[[[[[[[[[[',
    '{"a":{"a":{"a":',
    '\u0000',
    '\ufeff',
    '\u2028',
  ],
];

function applyWound(
  bytes: Buffer,
  { at, cut, put, twice }: { at: number; cut: number; put: Uint8Array; twice: boolean },
): Buffer {
  const start = Math.floor(at * bytes.length);
  const rest = bytes.subarray(Math.min(bytes.length, twice ? Math.max(0, start - cut) : start + cut));
  return Buffer.concat([bytes.subarray(0, start), put, rest]);
}
