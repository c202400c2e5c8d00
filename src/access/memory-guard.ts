import { totalmem } from 'node:os';
import { getHeapStatistics } from 'node:v8';
import { GatewayError } from '../errors.ts';
import {
  AccessOptionsError,
  type AccessWarning,
  type MemoryGuardOptions,
  type MemoryProbe,
} from './options.ts';

/** The reasons stand beside the options. */
export const DEFAULT_HIGH_MARK = 0.85;
export const DEFAULT_LOW_MARK = 0.75;
export const DEFAULT_SAMPLE_INTERVAL_MS = 500;
export const DEFAULT_OVERLOAD_RETRY_MS = 5_000;

export interface MemoryGuard {
  /** Undefined: all is well. */
  overload(): GatewayError | undefined;
  /** The larger of the two shares at the last sample: heap of its limit, resident set of its limit. */
  readonly share: number;
  close(): void;
}

export function createMemoryGuard(
  options: MemoryGuardOptions,
  warn: (warning: AccessWarning) => void,
): MemoryGuard {
  const highMark = options.highMark ?? DEFAULT_HIGH_MARK;
  const lowMark = options.lowMark ?? DEFAULT_LOW_MARK;
  if (!(lowMark > 0 && lowMark <= highMark && highMark <= 1)) {
    throw new AccessOptionsError('memoryGuard', 'marks have to be 0 < lowMark <= highMark <= 1');
  }
  const retryAfterMs = options.retryAfterMs ?? DEFAULT_OVERLOAD_RETRY_MS;
  const probe = options.probe ?? processMemory;
  let share = 0;
  let over = false;

  const sample = (): void => {
    const { heapBytes, heapLimitBytes, rssBytes, rssLimitBytes } = probe();
    share = Math.max(heapBytes / heapLimitBytes, rssBytes / rssLimitBytes);
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
  };
  sample();
  const timer = setInterval(sample, options.sampleIntervalMs ?? DEFAULT_SAMPLE_INTERVAL_MS);
  timer.unref();

  return {
    overload: () =>
      over ? new GatewayError('OVERLOADED', 'the gateway is short of memory', { retryAfterMs }) : undefined,
    get share() {
      return share;
    },
    close: () => clearInterval(timer),
  };
}

/** A container's limit counts where there is one; Node reports a huge number where there is none. */
const processMemory: MemoryProbe = () => {
  const { heapUsed, rss } = process.memoryUsage();
  const constrained = process.constrainedMemory();
  const host = totalmem();
  return {
    heapBytes: heapUsed,
    heapLimitBytes: getHeapStatistics().heap_size_limit,
    rssBytes: rss,
    rssLimitBytes: constrained > 0 && constrained < host ? constrained : host,
  };
};

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
