import * as z from 'zod';

const DURATION_UNITS_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const SIZE_UNITS_BYTES = {
  B: 1,
  kB: 1_000,
  KiB: 1_024,
  MB: 1_000_000,
  MiB: 1_048_576,
  GB: 1_000_000_000,
  GiB: 1_073_741_824,
} as const;

/** setTimeout counts in a signed 32-bit integer; a longer delay would fire at once. */
const MAX_DURATION_MS = 2_147_483_647;

const DURATION_PATTERN = '^(?:0|(?:\\d+(?:\\.\\d+)?(?:ms|s|m|h|d))+)$';
const SIZE_PATTERN = '^(?:0|\\d+(?:\\.\\d+)?(?:B|kB|KiB|MB|MiB|GB|GiB))$';

export interface Range {
  readonly min?: string;
  readonly max?: string;
}

/** Text with units ("30s", "1h30m") ↔ whole milliseconds. Bare numbers are refused: their unit would be a guess. */
export function duration(range: Range = {}) {
  const minMs = parseDuration(range.min ?? '0') ?? 0;
  const maxMs = parseDuration(range.max ?? '24d') ?? MAX_DURATION_MS;
  const expected = `a duration with its unit, such as "250ms", "30s" or "1h30m"${rangeText(range)}`;
  return z.codec(z.string(expected).meta({ pattern: DURATION_PATTERN }), z.number(), {
    decode: (text, context) => {
      const ms = parseDuration(text);
      if (ms !== undefined && ms >= minMs && ms <= maxMs) return ms;
      context.issues.push({ code: 'custom', message: expected, input: text });
      return z.NEVER;
    },
    encode: formatDuration,
  });
}

/** Text with units ("512KiB", "8MiB", "1GB") ↔ whole bytes. */
export function byteSize(range: Range = {}) {
  const minBytes = parseByteSize(range.min ?? '0') ?? 0;
  const maxBytes = range.max === undefined ? Number.MAX_SAFE_INTEGER : (parseByteSize(range.max) ?? 0);
  const expected = `a size with its unit, such as "512KiB" or "8MiB"${rangeText(range)}`;
  return z.codec(z.string(expected).meta({ pattern: SIZE_PATTERN }), z.number(), {
    decode: (text, context) => {
      const bytes = parseByteSize(text);
      if (bytes !== undefined && bytes >= minBytes && bytes <= maxBytes) return bytes;
      context.issues.push({ code: 'custom', message: expected, input: text });
      return z.NEVER;
    },
    encode: formatByteSize,
  });
}

export interface HostPort {
  /** Without brackets, also for IPv6. */
  readonly host: string;
  readonly port: number;
}

const HOST_PORT_EXPECTED = 'HOST:PORT, such as "127.0.0.1:50051", "[::1]:50051" or "0.0.0.0:50051"';

/** "HOST:PORT" ↔ its two parts; port 0 asks the system for a free one. */
export function hostPort() {
  return z.codec(
    z.string(HOST_PORT_EXPECTED).meta({ pattern: '^(?:\\[[0-9A-Fa-f:.]+\\]|[^:\\[\\]\\s]+):\\d{1,5}$' }),
    z.custom<HostPort>(),
    {
      decode: (text, context) => {
        const parsed = parseHostPort(text);
        if (parsed !== undefined) return parsed;
        context.issues.push({ code: 'custom', message: HOST_PORT_EXPECTED, input: text });
        return z.NEVER;
      },
      encode: formatHostPort,
    },
  );
}

export function parseDuration(text: string): number | undefined {
  if (!new RegExp(DURATION_PATTERN).test(text)) return undefined;
  let ms = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    ms += Number(amount) * DURATION_UNITS_MS[unit as keyof typeof DURATION_UNITS_MS];
  }
  return Number.isInteger(ms) && ms <= MAX_DURATION_MS ? ms : undefined;
}

/** The largest unit that gives a whole number: 90000 → "90s", 3600000 → "1h". */
export function formatDuration(ms: number): string {
  if (ms === 0) return '0s';
  const units = Object.entries(DURATION_UNITS_MS).reverse();
  const [unit, size] = units.find(([, each]) => ms % each === 0) ?? ['ms', 1];
  return `${ms / size}${unit}`;
}

export function parseByteSize(text: string): number | undefined {
  if (!new RegExp(SIZE_PATTERN).test(text)) return undefined;
  const [, amount, unit] = /^([\d.]+)(\D*)$/.exec(text) ?? [];
  const bytes = Number(amount) * SIZE_UNITS_BYTES[(unit || 'B') as keyof typeof SIZE_UNITS_BYTES];
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

export function formatByteSize(bytes: number): string {
  const binary = ['GiB', 'MiB', 'KiB'] as const;
  const unit = bytes === 0 ? 'B' : (binary.find((each) => bytes % SIZE_UNITS_BYTES[each] === 0) ?? 'B');
  return `${bytes / SIZE_UNITS_BYTES[unit]}${unit}`;
}

export function parseHostPort(text: string): HostPort | undefined {
  const [, bracketed, plain, digits] = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  const port = Number(digits);
  return host === undefined || port > 65_535 ? undefined : { host, port };
}

export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Where a client finds who listens there: nobody can connect to "every address". */
export function reachable({ host, port }: HostPort): HostPort {
  if (host === '0.0.0.0') return { host: '127.0.0.1', port };
  return host === '::' ? { host: '::1', port } : { host, port };
}

function rangeText({ min, max }: Range): string {
  if (min !== undefined && max !== undefined) return `, from ${min} to ${max}`;
  if (min !== undefined) return `, at least ${min}`;
  return max === undefined ? '' : `, at most ${max}`;
}
