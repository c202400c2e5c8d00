import { totalmem } from 'node:os';
import { getHeapSpaceStatistics, getHeapStatistics } from 'node:v8';
import { GatewayError } from '../errors.ts';
import { collectGarbage } from '../ground/garbage.ts';
import {
  AccessOptionsError,
  type AccessWarning,
  type MemoryGuardOptions,
  type MemoryLimits,
  type MemoryProbe,
  type MemoryUse,
} from './options.ts';

/** The reasons stand beside the options. */
export const DEFAULT_HIGH_MARK = 0.85;
export const DEFAULT_LOW_MARK = 0.75;
export const DEFAULT_SAMPLE_INTERVAL_MS = 500;
export const DEFAULT_OVERLOAD_RETRY_MS = 5_000;

/** What is asked about memory between two samples is answered from a look of its own after this, at the soonest. */
const STALE_MS = 50;
/** More than a client at full speed can fill: what is free cannot be used up sooner. */
const MAX_GROWTH_BYTES_PER_MS = 1024 * 1024;
/** What was shed is free only after a garbage collection, so the next look at it has to wait. */
const SHED_PAUSE_MS = 5_000;
/**
 * V8 collects garbage when something is allocated, and a process that refuses work allocates little: it would be over
 * for minutes on garbage alone. So while it is over it collects by itself, which takes some tenths of a second.
 */
const COLLECT_PAUSE_MS = 5_000;

export interface MemoryGuard {
  /** Undefined: all is well. */
  overload(): GatewayError | undefined;
  /** The larger of the two shares at the last sample: old space of its limit, resident set of its limit. */
  readonly share: number;
  close(): void;
}

/** Sheds from halfway between the marks on, refuses new work from the high mark until under the low one. */
export function createMemoryGuard(
  options: MemoryGuardOptions,
  warn: (warning: AccessWarning) => void,
): MemoryGuard {
  const highMark = options.highMark ?? DEFAULT_HIGH_MARK;
  const lowMark = options.lowMark ?? DEFAULT_LOW_MARK;
  if (!(lowMark > 0 && lowMark <= highMark && highMark <= 1)) {
    throw new AccessOptionsError('memoryGuard', 'marks have to be 0 < lowMark <= highMark <= 1');
  }
  const shedMark = (lowMark + highMark) / 2;
  const retryAfterMs = options.retryAfterMs ?? DEFAULT_OVERLOAD_RETRY_MS;
  const probe = options.probe ?? processMemory(memoryLimits(options.processes));
  const now = options.now ?? (() => performance.now());
  let use: MemoryUse | undefined;
  let share = 0;
  let over = false;
  let staleMs = STALE_MS;
  let sampledAtMs = Number.NEGATIVE_INFINITY;
  let shedAtMs = Number.NEGATIVE_INFINITY;
  let collectedAtMs = Number.NEGATIVE_INFINITY;
  const collect = options.collectGarbage ?? collectGarbage;

  const sample = (): void => {
    sampledAtMs = now();
    try {
      use = probe();
    } catch {
      // Without a file descriptor left nobody tells the resident set. What was known is better than an end.
    }
    if (use === undefined) return;
    share = Math.max(use.heapBytes / use.heapLimitBytes, use.rssBytes / use.rssLimitBytes);
    staleMs = Math.max(STALE_MS, -bytesAbove(use, highMark) / MAX_GROWTH_BYTES_PER_MS);
    if (share >= shedMark && sampledAtMs - shedAtMs >= SHED_PAUSE_MS) {
      shedAtMs = sampledAtMs;
      options.onPressure?.(bytesAbove(use, lowMark));
    }
    if (!over && share >= highMark) {
      over = true;
      warn({
        code: 'MEMORY_HIGH',
        message: `memory is at ${percent(share)}: new sessions and turns are refused`,
      });
    } else if (over && share < lowMark) {
      over = false;
      warn({
        code: 'MEMORY_NORMAL',
        message: `memory is at ${percent(share)}: sessions and turns are taken again`,
      });
    }
    if (over && sampledAtMs - collectedAtMs >= COLLECT_PAUSE_MS) {
      collectedAtMs = sampledAtMs;
      collect();
    }
  };
  sample();
  const timer = setInterval(sample, options.sampleIntervalMs ?? DEFAULT_SAMPLE_INTERVAL_MS);
  timer.unref();

  return {
    overload: () => {
      // Half a second is enough for a client at full speed to fill what the mark leaves free in a small container.
      if (!over && now() - sampledAtMs >= staleMs) sample();
      return over
        ? new GatewayError('OVERLOADED', 'the gateway is short of memory', { retryAfterMs })
        : undefined;
    },
    get share() {
      return share;
    },
    close: () => clearInterval(timer),
  };
}

/**
 * What the process may have. A container's memory counts where it has a limit (Node reads cgroups of both versions, and
 * reports a huge number where there is none), by `processes` that share it.
 */
export function memoryLimits(processes = 1): MemoryLimits {
  const constrained = process.constrainedMemory();
  const host = totalmem();
  return {
    heapBytes: oldSpaceLimit(getHeapStatistics().heap_size_limit, [
      ...process.execArgv,
      ...(process.env['NODE_OPTIONS']?.split(/\s+/) ?? []),
    ]),
    rssBytes: (constrained > 0 && constrained < host ? constrained : host) / processes,
  };
}

/**
 * V8's limit of the heap is that of the old space plus three semi-spaces, and it is the old space that ends a process.
 * A semi-space is what the flag says, else it grows with the heap and is a 256th of it.
 */
export function oldSpaceLimit(heapLimitBytes: number, flags: readonly string[]): number {
  const flag = flags.map((each) => /^--max[-_]semi[-_]space[-_]size=(\d+)$/.exec(each)?.[1]).find(Boolean);
  const semiSpaceBytes = flag === undefined ? heapLimitBytes / 256 : Number(flag) * 1024 * 1024;
  return Math.max(heapLimitBytes - 3 * semiSpaceBytes, heapLimitBytes / 2);
}

function processMemory(limits: MemoryLimits): MemoryProbe {
  return () => ({
    heapBytes: oldSpaceUsed(),
    heapLimitBytes: limits.heapBytes,
    rssBytes: process.memoryUsage.rss(),
    rssLimitBytes: limits.rssBytes,
  });
}

function oldSpaceUsed(): number {
  let bytes = 0;
  for (const { space_name, space_used_size } of getHeapSpaceStatistics())
    if (!YOUNG.has(space_name)) bytes += space_used_size;
  return bytes;
}

const YOUNG: ReadonlySet<string> = new Set(['new_space', 'new_large_object_space', 'read_only_space']);

function bytesAbove(use: MemoryUse, mark: number): number {
  return Math.max(use.heapBytes - mark * use.heapLimitBytes, use.rssBytes - mark * use.rssLimitBytes);
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
