import { performance } from 'node:perf_hooks';
import { trimHeap } from '../ground/garbage.ts';

export interface IdleMemoryOptions {
  /** Bytes that conversations hold now. Asked only while little runs. */
  readonly heldBytes: () => number;
  /** Default 1,000. */
  readonly sampleIntervalMs?: number;
  /** Bytes of the resident set. Default: this process's. */
  readonly rssBytes?: () => number;
  /** The share of time in which the event loop had something to do since the last call. Default: this process's. */
  readonly busyShare?: () => number;
  /** Default: `trimHeap`. */
  readonly trim?: () => Promise<void>;
}

const DEFAULT_SAMPLE_INTERVAL_MS = 1_000;
/** Above it somebody would notice. */
const MAX_BUSY_SHARE = 0.1;
/** What is worth a collection: less comes and goes with a few turns. */
const MIN_BYTES = 16 * 1024 * 1024;
/** In samples: a collection costs as much CPU as some hundred turns. */
const PAUSE_SAMPLES = 2;
/**
 * Idle samples in a row before what a burst left behind goes back. A collection without work under way takes what V8 knows
 * of objects that are not there just now, and the code that was compiled by that: the turns of a next burst cost up to
 * twice as much until it is compiled again.
 */
const REST_SAMPLES = 60;

/**
 * Gives memory back to the system when little runs: what a burst of turns has left behind, and what closed sessions held.
 * V8 collects when something is allocated, so that a process at rest would keep all of it for hours.
 */
export function giveBackWhenIdle(options: IdleMemoryOptions): { close(): void } {
  const {
    heldBytes,
    sampleIntervalMs = DEFAULT_SAMPLE_INTERVAL_MS,
    rssBytes = () => process.memoryUsage.rss(),
    busyShare = eventLoopShare(),
    trim = trimHeap,
  } = options;
  /** After the last collection. Until the next the least that was resident, and the most that was held. */
  let before = { rss: rssBytes(), held: 0 };
  let pause = PAUSE_SAMPLES;
  let rested = 0;

  const sample = async (): Promise<void> => {
    pause -= 1;
    const isIdle = busyShare() < MAX_BUSY_SHARE;
    rested = isIdle ? rested + 1 : 0;
    if (!isIdle || pause > 0) return;
    const rss = rssBytes();
    const held = heldBytes();
    before = { rss: Math.min(before.rss, rss), held: Math.max(before.held, held) };
    const left = rested < REST_SAMPLES ? 0 : rss - before.rss;
    const worth = Math.max(left, before.held - held);
    if (worth < MIN_BYTES) return;
    pause = Number.POSITIVE_INFINITY;
    await trim();
    before = { rss: rssBytes(), held: heldBytes() };
    pause = PAUSE_SAMPLES;
  };
  const timer = setInterval(() => void sample(), sampleIntervalMs);
  timer.unref();
  return { close: () => clearInterval(timer) };
}

function eventLoopShare(): () => number {
  let last = performance.eventLoopUtilization();
  return () => {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, last);
    last = now;
    return utilization;
  };
}
